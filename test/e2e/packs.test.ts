/** All five packs in one installation: from the tables of five systems to the records of all, over a kill. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CommandLine } from '../support/command-line.ts';
import { AnyClient } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { ERPNEXT_ROWS, erpnextDdl } from '../support/pack-schemas/erpnext.ts';
import { MEDUSA_ROWS, medusaDdl } from '../support/pack-schemas/medusa.ts';
import { odooDdl, odooRows } from '../support/pack-schemas/odoo.ts';
import { OPENBOXES_ROWS, openboxesDdl } from '../support/pack-schemas/openboxes.ts';
import { woocommerceDdl, woocommerceRows } from '../support/pack-schemas/woocommerce.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 600_000;
type Kind = 'postgres' | 'mysql' | 'mariadb';

/** A system that a pack maps. */
interface System {
  readonly pack: string;
  readonly kind: Kind;
  readonly zone?: string;
  readonly ddl: string;
  /** What happens while nobody runs. */
  readonly life: string;
  /** Records of each entity when all has arrived. */
  readonly records: Readonly<Record<string, number>>;
}

const SYSTEMS: readonly System[] = [
  {
    pack: 'odoo',
    kind: 'postgres',
    ddl: `${odooDdl()};${odooRows()};
      insert into stock_quant (product_id, location_id, quantity, reserved_quantity) values (1, 8, 10, 2), (1, 8, 5, 0)`,
    life: `
      begin; update stock_quant set quantity = 15 where id = (select min(id) from stock_quant);
        delete from stock_quant where id > (select min(id) from stock_quant); commit;
      insert into stock_move_line (id, product_id, quantity, location_id, location_dest_id, state, date)
        values (1, 1, 2, 8, 5, 'done', '2026-03-01 08:00:00'), (2, 2, 1.5, 8, 16, 'done', '2026-03-01 08:00:00.000001');
      insert into stock_picking (name, origin, state, picking_type_id, partner_id, carrier_id, carrier_tracking_ref, date_done)
        values ('WH/OUT/1', 'S1', 'done', 2, 1, 1, '1Z1, 1Z2,', '2026-03-01 08:15:02.123456');
      insert into sale_order_line (id, order_id, name, product_id, product_uom, product_uom_qty, qty_delivered, price_unit, display_type) values
        (1, 1, 'Thank you', null, null, 0, 0, 0, 'line_note'), (2, 1, 'Chair', 1, 1, 3.00, 1, 9.90, null)`,
    records: {
      product: 2,
      location: 7,
      inventory_position: 1,
      inventory_movement: 2,
      sales_order: 1,
      sales_order_line: 1,
      shipment: 1,
    },
  },
  {
    pack: 'medusa',
    kind: 'postgres',
    ddl: `${medusaDdl()};${MEDUSA_ROWS}
      insert into inventory_level (id, inventory_item_id, location_id, stocked_quantity, reserved_quantity, raw_stocked_quantity)
        values ('l1', 'i1', 's1', 10, 4, '{"value": "10", "precision": 20}')`,
    life: `
      insert into order_item (id, order_id, version, item_id, quantity) values ('a', 'o1', 1, 'li1', 1), ('b', 'o1', 2, 'li1', 3);
      insert into reservation_item (id, line_item_id, location_id, quantity, inventory_item_id) values ('r1', 'li1', 's1', 4, 'i1');
      update "order" set version = 2 where id = 'o1';
      insert into inventory_item (id, sku, title) values ('i2', 'HAT', 'Hat');
      update inventory_item set deleted_at = now() where id = 'i2'`,
    records: { product: 1, location: 1, inventory_position: 1, reservation: 1, sales_order: 1, sales_order_line: 1 },
  },
  {
    pack: 'erpnext',
    kind: 'mariadb',
    zone: 'Asia/Kolkata',
    ddl: `${erpnextDdl()};${ERPNEXT_ROWS}
      insert into tabBin (name, item_code, warehouse, actual_qty, reserved_qty, reserved_stock, projected_qty, stock_uom)
        values ('BIN-1', 'SCREW-M4', 'Stores - C', 100, 70, 20, 30, 'Nos')`,
    life: `
      insert into \`tabSales Order\` (name, docstatus, status, customer, transaction_date, delivery_date, currency, grand_total)
        values ('SO-1', 1, 'To Deliver and Bill', 'Anna', '2026-03-02', '2026-03-05', 'INR', 120);
      insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no, actual_qty, stock_uom)
        values ('SLE-1', 'SCREW-M4', 'Stores - C', '2026-03-01', '10:00:00.250000', 'Delivery Note', 'DN-1', -30, 'Nos');
      insert into \`tabSales Order Item\` (name, parent, parenttype, parentfield, idx, item_code, qty, stock_qty, uom, stock_uom,
        conversion_factor, delivered_qty, returned_qty, stock_reserved_qty, rate) values
        ('soi1', 'SO-1', 'Sales Order', 'items', 1, 'SCREW-M4', 3, 300, 'Box', 'Nos', 100, 2, 0.5, 100, 40);
      insert into tabShipment (name, docstatus, pickup_from_type, carrier, carrier_service, awb_number, status, tracking_status)
        values ('SHIPMENT-1', 1, 'Company', 'DHL', 'Express', 'A1, A2', 'Booked', '');
      start transaction; update tabItem set name = 'SCREW-M4-A2', item_code = 'SCREW-M4-A2' where name = 'SCREW-M4';
        update tabBin set item_code = 'SCREW-M4-A2' where item_code = 'SCREW-M4';
        update \`tabItem Barcode\` set parent = 'SCREW-M4-A2' where parent = 'SCREW-M4'; commit`,
    records: {
      // And one that Odoo has, too.
      product: 1,
      location: 2,
      inventory_position: 1,
      inventory_movement: 1,
      sales_order: 1,
      sales_order_line: 1,
      shipment: 1,
    },
  },
  {
    pack: 'openboxes',
    kind: 'mysql',
    zone: 'Europe/Lisbon',
    ddl: `${openboxesDdl()};${OPENBOXES_ROWS}
      insert into product_availability (id, location_id, product_id, product_code, inventory_item_id, lot_number, bin_location_id,
        bin_location_name, quantity_on_hand, quantity_allocated, quantity_on_hold, quantity_available_to_promise)
        values ('pa1', 'l1', 'p1', 'GLOVES', 'ii1', 'L1', 'l2', 'Bin A', 10, 4, 3, 3)`,
    life: `
      delete from product_availability where location_id = 'l1' and product_id = ifnull(null, product_id);
      insert into product_availability (id, location_id, product_id, product_code, inventory_item_id, lot_number, bin_location_id,
        bin_location_name, quantity_on_hand, quantity_allocated, quantity_on_hold, quantity_available_to_promise)
        values ('pa3', 'l1', 'p1', 'GLOVES', 'ii1', 'L1', 'l2', 'Bin A', 12, 4, 3, 5), ('pa4', 'l1', 'p1', 'GLOVES', 'ii1', 'DEFAULT', 'l2', 'DEFAULT', 7, 0, 3, 4);
      insert into transaction (id, transaction_number, transaction_date, transaction_type_id, inventory_id, source_id, destination_id) values
        ('t1', 'T-1', '2026-07-01 08:00:00', '8', 'i1', 'l3', null), ('t3', 'T-3', '2026-01-01 09:00:00', '11', 'i1', null, null);
      insert into transaction_entry (id, transaction_id, inventory_item_id, product_id, bin_location_id, quantity) values
        ('e1', 't1', 'ii1', 'p1', 'l2', 5), ('e3', 't3', 'ii2', 'p2', null, 41);
      insert into order_type (id, name, code, order_type_code) values ('8a1f', 'Purchase of drugs', 'DRUGS', 'PURCHASE_ORDER');
      insert into \`order\` (id, order_number, status, order_type_id, origin_id, destination_id, currency_code, date_ordered) values
        ('o1', 'PO-1', 'PLACED', '8a1f', 'l3', 'l1', 'usd', '2026-07-01 00:00:00');
      insert into order_item (id, order_id, product_id, quantity, quantity_per_uom, order_item_status_code) values ('oi1', 'o1', 'p1', 3, 12, 'PENDING');
      insert into shipment (id, shipment_number, current_status, origin_id, destination_id, expected_delivery_date) values
        ('s1', 'SH-1', 'SHIPPED', 'l3', 'l1', '2026-07-03 00:00:00');
      insert into container (id, shipment_id, parent_container_id, container_number, weight, weight_units) values
        ('c1', 's1', null, 'PALLET-1', 120.5, 'kg'), ('c2', 's1', 'c1', null, null, null)`,
    records: {
      product: 2,
      location: 3,
      inventory_position: 2,
      inventory_movement: 2,
      purchase_order: 1,
      purchase_order_line: 1,
      shipment: 1,
      shipment_package: 2,
    },
  },
  {
    pack: 'woocommerce',
    kind: 'mysql',
    zone: 'UTC',
    ddl: `${woocommerceDdl('shop_')};${woocommerceRows('shop_')}`,
    life: `
      update shop_wc_product_meta_lookup set stock_quantity = 1e3 / 8 where product_id = 12;
      insert into shop_wc_orders (id, status, type, currency, total_amount, customer_id, date_created_gmt) values
        (101, 'wc-pending', 'shop_order', 'EUR', 25.5, 0, '2026-03-01 08:00:00');
      insert into shop_wc_reserved_stock (order_id, product_id, stock_quantity, timestamp, expires) values
        (101, 12, 0.1, '2026-03-01 08:00:00', '2099-01-01 00:00:00');
      insert into shop_woocommerce_order_items (order_item_id, order_item_name, order_item_type, order_id) values (1, 'Shirt', 'line_item', 101);
      insert into shop_woocommerce_order_itemmeta (order_item_id, meta_key, meta_value) values
        (1, '_product_id', '11'), (1, '_variation_id', '12'), (1, '_qty', '3'), (1, '_line_total', '59.70')`,
    records: { product: 4, inventory_position: 2, reservation: 1, sales_order: 1, sales_order_line: 1 },
  },
];

/** How many records there are of each entity in the end. */
const WANTED = new Map<string, number>();
for (const { records } of SYSTEMS)
  for (const [entity, n] of Object.entries(records)) WANTED.set(entity, (WANTED.get(entity) ?? 0) + n);

const servers = EveryServer.forThisFile();
let cli: CommandLine;
let config: string;
let visibility: pg.Client;
const urls = new Map<string, string>();

beforeAll(async () => {
  cli = await CommandLine.open(timeoutMs);
  const sources: Record<string, unknown> = {};
  for (const { pack, kind, ddl } of SYSTEMS) {
    const url = await servers[kind].createDatabase(pack);
    urls.set(pack, url);
    await execute(kind, url, ddl);
    sources[pack] = { kind, url, heartbeat: '1s', ...(kind === 'postgres' ? {} : { tables: [`${pack}.*`] }) };
  }
  const url = await servers.postgres.createDatabase('visibility');
  visibility = new pg.Client({ connectionString: url });
  await visibility.connect();
  const flow = (entity: string): unknown => ({
    canonical: entity,
    from: Object.fromEntries(
      SYSTEMS.filter(({ records }) => entity in records).map(({ pack, zone }) => [pack, { pack, zone }]),
    ),
    // Of records that one of them has, all is its own; where several have one, the last word counts.
    owner: { default: { merge: 'lww' } },
    to: 'vis',
    delivery: 'realtime',
  });
  config = JSON.stringify({
    version: 1,
    nats: { servers: [servers.nats.url], stream: { sync_interval: '0s', max_bytes: '16MB' } },
    sources,
    targets: { vis: { kind: 'postgres', url } },
    // How often an idle flow says how far it has come, which a comparison waits for.
    monitoring: { heartbeat: '1s' },
    flows: Object.fromEntries([...WANTED.keys()].map((entity) => [entity, flow(entity)])),
  });
}, timeoutMs);
afterAll(async () => {
  await visibility?.end();
  await cli?.close();
});

async function execute(kind: Kind, url: string, sql: string): Promise<void> {
  const client = await AnyClient.open(kind, url);
  try {
    // As WordPress does, whose zero dates are defaults.
    await client.run(kind === 'postgres' ? sql : `set session sql_mode = ''; ${sql}`);
  } finally {
    await client.close();
  }
}

/** How many records there are of each entity; -1 where there is no table yet. */
async function counts(): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const entity of WANTED.keys()) {
    const table = `canonical.${entity}`;
    const { rows } = await visibility.query<{ there: boolean }>('select to_regclass($1) is not null as there', [table]);
    const n = rows[0]!.there
      ? (await visibility.query<{ n: string }>(`select count(*) as n from ${table}`)).rows[0]!.n
      : -1;
    found.set(entity, Number(n));
  }
  return found;
}

it(
  'is as it should be, loads, goes on after a kill, and is proven equal',
  async () => {
    const checked = await cli.waybill(config, ['check']);
    expect(checked.status, checked.output).toBe(0);
    const run = ['run', '--listen', '127.0.0.1:0'];
    const first = cli.waybill(config, run).catch((thrown: unknown) => thrown);
    await waitFor(
      'all tables of records',
      async () => [...(await counts()).values()].every((n) => n >= 0),
      timeoutMs / 2,
    );
    cli.kill();
    await first;
    for (const { pack, kind, life } of SYSTEMS) await execute(kind, urls.get(pack)!, life);
    const again = cli.waybill(config, run, () => false);
    let found = new Map<string, number>();
    const wrong = (): [entity: string, n: number][] => [...WANTED].filter(([entity, n]) => found.get(entity) !== n);
    const all = waitFor(
      'all records',
      async () => {
        found = await counts();
        return wrong().length === 0;
      },
      timeoutMs / 2,
    );
    await Promise.race([all, again]).catch(() => undefined);
    if (wrong().length > 0) {
      cli.drain();
      const lines = wrong().map(([entity, n]) => `${found.get(entity)} of ${entity}, not ${n}`);
      throw new Error(`${lines.join('; ')}\n${(await again).output}`);
    }
    const verified = await cli.waybill(config, ['verify']);
    expect(verified.status, verified.output).toBe(0);
    cli.drain();
    const { status, output } = await again;
    expect(status, output).toBe(0);
    expect(output).not.toContain('"level":50');
  },
  timeoutMs,
);
