/** The purchasing side of the demo: tables of a small but realistic ERP on MySQL or MariaDB, and their first rows. */
import { createConnection, type Connection } from 'mysql2/promise';
import { createRandom, type Random } from './random.ts';

/** The tables, parents before children. */
export const ERP_TABLES = [
  'suppliers',
  'items',
  'item_suppliers',
  'prices',
  'purchase_orders',
  'purchase_order_lines',
  'receipts',
] as const;

const DDL = [
  `create table suppliers (
    id int unsigned not null auto_increment primary key,
    code char(6) not null unique,
    name varchar(120) not null,
    country char(2) not null,
    currency char(3) not null,
    lead_time_days tinyint unsigned not null,
    terms enum('prepaid', 'net 30', 'net 60') not null default 'net 30',
    flags set('preferred', 'edi', 'audited') not null default '',
    rating decimal(3, 2),
    contact json,
    blocked boolean not null default false,
    modified_at timestamp(6) not null default current_timestamp(6) on update current_timestamp(6)
  )`,
  `create table items (
    sku varchar(20) not null primary key,
    gtin char(14),
    name varchar(160) not null,
    category varchar(40) not null,
    base_uom char(3) not null default 'EA',
    weight_kg double,
    on_order int not null default 0,
    list_price decimal(12, 2) not null,
    attributes json,
    -- As the ERP was first set up, and nobody dares to change it.
    description text character set latin1,
    thumbnail blob,
    introduced year,
    discontinued_on date,
    modified_at datetime(6) not null default current_timestamp(6) on update current_timestamp(6),
    check (on_order >= 0)
  )`,
  `create table item_suppliers (
    sku varchar(20) not null,
    supplier_id int unsigned not null,
    supplier_sku varchar(40) not null,
    min_qty smallint unsigned not null default 1,
    cost decimal(12, 2) not null,
    primary key (sku, supplier_id),
    foreign key (sku) references items (sku),
    foreign key (supplier_id) references suppliers (id)
  )`,
  `create table prices (
    id bigint unsigned not null auto_increment primary key,
    sku varchar(20) not null,
    list enum('retail', 'trade') not null,
    amount decimal(12, 2) not null,
    currency char(3) not null default 'EUR',
    min_qty int unsigned not null default 1,
    valid_from datetime(6) not null default current_timestamp(6),
    valid_to datetime(6),
    key (sku, list, valid_to),
    foreign key (sku) references items (sku)
  )`,
  `create table purchase_orders (
    id bigint unsigned not null auto_increment primary key,
    po_no varchar(20) not null unique,
    supplier_id int unsigned not null,
    status enum('draft', 'sent', 'confirmed', 'receiving', 'received', 'cancelled') not null default 'draft',
    currency char(3) not null,
    total decimal(14, 2) not null default 0,
    terms json,
    notes mediumtext,
    ordered_at datetime(6) not null default current_timestamp(6),
    due_on date,
    key (status, id),
    foreign key (supplier_id) references suppliers (id)
  )`,
  `create table purchase_order_lines (
    po_id bigint unsigned not null,
    line_no smallint unsigned not null,
    sku varchar(20) not null,
    qty int unsigned not null,
    qty_received int unsigned not null default 0,
    unit_price decimal(12, 2) not null,
    primary key (po_id, line_no),
    foreign key (po_id) references purchase_orders (id),
    foreign key (sku) references items (sku),
    check (qty_received <= qty)
  )`,
  `create table receipts (
    id binary(16) not null primary key,
    po_id bigint unsigned not null,
    line_no smallint unsigned not null,
    qty int unsigned not null,
    damaged int unsigned not null default 0,
    delivery_note varchar(60),
    received_at timestamp(3) not null default current_timestamp(3),
    inspection_took time(3),
    foreign key (po_id, line_no) references purchase_order_lines (po_id, line_no)
  )`,
] as const;

const SUPPLIER_COUNT = 24;
const ITEM_COUNT = 150;

/**
 * Creates the tables in a fresh database and fills the ones that come before the first purchase order. The same seed
 * gives the same rows, but for the times at which they were written.
 */
export async function createErp(url: string, seed: number): Promise<void> {
  const connection = await createConnection({ uri: url, charset: 'utf8mb4' });
  try {
    for (const statement of DDL) await connection.query(statement);
    await connection.beginTransaction();
    await fill(connection, createRandom(seed));
    await connection.commit();
    await connection.end();
  } finally {
    connection.destroy();
  }
}

async function fill(connection: Connection, random: Random): Promise<void> {
  const insert = async (table: string, columns: string, rows: readonly unknown[][]): Promise<void> => {
    await connection.query(`insert into ${table} (${columns}) values ?`, [rows]);
  };
  const suppliers = numbers(SUPPLIER_COUNT).map((i) => supplier(i, random));
  await insert(
    'suppliers',
    'code, name, country, currency, lead_time_days, terms, flags, rating, contact, blocked',
    suppliers,
  );
  const items = numbers(ITEM_COUNT).map((i) => item(i, random));
  await insert(
    'items',
    'sku, gtin, name, category, weight_kg, list_price, attributes, description, thumbnail, introduced, discontinued_on',
    items.map(({ sku, price, columns }) => [sku, ...columns.slice(0, 4), price, ...columns.slice(4)]),
  );
  const sources = items.flatMap(({ sku, price }) => {
    const first = random.between(1, SUPPLIER_COUNT - 2);
    return numbers(random.between(1, 3)).map((n) => {
      const cost = (price * random.between(40, 80)) / 100;
      return [sku, first + n - 1, `S${first}/${sku.toLowerCase()}`, random.pick([1, 6, 12, 65_535]), cost.toFixed(2)];
    });
  });
  await insert('item_suppliers', 'sku, supplier_id, supplier_sku, min_qty, cost', sources);
  const prices = items.flatMap(({ sku, price }) => [
    [sku, 'retail', price],
    [sku, 'trade', (price * 0.8).toFixed(2)],
  ]);
  await insert('prices', 'sku, list, amount', prices);
}

const COUNTRIES = [
  ['DE', 'EUR', 'Müller & Söhne'],
  ['FR', 'EUR', "L'Atelier"],
  ['PL', 'PLN', 'Łódzkie Zakłady'],
  ['JP', 'JPY', '東京商事'],
  ['US', 'USD', 'Acme "Direct"'],
] as const;

function supplier(i: number, random: Random): unknown[] {
  const [country, currency, name] = random.pick(COUNTRIES);
  const contact = JSON.stringify({ name: `Contact ${i}`, phones: [`+49 ${i}`, null], limit: i * 1000.25, '🙂': true });
  return [
    `V${String(i).padStart(5, '0')}`,
    `${name} ${i}`,
    country,
    currency,
    random.between(0, 255),
    random.pick(['prepaid', 'net 30', 'net 60']),
    random.pick(['', 'preferred', 'preferred,edi', 'preferred,edi,audited']),
    random.chance(0.2) ? null : (random.between(0, 500) / 100).toFixed(2),
    random.chance(0.2) ? null : contact,
    random.chance(0.05),
  ];
}

function item(i: number, random: Random): { sku: string; price: number; columns: unknown[] } {
  const category = random.pick(['apparel', 'toys', 'garden', 'kitchen'] as const);
  const sku = `${category.slice(0, 3).toUpperCase()}-${String(i).padStart(4, '0')}`;
  const attributes = JSON.stringify({ colour: random.pick(['red', 'blü', '緑']), case: i % 24, sizes: [i, 0.1, null] });
  const columns = [
    random.chance(0.1) ? null : `0400${String(i).padStart(10, '0')}`,
    `Item ${i}${i % 7 === 0 ? ' "deluxe", 5″ \\ 12 cm' : ''}`,
    category,
    random.chance(0.1) ? null : random.between(1, 90_000) / 1000,
    random.chance(0.3) ? null : attributes,
    random.chance(0.3) ? null : `Größe ${i}, café — ${'fein. '.repeat(random.between(0, 60))}`,
    random.chance(0.5) ? null : random.bytes(random.between(0, 300)),
    random.chance(0.1) ? null : random.between(1998, 2026),
    random.chance(0.9) ? null : `20${random.between(27, 31)}-12-31`,
  ];
  return { sku, price: random.between(199, 60_000) / 100, columns };
}

/** 1, 2, … count */
function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}
