/** Views of supply: goods to pass straight through, and goods to order again. */
import type { ViewDefinition } from './visibility-views.ts';

/** Orders that still want goods. */
const OPEN_ORDER = `('placed', 'accepted', 'allocated', 'released')`;

/**
 * Demand and supply of a product each stand in a line, earliest first; where the two lines overlap, goods of the notice
 * go to the order. What is allocated from stock already is no longer demand.
 */
export const crossDockCandidates: ViewDefinition = {
  name: 'cross_dock_candidates',
  description: 'Announced goods that open orders wait for: they need not be put away.',
  entities: ['inbound_asn', 'inbound_asn_line', 'sales_order', 'sales_order_line', 'inventory_position', 'reservation'],
  body: (of) => `
with supply as (
  select a.tenant, l.sku, l.uom, a.asn, l.line as asn_line, a.status as asn_status, a.eta, a.location as dock, l.sscc, l.qty,
         sum(l.qty) over (partition by a.tenant, l.sku, l.uom order by a.eta nulls last, a.asn, l.line) as upto
    from ${of('inbound_asn')} a join ${of('inbound_asn_line')} l on l.tenant = a.tenant and l.asn = a.asn
   where a.status in ('announced', 'in_transit', 'arrived') and l.qty > 0
), wanted as (
  select o.tenant, l.sku, l.uom, o.number, l.line, o.requested_at, o.promised_at, o.ordered_at,
         l.qty_ordered - coalesce(l.qty_cancelled, 0)
           - greatest(coalesce(l.qty_shipped, 0), 0) - greatest(coalesce(l.qty_allocated, 0), 0) as qty
    from ${of('sales_order')} o join ${of('sales_order_line')} l on l.tenant = o.tenant and l.number = o.number
   where o.status in ${OPEN_ORDER}
), demand as (
  select *, sum(qty) over (partition by tenant, sku, uom
              order by coalesce(promised_at, requested_at, ordered_at) nulls last, number, line) as upto
    from wanted where qty > 0
), stock as (
  select tenant, sku, uom, sum(available) as available from ${of('available_to_promise')} group by tenant, sku, uom
)
select s.tenant, s.asn, s.asn_line, s.asn_status, s.eta, s.dock, s.sscc, s.sku, s.uom, s.qty as asn_qty,
       d.number as order_number, d.line as order_line, d.qty as open_qty,
       least(s.upto, d.upto) - greatest(s.upto - s.qty, d.upto - d.qty) as match_qty,
       d.requested_at, d.promised_at, s.eta <= coalesce(d.promised_at, d.requested_at) as in_time,
       coalesce(stock.available, 0) as available_now
  from supply s
  join demand d on d.tenant = s.tenant and d.sku = s.sku and d.uom = s.uom
   and s.upto > d.upto - d.qty and d.upto > s.upto - s.qty
  left join stock on stock.tenant = s.tenant and stock.sku = s.sku and stock.uom = s.uom`,
};

const setting = (name: string, fallback: number): string =>
  `coalesce(nullif(current_setting('waybill.${name}', true), '')::numeric, ${fallback})`;

/**
 * Sales of the last days (28, or `waybill.sales_days`), by day, against what is there and on its way. Cover is wanted for
 * 14 days, or `waybill.cover_days`. A product that is sold for a shorter time is judged by that time.
 */
export const replenishmentSignals: ViewDefinition = {
  name: 'replenishment_signals',
  description: 'Products that will run out at the present rate of sales, and how much to order.',
  entities: [
    'inventory_position',
    'reservation',
    'sales_order',
    'sales_order_line',
    'purchase_order',
    'purchase_order_line',
  ],
  body: (of) => `
with asked as (
  select ${setting('sales_days', 28)} as sales_days, ${setting('cover_days', 14)} as cover_days
), sales as (
  select l.tenant, l.sku, l.uom,
         sum(l.qty_ordered - coalesce(l.qty_cancelled, 0) - coalesce(l.qty_returned, 0))
           filter (where o.ordered_at > now() - sales_days * interval '1 day') as sold,
         least(sales_days, greatest(1, extract(epoch from now() - min(o.ordered_at)) / 86400)) as days
    from asked, ${of('sales_order')} o join ${of('sales_order_line')} l on l.tenant = o.tenant and l.number = o.number
   where o.status not in ('draft', 'cancelled') and o.ordered_at <= now()
   group by l.tenant, l.sku, l.uom, sales_days
), stock as (
  select tenant, sku, uom, sum(available) as available, sum(in_transit) as in_transit, sum(on_order) as on_order
    from ${of('available_to_promise')} group by tenant, sku, uom
), purchases as (
  select l.tenant, l.sku, l.uom, sum(l.qty_ordered - coalesce(l.qty_received, 0)) as open, min(coalesce(l.due_at, p.due_at)) as next_at
    from ${of('purchase_order')} p join ${of('purchase_order_line')} l on l.tenant = p.tenant and l.number = p.number
   where p.status in ('placed', 'confirmed', 'part_received') and l.qty_ordered > coalesce(l.qty_received, 0)
   group by l.tenant, l.sku, l.uom
), put_together as (
  select tenant, sku, uom, greatest(coalesce(sold, 0), 0) as sold, greatest(coalesce(sold, 0), 0) / days as daily_sales,
         coalesce(available, 0) as available,
         -- What a source calls on order and the lines of purchase orders are the same goods.
         coalesce(in_transit, 0) + greatest(coalesce(on_order, 0), coalesce(open, 0)) as inbound, next_at, cover_days
    from asked, sales left join stock using (tenant, sku, uom) left join purchases using (tenant, sku, uom)
), judged as (
  select *, case when daily_sales > 0 then available / daily_sales end as days_of_cover,
         case when daily_sales > 0 then (available + inbound) / daily_sales end as days_with_inbound
    from put_together
)
select tenant, sku, uom,
       case when available < 0 then 'oversold' when available = 0 then 'out_of_stock'
            when days_with_inbound < cover_days then 'reorder' else 'expedite' end as signal,
       ceil(greatest(0, daily_sales * cover_days - available - inbound)) as suggested_qty,
       round(daily_sales, 3) as daily_sales, sold, available, inbound, next_at as next_inbound_at,
       round(days_of_cover, 1) as days_of_cover, round(days_with_inbound, 1) as days_of_cover_with_inbound
  from judged where daily_sales > 0 and (available <= 0 or days_of_cover < cover_days)`,
};
