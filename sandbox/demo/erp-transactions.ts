/**
 * What happens in the demo's ERP: each function is the body of one transaction and returns the rows it changed, or 0
 * when there was nothing to do. All of them keep what `checkErpInvariant` checks.
 */
import type { Connection, ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import type { Random } from './random.ts';

type Body = (connection: Connection, random: Random) => Promise<number>;

async function change(connection: Connection, sql: string, values: readonly unknown[] = []): Promise<number> {
  return (await execute(connection, sql, values)).affectedRows;
}

async function execute(connection: Connection, sql: string, values: readonly unknown[]): Promise<ResultSetHeader> {
  const [result] = await connection.query<ResultSetHeader>(sql, [...values]);
  return result;
}

async function read<Row>(connection: Connection, sql: string, values: readonly unknown[] = []): Promise<Row[]> {
  const [rows] = await connection.query<RowDataPacket[]>(sql, [...values]);
  return rows as Row[];
}

interface Line {
  readonly line_no: number;
  readonly sku: string;
  readonly qty: number;
  readonly qty_received: number;
}

/** Locks the oldest order in one of the statuses, passing over those that another transaction holds. */
async function lockOrder(
  connection: Connection,
  ...statuses: string[]
): Promise<{ id: number; status: string } | undefined> {
  const [order] = await read<{ id: number; status: string }>(
    connection,
    'select id, status from purchase_orders where status in (?) order by id limit 1 for update skip locked',
    [statuses],
  );
  return order;
}

/** An order's lines, in the order of their items: who changes those in that order cannot deadlock. */
async function linesOf(connection: Connection, id: number): Promise<Line[]> {
  return await read<Line>(
    connection,
    'select line_no, sku, qty, qty_received from purchase_order_lines where po_id = ? order by sku, line_no',
    [id],
  );
}

async function addOnOrder(connection: Connection, sku: string, qty: number): Promise<number> {
  return qty === 0 ? 0 : await change(connection, 'update items set on_order = on_order + ? where sku = ?', [qty, sku]);
}

async function setTotal(connection: Connection, id: number): Promise<number> {
  return await change(
    connection,
    `update purchase_orders set total =
       (select sum(qty * unit_price) from purchase_order_lines where po_id = ?) where id = ?`,
    [id, id],
  );
}

async function setStatus(connection: Connection, id: number, status: string): Promise<number> {
  return await change(connection, 'update purchase_orders set status = ? where id = ?', [status, id]);
}

/** A draft of an order from one supplier, with up to six lines; now and then with notes of a novelist. */
export const draft: Body = async (connection, random) => {
  const [supplier] = await read<{ id: number; currency: string }>(
    connection,
    'select id, currency from suppliers where not blocked order by id limit 1 offset ?',
    [random.between(0, 15)],
  );
  if (supplier === undefined) return 0;
  const offers = await read<{ sku: string; cost: string }>(
    connection,
    'select sku, cost from item_suppliers where supplier_id = ? order by sku limit ? offset ?',
    [supplier.id, random.between(1, 6), random.between(0, 3)],
  );
  if (offers.length === 0) return 0;
  const notes = random.chance(0.05)
    ? random.bytes(random.between(10_000, 40_000)).toString('hex')
    : random.chance(0.5)
      ? `deliver to "gate ${random.between(1, 9)}"\nMontags nur bis 12:00 — 🙂`
      : null;
  const { insertId } = await execute(
    connection,
    `insert into purchase_orders (po_no, supplier_id, currency, terms, notes, due_on)
     values (?, ?, ?, ?, ?, date_add(current_date, interval ? day))`,
    [
      `PO-${random.bytes(6).toString('hex').toUpperCase()}`,
      supplier.id,
      supplier.currency,
      random.chance(0.2)
        ? null
        : JSON.stringify({ incoterm: 'DAP', discount: 0.1, steps: [random.between(1, 99), '€'] }),
      notes,
      random.between(3, 60),
    ],
  );
  const lines = offers.map(({ sku, cost }, index) => [insertId, index + 1, sku, random.between(1, 400), cost]);
  const inserted = await change(
    connection,
    'insert into purchase_order_lines (po_id, line_no, sku, qty, unit_price) values ?',
    [lines],
  );
  return 1 + inserted + (await setTotal(connection, insertId));
};

/** Sends a draft to its supplier: from now on its goods are on order. */
export const send: Body = async (connection) => {
  const order = await lockOrder(connection, 'draft');
  if (order === undefined) return 0;
  let changed = 0;
  for (const { sku, qty } of await linesOf(connection, order.id)) changed += await addOnOrder(connection, sku, qty);
  return changed + (await setStatus(connection, order.id, 'sent'));
};

/** The supplier confirms, some lines with less than was ordered. */
export const confirm: Body = async (connection, random) => {
  const order = await lockOrder(connection, 'sent');
  if (order === undefined) return 0;
  let changed = 0;
  for (const { line_no, sku, qty } of await linesOf(connection, order.id)) {
    if (qty === 1 || !random.chance(0.2)) continue;
    const confirmed = random.between(1, qty - 1);
    changed += await change(connection, 'update purchase_order_lines set qty = ? where po_id = ? and line_no = ?', [
      confirmed,
      order.id,
      line_no,
    ]);
    changed += await addOnOrder(connection, sku, confirmed - qty);
  }
  if (changed > 0) changed += await setTotal(connection, order.id);
  return changed + (await setStatus(connection, order.id, 'confirmed'));
};

/** A truck arrives with all or some of what is open. A line that fails inspection is booked back before the end. */
export const receive: Body = async (connection, random) => {
  const order = await lockOrder(connection, 'confirmed', 'receiving');
  if (order === undefined) return 0;
  const isLast = random.chance(0.7);
  let changed = 0;
  let open = 0;
  for (const { line_no, sku, qty, qty_received } of await linesOf(connection, order.id)) {
    const left = qty - qty_received;
    if (left === 0) continue;
    const arrived = isLast ? left : random.between(0, left);
    if (arrived === 0) {
      open += left;
      continue;
    }
    await connection.query('savepoint line');
    const booked =
      (await change(
        connection,
        `insert into receipts (id, po_id, line_no, qty, damaged, delivery_note, inspection_took)
         values (?, ?, ?, ?, ?, ?, ?)`,
        [
          random.bytes(16),
          order.id,
          line_no,
          arrived,
          random.chance(0.1) ? 1 : 0,
          random.chance(0.3) ? null : `DN ${random.between(1, 1_000_000)} / ü`,
          random.chance(0.3)
            ? null
            : `0${random.between(0, 9)}:${random.between(10, 59)}:07.${random.between(100, 999)}`,
        ],
      )) +
      (await change(
        connection,
        'update purchase_order_lines set qty_received = qty_received + ? where po_id = ? and line_no = ?',
        [arrived, order.id, line_no],
      )) +
      (await addOnOrder(connection, sku, -arrived));
    if (random.chance(0.05)) {
      // None of this may reach the target.
      await connection.query('rollback to savepoint line');
      open += left;
    } else {
      changed += booked;
      open += left - arrived;
    }
  }
  const status = open === 0 ? 'received' : 'receiving';
  return changed + (status === order.status ? 0 : await setStatus(connection, order.id, status));
};

/** An order that has not been received is called off; a draft was never on order. */
export const cancel: Body = async (connection, random) => {
  const order = await lockOrder(connection, random.pick(['draft', 'sent', 'confirmed']));
  if (order === undefined) return 0;
  let changed = 0;
  if (order.status !== 'draft') {
    for (const { sku, qty } of await linesOf(connection, order.id)) changed += await addOnOrder(connection, sku, -qty);
  }
  return changed + (await setStatus(connection, order.id, 'cancelled'));
};

/** A new price takes over from the one before, which stays as history. */
export const reprice: Body = async (connection, random) => {
  // The item's lock lets only one price change of an item happen at a time.
  const [item] = await read<{ sku: string }>(
    connection,
    'select sku from items order by sku limit 1 offset ? for update',
    [random.between(0, 149)],
  );
  if (item === undefined) return 0;
  const list = random.pick(['retail', 'trade']);
  const amount = (random.between(199, 60_000) / 100).toFixed(2);
  let changed = await change(
    connection,
    'update prices set valid_to = current_timestamp(6) where sku = ? and list = ? and valid_to is null',
    [item.sku, list],
  );
  changed += await change(connection, 'insert into prices (sku, list, amount, min_qty) values (?, ?, ?, ?)', [
    item.sku,
    list,
    amount,
    random.pick([1, 1, 10, 4_294_967_295]),
  ]);
  if (list === 'retail')
    changed += await change(connection, 'update items set list_price = ? where sku = ?', [amount, item.sku]);
  return changed;
};

/** Somebody works on the master data of an item and of a supplier. */
export const maintain: Body = async (connection, random) => {
  const supplier = await change(
    connection,
    `update suppliers set flags = ?, rating = ?, contact = json_set(coalesce(contact, '{}'), '$.seen', ?) where id = ?`,
    [
      random.pick(['', 'edi', 'preferred,audited']),
      random.chance(0.2) ? null : (random.between(0, 500) / 100).toFixed(2),
      random.between(1, 1_000_000),
      random.between(1, 24),
    ],
  );
  return (
    supplier +
    (await change(
      connection,
      `update items set thumbnail = ?, description = ?, attributes = ?
        where sku = (select sku from (select sku from items order by sku limit 1 offset ?) chosen)`,
      [
        random.chance(0.3) ? null : random.bytes(random.between(0, 500)),
        random.chance(0.3) ? null : `Überarbeitet: ${random.between(1, 1000)} Stück à 5 £`,
        random.chance(0.3) ? null : JSON.stringify({ batch: random.between(1, 1_000_000), depth: { of: [[1], {}] } }),
        random.between(0, 149),
      ],
    ))
  );
};

/** An item is bought elsewhere from now on: the primary key of a row changes, if that supplier has not got it already. */
export const resource: Body = async (connection, random) => {
  const [from, to] = [random.between(1, 24), random.between(1, 24)];
  return await change(
    connection,
    `update item_suppliers set supplier_id = ?, supplier_sku = concat('T', ?, '/', lower(sku))
      where supplier_id = ? and sku not in (select sku from (select sku from item_suppliers where supplier_id = ?) had)
      order by sku limit 1`,
    [to, to, from, to],
  );
};

/** Deletes the oldest order that is done with, row by row of it. */
export const purge: Body = async (connection, random) => {
  const order = await lockOrder(connection, random.pick(['received', 'received', 'cancelled']));
  if (order === undefined) return 0;
  let changed = 0;
  for (const sql of [
    'delete from receipts where po_id = ?',
    'delete from purchase_order_lines where po_id = ?',
    'delete from purchase_orders where id = ?',
  ])
    changed += await change(connection, sql, [order.id]);
  return changed;
};

/** Deletes prices that ended long ago, many at once. */
export const forget: Body = async (connection) => {
  const old = await read<{ id: number }>(
    connection,
    'select id from prices where valid_to is not null order by id limit 25 for update skip locked',
  );
  if (old.length < 25) return 0;
  return await change(connection, 'delete from prices where id in (?)', [old.map(({ id }) => id)]);
};
