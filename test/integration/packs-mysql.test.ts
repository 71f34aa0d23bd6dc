/** The packs of ERPNext, OpenBoxes and WooCommerce on real servers: one test for each quirk of their schemas. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { ERPNEXT_ROWS, erpnextDdl } from '../support/pack-schemas/erpnext.ts';
import { OPENBOXES_ROWS, openboxesDdl } from '../support/pack-schemas/openboxes.ts';
import { woocommerceDdl, woocommerceRows } from '../support/pack-schemas/woocommerce.ts';
import { PackSource } from '../support/pack-source.ts';

const timeoutMs = 120_000;
let nats: NatsServer;
let mysql: MysqlServer;
let mariadb: MysqlServer;

beforeAll(async () => {
  [nats, mysql, mariadb] = await Promise.all([
    startNats(),
    startMysql({ flavour: 'mysql', version: '9.7' }),
    startMysql({ flavour: 'mariadb', version: '11.8' }),
  ]);
}, 240_000);
afterAll(async () => {
  await Promise.all([nats?.dispose(), mysql?.dispose(), mariadb?.dispose()]);
});

describe('ERPNext pack on MariaDB', () => {
  let site: PackSource;

  beforeAll(async () => {
    const ddl = `${erpnextDdl()};${ERPNEXT_ROWS}`;
    site = await PackSource.open({ pack: 'erpnext', server: mariadb, nats, ddl, zone: 'Asia/Kolkata' });
  }, timeoutMs);
  afterAll(async () => await site?.close());

  it('quirk: names of tables have spaces, and joins and movements are read from them', async () => {
    expect(site.problems).toEqual([]);
    expect(site.record('product', { sku: 'SCREW-M4' })).toMatchObject({ gtin14: '04006381333931' });
    await site.execute(
      `insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no, actual_qty, stock_uom)
         values ('SPACES', 'GLUE', 'Stores - C', '2026-03-01', '10:00:00', 'Delivery Note', 'DN-0', -1, 'Kg')`,
    );
    expect(site.record('inventory_movement', { id: 'erpnext-SPACES' })).toMatchObject({ delta: '-1' });
    await site.execute("delete from `tabStock Ledger Entry` where name = 'SPACES'");
    expect(site.record('inventory_movement', { id: 'erpnext-SPACES' })).toBeUndefined();
  });

  it('fits the tables', () => {
    expect(site.problems).toEqual([]);
    expect(site.records('product')).toEqual([
      { sku: 'GLUE', name: 'Glue', brand: 'Sticky', base_uom: 'KGM', tracking: 'lot', status: 'active' },
      {
        sku: 'SCREW-M4',
        gtin14: '04006381333931',
        gtin_text: '4006381333931',
        name: 'Screw M4',
        base_uom: 'EA',
        tracking: 'none',
        status: 'active',
      },
    ]);
    expect(site.record('location', { code: 'All Warehouses - C' })).toMatchObject({ type: 'zone', is_stock: 'false' });
    expect(site.record('location', { code: 'Stores - C' })).toMatchObject({
      type: 'site',
      is_stock: 'true',
      parent: 'All Warehouses - C',
    });
  });

  it('quirk: reserved_qty is demand of orders, and reserved_stock is what is allocated', async () => {
    await site.execute(
      `insert into tabBin (name, item_code, warehouse, actual_qty, reserved_qty, reserved_stock, ordered_qty, projected_qty, stock_uom)
       values ('BIN-1', 'SCREW-M4', 'Stores - C', 100, 70, 20, 50, 80, 'Nos')`,
    );
    expect(site.record('inventory_position', { sku: 'SCREW-M4' })).toEqual({
      sku: 'SCREW-M4',
      location: 'Stores - C',
      uom: 'EA',
      on_hand: '100',
      allocated: '20',
      on_order: '50',
      source_available: '80',
    });
  });

  it('quirk: actual_qty is a balance in a bin and a change in the ledger; a reconciliation is a count', async () => {
    await site.execute(
      `insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no,
         actual_qty, qty_after_transaction, stock_uom, batch_no) values
         ('SLE-1', 'SCREW-M4', 'Stores - C', '2026-03-01', '10:00:00.250000', 'Delivery Note', 'DN-1', -30, 70, 'Nos', ''),
         ('SLE-2', 'GLUE', 'Stores - C', '2026-03-01', '11:00:00', 'Stock Reconciliation', 'SR-1', 0, 12.5, 'Kg', 'B-7');
       update tabBin set actual_qty = 70 where name = 'BIN-1'`,
    );
    expect(site.record('inventory_position', { sku: 'SCREW-M4' })).toMatchObject({ on_hand: '70' });
    expect(site.record('inventory_movement', { id: 'erpnext-SLE-1' })).toMatchObject({
      delta: '-30',
      reason: 'despatch',
      document: 'DN-1',
    });
    const count = site.record('inventory_movement', { id: 'erpnext-SLE-2' });
    expect(count).toMatchObject({ absolute: '12.5', reason: 'count', uom: 'KGM' });
    expect(count).not.toHaveProperty('delta');
    // Of the bin, which does not tell batches apart: what explains its figure is of the same lot as the figure.
    expect(count).not.toHaveProperty('lot');
  });

  it('quirk: a voucher is of one type either way: the sign, and the purpose of a stock entry, say what a movement is', async () => {
    await site.execute(
      `insert into \`tabStock Entry\` (name, docstatus, stock_entry_type, purpose) values ('SE-1', 1, 'To the shop', 'Material Transfer'),
         ('SE-2', 1, 'Manufacture', 'Manufacture'), ('SE-3', 1, 'Used up', 'Material Issue'), ('SE-4', 1, 'Opening', 'Material Receipt');
       insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no, actual_qty, stock_uom) values
         ('R-1', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Delivery Note', 'DN-R', 5, 'Kg'),
         ('R-2', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Purchase Receipt', 'PR-R', -5, 'Kg'),
         ('R-3', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Purchase Receipt', 'PR-1', 5, 'Kg'),
         ('R-4', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Stock Entry', 'SE-1', -2, 'Kg'),
         ('R-5', 'GLUE', 'Shop - C', '2026-03-03', '10:00:00', 'Stock Entry', 'SE-1', 2, 'Kg'),
         ('R-6', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Stock Entry', 'SE-2', -1, 'Kg'),
         ('R-7', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Stock Entry', 'SE-3', -1, 'Kg'),
         ('R-8', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Stock Entry', 'SE-4', 9, 'Kg'),
         ('R-9', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Sales Invoice', 'SI-1', -1, 'Kg'),
         ('S-1', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Subcontracting Receipt', 'SC-1', -1, 'Kg'),
         ('S-2', 'GLUE', 'Yard - C', '2026-03-03', '10:00:00', 'Subcontracting Receipt', 'SC-1', 1, 'Kg')`,
    );
    const reason = (name: string): unknown => site.record('inventory_movement', { id: `erpnext-${name}` })?.['reason'];
    const reasons = ['R-1', 'R-2', 'R-3', 'R-4', 'R-5', 'R-6', 'R-7', 'R-8', 'R-9', 'S-1', 'S-2'].map(reason);
    expect(reasons).toEqual([
      'return',
      'return',
      'receipt',
      'transfer_out',
      'transfer_in',
      'production',
      'adjustment',
      'receipt',
      'despatch',
      'production',
      'receipt',
    ]);
    await site.execute(
      `delete from \`tabStock Ledger Entry\` where item_code = 'GLUE' and warehouse in ('Yard - C', 'Shop - C')`,
    );
  });

  it('quirk: times are local to the site and naive', () => {
    expect(site.record('inventory_movement', { id: 'erpnext-SLE-1' })).toMatchObject({
      occurred_at: '2026-03-01T04:30:00.250000Z',
    });
  });

  it('quirk: a pack without the zone of its site is refused', async () => {
    await expect(
      PackSource.open({ pack: 'erpnext', server: mariadb, nats, ddl: erpnextDdl(), entity: 'inventory_movement' }),
    ).rejects.toThrow(/needs a zone/);
  });

  it('quirk: cancelling is an update of docstatus or is_cancelled, and deletes nothing', async () => {
    await site.execute(
      `insert into \`tabSales Order\` (name, docstatus, status, customer, transaction_date, delivery_date, currency, grand_total)
       values ('SO-1', 0, 'Draft', 'Anna', '2026-03-02', '2026-03-05', 'INR', 120)`,
    );
    expect(site.record('sales_order', { number: 'SO-1' })).toEqual({
      number: 'SO-1',
      channel: 'erpnext',
      status: 'draft',
      customer: 'Anna',
      ordered_at: '2026-03-01T18:30:00.000000Z',
      requested_at: '2026-03-04T18:30:00.000000Z',
      total: '120',
      currency: 'INR',
    });
    await site.execute("update `tabSales Order` set docstatus = 1, status = 'To Deliver and Bill' where name = 'SO-1'");
    expect(site.record('sales_order', { number: 'SO-1' })).toMatchObject({ status: 'accepted' });
    await site.execute("update `tabSales Order` set docstatus = 2, status = 'Cancelled' where name = 'SO-1'");
    expect(site.record('sales_order', { number: 'SO-1' })).toMatchObject({ status: 'cancelled' });
    // The entry and its reversal are marked alike.
    await site.execute(
      `update \`tabStock Ledger Entry\` set is_cancelled = 1 where voucher_no = 'DN-1';
       insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no,
         actual_qty, stock_uom, is_cancelled) values ('SLE-3', 'SCREW-M4', 'Stores - C', '2026-03-01', '12:00:00', 'Delivery Note', 'DN-1', 30, 'Nos', 1)`,
    );
    expect(site.records('inventory_movement').map(({ id }) => id)).toEqual(['erpnext-SLE-2']);
  });

  it('quirk: a cancelled entry and its reversal are no movements, and explain what becomes of a bin', async () => {
    const stock = await PackSource.open({
      pack: 'erpnext',
      server: mariadb,
      nats,
      ddl: `${erpnextDdl()};${ERPNEXT_ROWS}insert into tabBin (name, item_code, warehouse, actual_qty, stock_uom)
        values ('BIN-1', 'SCREW-M4', 'Stores - C', 100, 'Nos')`,
      zone: 'UTC',
      entity: 'inventory_position',
      evidence: ['inventory_movement'],
    });
    const entry = (name: string, quantity: number, cancelled: number): string =>
      `insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no,
         actual_qty, stock_uom, is_cancelled) values
         ('${name}', 'SCREW-M4', 'Stores - C', '2026-03-01', '12:00:00', 'Delivery Note', 'DN-1', ${quantity}, 'Nos', ${cancelled})`;
    const bin = (quantity: number): string => `update tabBin set actual_qty = ${quantity} where name = 'BIN-1'`;
    try {
      expect(stock.problems).toEqual([]);
      const despatched = await stock.execute(`start transaction; ${entry('SLE-1', -30, 0)}; ${bin(70)}; commit`);
      expect(despatched).toEqual([
        expect.objectContaining({ on_hand: '70' }),
        expect.objectContaining({ delta: '-30', reason: 'despatch' }),
      ]);
      const cancelled = await stock.execute(
        `start transaction; update \`tabStock Ledger Entry\` set is_cancelled = 1 where voucher_no = 'DN-1';
         ${entry('SLE-2', 30, 1)}; ${bin(100)}; commit`,
      );
      expect(cancelled).toEqual([
        expect.objectContaining({ on_hand: '100' }),
        expect.objectContaining({ id: 'erpnext-SLE-2', delta: '30' }),
      ]);
    } finally {
      await stock.close();
    }
  });

  it('quirk: quantities of an order line are in its own unit, and come in the unit of stock', async () => {
    await site.execute(
      `insert into \`tabSales Order Item\` (name, parent, parenttype, parentfield, idx, item_code, qty, stock_qty, uom, stock_uom,
         conversion_factor, delivered_qty, returned_qty, stock_reserved_qty, rate) values
         ('soi1', 'SO-1', 'Sales Order', 'items', 1, 'SCREW-M4', 3, 300, 'Box', 'Nos', 100, 2, 0.5, 100, 40)`,
    );
    expect(site.record('sales_order_line', { line: 'soi1' })).toEqual({
      number: 'SO-1',
      line: 'soi1',
      sku: 'SCREW-M4',
      uom: 'EA',
      qty_ordered: '300',
      qty_allocated: '100',
      qty_shipped: '200',
      qty_returned: '50',
      unit_price: '0.4',
      currency: 'INR',
    });
  });

  it('quirk: a key is renamed, and the records move along', async () => {
    await site.execute(
      `start transaction; update tabItem set name = 'SCREW-M4-A2', item_code = 'SCREW-M4-A2' where name = 'SCREW-M4';
       update tabBin set item_code = 'SCREW-M4-A2' where item_code = 'SCREW-M4';
       update \`tabItem Barcode\` set parent = 'SCREW-M4-A2' where parent = 'SCREW-M4'; commit`,
    );
    expect(site.record('product', { sku: 'SCREW-M4' })).toBeUndefined();
    expect(site.record('product', { sku: 'SCREW-M4-A2' })).toMatchObject({ gtin14: '04006381333931' });
    expect(site.record('inventory_position', { sku: 'SCREW-M4' })).toBeUndefined();
    expect(site.record('inventory_position', { sku: 'SCREW-M4-A2' })).toMatchObject({ on_hand: '70' });
  });

  it('tracking numbers are joined by commas, and the carrier says when a shipment has arrived', async () => {
    await site.execute(
      `insert into tabShipment (name, docstatus, pickup_from_type, carrier, carrier_service, awb_number, status, tracking_status)
       values ('SHIPMENT-1', 1, 'Company', 'DHL', 'Express', 'A1, A2', 'Booked', '')`,
    );
    expect(site.record('shipment', { number: 'SHIPMENT-1' })).toEqual({
      number: 'SHIPMENT-1',
      direction: 'outbound',
      status: 'shipped',
      carrier: 'DHL',
      service: 'Express',
      tracking_nos: '["A1","A2"]',
    });
    await site.execute("update tabShipment set tracking_status = 'Delivered' where name = 'SHIPMENT-1'");
    expect(site.record('shipment', { number: 'SHIPMENT-1' })).toMatchObject({ status: 'delivered' });
  });

  it('versions are told apart by columns: without reserved_stock nothing is allocated', async () => {
    const old = await PackSource.open({
      pack: 'erpnext',
      server: mariadb,
      nats,
      ddl: `${erpnextDdl(13)};insert into tabBin (name, item_code, warehouse, actual_qty, reserved_qty, stock_uom)
        values ('BIN-1', 'X', 'Stores - C', 5, 3, 'Nos')`,
      zone: 'UTC',
    });
    try {
      expect(old.problems).toEqual([]);
      const position = old.record('inventory_position', { sku: 'X' });
      expect(position).toMatchObject({ on_hand: '5' });
      expect(position).not.toHaveProperty('allocated');
    } finally {
      await old.close();
    }
  });
});

// OpenBoxes runs on either server.
describe.each(['mysql', 'mariadb'] as const)('OpenBoxes pack on %s', (flavour) => {
  let site: PackSource;
  const availability = (id: string, onHand: number, allocated: number, lot = 'L1', bin = 'Bin A'): string =>
    `insert into product_availability (id, location_id, product_id, product_code, inventory_item_id, lot_number, bin_location_id,
       bin_location_name, quantity_on_hand, quantity_allocated, quantity_on_hold, quantity_available_to_promise)
     values ('${id}', 'l1', 'p1', 'GLOVES', 'ii1', '${lot}', 'l2', '${bin}', ${onHand}, ${allocated}, 3, ${onHand - allocated - 3})`;

  beforeAll(async () => {
    const server = flavour === 'mysql' ? mysql : mariadb;
    const ddl = `${openboxesDdl()};${OPENBOXES_ROWS}`;
    site = await PackSource.open({ pack: 'openboxes', server, nats, ddl, zone: 'America/New_York' });
  }, timeoutMs);
  afterAll(async () => await site?.close());

  it('quirk: reserved words are names of tables; yes and no are bits', () => {
    expect(site.problems).toEqual([]);
    expect(site.records('product')).toEqual([
      {
        sku: 'GLOVES',
        gtin14: '00036000291452',
        gtin_text: '036000291452',
        name: 'Gloves',
        base_uom: 'PR',
        tracking: 'lot',
        status: 'active',
      },
      { sku: 'MASK', name: 'Mask', base_uom: 'EA', tracking: 'none', status: 'active' },
    ]);
    expect(site.record('location', { code: 'Central/Bin A' })).toMatchObject({ type: 'bin', parent: 'Central' });
  });

  it('quirk: a forced refresh gives all rows new ids, and changes nothing', async () => {
    await site.execute(availability('pa1', 10, 4), availability('pa2', 7, 0, 'DEFAULT', 'DEFAULT'));
    const before = site.records('inventory_position');
    expect(before).toEqual([
      {
        sku: 'GLOVES',
        location: 'Central',
        uom: 'PR',
        on_hand: '7',
        blocked: '3',
        allocated: '0',
        source_available: '4',
      },
      {
        sku: 'GLOVES',
        location: 'Central/Bin A',
        lot: 'L1',
        uom: 'PR',
        on_hand: '10',
        blocked: '3',
        allocated: '4',
        source_available: '3',
      },
    ]);
    const refresh = `delete from product_availability where location_id = 'l1' and product_id = ifnull(null, product_id)`;
    const atOnce = [refresh, availability('pa3', 10, 4), availability('pa4', 7, 0, 'DEFAULT', 'DEFAULT')].join('; ');
    expect(await site.execute(`start transaction; ${atOnce}; commit`)).toEqual([]);
    expect(site.records('inventory_position')).toEqual(before);
    // As OpenBoxes does it: each statement for itself. What is there at the end is the same.
    await site.execute(refresh, availability('pa5', 10, 4), availability('pa6', 7, 0, 'DEFAULT', 'DEFAULT'));
    expect(site.records('inventory_position')).toEqual(before);
  });

  it('two facilities with one name are not taken for one', async () => {
    const before = site.records('inventory_position');
    await site.execute(
      `insert into location (id, name, active, inventory_id) values ('l9', 'Central', 1, 'i9');
       insert into product_availability (id, location_id, product_id, product_code, inventory_item_id, quantity_on_hand)
         values ('pa9', 'l9', 'p1', 'GLOVES', 'ii1', 900)`,
    );
    expect(site.records('inventory_position')).toEqual(before);
    expect(site.held()).toEqual([
      'location code must be unique, and several rows have it',
      'inventory_position location_id must be the same in all rows of the record',
    ]);
    await site.execute(`delete from product_availability where id = 'pa9'; delete from location where id = 'l9'`);
    expect(site.held()).toEqual([]);
  });

  it('a unit that is not known does not pass for pieces', async () => {
    await site.execute(
      `insert into product (id, product_code, name, unit_of_measure) values ('p8', 'ROPE', 'Rope', 'coil'), ('p9', 'CAP', 'Cap', null)`,
    );
    expect(site.record('product', { sku: 'CAP' })).toMatchObject({ base_uom: 'EA' });
    expect(site.record('product', { sku: 'ROPE' }) ?? {}).not.toHaveProperty('base_uom');
    expect(site.held()).toEqual([expect.stringContaining('look-up table')]);
    await site.execute(`delete from product where id in ('p8', 'p9')`);
    expect(site.held()).toEqual([]);
  });

  it('credits add, debits take away, inventories count; times are local to the server', async () => {
    await site.execute(
      `insert into transaction (id, transaction_number, transaction_date, transaction_type_id, inventory_id, source_id, destination_id) values
         ('t1', 'T-1', '2026-07-01 08:00:00', '8', 'i1', 'l3', null), ('t2', 'T-2', '2026-07-01 09:00:00', '9', 'i1', null, 'l3'),
         ('t3', 'T-3', '2026-01-01 09:00:00', '11', 'i1', null, null), ('t4', 'T-4', '2026-07-01 09:00:00', '9', 'i1', null, 'l4'),
         ('t5', 'T-5', '2026-07-01 09:00:00', '8', 'i1', 'l4', null), ('t6', 'T-6', '2026-07-01 09:00:00', '9', 'i1', null, null);
       insert into location (id, name, inventory_id) values ('l4', 'Branch', 'i4');
       insert into transaction_entry (id, transaction_id, inventory_item_id, product_id, bin_location_id, quantity) values
         ('e1', 't1', 'ii1', 'p1', 'l2', 5), ('e2', 't2', 'ii1', 'p1', null, 2), ('e3', 't3', 'ii2', 'p2', null, 41),
         ('e4', 't4', 'ii1', 'p1', null, 2), ('e5', 't5', 'ii1', 'p1', null, 2), ('e6', 't6', 'ii1', 'p1', null, 1)`,
    );
    expect(site.records('inventory_movement')).toEqual([
      {
        id: 'openboxes-e1',
        sku: 'GLOVES',
        location: 'Central/Bin A',
        lot: 'L1',
        uom: 'PR',
        delta: '5',
        reason: 'receipt',
        document: 'T-1',
        occurred_at: '2026-07-01T12:00:00.000000Z',
      },
      // Who has no inventory here is a customer or a supplier.
      expect.objectContaining({ id: 'openboxes-e2', location: 'Central', delta: '-2', reason: 'despatch' }),
      expect.objectContaining({ absolute: '41', reason: 'count', occurred_at: '2026-01-01T14:00:00.000000Z' }),
      expect.objectContaining({ id: 'openboxes-e4', delta: '-2', reason: 'transfer_out' }),
      expect.objectContaining({ id: 'openboxes-e5', delta: '2', reason: 'transfer_in' }),
      expect.objectContaining({ id: 'openboxes-e6', delta: '-1', reason: 'adjustment' }),
    ]);
  });

  it('orders of other types are no purchase orders; boxes stand in containers', async () => {
    await site.execute(
      `insert into order_type (id, name, code, order_type_code) values
         ('8a1f', 'Purchase of drugs', 'DRUGS', 'PURCHASE_ORDER'), ('8a2f', 'Put-away', 'PUTAWAY_ORDER', 'PUTAWAY_ORDER');
       insert into \`order\` (id, order_number, status, order_type_id, origin_id, destination_id, currency_code, date_ordered) values
         ('o1', 'PO-1', 'PLACED', '8a1f', 'l3', 'l1', 'usd', '2026-07-01 00:00:00'),
         ('o2', 'PUT-1', 'PENDING', '8a2f', 'l1', 'l1', null, null);
       insert into order_item (id, order_id, product_id, quantity, quantity_per_uom, order_item_status_code) values
         ('oi1', 'o1', 'p1', 3, 12, 'PENDING'), ('oi2', 'o1', 'p2', 9, 1, 'CANCELED'), ('oi3', 'o2', 'p2', 9, 1, 'PENDING');
       insert into shipment (id, shipment_number, current_status, origin_id, destination_id, expected_delivery_date) values
         ('s1', 'SH-1', 'SHIPPED', 'l3', 'l1', '2026-07-03 00:00:00');
       insert into container (id, shipment_id, parent_container_id, container_number, weight, weight_units) values
         ('c1', 's1', null, 'PALLET-1', 120.5, 'kg'), ('c2', 's1', 'c1', null, null, null)`,
    );
    expect(site.records('purchase_order')).toEqual([
      {
        number: 'PO-1',
        supplier: 'Supplier',
        status: 'placed',
        ordered_at: '2026-07-01T04:00:00.000000Z',
        currency: 'USD',
      },
    ]);
    expect(site.records('purchase_order_line')).toEqual([
      { number: 'PO-1', line: 'oi1', sku: 'GLOVES', uom: 'PR', qty_ordered: '36' },
    ]);
    expect(site.records('shipment')).toEqual([
      {
        number: 'SH-1',
        direction: 'inbound',
        status: 'shipped',
        ship_from: 'Supplier',
        partner: 'Central',
        eta: '2026-07-03T04:00:00.000000Z',
      },
    ]);
    expect(site.records('shipment_package')).toEqual([
      { shipment: 'SH-1', package: 'PALLET-1', weight: '120.5', weight_uom: 'KGM' },
      { shipment: 'SH-1', package: 'c2', parent: 'PALLET-1' },
    ]);
    expect(site.held()).toEqual([]);
  });

  it('versions are told apart by columns: order_type_code before order_type_id', async () => {
    const old = await PackSource.open({
      pack: 'openboxes',
      server: mysql,
      nats,
      ddl: `${openboxesDdl('0.8')};insert into \`order\` (id, order_number, status, order_type_code) values ('o1', 'PO-1', 'PLACED', 'PURCHASE_ORDER')`,
      zone: 'UTC',
    });
    try {
      expect(old.problems).toEqual([]);
      expect(old.records('purchase_order')).toEqual([{ number: 'PO-1', status: 'placed' }]);
    } finally {
      await old.close();
    }
  });
});

describe('WooCommerce pack on MySQL', () => {
  let shop: PackSource;
  const prefix = 'shop7_';
  const order = (id: number, status: string, type = 'shop_order', created = "'2026-03-01 08:00:00'"): string =>
    `insert into ${prefix}wc_orders (id, status, type, currency, total_amount, customer_id, date_created_gmt) values
       (${id}, '${status}', '${type}', 'EUR', 25.5, 0, ${created})`;

  beforeAll(async () => {
    const ddl = `${woocommerceDdl(prefix)};${woocommerceRows(prefix)}`;
    shop = await PackSource.open({ pack: 'woocommerce', server: mysql, nats, ddl, zone: 'UTC' });
  }, timeoutMs);
  afterAll(async () => await shop?.close());

  it('quirk: the prefix of tables varies', () => {
    expect(shop.problems).toEqual([]);
    expect(shop.records('product').map(({ sku, status }) => [sku, status])).toEqual([
      ['MUG', 'active'],
      ['SHIRT-RED', 'active'],
      ['woocommerce-11', 'active'],
      ['woocommerce-13', 'inactive'],
    ]);
  });

  it('quirk: products without managed stock have no position', () => {
    expect(shop.records('inventory_position').map(({ sku, on_hand }) => [sku, on_hand])).toEqual([
      ['MUG', '20'],
      ['SHIRT-RED', '5'],
    ]);
  });

  it('quirk: 0000-00-00 is no date', async () => {
    await shop.execute(order(100, 'wc-pending', 'shop_order', "'0000-00-00 00:00:00'"));
    expect(shop.record('sales_order', { number: '100' })).toEqual({
      number: '100',
      channel: 'woocommerce',
      status: 'placed',
      total: '25.5',
      currency: 'EUR',
    });
    // A reservation that has no end yet is not one.
    await shop.execute(
      `insert into ${prefix}wc_reserved_stock (order_id, product_id, stock_quantity) values (100, 10, 3)`,
    );
    expect(shop.records('reservation')).toEqual([]);
    expect(shop.held()).toEqual([]);
    await shop.execute(`delete from ${prefix}wc_reserved_stock`);
  });

  it('quirk: quantities are doubles, and are added up as decimals', async () => {
    await shop.execute(`update ${prefix}wc_product_meta_lookup set stock_quantity = 1e3 / 8 where product_id = 12`);
    expect(shop.record('inventory_position', { sku: 'SHIRT-RED' })).toMatchObject({ on_hand: '125' });
    await shop.execute(
      order(101, 'wc-pending'),
      order(102, 'wc-checkout-draft'),
      `insert into ${prefix}wc_reserved_stock (order_id, product_id, stock_quantity, timestamp, expires) values
         (101, 12, 0.1, '2026-03-01 08:00:00', '2099-01-01 00:00:00'), (102, 12, 0.2, '2026-03-01 08:00:00', '2099-01-01 00:00:00')`,
    );
    expect(shop.record('inventory_position', { sku: 'SHIRT-RED' })).toMatchObject({ soft_reserved: '0.3' });
    await shop.execute(`update ${prefix}wc_product_meta_lookup set stock_quantity = 1e20 where product_id = 12`);
    expect(shop.record('inventory_position', { sku: 'SHIRT-RED' })).toMatchObject({ on_hand: '100000000000000000000' });
    await shop.execute(`update ${prefix}wc_product_meta_lookup set stock_quantity = -2 where product_id = 12`);
    expect(shop.record('inventory_position', { sku: 'SHIRT-RED' })).toMatchObject({ on_hand: '-2' });
  });

  it('a reservation counts while its order is a draft or pending, though its row may stay', async () => {
    shop.nowUs = Date.parse('2026-03-01T08:00:00Z') * 1000;
    await shop.execute(
      order(109, 'wc-pending'),
      `insert into ${prefix}wc_reserved_stock (order_id, product_id, stock_quantity, timestamp, expires) values
         (109, 10, 5, '2026-03-01 08:00:00', '2026-03-01 09:00:00')`,
    );
    expect(shop.record('inventory_position', { sku: 'MUG' })).toMatchObject({ soft_reserved: '5' });
    await shop.execute(`update ${prefix}wc_orders set status = 'wc-processing' where id = 109`);
    expect(shop.record('inventory_position', { sku: 'MUG' })).not.toHaveProperty('soft_reserved');
    expect(shop.record('reservation', { order_number: '109' })).toBeUndefined();
  });

  it('quirk: a reservation expires without a change of its row', async () => {
    shop.nowUs = Date.parse('2026-03-01T08:00:00Z') * 1000;
    await shop.execute(
      order(103, 'wc-checkout-draft'),
      order(104, 'wc-pending'),
      `insert into ${prefix}wc_reserved_stock (order_id, product_id, stock_quantity, timestamp, expires) values
         (103, 10, 2, '2026-03-01 08:00:00', '2026-03-01 09:00:00'), (104, 10, 1, '2026-03-01 08:00:00', '2026-03-01 09:30:00')`,
    );
    expect(shop.record('inventory_position', { sku: 'MUG' })).toMatchObject({ on_hand: '20', soft_reserved: '3' });
    expect(shop.record('reservation', { order_number: '103' })).toEqual({
      order_number: '103',
      line: '10',
      sku: 'MUG',
      location: 'woocommerce',
      uom: 'EA',
      qty: '2',
      kind: 'soft',
      expires_at: '2026-03-01T09:00:00.000000Z',
    });
    expect(shop.advance(Date.parse('2026-03-01T08:59:59Z') * 1000)).toEqual([]);
    shop.advance(Date.parse('2026-03-01T09:00:00Z') * 1000);
    expect(shop.record('inventory_position', { sku: 'MUG' })).toMatchObject({ soft_reserved: '1' });
    expect(shop.record('reservation', { order_number: '103' })).toBeUndefined();
    shop.advance(Date.parse('2026-03-01T09:30:00Z') * 1000);
    const position = shop.record('inventory_position', { sku: 'MUG' });
    expect(position).toMatchObject({ on_hand: '20' });
    expect(position).not.toHaveProperty('soft_reserved');
  });

  it('quirk: lines are rows of keys and values, which come one by one', async () => {
    await shop.execute(
      order(105, 'wc-processing'),
      order(106, 'wc-refunded', 'shop_order_refund'),
      `insert into ${prefix}woocommerce_order_items (order_item_id, order_item_name, order_item_type, order_id) values
         (1, 'Shirt', 'line_item', 105), (2, 'Post', 'shipping', 105), (3, 'Shirt', 'line_item', 106)`,
      `insert into ${prefix}woocommerce_order_itemmeta (order_item_id, meta_key, meta_value) values (1, '_product_id', '11')`,
    );
    expect(shop.records('sales_order_line')).toEqual([]);
    await shop.execute(
      `insert into ${prefix}woocommerce_order_itemmeta (order_item_id, meta_key, meta_value) values
         (1, '_qty', '3'), (1, '_variation_id', '12'), (1, '_line_total', '59.70'), (1, 'pa_color', 'red'),
         (3, '_product_id', '11'), (3, '_qty', '-1')`,
    );
    expect(shop.records('sales_order_line')).toEqual([
      {
        number: '105',
        line: '1',
        sku: 'SHIRT-RED',
        uom: 'EA',
        qty_ordered: '3',
        unit_price: '19.9',
        currency: 'EUR',
      },
    ]);
    expect(shop.record('sales_order', { number: '105' })).toMatchObject({
      status: 'accepted',
      ordered_at: '2026-03-01T08:00:00.000000Z',
    });
    expect(shop.record('sales_order', { number: '106' })).toBeUndefined();
  });

  it('versions are told apart by columns: global_unique_id from 9.2 on', async () => {
    await shop.execute(
      `update ${prefix}wc_product_meta_lookup set global_unique_id = '96385074' where product_id = 10`,
    );
    expect(shop.record('product', { sku: 'MUG' })).toMatchObject({ gtin14: '00000096385074', gtin_text: '96385074' });
    const old = await PackSource.open({
      pack: 'woocommerce',
      server: mariadb,
      nats,
      ddl: `${woocommerceDdl('wp_', 8)};${woocommerceRows('wp_')}`,
      zone: 'UTC',
    });
    try {
      expect(old.problems).toEqual([]);
      expect(old.record('product', { sku: 'MUG' })).toEqual({
        sku: 'MUG',
        name: 'Mug',
        base_uom: 'EA',
        status: 'active',
      });
    } finally {
      await old.close();
    }
  });
});
