/** The warehouse of the demo: tables of a small but realistic warehouse management system, and their first rows. */
import { Client } from 'pg';

/** The tables, parents before children. */
export const TABLES = [
  'public.warehouses',
  'public.products',
  'public.stock_levels',
  'public.orders',
  'public.order_lines',
  'public.reservations',
  'public.shipments',
  'public.packages',
  'public.tracking_events',
  'public.orders_archive',
] as const;

const DDL = `
create type order_status as enum ('placed', 'allocated', 'picked', 'shipped', 'delivered', 'cancelled');
create domain sku_code as text check (value ~ '^[A-Z]{3}-[0-9]{4}$');

create table warehouses (
  id integer primary key,
  code text not null unique,
  name text not null,
  address jsonb not null,
  opened_on date not null,
  time_zone text not null default 'UTC'
);

create table products (
  sku sku_code primary key,
  name text not null,
  category text not null,
  weight_kg numeric(10, 3) not null,
  price numeric(12, 2) not null,
  tags text[] not null default '{}',
  attributes jsonb,
  barcode bytea not null,
  active boolean not null default true,
  launched_on date,
  updated_at timestamptz not null default now()
);

create table stock_levels (
  warehouse_id integer not null references warehouses,
  sku sku_code not null references products,
  on_hand integer not null,
  allocated integer not null default 0,
  bin text,
  counted_at timestamptz,
  primary key (warehouse_id, sku),
  check (allocated >= 0 and allocated <= on_hand)
);

create table orders (
  id bigint generated always as identity primary key,
  order_no text not null unique,
  customer jsonb not null,
  status order_status not null default 'placed',
  channel text not null,
  total numeric(14, 2) not null,
  gift boolean not null default false,
  tags text[],
  notes text,
  placed_at timestamptz not null default clock_timestamp(),
  required_by date
);
create index on orders (status, id);
-- Long notes are stored out of line and uncompressed, so that updates of other columns do not carry them.
alter table orders alter column notes set storage external;

create table order_lines (
  order_id bigint not null references orders,
  line_no smallint not null,
  sku sku_code not null references products,
  warehouse_id integer references warehouses,
  qty integer not null check (qty > 0),
  qty_allocated integer not null default 0,
  unit_price numeric(12, 2) not null,
  primary key (order_id, line_no)
);

create table reservations (
  id uuid primary key default gen_random_uuid(),
  order_id bigint not null,
  line_no smallint not null,
  warehouse_id integer not null,
  sku sku_code not null,
  qty integer not null check (qty > 0),
  expires_at timestamptz not null default clock_timestamp() + interval '2 hours',
  foreign key (order_id, line_no) references order_lines,
  foreign key (warehouse_id, sku) references stock_levels
);
create index on reservations (order_id);

create table shipments (
  id uuid primary key default gen_random_uuid(),
  order_id bigint not null references orders,
  warehouse_id integer not null references warehouses,
  carrier text not null,
  package_count integer not null,
  weight_kg numeric(12, 3) not null,
  shipped_at timestamptz not null default clock_timestamp(),
  delivered_at timestamptz
);
create index on shipments (order_id);

create table packages (
  sscc text primary key,
  shipment_id uuid not null references shipments,
  weight_kg numeric(12, 3) not null,
  dimensions_mm integer[] not null,
  label bytea not null
);
create index on packages (shipment_id);

create table tracking_events (
  id bigint generated always as identity primary key,
  sscc text not null references packages on update cascade,
  code text not null,
  occurred_at timestamptz not null default clock_timestamp(),
  location jsonb,
  payload json
);
create index on tracking_events (sscc);

create table orders_archive (
  order_id bigint primary key,
  archived_at timestamptz not null default clock_timestamp(),
  document jsonb not null
);
`;

const SEED = `
insert into warehouses
select i, (array['FRA', 'LYO', 'POZ', 'MAD'])[i], (array['Frankfurt', 'Lyon', 'Poznań', 'Madrid'])[i] || ' hub',
       jsonb_build_object('street', 'Hafenstraße ' || i, 'country', (array['DE', 'FR', 'PL', 'ES'])[i], 'docks', 10 * i),
       date '2012-03-01' + 400 * i, 'Europe/' || (array['Berlin', 'Paris', 'Warsaw', 'Madrid'])[i]
  from generate_series(1, 4) i;

insert into products (sku, name, category, weight_kg, price, tags, attributes, barcode, active, launched_on, updated_at)
select (array['APP', 'TOY', 'GAR', 'KIT'])[1 + i % 4] || '-' || lpad(i::text, 4, '0'),
       'Product ' || i || case when i % 7 = 0 then ' "deluxe", 5' || chr(8243) else '' end,
       (array['apparel', 'toys', 'garden', 'kitchen'])[1 + i % 4],
       (50 + i * 37 % 9000) / 1000.0, (199 + i * 7919 % 50000) / 100.0,
       case when i % 5 = 0 then '{}' else array['seasonal', 'size ' || i % 4, null] end,
       case when i % 3 = 0 then null
            else jsonb_build_object('colour', (array['red', 'blü', '緑'])[1 + i % 3], 'case', i % 24, 'fragile', i % 2 = 0)
       end,
       decode(md5('barcode' || i), 'hex'), i % 20 <> 0,
       case when i % 6 = 0 then null else date '2020-01-01' + i * 11 end, timestamptz '2024-01-01 00:00:00.123456Z' + i * interval '1 hour'
  from generate_series(1, 120) i;

insert into stock_levels (warehouse_id, sku, on_hand, allocated, bin, counted_at)
select w.id, p.sku, 200 + abs(hashtext(w.code || p.sku)) % 400, 0,
       case when w.id = 4 then null else w.code || '-' || abs(hashtext(p.sku)) % 40 end, null
  from warehouses w cross join products p;
`;

/** Creates the tables in a fresh database and fills the ones that come before the first order. */
export async function createWarehouse(url: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await client.query('begin');
    await client.query(DDL);
    await client.query(SEED);
    await client.query('commit');
  } finally {
    await client.end();
  }
}
