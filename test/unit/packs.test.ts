import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { TableSchema } from '../../core/frame.ts';
import { checkMapping } from '../../transform/mapping/check.ts';
import { compileMapping } from '../../transform/mapping/block-plan.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import { loadMapping } from '../../transform/mapping/mapping-file.ts';
import { loadFunctions } from '../../transform/mapping/mapping-functions.ts';
import { SourceFeed, summary, tableOf } from '../support/mapped-tables.ts';

const NAIVE = 'timestamp without time zone';
const id = { id: 'integer' };
/** The shapes of Odoo 17. */
const ODOO: readonly TableSchema[] = [
  tableOf('product_product', {
    ...id,
    default_code: 'character varying',
    barcode: 'character varying',
    product_tmpl_id: 'integer',
    active: 'boolean',
    weight: 'numeric',
  }),
  tableOf('product_template', { ...id, name: 'jsonb', uom_id: 'integer', tracking: 'character varying' }),
  tableOf('uom_uom', { ...id, name: 'jsonb' }),
  tableOf('stock_location', {
    ...id,
    usage: 'character varying',
    complete_name: 'character varying',
    location_id: 'integer',
    active: 'boolean',
  }),
  tableOf('stock_quant', {
    ...id,
    product_id: 'integer',
    location_id: 'integer',
    lot_id: 'integer',
    owner_id: 'integer',
    quantity: 'numeric',
    reserved_quantity: 'numeric',
    in_date: NAIVE,
  }),
  tableOf('stock_lot', { ...id, name: 'character varying' }),
  tableOf('stock_move_line', {
    ...id,
    picking_id: 'integer',
    product_id: 'integer',
    location_id: 'integer',
    location_dest_id: 'integer',
    lot_id: 'integer',
    quantity: 'numeric',
    state: 'character varying',
    date: NAIVE,
  }),
  tableOf('stock_picking_type', { ...id, code: 'character varying' }),
  tableOf('stock_picking', {
    ...id,
    name: 'character varying',
    origin: 'character varying',
    state: 'character varying',
    scheduled_date: NAIVE,
    date_deadline: NAIVE,
    date_done: NAIVE,
    partner_id: 'integer',
    picking_type_id: 'integer',
    carrier_id: 'integer',
    carrier_tracking_ref: 'character varying',
  }),
  tableOf('delivery_carrier', { ...id, name: 'jsonb' }),
  tableOf('res_partner', { ...id, name: 'character varying', ref: 'character varying' }),
  tableOf('res_currency', { ...id, name: 'character varying' }),
  tableOf('sale_order', {
    ...id,
    name: 'character varying',
    state: 'character varying',
    partner_id: 'integer',
    date_order: NAIVE,
    currency_id: 'integer',
    amount_total: 'numeric',
  }),
  tableOf('sale_order_line', {
    ...id,
    order_id: 'integer',
    product_id: 'integer',
    product_uom: 'integer',
    product_uom_qty: 'numeric',
    qty_delivered: 'numeric',
    price_unit: 'numeric',
    display_type: 'character varying',
  }),
];
const STAMP = 'timestamp with time zone';
const MEDUSA: readonly TableSchema[] = [
  tableOf('inventory_item', { id: 'text', sku: 'text', title: 'text', origin_country: 'text', deleted_at: STAMP }),
  tableOf('stock_location', { id: 'text', name: 'text', deleted_at: STAMP }),
  tableOf('inventory_level', {
    id: 'text',
    inventory_item_id: 'text',
    location_id: 'text',
    stocked_quantity: 'numeric',
    reserved_quantity: 'numeric',
    incoming_quantity: 'numeric',
    raw_stocked_quantity: 'jsonb',
    deleted_at: STAMP,
  }),
  tableOf('reservation_item', {
    id: 'text',
    line_item_id: 'text',
    location_id: 'text',
    quantity: 'numeric',
    inventory_item_id: 'text',
    deleted_at: STAMP,
  }),
  tableOf('order', {
    id: 'text',
    display_id: 'integer',
    status: 'text',
    currency_code: 'text',
    version: 'integer',
    sales_channel_id: 'text',
    customer_id: 'text',
    created_at: STAMP,
    deleted_at: STAMP,
  }),
  tableOf('order_item', {
    id: 'text',
    order_id: 'text',
    version: 'integer',
    item_id: 'text',
    quantity: 'numeric',
    fulfilled_quantity: 'numeric',
    shipped_quantity: 'numeric',
    deleted_at: STAMP,
  }),
  tableOf('order_line_item', { id: 'text', variant_sku: 'text', variant_id: 'text', unit_price: 'numeric' }),
];

async function pack(name: string, entity: string, tables: readonly TableSchema[]): Promise<SourceFeed> {
  const mapping = loadMapping(resolve(import.meta.dirname, `../../transform/packs/${name}/mapping.yaml`));
  const functions = await loadFunctions(mapping);
  expect(checkMapping(compileMapping(mapping, functions, entity), tables, functions)).toEqual([]);
  return new SourceFeed(new MappingEngine({ source: name, plan: compileMapping(mapping, functions, entity) }), tables);
}
const changed = (tables: readonly TableSchema[], ...replaced: TableSchema[]): TableSchema[] => [
  ...tables.filter((table) => !replaced.some((other) => other.name === table.name)),
  ...replaced,
];

describe('Odoo pack', () => {
  const masters = (feed: SourceFeed, unit = '{"de_DE":"Stück","en_US":"Units"}'): SourceFeed =>
    feed
      .put('uom_uom', { id: '1', name: unit })
      .put('product_template', { id: '1', name: '{"en_US":"Chair"}', uom_id: '1' })
      .put('product_product', { id: '1', default_code: 'CHAIR', product_tmpl_id: '1', active: 't' })
      .put(
        'stock_location',
        { id: '8', usage: 'internal', complete_name: 'WH/Stock', active: 't' },
        { id: '5', usage: 'customer', complete_name: 'Partners/Customers', active: 't' },
        { id: '14', usage: 'inventory', complete_name: 'Virtual/Adjustment', active: 't' },
        { id: '15', usage: 'transit', complete_name: 'Transit', active: 't' },
      );
  const quant = (key: string, quantity: string, reserved = '0', location = '8') => ({
    id: key,
    product_id: '1',
    location_id: location,
    quantity,
    reserved_quantity: reserved,
  });
  const stock = (onHand: string, allocated: string) => ({
    sku: 'CHAIR',
    location: 'WH/Stock',
    uom: 'EA',
    on_hand: onHand,
    allocated,
    in_transit: '0',
    source_available: String(Number(onHand) - Number(allocated)),
  });

  it('quirk: a duplicate quant is added up, and its merge and deletion change nothing', async () => {
    const feed = masters(await pack('odoo', 'inventory_position', ODOO));
    feed.put('stock_quant', quant('1', '10', '2'), quant('2', '5'));
    expect(summary(feed.flush())).toEqual([stock('15', '2')]);
    feed.update('stock_quant', quant('1', '15', '2')).remove('stock_quant', { id: '2' });
    expect(summary(feed.flush())).toEqual([]);
  });

  it('quirk: a quant gets another id, and the record stays', async () => {
    const feed = masters(await pack('odoo', 'inventory_position', ODOO));
    feed.put('stock_quant', quant('1', '10')).flush();
    feed.remove('stock_quant', { id: '1' }).put('stock_quant', quant('99', '10'));
    expect(summary(feed.flush())).toEqual([]);
  });

  it('quirk: a zero quant is zero stock until it is deleted', async () => {
    const feed = masters(await pack('odoo', 'inventory_position', ODOO));
    feed.put('stock_quant', quant('1', '0'));
    expect(summary(feed.flush())).toEqual([stock('0', '0')]);
    feed.remove('stock_quant', { id: '1' });
    expect(summary(feed.flush())).toEqual(['gone']);
  });

  it('quirk: counterpart locations hold no stock, and transit is in transit', async () => {
    const feed = masters(await pack('odoo', 'inventory_position', ODOO));
    feed.put('stock_quant', quant('1', '-7', '0', '5'), quant('2', '-3', '0', '14'), quant('3', '4', '0', '15'));
    expect(summary(feed.flush())).toEqual([
      {
        sku: 'CHAIR',
        location: 'Transit',
        uom: 'EA',
        on_hand: '0',
        allocated: '0',
        in_transit: '4',
        source_available: '0',
      },
    ]);
  });

  it('quirk: translated names are JSON from version 16, and plain text before', async () => {
    const old = changed(
      ODOO,
      tableOf('uom_uom', { ...id, name: 'character varying' }),
      tableOf('product_template', {
        ...id,
        name: 'character varying',
        uom_id: 'integer',
        tracking: 'character varying',
      }),
    );
    const feed = masters(await pack('odoo', 'inventory_position', old), 'kg');
    feed.put('stock_quant', quant('1', '1'));
    expect(summary(feed.flush())).toEqual([expect.objectContaining({ uom: 'KGM' })]);
  });

  it('quirk: a move is in a unit of its own, and the stock in that of its product', async () => {
    const line = Object.fromEntries(
      ODOO.find((t) => t.name === 'stock_move_line')!.columns.map((c) => [c.name, c.type]),
    );
    const moved = async (columns: Record<string, string>, row: Record<string, string>): Promise<unknown[]> => {
      const tables = changed(ODOO, tableOf('stock_move_line', { ...line, product_uom_id: 'integer', ...columns }));
      const feed = masters(await pack('odoo', 'inventory_movement', tables));
      feed.put('uom_uom', { id: '2', name: '{"en_US":"Dozens"}' }, { id: '3', name: '{"en_US":"Pack of 6"}' });
      feed.put('stock_move_line', {
        id: '1',
        product_id: '1',
        location_id: '8',
        location_dest_id: '5',
        state: 'done',
        date: '2026-03-01 08:00:00',
        ...row,
      });
      return summary(feed.flush());
    };
    const despatch = (delta: string): unknown[] => [expect.objectContaining({ delta, uom: 'EA', reason: 'despatch' })];
    expect(await moved({}, { quantity: '2', product_uom_id: '2' })).toEqual(despatch('-24'));
    expect(await moved({}, { quantity: '2' })).toEqual(despatch('-2'));
    // From version 17 on the quantity in the product's unit is there as well, whatever the units are.
    const both = { quantity: '2', quantity_product_uom: '12', product_uom_id: '3' };
    expect(await moved({ quantity_product_uom: 'numeric' }, both)).toEqual(despatch('-12'));
    expect(JSON.stringify(await moved({}, { quantity: '2', product_uom_id: '3' }))).toContain(
      'must be in the look-up table',
    );
  });

  it('quirk: names change by version: stock_production_lot, qty_done, product_uom_id', async () => {
    const lots = [
      ...ODOO.filter((table) => table.name !== 'stock_lot'),
      tableOf('stock_production_lot', { ...id, name: 'character varying' }),
    ];
    const feed = masters(await pack('odoo', 'inventory_position', lots));
    feed.put('stock_production_lot', { id: '3', name: 'L-3' }).put('stock_quant', { ...quant('1', '1'), lot_id: '3' });
    expect(summary(feed.flush())).toEqual([expect.objectContaining({ lot: 'L-3' })]);

    const { quantity: _, ...line } = Object.fromEntries(
      ODOO.find((t) => t.name === 'stock_move_line')!.columns.map((c) => [c.name, c.type]),
    );
    const moves = masters(
      await pack(
        'odoo',
        'inventory_movement',
        changed(ODOO, tableOf('stock_move_line', { ...line, qty_done: 'numeric' })),
      ),
    );
    moves.put('stock_move_line', {
      id: '1',
      product_id: '1',
      location_id: '8',
      location_dest_id: '5',
      qty_done: '2',
      state: 'done',
      date: '2026-03-01 08:00:00',
    });
    expect(summary(moves.flush())).toEqual([expect.objectContaining({ delta: '-2', reason: 'despatch' })]);
    await pack(
      'odoo',
      'sales_order_line',
      changed(
        ODOO,
        tableOf('sale_order_line', {
          ...id,
          order_id: 'integer',
          product_id: 'integer',
          product_uom_id: 'integer',
          product_uom_qty: 'numeric',
          qty_delivered: 'numeric',
          price_unit: 'numeric',
          display_type: 'text',
        }),
      ),
    );
  });

  it('quirk: times are naive and in UTC; tracking numbers are joined by commas', async () => {
    const feed = await pack('odoo', 'shipment', ODOO);
    feed.put('stock_picking_type', { id: '2', code: 'outgoing' });
    feed.put('stock_picking', {
      id: '1',
      name: 'WH/OUT/1',
      state: 'done',
      picking_type_id: '2',
      date_done: '2026-03-01 08:15:02.123456',
      carrier_tracking_ref: '1Z1, 1Z2,',
    });
    expect(summary(feed.flush())).toEqual([
      {
        number: 'WH/OUT/1',
        direction: 'outbound',
        status: 'shipped',
        shipped_at: '2026-03-01T08:15:02.123456Z',
        tracking_nos: '["1Z1","1Z2"]',
      },
    ]);
  });

  it('works where the delivery module is not installed', async () => {
    const {
      carrier_id: _,
      carrier_tracking_ref: __,
      ...columns
    } = Object.fromEntries(ODOO.find((t) => t.name === 'stock_picking')!.columns.map((c) => [c.name, c.type]));
    const bare = changed(ODOO, tableOf('stock_picking', columns)).filter((table) => table.name !== 'delivery_carrier');
    const feed = await pack('odoo', 'shipment', bare);
    feed
      .put('stock_picking_type', { id: '2', code: 'incoming' })
      .put('stock_picking', { id: '1', name: 'WH/IN/1', state: 'assigned', picking_type_id: '2' });
    expect(summary(feed.flush())).toEqual([{ number: 'WH/IN/1', direction: 'inbound', status: 'ready' }]);
  });

  it('quirk: lines with a display type are notes', async () => {
    const feed = masters(await pack('odoo', 'sales_order_line', ODOO));
    feed
      .put('res_currency', { id: '1', name: 'EUR' })
      .put('sale_order', { id: '1', name: 'S1', state: 'sale', currency_id: '1' });
    feed.put(
      'sale_order_line',
      { id: '1', order_id: '1', display_type: 'line_note' },
      {
        id: '2',
        order_id: '1',
        product_id: '1',
        product_uom: '1',
        product_uom_qty: '3.00',
        qty_delivered: '1',
        price_unit: '9.90',
      },
    );
    expect(summary(feed.flush())).toEqual([
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
  });

  it('an archived product is archived, and not deleted; a code that is no GTIN is held', async () => {
    const feed = masters(await pack('odoo', 'product', ODOO));
    feed.update('product_product', {
      id: '1',
      default_code: 'CHAIR',
      product_tmpl_id: '1',
      active: 'f',
      barcode: '96385074',
    });
    expect(summary(feed.flush())).toEqual([
      expect.objectContaining({ status: 'archived', gtin14: '00000096385074', gtin_text: '96385074' }),
    ]);
    feed.update('product_product', {
      id: '1',
      default_code: 'CHAIR',
      product_tmpl_id: '1',
      active: 't',
      barcode: '96385075',
    });
    expect(summary(feed.flush())).toEqual([
      expect.objectContaining({
        values: expect.objectContaining({ gtin14: '00000096385074', status: 'active' }),
        held: [expect.stringContaining('gtin: gtin14')],
      }),
    ]);
  });
});

describe('Medusa pack', () => {
  it('quirk: rows are deleted softly', async () => {
    const feed = await pack('medusa', 'inventory_position', MEDUSA);
    const level = {
      id: 'l1',
      inventory_item_id: 'i1',
      location_id: 's1',
      stocked_quantity: '10',
      reserved_quantity: '4',
      incoming_quantity: '0',
    };
    feed
      .put('inventory_item', { id: 'i1', sku: 'SHIRT' })
      .put('stock_location', { id: 's1', name: 'Ulm' })
      .put('inventory_level', level);
    expect(summary(feed.flush())).toEqual([
      { sku: 'SHIRT', location: 'Ulm', uom: 'EA', on_hand: '10', allocated: '4', on_order: '0', source_available: '6' },
    ]);
    feed.update('inventory_level', { ...level, deleted_at: '2026-03-01 08:00:00+00' });
    expect(summary(feed.flush())).toEqual(['gone']);
    feed.update('inventory_level', level);
    expect(summary(feed.flush())).toHaveLength(1);
  });

  it('quirk: only order items of the version that the order has count', async () => {
    const feed = await pack('medusa', 'sales_order_line', MEDUSA);
    const order = (version: string) => ({
      id: 'o1',
      display_id: '7',
      status: 'pending',
      currency_code: 'eur',
      version,
    });
    const item = (key: string, version: string, quantity: string) => ({
      id: key,
      order_id: 'o1',
      version,
      item_id: 'li1',
      quantity,
      shipped_quantity: '0',
    });
    feed
      .put('order', order('1'))
      .put('order_line_item', { id: 'li1', variant_sku: 'SHIRT', unit_price: '19.90' })
      .put('order_item', item('a', '1', '1'));
    expect(summary(feed.flush())).toEqual([
      {
        number: '7',
        line: 'li1',
        sku: 'SHIRT',
        uom: 'EA',
        qty_ordered: '1',
        qty_shipped: '0',
        unit_price: '19.9',
        currency: 'EUR',
      },
    ]);
    feed.put('order_item', item('b', '2', '3'));
    expect(summary(feed.flush())).toEqual([]);
    feed.update('order', order('2'));
    expect(summary(feed.flush())).toEqual([expect.objectContaining({ qty_ordered: '3' })]);
  });

  it.each(['product', 'location', 'reservation', 'sales_order'])('%s fits the tables', async (entity) => {
    await pack('medusa', entity, MEDUSA);
  });
});
