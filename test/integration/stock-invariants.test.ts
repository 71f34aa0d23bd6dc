/** The eight invariants of stock in a running flow, whose source tells of places, reservations and movements too. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { odooDdl, odooRows } from '../support/pack-schemas/odoo.ts';
import { waitFor } from '../support/wait.ts';

const MAP = `version: 1
name: own
zone: UTC
entities:
  inventory_position:
    from: stock
    fields:
      sku: sku
      location: place
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      on_hand: on_hand
      blocked: blocked
      allocated: allocated
      picked: picked
      in_transit: in_transit
  location:
    from: place
    fields: { code: code, type: { const: bin }, is_stock: true, parent: parent }
  reservation:
    from: claim
    fields: { order_number: id, line: { const: '1' }, part: { const: '' }, sku: sku, location: place, uom: { const: EA }, qty: qty, kind: { const: hard } }
  inventory_movement:
    from: move
    where: { in: [state, [done]] }
    fields: { id: id, sku: sku, location: place, lot: { const: '' }, owner: { const: '' }, uom: { const: EA }, delta: delta, absolute: counted, reason: reason, occurred_at: at }
`;
const DDL = `
create table place (code text primary key, parent text);
create table stock (sku text, place text, on_hand numeric not null default 0, blocked numeric not null default 0,
  allocated numeric not null default 0, picked numeric not null default 0, in_transit numeric not null default 0,
  primary key (sku, place));
create table claim (id serial primary key, sku text not null, place text not null, qty numeric not null);
create table move (id serial primary key, sku text not null, place text not null, delta numeric, counted numeric,
  reason text not null, state text not null default 'done', at timestamp not null default now());
insert into place values ('WH', null), ('B1', 'WH'), ('B2', 'WH');
insert into claim (sku, place, qty) values ('A', 'B1', 2), ('A', 'WH', 2);
insert into stock (sku, place, on_hand, allocated) values ('A', 'B1', 10, 2), ('A', 'B2', 5, 0), ('A', 'WH', 15, 2);
insert into stock (sku, place, on_hand, picked) values ('BAD', 'B1', 1, 1);
insert into move (sku, place, delta, reason) select 'A', 'B1', 1, 'receipt' from generate_series(1, 300);
`;

let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
let source: pg.Client;
let admin: Nats;
let flow: CanonicalPipeline;
const metrics = new Metrics();

beforeAll(async () => {
  [postgres, nats, folder] = await Promise.all([startPostgres(), startNats(), mkdtemp(join(tmpdir(), 'waybill-'))]);
  const url = await postgres.createDatabase('wms');
  source = new pg.Client({ connectionString: url });
  await source.connect();
  await source.query(DDL);
  const map = join(folder, 'own.yaml');
  await writeFile(map, MAP);
  flow = await CanonicalPipeline.open({
    nats,
    sources: { wms: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('vis'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: { wms: { map } },
        evidence: ['location', 'reservation', 'inventory_movement'],
      },
    },
    report: metrics.transformReport('stock', 'inventory_position', (name) => name),
  });
  admin = await connectNats(flow.config.nats, 'test');
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
}, 120_000);

afterAll(async () => {
  await flow?.close();
  await admin?.close();
  await source?.end();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

/** What the counters of the metrics say: only those that are not at zero, or with `all` every one. */
async function counts(all = false): Promise<Record<string, number>> {
  const text = await metrics.registry.getSingleMetricAsString('waybill_invariant_violations_total');
  const found = [...text.matchAll(/^waybill_invariant_violations_total\{.*invariant="(\w+)".*\} (\d+)$/gm)];
  return Object.fromEntries(
    found.map(([, name, count]) => [name!, Number(count)] as const).filter(([, count]) => all || count > 0),
  );
}

let turns = 0;
/** Runs statements as one transaction, and waits until the flow has taken it; gives what has been counted for it. */
async function breaks(...statements: string[]): Promise<Record<string, number>> {
  const before = await counts();
  turns += 1;
  const turn = `insert into stock (sku, place, in_transit) values ('turn', 'T', ${turns})
    on conflict (sku, place) do update set in_transit = excluded.in_transit`;
  await source.query([...statements, turn].join(';'));
  await flow.shows(`select in_transit from canonical.inventory_position where sku = 'turn'`, [String(turns)]);
  return Object.fromEntries(
    Object.entries(await counts())
      .map(([name, count]) => [name, count - (before[name] ?? 0)] as const)
      .filter(([, count]) => count > 0),
  );
}

const stock = (place: string, set: string): string =>
  `update stock set ${set} where sku = 'A' and place in ('${place}'${place === 'B2' || place === 'B1' ? `, 'WH'` : ''})`;
const move = (place: string, delta: number, reason: string): string =>
  `insert into move (sku, place, delta, reason) values ('A', '${place}', ${delta}, '${reason}')`;

it('counts each that is broken when all records are written first, from zero on', async () => {
  await flow.shows('select count(*) from canonical.inventory_position', ['4']);
  await waitFor('the first breach', async () => Object.keys(await counts()).length > 0);
  // The first load is not taken for changes that nothing explains, though it comes piece by piece.
  expect(await counts(true)).toEqual({
    available_identity: 0,
    picked_within_allocated: 1,
    hold_within_on_hand: 0,
    allocated_is_reserved: 0,
    parent_is_sum: 0,
    movements_explain_on_hand: 0,
    transfer_conserves: 0,
    despatch_keeps_available: 0,
  });
});

it('counts nothing while everything agrees', async () => {
  const receipt = [stock('B1', 'on_hand = on_hand + 3'), move('B1', 3, 'receipt'), move('WH', 3, 'receipt')];
  expect(await breaks(...receipt)).toEqual({});
  const claim = [
    stock('B2', 'allocated = allocated + 1'),
    `insert into claim (sku, place, qty) values ('A', 'B2', 1), ('A', 'WH', 1)`,
  ];
  expect(await breaks(...claim)).toEqual({});
  const transfer = [
    `update stock set on_hand = on_hand - 2 where place = 'B1' and sku = 'A'; update stock set on_hand = on_hand + 2 where place = 'B2' and sku = 'A'`,
    move('B1', -2, 'transfer_out'),
    move('B2', 2, 'transfer_in'),
  ];
  expect(await breaks(...transfer)).toEqual({});
  const despatch = [
    stock('B2', 'on_hand = on_hand - 1, allocated = allocated - 1'),
    `delete from claim where sku = 'A' and qty = 1`,
    move('B2', -1, 'despatch'),
    move('WH', -1, 'despatch'),
  ];
  expect(await breaks(...despatch)).toEqual({});
});

it('counts each of the four that take more than a position to see, and those that one shows', async () => {
  expect(await breaks(stock('B1', 'allocated = allocated + 1'))).toEqual({ allocated_is_reserved: 2 });
  // No record changes by this, and all is well again.
  expect(await breaks(`insert into claim (sku, place, qty) values ('A', 'B1', 1), ('A', 'WH', 1)`)).toEqual({});

  expect(
    await breaks(
      `update stock set on_hand = on_hand + 1 where sku = 'A' and place = 'WH'`,
      move('WH', 1, 'adjustment'),
    ),
  ).toEqual({
    parent_is_sum: 1,
  });
  expect(
    await breaks(
      `update stock set on_hand = on_hand + 1 where sku = 'A' and place = 'B1'`,
      move('B1', 1, 'adjustment'),
    ),
  ).toEqual({});

  expect(await breaks(stock('B1', 'on_hand = on_hand - 4'))).toEqual({ movements_explain_on_hand: 2 });
  expect(await breaks(move('B1', -4, 'adjustment'), move('WH', -4, 'adjustment'))).toEqual({});

  // Two leave, and one arrives.
  const transfer = [
    `update stock set on_hand = on_hand - 2 where place = 'B1' and sku = 'A'; update stock set on_hand = on_hand + 1 where place = 'B2' and sku = 'A'`,
    `update stock set on_hand = on_hand - 1 where place = 'WH' and sku = 'A'`,
    move('B1', -2, 'transfer_out'),
    move('B2', 1, 'transfer_in'),
    move('WH', -1, 'transfer_out'),
  ];
  expect(await breaks(...transfer)).toEqual({ transfer_conserves: 1 });

  const despatch = [stock('B1', 'on_hand = on_hand - 1'), move('B1', -1, 'despatch'), move('WH', -1, 'despatch')];
  expect(await breaks(...despatch)).toEqual({ despatch_keeps_available: 2 });

  expect(await breaks(`update stock set blocked = 2 where sku = 'BAD'`)).toEqual({
    hold_within_on_hand: 1,
    picked_within_allocated: 1,
  });
  // Stock that goes with its row is stock that went without a movement.
  expect(await breaks(`delete from stock where sku = 'BAD'`)).toEqual({ movements_explain_on_hand: 1 });
});

it('forgets nothing over a restart from the saved state, and does not keep movements', async () => {
  // Explained by nothing yet.
  expect(await breaks(stock('B1', 'on_hand = on_hand - 1'))).toEqual({ movements_explain_on_hand: 2 });
  await flow.stop('transform:stock');
  // What the state was made from is gone.
  await admin.manager.streams.purge(cdcStreamName(flow.config.nats.prefix, 'wms'), { keep: 1 });
  flow.start('transform:stock');
  // Rows of movements that were done before tell nothing again: not when they change, not when they are read again.
  expect(await breaks(`update move set at = now() where reason = 'receipt'`)).toEqual({});
  expect(await breaks(move('B1', -1, 'adjustment'), move('WH', -1, 'adjustment'))).toEqual({});
  // A movement counts when it is done.
  expect(
    await breaks(
      `insert into move (sku, place, delta, reason, state) values ('A', 'B2', 2, 'receipt', 'draft'), ('A', 'WH', 2, 'receipt', 'draft')`,
    ),
  ).toEqual({});
  expect(
    await breaks(stock('B2', 'on_hand = on_hand + 2'), `update move set state = 'done' where state = 'draft'`),
  ).toEqual({});
  expect(await breaks(stock('B2', 'allocated = allocated + 1'))).toEqual({ allocated_is_reserved: 2 });
  expect(await breaks(`insert into claim (sku, place, qty) values ('A', 'B2', 1), ('A', 'WH', 1)`)).toEqual({});
  // A count is how much there is, whatever was not explained before.
  expect(await breaks(stock('B1', 'on_hand = on_hand - 1'))).toEqual({ movements_explain_on_hand: 2 });
  const counted = `insert into move (sku, place, counted, reason)
    select sku, place, on_hand, 'count' from stock where sku = 'A' and place in ('B1', 'WH')`;
  expect(await breaks(counted)).toEqual({});
  expect(flow.failure).toBeUndefined();
});

it('holds the stock of Odoo against its moves, as the pack tells of both', async () => {
  const url = await postgres.createDatabase('odoo');
  const odoo = new pg.Client({ connectionString: url });
  await odoo.connect();
  const counted: Record<string, number> = {};
  const pipeline = await CanonicalPipeline.open({
    nats,
    sources: { odoo: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('odoo_vis'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: { odoo: { pack: 'odoo' } },
        evidence: ['location', 'inventory_movement'],
      },
    },
    report: { invariant: (name, count) => (counted[name] = (counted[name] ?? 0) + count) },
  });
  try {
    await odoo.query(`${odooDdl()};${odooRows()};
      insert into res_partner (id, name, ref) values (70, 'Consigner', 'C-70');
      insert into stock_quant (product_id, location_id, owner_id, quantity, reserved_quantity) values (1, 8, 70, 10, 4), (1, 8, null, 3, 0)`);
    pipeline.start('capture:odoo', 'transform:stock', 'apply:stock');
    const owned = `select owner, on_hand, allocated from canonical.inventory_position where sku = 'CHAIR' order by owner`;
    await pipeline.shows(owned, ['|3|0', 'C-70|10|4']);
    // What its owner sells is despatched: quant and move change together.
    await odoo.query(`begin; update stock_quant set quantity = 7, reserved_quantity = 1 where owner_id = 70;
      insert into stock_move_line (product_id, owner_id, quantity, location_id, location_dest_id, state, date) values (1, 70, 3, 8, 5, 'done', now()); commit`);
    await pipeline.shows(owned, ['|3|0', 'C-70|7|1']);
    expect(Object.values(counted)).toEqual([0, 0, 0, 0, 0, 0, 0]);
    // Somebody sets a quant right by hand, in the database.
    await odoo.query('update stock_quant set quantity = 2 where owner_id is null');
    await pipeline.shows(owned, ['|2|0', 'C-70|7|1']);
    expect(Object.entries(counted).filter(([, count]) => count > 0)).toEqual([['movements_explain_on_hand', 1]]);
  } finally {
    await pipeline.close();
    await odoo.end();
  }
});
