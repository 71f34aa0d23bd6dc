/** The 3PL's warehouse on Postgres: its tables, and what its staff and the carrier do. */
import type { Client } from 'pg';
import type { TransactionBody } from '../workload.ts';
import { runScript } from './shop.ts';

const DDL = `
create table articles (
  sku varchar(30) primary key,
  description text not null
);

create table stock (
  sku varchar(30) primary key references articles,
  on_hand integer not null,
  allocated integer not null default 0,
  picked integer not null default 0,
  check (allocated between 0 and on_hand),
  check (picked between 0 and allocated)
);

create table orders (
  id bigint generated always as identity primary key,
  client_ref varchar(40) not null unique,
  consignee text not null,
  goods_value numeric(14, 2) not null,
  cancel_requested boolean not null default false,
  state varchar(12) not null,
  received_at timestamptz not null default clock_timestamp(),
  picking_at timestamptz,
  picked_at timestamptz,
  despatched_at timestamptz,
  delivered_at timestamptz
);
create index on orders (state, id);

create table order_lines (
  order_id bigint not null references orders,
  line_no integer not null,
  sku varchar(30) not null references articles,
  qty integer not null check (qty > 0),
  unit_value numeric(12, 2) not null,
  despatched integer not null default 0,
  primary key (order_id, line_no)
);

create table despatches (
  despatch_no varchar(20) primary key,
  order_id bigint not null references orders,
  carrier text not null,
  tracking_no text not null,
  despatched_at timestamptz not null default clock_timestamp(),
  delivered_at timestamptz
);

create table scans (
  id bigint generated always as identity primary key,
  tracking_no text not null,
  milestone text not null,
  place text,
  scanned_at timestamptz not null default clock_timestamp()
);
`;

export const WAREHOUSE_TABLES = [
  'public.orders',
  'public.order_lines',
  'public.stock',
  'public.despatches',
  'public.scans',
] as const;

const CARRIERS = ['Nordpost', 'Rapide', 'Kurier Plus'] as const;

export async function createThreepl(url: string): Promise<void> {
  await runScript(url, DDL);
}

async function change(client: Client, sql: string, values: readonly unknown[] = []): Promise<number> {
  return (await client.query(sql, [...values])).rowCount ?? 0;
}

/** Takes the oldest order in a state that is there as a whole: its lines may come after it, and in any order. */
async function takeOrder(client: Client, state: string, condition = 'true'): Promise<string | undefined> {
  const { rows } = await client.query<{ id: string }>(
    `select id from orders o where state = $1 and ${condition}
        and goods_value = (select sum(qty * unit_value) from order_lines l where l.order_id = o.id)
      order by id limit 1 for update skip locked`,
    [state],
  );
  return rows[0]?.id;
}

async function move(client: Client, id: string, state: string, at: string): Promise<number> {
  return await change(client, `update orders set state = $2, ${at} = clock_timestamp() where id = $1`, [id, state]);
}

/** Changes the stock of each product of an order, in key order, so that two orders cannot deadlock. */
async function moveStock(client: Client, id: string, set: string): Promise<number> {
  const { rows } = await client.query<{ sku: string; qty: number }>(
    'select sku, sum(qty)::int as qty from order_lines where order_id = $1 group by sku order by sku',
    [id],
  );
  let changed = 0;
  for (const { sku, qty } of rows)
    changed += await change(client, `update stock set ${set} where sku = $1`, [sku, qty]);
  return changed;
}

/** Goods come in for an article that has none, else for the one of which there is least. */
const receive: TransactionBody = async (client, random) => {
  const fresh = await change(
    client,
    `insert into stock (sku, on_hand) select sku, $1::int from articles a
      where not exists (select 1 from stock s where s.sku = a.sku) order by sku limit 5 on conflict do nothing`,
    [random.between(100, 300)],
  );
  if (fresh > 0) return fresh;
  return await change(
    client,
    `update stock set on_hand = on_hand + $1::int
      where sku = (select sku from stock order by on_hand - allocated, sku limit 1 for update skip locked)`,
    [random.between(50, 200)],
  );
};

/** Claims the stock of an order, or of none of its lines. */
const startPicking: TransactionBody = async (client) => {
  const id = await takeOrder(
    client,
    'NEW',
    `not cancel_requested and not exists (
       select 1 from order_lines l left join stock s using (sku) where l.order_id = o.id
        group by l.sku, s.on_hand, s.allocated having coalesce(s.on_hand - s.allocated, 0) < sum(l.qty))`,
  );
  if (id === undefined) return 0;
  await client.query('savepoint claim');
  try {
    const claimed = await moveStock(client, id, 'allocated = allocated + $2');
    return claimed + (await move(client, id, 'PICKING', 'picking_at'));
  } catch (thrown) {
    // Somebody else has claimed it in between.
    if ((thrown as { code?: unknown }).code !== '23514') throw thrown;
    await client.query('rollback to savepoint claim');
    return 0;
  }
};

const pick: TransactionBody = async (client) => {
  const id = await takeOrder(client, 'PICKING');
  if (id === undefined) return 0;
  const picked = await moveStock(client, id, 'picked = picked + $2');
  return picked + (await move(client, id, 'PICKED', 'picked_at'));
};

/** What leaves lowers what is there and what is claimed together: what is available does not move. */
const despatch: TransactionBody = async (client, random) => {
  const id = await takeOrder(client, 'PICKED');
  if (id === undefined) return 0;
  const trackingNo = `JD${random.bytes(6).toString('hex').toUpperCase()}`;
  let changed = await moveStock(client, id, 'on_hand = on_hand - $2, allocated = allocated - $2, picked = picked - $2');
  changed += await change(client, 'update order_lines set despatched = qty where order_id = $1', [id]);
  changed += await change(
    client,
    `insert into despatches (despatch_no, order_id, carrier, tracking_no) values ($1, $2, $3, $4)`,
    [`D-${id}`, id, random.pick(CARRIERS), trackingNo],
  );
  changed += await scan(client, trackingNo, 'picked_up');
  return changed + (await move(client, id, 'DESPATCHED', 'despatched_at'));
};

const deliver: TransactionBody = async (client) => {
  const id = await takeOrder(client, 'DESPATCHED');
  if (id === undefined) return 0;
  const { rows } = await client.query<{ tracking_no: string }>(
    'update despatches set delivered_at = clock_timestamp() where order_id = $1 returning tracking_no',
    [id],
  );
  return (
    1 + (await scan(client, rows[0]!.tracking_no, 'delivered')) + (await move(client, id, 'DELIVERED', 'delivered_at'))
  );
};

async function scan(client: Client, trackingNo: string, milestone: string): Promise<number> {
  return await change(client, 'insert into scans (tracking_no, milestone, place) values ($1, $2, $3)', [
    trackingNo,
    milestone,
    milestone === 'delivered' ? 'at the door' : 'dock 3',
  ]);
}

/** Agrees to a wish to cancel, for which it is not too late. */
const giveUp: TransactionBody = async (client) =>
  await change(
    client,
    `update orders set state = 'CANCELLED'
      where id = (select id from orders where state = 'NEW' and cancel_requested order by id limit 1 for update skip locked)`,
  );

export const WAREHOUSE_WORK = {
  bodies: { receive, startPicking, pick, despatch, deliver, giveUp },
  weights: [
    ['receive', 5],
    ['startPicking', 10],
    ['pick', 10],
    ['despatch', 10],
    ['deliver', 10],
    ['giveUp', 3],
  ],
} as const;
