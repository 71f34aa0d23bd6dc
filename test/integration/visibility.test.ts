/** The views beside canonical tables, on a retailer's data in a real PostgreSQL. Times are relative to now: so are the views. */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { makeViews } from '../../apply/postgres/views.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import { sellable } from '../../transform/canonical/inventory.ts';
import { viewComment, visibilityTables, visibilityViews } from '../../transform/visibility/visibility-views.ts';
import { waitFor } from '../support/wait.ts';

let server: PostgresServer;
let client: pg.Client;
let url: string;
const SCHEMA = 'canonical';

const make = (schema = SCHEMA): Promise<string[]> =>
  makeViews(
    { kind: 'postgres', url },
    schema,
    visibilityTables(schema),
    visibilityViews(schema).map((view) => ({ name: view.name, sql: view.sql, comment: viewComment(view) })),
  );

beforeAll(async () => {
  server = await startPostgres();
  url = await server.createDatabase('visibility');
  client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(`set timezone to 'UTC'`);
}, 120_000);
afterAll(async () => {
  await client?.end();
  await server?.dispose();
});

/** SQL of a moment relative to now: `in('2 hours')`, `in('-3 days')`. */
const at = (offset: string): { sql: string } => ({ sql: `now() + interval '${offset}'` });
type Value = string | number | null | { sql: string } | readonly string[];

/** Inserts records of an entity; what a record does not name is NULL, or empty in a key. */
async function put(entity: string, ...records: Record<string, Value>[]): Promise<void> {
  const { fields } = ENTITIES.get(entity)!;
  for (const record of records) {
    const lineage = {
      lineage_version: 1,
      lineage_source: 'test',
      lineage_table: 't',
      lineage_key: '{}',
      lineage_position: 'p',
      lineage_time: { sql: 'now()' },
    };
    const defaults = Object.fromEntries(fields.filter((field) => field.key).map((field) => [field.name, '']));
    const row: Record<string, Value> = { tenant: 'shop', ...defaults, ...record, ...lineage };
    const texts = Object.values(row).map((value) => {
      if (value === null) return 'null';
      if (Array.isArray(value)) return `'${JSON.stringify(value)}'`;
      if (typeof value === 'object') return (value as { sql: string }).sql;
      return `'${String(value).replaceAll("'", "''")}'`;
    });
    const columns = Object.keys(row).map((name) => `"${name}"`);
    await client.query(`insert into ${SCHEMA}.${entity} (${columns.join(', ')}) values (${texts.join(', ')})`);
  }
}

/** Rows of a view; numbers as numbers, moments left to the conditions of the query. */
async function rows(sql: string): Promise<Record<string, unknown>[]> {
  const result = await client.query<Record<string, unknown>>(sql);
  return result.rows.map((row) =>
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value,
      ]),
    ),
  );
}

/** A position with its derived quantities, as flows write it. */
function stock(
  sku: string,
  location: string,
  onHand: number,
  other: Record<string, number> = {},
  key = {},
): Record<string, Value> {
  const { on_hold = 0, allocated = 0, soft_reserved = 0, ...rest } = other;
  const given = Object.fromEntries(
    Object.entries({ on_hold, allocated, soft_reserved }).filter(([name]) => name in other),
  );
  const available = onHand - on_hold - allocated - soft_reserved;
  return { sku, location, uom: 'EA', on_hand: onHand, available, ...given, ...rest, ...key };
}

beforeEach(async () => {
  await make();
  const entities = [...new Set(visibilityViews(SCHEMA).flatMap((view) => view.entities))];
  await client.query(`truncate ${[...entities, 'channel_stock'].map((name) => `${SCHEMA}.${name}`).join(', ')}`);
});

describe('making the views', () => {
  it('makes schema, tables and views, and leaves alone what is there', async () => {
    expect(await make('other')).toEqual([
      'available_to_promise',
      'oversold_items',
      'shipment_risks',
      'cross_dock_candidates',
      'replenishment_signals',
      'sellable_by_channel',
    ]);
    expect(await make('other')).toEqual([]);
    await client.query(`comment on view other.shipment_risks is 'an older one'`);
    expect(await make('other')).toEqual(['shipment_risks']);
    // Two processes at once.
    const both = await Promise.all([make('third'), make('third')]);
    expect(both.flat().toSorted()).toEqual(
      visibilityViews('third')
        .map(({ name }) => name)
        .toSorted(),
    );
  });

  it('replaces a view that others are built on, and keeps their grants', async () => {
    await client.query(
      `create role reader; create view other.mine as select sku from other.oversold_items; grant select on other.oversold_items to reader`,
    );
    await client.query(`comment on view other.oversold_items is 'an older one'`);
    expect(await make('other')).toEqual(['oversold_items']);
    const [granted] = await rows(`select has_table_privilege('reader', 'other.oversold_items', 'SELECT') as ok`);
    expect(granted).toEqual({ ok: true });
  });

  it('every view is documented', async () => {
    const { readFileSync } = await import('node:fs');
    const text = readFileSync(new URL('../../docs/visibility.md', import.meta.url), 'utf8');
    for (const { name } of visibilityViews(SCHEMA)) expect(text).toContain(`## ${name}\n`);
  });
});

describe('available_to_promise', () => {
  const promise = (): Promise<Record<string, unknown>[]> =>
    rows(
      `select sku, location, on_hand, on_hold, allocated, soft_reserved, available, sellable from ${SCHEMA}.available_to_promise order by 1, 2`,
    );

  it('adds up lots and owners, and never clamps what is available', async () => {
    await put(
      'inventory_position',
      stock('CHAIR', 'WH', 10, { allocated: 4 }, { lot: 'L1' }),
      stock('CHAIR', 'WH', 5, { on_hold: 2 }, { lot: 'L2', owner: 'Anna' }),
      stock('CHAIR', 'SHOP', 1, { allocated: 3 }),
      { ...stock('CHAIR', 'WH', 100), tenant: 'other' },
    );
    const own = (await promise()).filter(({ on_hand }) => on_hand !== 100);
    const none = { sku: 'CHAIR', soft_reserved: 0 };
    expect(own).toEqual([
      { ...none, location: 'SHOP', on_hand: 1, on_hold: 0, allocated: 3, available: -2, sellable: 0 },
      { ...none, location: 'WH', on_hand: 15, on_hold: 2, allocated: 4, available: 9, sellable: 9 },
    ]);
    expect(
      await rows(`select tenant, available from ${SCHEMA}.available_to_promise where location = 'WH' order by 1`),
    ).toEqual([
      { tenant: 'other', available: 100 },
      { tenant: 'shop', available: 9 },
    ]);
  });

  const reserve = (
    order: string,
    qty: number,
    expires: { sql: string },
    location: string | null = 'WH',
  ): Record<string, Value> => ({
    order_number: order,
    line: '1',
    sku: 'CHAIR',
    location,
    uom: 'EA',
    qty,
    kind: 'soft',
    expires_at: expires,
  });

  it.each([
    ['the position counts them all', 5],
    ['the position was written after the first had ended', 3],
    ['the position knows of none yet', 0],
    ['no source gives the position a sum', undefined],
  ])('counts soft reservations that are open now: %s', async (_, counted) => {
    await put('inventory_position', stock('CHAIR', 'WH', 10, counted === undefined ? {} : { soft_reserved: counted }));
    await put('reservation', reserve('c1', 2, at('-1 minute')), reserve('c2', 3, at('1 hour')));
    expect(await promise()).toEqual([expect.objectContaining({ soft_reserved: 3, available: 7 })]);
  });

  it('keeps the sum of a position whose reservations no flow brings', async () => {
    await put('inventory_position', stock('CHAIR', 'WH', 10, { soft_reserved: 4 }));
    expect(await promise()).toEqual([expect.objectContaining({ soft_reserved: 4, available: 6 })]);
  });

  it('grows when a reservation expires, though no row changes', async () => {
    await put('inventory_position', stock('CHAIR', 'WH', 10, { soft_reserved: 3 }));
    // In a transaction the time stands still.
    await client.query('begin');
    await put('reservation', reserve('c1', 3, at('1 second')));
    expect(await promise()).toEqual([expect.objectContaining({ available: 7 })]);
    const [next] = await rows(`select next_expiry > now() as ahead from ${SCHEMA}.available_to_promise`);
    expect(next).toEqual({ ahead: true });
    await client.query('commit');
    await waitFor('the reservation to end', async () => (await promise())[0]!['available'] === 10);
  });
});

describe('sellable_by_channel', () => {
  const keep = (channel: string, more: Record<string, string | number | boolean> = {}): Promise<pg.QueryResult> => {
    const row = { tenant: 'shop', channel, ...more };
    const names = Object.keys(row);
    return client.query(
      `insert into ${SCHEMA}.channel_stock (${names.join(', ')}) values (${names.map((_, at) => `$${at + 1}`).join(', ')})`,
      Object.values(row),
    );
  };
  const offers = (): Promise<Record<string, unknown>[]> =>
    rows(
      `select channel, sku, location, available, safety_stock, sellable from ${SCHEMA}.sellable_by_channel order by 1, 2, 3`,
    );
  const offered = async (): Promise<string[]> => (await offers()).map((offer) => Object.values(offer).join(' '));

  it('says nothing while nobody has named a channel', async () => {
    await put('inventory_position', stock('CHAIR', 'WH', 10));
    expect(await offers()).toEqual([]);
  });

  it('takes off what a channel keeps back, by the rule that names most', async () => {
    await put(
      'inventory_position',
      stock('CHAIR', 'WH', 10, { allocated: 1 }),
      stock('CHAIR', 'SHOP', 3),
      stock('TABLE', 'WH', 6),
      stock('TABLE', 'SHOP', 6),
      { ...stock('CHAIR', 'WH', 100), tenant: 'other' },
    );
    await keep('web', { safety_stock: 2 });
    await keep('web', { location: 'SHOP', safety_stock: 1 });
    await keep('web', { sku: 'CHAIR', safety_stock: 4 });
    await keep('web', { sku: 'TABLE', location: 'SHOP', safety_stock: 5.5 });
    await keep('shop', {});
    expect(await offered()).toEqual([
      'shop CHAIR SHOP 3 0 3',
      'shop CHAIR WH 9 0 9',
      'shop TABLE SHOP 6 0 6',
      'shop TABLE WH 6 0 6',
      'web CHAIR SHOP 3 4 0',
      'web CHAIR WH 9 4 5',
      'web TABLE SHOP 6 5.5 0.5',
      'web TABLE WH 6 2 4',
    ]);
    // The same arithmetic as everywhere else.
    for (const { available, safety_stock, sellable: shown } of await offers())
      expect(String(shown)).toBe(sellable(String(available), String(safety_stock)));
  });

  it('clamps what is oversold, and leaves available as it is', async () => {
    await put('inventory_position', stock('CHAIR', 'WH', 1, { allocated: 3 }));
    await keep('web', { safety_stock: 2 });
    expect(await offered()).toEqual(['web CHAIR WH -2 2 0']);
  });

  it('has no row for what a channel does not sell from there', async () => {
    await put('inventory_position', stock('CHAIR', 'WH', 10), stock('CHAIR', 'RETURNS', 4), stock('TABLE', 'WH', 2));
    await keep('web', {});
    await keep('web', { location: 'RETURNS', sells: false });
    await keep('outlet', { sells: false });
    await keep('outlet', { location: 'RETURNS' });
    await keep('outlet', { sku: 'TABLE', safety_stock: 1 });
    expect(await offered()).toEqual([
      'outlet CHAIR RETURNS 4 0 4',
      'outlet TABLE WH 2 1 1',
      'web CHAIR WH 10 0 10',
      'web TABLE WH 2 0 2',
    ]);
  });

  it('refuses a safety stock that is none', async () => {
    for (const safety_stock of [-1, 'NaN', 'Infinity'])
      await expect(keep('web', { safety_stock })).rejects.toMatchObject({ code: '23514' });
  });

  it('is asked with rights on it alone', async () => {
    await put('inventory_position', stock('CHAIR', 'WH', 10));
    await keep('web', { safety_stock: 2 });
    await client.query(`create role asks; grant usage on schema ${SCHEMA} to asks;
      grant select on ${SCHEMA}.sellable_by_channel to asks; set role asks`);
    expect(await offered()).toEqual(['web CHAIR WH 10 2 8']);
    await client.query('reset role');
  });
});

describe('oversold_items', () => {
  it('names what is promised twice, by location and over all, and who claims it', async () => {
    await put(
      'inventory_position',
      stock('CHAIR', 'WH', 5, { allocated: 7 }),
      stock('CHAIR', 'SHOP', 10),
      stock('LAMP', 'WH', 2),
      stock('MUG', 'WH', 1),
    );
    const claim = (order: string, sku: string, qty: number, other: Record<string, Value>): Record<string, Value> => ({
      order_number: order,
      line: '1',
      sku,
      uom: 'EA',
      qty,
      ...other,
    });
    await put(
      'reservation',
      claim('S1', 'CHAIR', 4, { kind: 'hard', location: 'WH' }),
      claim('S2', 'CHAIR', 3, { kind: 'hard', location: 'WH' }),
      claim('C1', 'LAMP', 5, { kind: 'soft', expires_at: at('1 hour') }),
      claim('C2', 'MUG', 5, { kind: 'soft', expires_at: at('-1 hour') }),
    );
    expect(
      await rows(
        `select sku, location, available, oversold, orders, reserved from ${SCHEMA}.oversold_items order by 1, 2`,
      ),
    ).toEqual([
      { sku: 'CHAIR', location: 'WH', available: -2, oversold: 2, orders: ['S1', 'S2'], reserved: 7 },
      { sku: 'LAMP', location: null, available: -3, oversold: 3, orders: ['C1'], reserved: 5 },
    ]);
  });
});

describe('shipment_risks', () => {
  const ship = (number: string, other: Record<string, Value>): Record<string, Value> => ({
    number,
    direction: 'outbound',
    status: 'shipped',
    ...other,
  });
  const told = (id: string, milestone: string, other: Record<string, Value>): Record<string, Value> => ({
    id,
    milestone,
    classifier: 'ACT',
    recorded_at: at('-1 hour'),
    occurred_at: at('-1 hour'),
    ...other,
  });

  it('gives each shipment that is late or at risk its reason and its newest estimate', async () => {
    await put(
      'shipment',
      ship('OVERDUE', { due_at: at('-2 hours'), eta: at('3 hours') }),
      ship('ESTIMATE', { due_at: at('1 day'), eta: at('2 hours'), tracking_nos: ['1Z1', '1Z2'] }),
      ship('EXCEPTION', { due_at: at('1 day') }),
      ship('WAITING', { status: 'ready', planned_at: at('-1 hour'), due_at: at('1 day') }),
      ship('FINE', { due_at: at('1 day'), eta: at('2 hours') }),
      ship('ARRIVED', { due_at: at('-1 day') }),
      ship('DONE', { status: 'delivered', due_at: at('-1 day'), delivered_at: at('-2 days') }),
      ship('GONE', { status: 'cancelled', due_at: at('-1 day') }),
    );
    await put(
      'tracking_event',
      // Recorded later, though it names an earlier time than the one before it: the newest word counts.
      told('e1', 'eta_updated', {
        tracking_no: '1Z2',
        classifier: 'EST',
        occurred_at: at('5 days'),
        recorded_at: at('-3 hours'),
      }),
      told('e2', 'eta_updated', {
        tracking_no: '1Z2',
        classifier: 'EST',
        occurred_at: at('2 days'),
        recorded_at: at('-1 hour'),
      }),
      told('e3', 'departed_terminal', { shipment: 'EXCEPTION', occurred_at: at('-5 hours') }),
      told('e4', 'exception', { shipment: 'EXCEPTION', occurred_at: at('-2 hours') }),
      told('e5', 'delivered', { shipment: 'ARRIVED', occurred_at: at('-2 days') }),
      // Late news of a shipment that has arrived.
      told('e6', 'exception', { shipment: 'ARRIVED', occurred_at: at('-1 hour') }),
    );
    const found = await rows(
      `select shipment, risk, reason, round(extract(epoch from eta - now()) / 3600) as eta_h, round(extract(epoch from late_by) / 3600) as late_h,
         last_milestone from ${SCHEMA}.shipment_risks order by 1`,
    );
    expect(found).toEqual([
      { shipment: 'ESTIMATE', risk: 'at_risk', reason: 'eta_after_due', eta_h: 48, late_h: 24, last_milestone: null },
      {
        shipment: 'EXCEPTION',
        risk: 'at_risk',
        reason: 'exception',
        eta_h: null,
        late_h: null,
        last_milestone: 'exception',
      },
      { shipment: 'OVERDUE', risk: 'late', reason: 'overdue', eta_h: 3, late_h: 5, last_milestone: null },
      {
        shipment: 'WAITING',
        risk: 'at_risk',
        reason: 'not_despatched',
        eta_h: null,
        late_h: null,
        last_milestone: null,
      },
    ]);
  });
});

describe('cross_dock_candidates', () => {
  it('gives announced goods to the orders that wait for them, first come first served', async () => {
    await put(
      'inbound_asn',
      { asn: 'ASN-2', status: 'announced', eta: at('3 days'), location: 'DOCK' },
      { asn: 'ASN-1', status: 'in_transit', eta: at('1 day'), location: 'DOCK' },
      { asn: 'ASN-0', status: 'received', eta: at('-1 day') },
    );
    await put(
      'inbound_asn_line',
      { asn: 'ASN-1', line: '1', sku: 'CHAIR', uom: 'EA', qty: 10, sscc: '006141410000000418' },
      { asn: 'ASN-2', line: '1', sku: 'CHAIR', uom: 'EA', qty: 10 },
      { asn: 'ASN-2', line: '2', sku: 'MUG', uom: 'EA', qty: 10 },
      { asn: 'ASN-0', line: '1', sku: 'CHAIR', uom: 'EA', qty: 99 },
    );
    await put(
      'sales_order',
      { number: 'S1', status: 'accepted', promised_at: at('2 days') },
      { number: 'S2', status: 'placed', requested_at: at('2 days 1 hour') },
      { number: 'S3', status: 'cancelled', promised_at: at('1 hour') },
      { number: 'S4', status: 'shipped', promised_at: at('1 hour') },
    );
    await put(
      'sales_order_line',
      // Six of nine are still wanted.
      {
        number: 'S1',
        line: '1',
        sku: 'CHAIR',
        uom: 'EA',
        qty_ordered: 9,
        qty_cancelled: 1,
        qty_shipped: 1,
        qty_allocated: 1,
      },
      { number: 'S2', line: '1', sku: 'CHAIR', uom: 'EA', qty_ordered: 9 },
      { number: 'S2', line: '2', sku: 'MUG', uom: 'EA', qty_ordered: 2, qty_allocated: 2 },
      { number: 'S3', line: '1', sku: 'CHAIR', uom: 'EA', qty_ordered: 50 },
      { number: 'S4', line: '1', sku: 'CHAIR', uom: 'EA', qty_ordered: 50 },
    );
    await put('inventory_position', stock('CHAIR', 'WH', 1));
    expect(
      await rows(
        `select asn, asn_line, sku, order_number, order_line, open_qty, match_qty, in_time, available_now, sscc from ${SCHEMA}.cross_dock_candidates order by asn, order_number`,
      ),
    ).toEqual([
      {
        asn: 'ASN-1',
        asn_line: 1,
        sku: 'CHAIR',
        order_number: 'S1',
        order_line: 1,
        open_qty: 6,
        match_qty: 6,
        in_time: true,
        available_now: 1,
        sscc: expect.anything() as unknown,
      },
      expect.objectContaining({ asn: 'ASN-1', order_number: 'S2', open_qty: 9, match_qty: 4, in_time: true }),
      expect.objectContaining({ asn: 'ASN-2', order_number: 'S2', open_qty: 9, match_qty: 5, in_time: false }),
    ]);
  });
});

describe('replenishment_signals', () => {
  const signals = (): Promise<Record<string, unknown>[]> =>
    rows(
      `select sku, signal, suggested_qty, daily_sales, available, inbound, days_of_cover, days_of_cover_with_inbound
         from ${SCHEMA}.replenishment_signals order by sku`,
    );

  it('compares what is sold with what is there and what comes', async () => {
    // In a transaction the time stands still.
    await client.query('begin');
    const skus = { CHAIR: 280, LAMP: 280, MUG: 280, DESK: 280, NEW: 20, SLOW: 28 };
    await put(
      'sales_order',
      { number: 'OLD', status: 'completed', ordered_at: at('-100 days') },
      { number: 'S1', status: 'completed', ordered_at: at('-10 days') },
      { number: 'S2', status: 'accepted', ordered_at: at('-2 days') },
      { number: 'S3', status: 'cancelled', ordered_at: at('-2 days') },
    );
    for (const [sku, sold] of Object.entries(skus)) {
      if (sku !== 'NEW')
        await put(
          'sales_order_line',
          { number: 'OLD', line: sku, sku, uom: 'EA', qty_ordered: 9999 },
          { number: 'S1', line: sku, sku, uom: 'EA', qty_ordered: sold / 2 + 5, qty_cancelled: 2, qty_returned: 3 },
        );
      await put(
        'sales_order_line',
        { number: 'S2', line: sku, sku, uom: 'EA', qty_ordered: sku === 'NEW' ? sold : sold / 2 },
        { number: 'S3', line: sku, sku, uom: 'EA', qty_ordered: 500 },
      );
    }
    await put(
      'inventory_position',
      stock('CHAIR', 'WH', 30, { on_order: 15 }),
      stock('LAMP', 'WH', 40, { allocated: 40 }),
      stock('MUG', 'WH', 1, { allocated: 3 }),
      stock('DESK', 'WH', 100, { in_transit: 60 }),
      stock('NEW', 'WH', 50),
      stock('SLOW', 'WH', 1000),
    );
    await put(
      'purchase_order',
      { number: 'P1', status: 'placed', due_at: at('5 days') },
      { number: 'P2', status: 'cancelled' },
    );
    await put(
      'purchase_order_line',
      { number: 'P1', line: '1', sku: 'CHAIR', uom: 'EA', qty_ordered: 30, qty_received: 10 },
      { number: 'P2', line: '1', sku: 'CHAIR', uom: 'EA', qty_ordered: 999 },
    );
    const at28 = await signals();
    expect(at28).toEqual([
      {
        sku: 'CHAIR',
        signal: 'reorder',
        suggested_qty: 90,
        daily_sales: 10,
        available: 30,
        inbound: 20,
        days_of_cover: 3,
        days_of_cover_with_inbound: 5,
      },
      {
        sku: 'DESK',
        signal: 'expedite',
        suggested_qty: 0,
        daily_sales: 10,
        available: 100,
        inbound: 60,
        days_of_cover: 10,
        days_of_cover_with_inbound: 16,
      },
      {
        sku: 'LAMP',
        signal: 'out_of_stock',
        suggested_qty: 140,
        daily_sales: 10,
        available: 0,
        inbound: 0,
        days_of_cover: 0,
        days_of_cover_with_inbound: 0,
      },
      {
        sku: 'MUG',
        signal: 'oversold',
        suggested_qty: 142,
        daily_sales: 10,
        available: -2,
        inbound: 0,
        days_of_cover: -0.2,
        days_of_cover_with_inbound: -0.2,
      },
      // Sold for two days only: ten a day, and not less than one.
      {
        sku: 'NEW',
        signal: 'reorder',
        suggested_qty: 90,
        daily_sales: 10,
        available: 50,
        inbound: 0,
        days_of_cover: 5,
        days_of_cover_with_inbound: 5,
      },
    ]);
    await client.query(`set waybill.cover_days = '4'`);
    expect((await signals()).map(({ sku, signal, suggested_qty }) => [sku, signal, suggested_qty])).toEqual([
      ['CHAIR', 'expedite', 0],
      ['LAMP', 'out_of_stock', 40],
      ['MUG', 'oversold', 42],
    ]);
    await client.query('reset waybill.cover_days');
    expect(await signals()).toEqual(at28);
    await client.query('commit');
  });
});
