/** What every transaction of the demo's ERP keeps, on the source and on whatever mirrors it. */

/** Runs a statement and gives its rows. */
export type RunQuery = (sql: string) => Promise<readonly { readonly problem: string }[]>;

/**
 * What is wrong, for people; nothing when all is well. It is one statement and so one snapshot, in the words that MySQL,
 * MariaDB and PostgreSQL have in common: of each item as much is on order as the lines of open orders still await; a line
 * has received what its receipts say; an order's total is that of its lines; an item has one price of each list at a time,
 * and shows that of retail.
 *
 * @param prefix of the tables' names: 'erp.' for a schema, '' for the current one
 */
export async function checkErpInvariant(run: RunQuery, prefix: string): Promise<string[]> {
  const rows = await run(invariantText(prefix));
  return rows.map(({ problem }) => problem);
}

function invariantText(p: string): string {
  return `
    (select concat('item ', i.sku, ': ', i.on_order, ' on order, its lines await ', coalesce(o.qty, 0)) as problem
       from ${p}items i
       left join (select l.sku, sum(l.qty - l.qty_received) as qty
                    from ${p}purchase_order_lines l join ${p}purchase_orders h on h.id = l.po_id
                   where h.status in ('sent', 'confirmed', 'receiving') group by l.sku) o on o.sku = i.sku
      where i.on_order <> coalesce(o.qty, 0) limit 10)
    union all
    (select concat('line ', l.po_id, '/', l.line_no, ': ', l.qty_received, ' received, by its receipts ', coalesce(r.qty, 0))
       from ${p}purchase_order_lines l
       left join (select po_id, line_no, sum(qty) as qty from ${p}receipts group by po_id, line_no) r
         on r.po_id = l.po_id and r.line_no = l.line_no
      where l.qty_received <> coalesce(r.qty, 0) limit 10)
    union all
    (select concat('order ', h.id, ': total ', h.total, ', its lines ', coalesce(t.total, 0))
       from ${p}purchase_orders h
       left join (select po_id, sum(qty * unit_price) as total from ${p}purchase_order_lines group by po_id) t
         on t.po_id = h.id
      where h.total <> coalesce(t.total, 0) limit 10)
    union all
    (select concat('item ', i.sku, ': ', coalesce(c.retail, 0), ' retail and ', coalesce(c.trade, 0), ' trade prices, ',
                   coalesce(c.amount, 0), ' and shows ', i.list_price)
       from ${p}items i
       left join (select sku, sum(case when list = 'retail' then 1 else 0 end) as retail,
                         sum(case when list = 'trade' then 1 else 0 end) as trade,
                         sum(case when list = 'retail' then amount else 0 end) as amount
                    from ${p}prices where valid_to is null group by sku) c on c.sku = i.sku
      where coalesce(c.retail, 0) <> 1 or coalesce(c.trade, 0) <> 1 or c.amount <> i.list_price limit 10)`;
}
