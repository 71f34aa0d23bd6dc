/** The packs of Odoo and Medusa on a real server: one test for each quirk of their schemas. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { MEDUSA_ROWS, medusaDdl } from '../support/pack-schemas/medusa.ts';
import { odooDdl, odooRows } from '../support/pack-schemas/odoo.ts';
import { PackSource } from '../support/pack-source.ts';

const timeoutMs = 120_000;
let nats: NatsServer;
let server: PostgresServer;

beforeAll(async () => {
  [nats, server] = await Promise.all([startNats(), startPostgres()]);
}, 240_000);
afterAll(async () => {
  await Promise.all([nats?.dispose(), server?.dispose()]);
});

describe('Odoo pack', () => {
  let site: PackSource;
  const quant = (product: number, quantity: number, reserved = 0, location = 8): string =>
    `insert into stock_quant (product_id, location_id, quantity, reserved_quantity) values (${product}, ${location}, ${quantity}, ${reserved})`;
  const chair = () => site.record('inventory_position', { sku: 'CHAIR', location: 'WH/Stock' });

  beforeAll(async () => {
    site = await PackSource.open({ pack: 'odoo', server, nats, ddl: `${odooDdl()};${odooRows()}` });
  }, timeoutMs);
  afterAll(async () => await site?.close());

  it('fits the tables', () => {
    expect(site.problems).toEqual([]);
    expect(site.record('product', { sku: 'CHAIR' })).toEqual({
      sku: 'CHAIR',
      gtin14: '04006381333931',
      gtin_text: '4006381333931',
      name: 'Chair',
      base_uom: 'EA',
      tracking: 'none',
      status: 'active',
    });
  });

  it('quirk: a duplicate quant is added up; merging and deleting it changes nothing', async () => {
    await site.execute(quant(1, 10, 2), quant(1, 5));
    expect(chair()).toEqual({
      sku: 'CHAIR',
      location: 'WH/Stock',
      uom: 'EA',
      on_hand: '15',
      allocated: '2',
      in_transit: '0',
      source_available: '13',
    });
    const merged = await site.execute(
      `begin; update stock_quant set quantity = 15 where id = (select min(id) from stock_quant);
       delete from stock_quant where id > (select min(id) from stock_quant); commit`,
    );
    expect(merged).toEqual([]);
  });

  it('quirk: ids of quants mean nothing', async () => {
    const replaced = await site.execute(`begin; delete from stock_quant; ${quant(1, 15, 2)}; commit`);
    expect(replaced).toEqual([]);
  });

  it('quirk: codes of products and names of places need not be unique: what only has the same name is not added up', async () => {
    const there = chair();
    await site.execute(
      `insert into product_product (id, default_code, product_tmpl_id, active) values (7, 'CHAIR', 2, true);
       ${quant(7, 5)}`,
    );
    expect(chair()).toEqual(there);
    expect(site.held()).toContain('inventory_position product_id must be the same in all rows of the record');
    await site.execute('delete from stock_quant where product_id = 7; delete from product_product where id = 7');
    await site.execute(
      `insert into stock_location (id, name, usage, complete_name, active) values (88, 'Stock', 'internal', 'WH/Stock', true);
       ${quant(1, 3, 0, 88)}`,
    );
    expect(chair()).toEqual(there);
    expect(site.held()).toContain('inventory_position location_id must be the same in all rows of the record');
    await site.execute('delete from stock_quant where location_id = 88; delete from stock_location where id = 88');
    expect(site.held()).toEqual([]);
    expect(chair()).toEqual(there);
  });

  it('quirk: a zero quant is zero stock until it is deleted', async () => {
    await site.execute('update stock_quant set quantity = 0, reserved_quantity = 0');
    expect(chair()).toMatchObject({ on_hand: '0', allocated: '0' });
    expect(await site.execute('delete from stock_quant')).toEqual(['gone']);
    expect(chair()).toBeUndefined();
  });

  it('quirk: suppliers, customers, inventory and production hold counterparts, which are no stock', async () => {
    expect(await site.execute(quant(1, -7, 0, 4), quant(1, 7, 0, 5), quant(1, -3, 0, 14), quant(1, -1, 0, 15))).toEqual(
      [],
    );
  });

  it('quirk: what lies in a transit location is in transit, and on hand nowhere', async () => {
    await site.execute(quant(1, 4, 1, 16));
    expect(site.record('inventory_position', { location: 'Transit' })).toMatchObject({
      on_hand: '0',
      allocated: '0',
      in_transit: '4',
    });
  });

  it('quirk: a move is two movements, and only when it is done', async () => {
    await site.execute(
      `insert into stock_move_line (id, product_id, quantity, location_id, location_dest_id, state, date)
       values (1, 1, 2, 8, 5, 'assigned', '2026-03-01 08:00:00'), (2, 2, 1.5, 8, 16, 'done', '2026-03-01 08:00:00.000001')`,
    );
    expect(site.records('inventory_movement')).toEqual([
      expect.objectContaining({
        id: 'odoo-2-out',
        delta: '-1.5',
        uom: 'KGM',
        reason: 'transfer_out',
        occurred_at: '2026-03-01T08:00:00.000001Z',
      }),
    ]);
    await site.execute(`update stock_move_line set state = 'done' where id = 1`);
    expect(site.record('inventory_movement', { id: 'odoo-1-out' })).toMatchObject({ delta: '-2', reason: 'despatch' });
  });

  it('quirk: tracking numbers are joined by commas; times are naive and in UTC', async () => {
    await site.execute(
      `insert into stock_picking (name, origin, state, picking_type_id, partner_id, carrier_id, carrier_tracking_ref, date_done)
       values ('WH/OUT/1', 'S1', 'done', 2, 1, 1, '1Z1, 1Z2,', '2026-03-01 08:15:02.123456')`,
    );
    expect(site.records('shipment')).toEqual([
      {
        number: 'WH/OUT/1',
        direction: 'outbound',
        document: 'S1',
        status: 'shipped',
        carrier: 'Fast',
        tracking_nos: '["1Z1","1Z2"]',
        partner: 'C-1',
        shipped_at: '2026-03-01T08:15:02.123456Z',
      },
    ]);
  });

  it('quirk: the direction of a picking is that of its type, and follows it', async () => {
    await site.execute(
      `insert into stock_picking (name, state, picking_type_id) values ('WH/IN/7', 'assigned', 1), ('WH/OUT/7', 'assigned', 2), ('WH/INT/7', 'assigned', 3)`,
    );
    const direction = (name: string) => site.record('shipment', { number: name })?.['direction'];
    expect(['WH/IN/7', 'WH/OUT/7', 'WH/INT/7'].map(direction)).toEqual(['inbound', 'outbound', 'internal']);
    await site.execute("update stock_picking_type set code = 'outgoing' where id = 3");
    expect(direction('WH/INT/7')).toBe('outbound');
    await site.execute(
      "update stock_picking_type set code = 'internal' where id = 3; delete from stock_picking where name like '%/7'",
    );
    expect(direction('WH/INT/7')).toBeUndefined();
  });

  it('quirk: lines with a display type are notes', async () => {
    await site.execute(
      `insert into sale_order_line (id, order_id, name, product_id, product_uom, product_uom_qty, qty_delivered, price_unit, display_type) values
         (1, 1, 'Thank you', null, null, 0, 0, 0, 'line_note'), (2, 1, 'Chair', 1, 1, 3.00, 1, 9.90, null)`,
    );
    expect(site.records('sales_order_line')).toEqual([
      {
        number: 'S1',
        line: '2',
        sku: 'CHAIR',
        uom: 'EA',
        qty_ordered: '3',
        qty_shipped: '1',
        unit_price: '9.9',
        currency: 'EUR',
      },
    ]);
    expect(site.records('sales_order')).toEqual([
      {
        number: 'S1',
        channel: 'odoo',
        status: 'accepted',
        customer: 'C-1',
        ordered_at: '2026-03-01T08:15:02.123456Z',
        total: '29.7',
        currency: 'EUR',
      },
    ]);
  });

  it('quirk: an archived product is still there', async () => {
    await site.execute('update product_product set active = false where id = 2');
    expect(site.record('product', { sku: 'GLUE' })).toMatchObject({ status: 'archived' });
  });

  it('quirk: names change by version, and are told by what is there; translated names are text before 16', async () => {
    const old = await PackSource.open({
      pack: 'odoo',
      server,
      nats,
      ddl: `${odooDdl(14)};${odooRows(14)};
        insert into stock_production_lot (id, name, product_id) values (3, 'L-3', 2);
        insert into stock_quant (product_id, location_id, lot_id, quantity) values (2, 8, 3, 2.5);
        insert into stock_move_line (product_id, qty_done, location_id, location_dest_id, state, date) values (1, 2, 4, 8, 'done', '2026-03-01')`,
    });
    try {
      expect(old.problems).toEqual([]);
      expect(old.records('inventory_position')).toEqual([
        expect.objectContaining({ sku: 'GLUE', lot: 'L-3', uom: 'KGM', on_hand: '2.5' }),
      ]);
      expect(old.records('inventory_movement')).toEqual([expect.objectContaining({ delta: '2', reason: 'receipt' })]);
      expect(old.record('product', { sku: 'CHAIR' })).toMatchObject({ name: 'Chair' });
    } finally {
      await old.close();
    }
  });
});

describe('Medusa pack', () => {
  let shop: PackSource;
  const position = () => shop.record('inventory_position', { sku: 'SHIRT' });

  beforeAll(async () => {
    shop = await PackSource.open({ pack: 'medusa', server, nats, ddl: `${medusaDdl()};${MEDUSA_ROWS}` });
  }, timeoutMs);
  afterAll(async () => await shop?.close());

  it('fits the tables, one of which has a reserved word as its name', () => {
    expect(shop.problems).toEqual([]);
    expect(shop.records('sales_order')).toEqual([
      {
        number: '7',
        channel: 'medusa',
        status: 'placed',
        customer: 'c1',
        ordered_at: '2026-03-01T08:15:02.123456Z',
        currency: 'EUR',
      },
    ]);
    expect(shop.records('product')).toEqual([
      { sku: 'SHIRT', name: 'Shirt', base_uom: 'EA', country_of_origin: 'PT', status: 'active' },
    ]);
  });

  it('quirk: rows are deleted softly, and may come back', async () => {
    await shop.execute(
      `insert into inventory_level (id, inventory_item_id, location_id, stocked_quantity, reserved_quantity, incoming_quantity, raw_stocked_quantity)
       values ('l1', 'i1', 's1', 10, 4, 2, '{"value": "10", "precision": 20}')`,
      `insert into reservation_item (id, line_item_id, location_id, quantity, inventory_item_id) values ('r1', 'li1', 's1', 4, 'i1')`,
    );
    expect(position()).toEqual({
      sku: 'SHIRT',
      location: 'Ulm',
      uom: 'EA',
      on_hand: '10',
      allocated: '4',
      on_order: '2',
      source_available: '6',
    });
    expect(shop.records('reservation')).toEqual([
      {
        order_number: 'medusa',
        line: 'li1',
        part: 'r1',
        sku: 'SHIRT',
        location: 'Ulm',
        uom: 'EA',
        qty: '4',
        kind: 'hard',
      },
    ]);
    await shop.execute(
      `insert into order_item (id, order_id, version, item_id, quantity) values ('a0', 'o1', 1, 'li1', 4)`,
      `insert into reservation_item (id, location_id, quantity, inventory_item_id) values ('r2', 's1', 1, 'i1')`,
    );
    // Of an order once its item is there; and one that was made by hand.
    expect(shop.records('reservation')).toEqual([
      expect.objectContaining({ order_number: '7', line: 'li1', part: 'r1', qty: '4' }),
      expect.objectContaining({ order_number: 'medusa', line: 'r2', part: 'r2', qty: '1' }),
    ]);
    await shop.execute(
      `delete from order_item`,
      'update inventory_level set deleted_at = now()',
      'update reservation_item set deleted_at = now()',
    );
    expect(position()).toBeUndefined();
    expect(shop.records('reservation')).toEqual([]);
    await shop.execute('update inventory_level set deleted_at = null');
    expect(position()).toMatchObject({ on_hand: '10' });
    await shop.execute('update inventory_item set deleted_at = now()');
    expect(position()).toBeUndefined();
  });

  it('quirk: only the items of the version that the order has count', async () => {
    const line = () => shop.record('sales_order_line', { line: 'li1' });
    await shop.execute(
      `insert into order_item (id, order_id, version, item_id, quantity) values ('a', 'o1', 1, 'li1', 1)`,
    );
    expect(line()).toEqual({
      number: '7',
      line: 'li1',
      sku: 'SHIRT',
      uom: 'EA',
      qty_ordered: '1',
      qty_shipped: '0',
      qty_returned: '0',
      unit_price: '19.9',
      currency: 'EUR',
    });
    expect(
      await shop.execute(
        `insert into order_item (id, order_id, version, item_id, quantity, shipped_quantity) values ('b', 'o1', 2, 'li1', 3, 1)`,
      ),
    ).toEqual([]);
    await shop.execute(`update "order" set version = 2, status = 'completed' where id = 'o1'`);
    expect(line()).toMatchObject({ qty_ordered: '3', qty_shipped: '1' });
    expect(shop.record('sales_order', { number: '7' })).toMatchObject({ status: 'completed' });
  });
});
