/** Tables of Medusa 2 on Postgres: soft deletes, and numbers twice: numeric, and as JSON with every digit. */

const STAMPS =
  'created_at timestamptz not null default now(), updated_at timestamptz not null default now(), deleted_at timestamptz';
const table = (name: string, columns: string): string =>
  `create table ${name} (id text primary key, ${columns}, ${STAMPS})`;

export function medusaDdl(): string {
  return [
    table(
      'inventory_item',
      'sku text, origin_country text, title text, requires_shipping boolean not null default true',
    ),
    table('stock_location', 'name text not null, address_id text'),
    table(
      'inventory_level',
      `inventory_item_id text not null, location_id text not null, stocked_quantity numeric not null default 0,
       reserved_quantity numeric not null default 0, incoming_quantity numeric not null default 0, raw_stocked_quantity jsonb,
       raw_reserved_quantity jsonb, raw_incoming_quantity jsonb`,
    ),
    table(
      'reservation_item',
      'line_item_id text, location_id text not null, quantity numeric not null, raw_quantity jsonb, external_id text, inventory_item_id text not null',
    ),
    table(
      '"order"',
      `region_id text, display_id serial, customer_id text, version integer not null default 1, sales_channel_id text,
       status text not null default 'pending', currency_code text not null`,
    ),
    table(
      'order_line_item',
      "title text not null, variant_id text, variant_sku text, unit_price numeric not null, raw_unit_price jsonb not null default '{}'",
    ),
    table(
      'order_item',
      `order_id text not null, version integer not null, item_id text not null, quantity numeric not null, raw_quantity jsonb not null default '{}',
       fulfilled_quantity numeric not null default 0, shipped_quantity numeric not null default 0, return_received_quantity numeric not null default 0`,
    ),
  ].join(';\n');
}

export const MEDUSA_ROWS = `
insert into inventory_item (id, sku, title, origin_country) values ('i1', 'SHIRT', 'Shirt', 'pt');
insert into stock_location (id, name) values ('s1', 'Ulm');
insert into "order" (id, display_id, customer_id, currency_code, created_at) values ('o1', 7, 'c1', 'eur', '2026-03-01 09:15:02.123456+01');
insert into order_line_item (id, title, variant_sku, unit_price) values ('li1', 'Shirt', 'SHIRT', 19.90);
`;
