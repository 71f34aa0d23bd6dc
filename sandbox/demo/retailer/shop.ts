/** The retailer's shop on Postgres: its tables, and what its customers do. */
import { Client } from 'pg';
import type { TransactionBody } from '../workload.ts';

const DDL = `
create table products (
  sku text primary key,
  name text not null,
  price numeric(12, 2),
  currency char(3),
  in_stock numeric(12, 3) not null default 0,
  active boolean not null default true
);

create table orders (
  id bigint generated always as identity primary key,
  number text not null unique,
  customer text not null,
  status text not null default 'placed',
  total numeric(14, 2) not null,
  currency char(3) not null default 'EUR',
  note text,
  placed_at timestamptz not null default clock_timestamp(),
  carrier text,
  tracking_no text,
  despatched_at timestamptz,
  delivered_at timestamptz
);

create table order_lines (
  order_id bigint not null references orders,
  line_no integer not null,
  sku text not null references products,
  qty numeric(12, 3) not null check (qty > 0),
  unit_price numeric(12, 2) not null,
  shipped numeric(12, 3) not null default 0 check (shipped <= qty),
  primary key (order_id, line_no)
);

-- What the shop itself keeps of each order: when it came to know of a status.
create table order_history (
  order_id bigint not null references orders,
  status text not null,
  at timestamptz not null default clock_timestamp()
);
create index on order_history (order_id);
create function note_status() returns trigger language plpgsql as $$
begin
  insert into order_history (order_id, status) values (new.id, new.status);
  return new;
end $$;
create trigger placed after insert on orders for each row execute function note_status();
create trigger changed after update on orders for each row when (old.status <> new.status) execute function note_status();
`;

/** Tables of the shop that are captured; it keeps its history, and what it is told of products, to itself. */
export const SHOP_TABLES = ['public.orders', 'public.order_lines'] as const;

export async function createShop(url: string): Promise<void> {
  await runScript(url, DDL);
}

export async function runScript(url: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** A customer orders up to three products that are there and have a price. */
const order: TransactionBody = async (client, random) => {
  const { rows: products } = await client.query<{ sku: string; price: string }>(
    `select sku, price from products where active and price is not null and in_stock > 20 order by md5(sku || $1) limit $2`,
    [String(random.between(1, 1_000_000)), random.between(1, 3)],
  );
  if (products.length === 0) return 0;
  const lines = products.map(({ sku, price }) => ({ sku, price, qty: random.between(1, 4) }));
  const { rows } = await client.query<{ id: string }>(
    `insert into orders (number, customer, total, note) values ($1, $2, $3, $4) returning id`,
    [
      `S-${random.bytes(5).toString('hex').toUpperCase()}`,
      `Customer ${random.between(1, 900)}`,
      (lines.reduce((sum, { price, qty }) => sum + Math.round(Number(price) * 100) * qty, 0) / 100).toFixed(2),
      random.chance(0.3) ? 'leave it at the door' : null,
    ],
  );
  for (const [index, { sku, price, qty }] of lines.entries())
    await client.query(
      'insert into order_lines (order_id, line_no, sku, qty, unit_price) values ($1, $2, $3, $4, $5)',
      [rows[0]!.id, index + 1, sku, qty, price],
    );
  return 1 + lines.length;
};

/** A customer thinks better of it, as long as the shop knows of nothing that has been done for the order. */
const cancel: TransactionBody = async (client) => {
  const { rowCount } = await client.query(
    `update orders set status = 'cancelled'
      where id = (select id from orders where status = 'placed' order by id desc limit 1 for update skip locked)`,
  );
  return rowCount ?? 0;
};

export const SHOP_WORK = {
  bodies: { order, cancel },
  weights: [
    ['order', 20],
    ['cancel', 2],
  ],
} as const;
