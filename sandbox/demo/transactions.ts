/**
 * What happens in the demo's warehouse: each function is the body of one transaction and returns the rows it changed,
 * or 0 when there was nothing to do. All of them keep what `checkInvariant` checks.
 */
import type { Client, ClientBase } from 'pg';
import type { Random } from './random.ts';

/** Does its work in the transaction that is open; gives how many rows it changed. */
export type TransactionBody = (client: Client, random: Random) => Promise<number>;

const OPEN = `('placed', 'allocated', 'picked')`;
const CARRIERS = ['Nordpost', 'Rapide', 'Kurier Plus', 'Correo Exprés'] as const;
const CODES = ['collected', 'in transit', 'at hub', 'customs', 'out for delivery'] as const;

async function change(client: Client, sql: string, values: readonly unknown[] = []): Promise<number> {
  return (await client.query(sql, [...values])).rowCount ?? 0;
}

/** Locks the oldest or a random order in a status, passing over those that another transaction holds. */
async function lockOrder(client: Client, status: string): Promise<string | undefined> {
  const { rows } = await client.query<{ id: string }>(
    'select id from orders where status = $1 order by id limit 1 for update skip locked',
    [status],
  );
  return rows[0]?.id;
}

/** A new order with up to five lines; now and then with a note too long to be stored in line. */
export const place: TransactionBody = async (client, random) => {
  const { rows: products } = await client.query<{ sku: string; price: string }>(
    'select sku, price from products where active order by sku offset $1 limit $2',
    [random.between(0, 100), random.between(1, 5)],
  );
  if (products.length === 0) return 0;
  const note = random.chance(0.1)
    ? random.bytes(random.between(2000, 5000)).toString('hex')
    : random.chance(0.5)
      ? `leave at "door" ${random.between(1, 99)}\nring twice`
      : null;
  const { rows } = await client.query<{ id: string }>(
    `insert into orders (order_no, customer, channel, total, gift, tags, notes, required_by)
     values ($1, $2, $3, 0, $4, $5, $6, current_date + $7::int) returning id`,
    [
      `SO-${random.bytes(6).toString('hex').toUpperCase()}`,
      JSON.stringify({ name: `Customer ${random.between(1, 900)}`, vip: random.chance(0.1), balance: '0.10' }),
      random.pick(['web', 'store', 'marketplace', 'edi']),
      random.chance(0.2),
      random.chance(0.3) ? null : ['priority', random.pick(['a,b', '{x}', 'NULL'])],
      note,
      random.between(1, 14),
    ],
  );
  const id = rows[0]!.id;
  let changed = 1;
  for (const [index, product] of products.entries())
    changed += await change(
      client,
      'insert into order_lines (order_id, line_no, sku, qty, unit_price) values ($1, $2, $3, $4, $5)',
      [id, index + 1, product.sku, random.between(1, 8), product.price],
    );
  return changed + (await setTotal(client, id));
};

async function setTotal(client: Client, id: string): Promise<number> {
  return await change(
    client,
    `update orders set total = (select sum(qty * unit_price) from order_lines where order_id = $1) where id = $1`,
    [id],
  );
}

/** Reserves stock for every line of a placed order, or for none of them. */
export const reserve: TransactionBody = async (client, random) => {
  const id = await lockOrder(client, 'placed');
  if (id === undefined) return 0;
  const { rows: lines } = await client.query<{ line_no: number; sku: string; qty: number }>(
    'select line_no, sku, qty from order_lines where order_id = $1 order by sku, line_no',
    [id],
  );
  const warehouse = random.between(1, 4);
  await client.query('savepoint reservation');
  let changed = 0;
  for (const { line_no, sku, qty } of lines) {
    const taken = await change(
      client,
      `update stock_levels set allocated = allocated + $3
        where warehouse_id = $1 and sku = $2 and on_hand - allocated >= $3`,
      [warehouse, sku, qty],
    );
    if (taken === 0) {
      // A subtransaction that is rolled back: none of it may reach the target.
      await client.query('rollback to savepoint reservation');
      return await change(
        client,
        'update stock_levels set on_hand = on_hand + 250, counted_at = clock_timestamp() where warehouse_id = $1 and sku = $2',
        [warehouse, sku],
      );
    }
    changed += taken;
    changed += await change(
      client,
      'update order_lines set qty_allocated = $3, warehouse_id = $4 where order_id = $1 and line_no = $2',
      [id, line_no, qty, warehouse],
    );
    changed += await change(
      client,
      'insert into reservations (order_id, line_no, warehouse_id, sku, qty) values ($1, $2, $3, $4, $5)',
      [id, line_no, warehouse, sku, qty],
    );
  }
  return changed + (await change(client, `update orders set status = 'allocated' where id = $1`, [id]));
};

export const pickGoods: TransactionBody = async (client) => {
  const id = await lockOrder(client, 'allocated');
  if (id === undefined) return 0;
  const changed = await change(client, `update reservations set expires_at = 'infinity' where order_id = $1`, [id]);
  return changed + (await change(client, `update orders set status = 'picked' where id = $1`, [id]));
};

/** Takes the goods off the shelf, ends the reservations, and packs what leaves into one to three packages. */
export const ship: TransactionBody = async (client, random) => {
  const id = await lockOrder(client, 'picked');
  if (id === undefined) return 0;
  let changed = await releaseStock(client, id, true);
  const { rows } = await client.query<{ id: string; weight_kg: string }>(
    `insert into shipments (order_id, warehouse_id, carrier, package_count, weight_kg)
     select $1, min(l.warehouse_id), $2, $3, sum(l.qty * p.weight_kg)
       from order_lines l join products p using (sku) where l.order_id = $1
     returning id, weight_kg`,
    [id, random.pick(CARRIERS), 0],
  );
  const shipment = rows[0]!;
  const packages = random.between(1, 3);
  for (let n = 0; n < packages; n++)
    changed += await change(
      client,
      'insert into packages (sscc, shipment_id, weight_kg, dimensions_mm, label) values ($1, $2, $3, $4, $5)',
      [
        newSscc(random),
        shipment.id,
        (Number(shipment.weight_kg) / packages).toFixed(3),
        [random.between(100, 600), random.between(100, 400), random.between(50, 300)],
        random.bytes(random.between(40, 200)),
      ],
    );
  changed += await change(client, 'update shipments set package_count = $2 where id = $1', [shipment.id, packages]);
  return changed + 1 + (await change(client, `update orders set status = 'shipped' where id = $1`, [id]));
};

function newSscc(random: Random): string {
  return `00${random.bytes(8).toString('hex')}`;
}

/** Gives an order's stock back, or takes it off the shelf. Lines in key order, so that two orders cannot deadlock. */
async function releaseStock(client: Client, id: string, leaves: boolean): Promise<number> {
  const { rows } = await client.query<{ warehouse_id: number; sku: string; qty: number }>(
    'delete from reservations where order_id = $1 returning warehouse_id, sku, qty',
    [id],
  );
  rows.sort((a, b) => (a.sku < b.sku ? -1 : a.sku > b.sku ? 1 : 0));
  let changed = rows.length;
  for (const { warehouse_id, sku, qty } of rows)
    changed += await change(
      client,
      'update stock_levels set allocated = allocated - $3, on_hand = on_hand - $4 where warehouse_id = $1 and sku = $2',
      [warehouse_id, sku, qty, leaves ? qty : 0],
    );
  return changed + (await change(client, 'update order_lines set qty_allocated = 0 where order_id = $1', [id]));
}

/** A carrier reports on all packages of one shipment; the last report delivers it. */
export const track: TransactionBody = async (client, random) => {
  const { rows } = await client.query<{ id: string; order_id: string }>(
    `select s.id, s.order_id from shipments s join orders o on o.id = s.order_id and o.status = 'shipped'
      order by o.id offset $1 limit 1 for update of s, o skip locked`,
    [random.between(0, 5)],
  );
  const shipment = rows[0];
  if (shipment === undefined) return 0;
  const delivered = random.chance(0.3);
  const changed = await change(
    client,
    `insert into tracking_events (sscc, code, location, payload)
     select sscc, $2, $3, $4 from packages where shipment_id = $1`,
    [
      shipment.id,
      delivered ? 'delivered' : random.pick(CODES),
      random.chance(0.2) ? null : JSON.stringify({ lat: random.between(-9000, 9000) / 100, place: 'Łódź' }),
      `{"b": 1,  "a": [${random.between(1, 9)}.50, 12345678901234567890]}`,
    ],
  );
  if (!delivered) return changed;
  await client.query('update shipments set delivered_at = clock_timestamp() where id = $1', [shipment.id]);
  return (
    changed + 1 + (await change(client, `update orders set status = 'delivered' where id = $1`, [shipment.order_id]))
  );
};

export const cancel: TransactionBody = async (client, random) => {
  const id = await lockOrder(client, random.pick(['placed', 'allocated']));
  if (id === undefined) return 0;
  const changed = await releaseStock(client, id, false);
  return changed + (await change(client, `update orders set status = 'cancelled' where id = $1`, [id]));
};

export const restock: TransactionBody = async (client, random) =>
  await change(
    client,
    `update stock_levels set on_hand = on_hand + $2, counted_at = clock_timestamp()
      where ctid = (select ctid from stock_levels where warehouse_id = $1 order by on_hand - allocated, sku limit 1
                    for update skip locked)`,
    [random.between(1, 4), random.between(20, 300)],
  );

export const reprice: TransactionBody = async (client, random) =>
  await change(
    client,
    `update products set price = $1::numeric, updated_at = clock_timestamp(),
            attributes = case when $2 then null else jsonb_build_object('batch', $3::int) end
      where sku = (select sku from products order by sku offset $4 limit 1)`,
    [
      (random.between(199, 60_000) / 100).toFixed(2),
      random.chance(0.2),
      random.between(1, 1_000_000),
      random.between(0, 119),
    ],
  );

/** Gives a package another number: its primary key changes, and its tracking events follow. */
export const relabel: TransactionBody = async (client, random) => {
  const changed = await change(
    client,
    `update packages set sscc = $1, label = $2
      where sscc = (select k.sscc from packages k join shipments s on s.id = k.shipment_id
                      join orders o on o.id = s.order_id and o.status = 'shipped'
                     order by o.id, k.sscc limit 1 for update of k, s, o skip locked)`,
    [newSscc(random), random.bytes(64)],
  );
  return changed;
};

/** Moves the oldest finished order out of the way: one document in, every row of it out. */
export const archive: TransactionBody = async (client, random) => {
  const id = await lockOrder(client, random.pick(['delivered', 'delivered', 'cancelled']));
  if (id === undefined) return 0;
  let changed = await change(
    client,
    `insert into orders_archive (order_id, document)
     select o.id, to_jsonb(o) - 'notes' || jsonb_build_object('lines',
              (select jsonb_agg(to_jsonb(l) order by l.line_no) from order_lines l where l.order_id = o.id))
       from orders o where o.id = $1`,
    [id],
  );
  const packages = 'select sscc from packages where shipment_id in (select id from shipments where order_id = $1)';
  for (const sql of [
    `delete from tracking_events where sscc in (${packages})`,
    'delete from packages where shipment_id in (select id from shipments where order_id = $1)',
    'delete from shipments where order_id = $1',
    'delete from order_lines where order_id = $1',
    'delete from orders where id = $1',
  ])
    changed += await change(client, sql, [id]);
  return changed;
};

/** One thing that is wrong, for people. */
export type Problem = string;

/**
 * What every transaction keeps, as seen by one statement and so in one snapshot: stock allocated equals what the lines
 * of open orders hold, and the reservations, for every product in every warehouse; an order's total is that of its
 * lines; a shipment has as many packages as it says. Works on the source and on a mirror; `schema` names where.
 */
export async function checkInvariant(client: ClientBase, schema: string): Promise<Problem[]> {
  const s = `"${schema.replaceAll('"', '""')}"`;
  const { rows } = await client.query<{ problem: string }>(`
    with held as (
      select l.warehouse_id, l.sku, sum(l.qty_allocated) as qty
        from ${s}.order_lines l join ${s}.orders o on o.id = l.order_id
       where o.status::text in ${OPEN} and l.warehouse_id is not null group by 1, 2
    ), reserved as (
      select warehouse_id, sku, sum(qty) as qty from ${s}.reservations group by 1, 2
    )
    (select format('warehouse %s, %s: %s allocated, %s held by open orders, %s reserved', w.warehouse_id, w.sku,
                   w.allocated, coalesce(h.qty, 0), coalesce(r.qty, 0)) as problem
       from ${s}.stock_levels w
       full join held h on h.warehouse_id = w.warehouse_id and h.sku = w.sku
       full join reserved r on r.warehouse_id = w.warehouse_id and r.sku = w.sku
      where w.allocated is distinct from coalesce(h.qty, 0) or w.allocated is distinct from coalesce(r.qty, 0) limit 10)
    union all
    (select format('order %s: total %s, its lines %s', o.id, o.total, sum(l.qty * l.unit_price))
       from ${s}.orders o left join ${s}.order_lines l on l.order_id = o.id
      group by o.id, o.total having o.total is distinct from sum(l.qty * l.unit_price) limit 10)
    union all
    (select format('shipment %s: says %s packages, has %s', h.id, h.package_count, count(k.sscc))
       from ${s}.shipments h left join ${s}.packages k on k.shipment_id = h.id
      group by h.id, h.package_count having h.package_count <> count(k.sscc) limit 10)`);
  return rows.map((row) => row.problem);
}
