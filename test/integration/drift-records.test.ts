/** Comparisons of records with their sources: a warehouse on Postgres and an ERP on MySQL, joined into positions of stock. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { createConnection, type Connection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { verifyOnce } from '../../cli/verification.ts';
import type { Config } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { countKinds, coverage, isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { readVerifications } from '../../monitoring/drift/postgres/read-verifications.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { readRequest, requestAnew } from '../../transform/request.ts';
import { CommandLine } from '../support/command-line.ts';
import { Heartbeats } from '../support/heartbeats.ts';
import { waitFor } from '../support/wait.ts';

const STOCK_OF_WMS = `version: 1
name: wms
entities:
  inventory_position:
    from: quant
    join:
      product: { table: product, on: { id: product_id } }
    fields:
      sku: product.sku
      location: place
      lot: { const: '' }
      owner: { const: '' }
      uom: product.unit
      on_hand: quantity
      allocated: reserved
  inventory_movement:
    from: move
    fields:
      id: { concat: [{ const: 'M' }, id] }
      sku: sku
      location: { const: MAIN }
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      delta: quantity
      reason: { const: pick }
      occurred_at: at
  reservation:
    from: claim
    expires: until
    fields:
      order_number: order_number
      line: { const: '1' }
      part: { const: '' }
      sku: sku
      location: place
      uom: { const: EA }
      qty: quantity
      kind: { const: soft }
      expires_at: until
`;
const STOCK_OF_ERP = `version: 1
name: erp
entities:
  inventory_position:
    from: supply
    fields:
      sku: sku
      location: { const: MAIN }
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      on_order: ordered
      soft_reserved: quoted
`;
const PRODUCTS = 400;

let postgres: PostgresServer;
let mysql: MysqlServer;
let nats: NatsServer;
let client: Nats;
let folder: string;
let wms: pg.Client;
let erp: Connection;
let erpUrl: string;
let flow: CanonicalPipeline;
let config: Config;

beforeAll(async () => {
  [postgres, mysql, nats] = await Promise.all([startPostgres(), startMysql({ flavour: 'mysql' }), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-records-'));
  await writeFile(join(folder, 'wms.yaml'), STOCK_OF_WMS);
  await writeFile(join(folder, 'erp.yaml'), STOCK_OF_ERP);
  const wmsUrl = await postgres.createDatabase('wms');
  wms = new pg.Client({ connectionString: wmsUrl });
  await wms.connect();
  await wms.query(`create table product (id int primary key, sku text not null, unit text not null);
    create table quant (id int primary key, product_id int not null, place text not null, quantity numeric,
      reserved numeric not null default 0);
    create table move (id int primary key, sku text not null, quantity numeric not null, at timestamptz not null);
    create table claim (order_number text primary key, sku text not null, place text not null, quantity numeric not null,
      until timestamptz not null);
    insert into claim values ('O-1', 'P-1', 'MAIN', 1, '2099-01-01'), ('O-2', 'P-2', 'MAIN', 1, '2099-01-01');
    insert into product select i, 'P-' || i, 'EA' from generate_series(1, ${PRODUCTS}) i;
    insert into quant select i, i, 'MAIN', i + 0.5, i % 3 from generate_series(1, ${PRODUCTS}) i;
    insert into move select i, 'P-' || i, -1, '2026-01-01 00:00:00.000001+00'::timestamptz + i * interval '1 second'
      from generate_series(1, ${PRODUCTS}) i`);
  erpUrl = await mysql.createDatabase('erp');
  erp = await createConnection({ uri: erpUrl });
  await erp.query(
    'create table supply (sku varchar(20) primary key, ordered decimal(18,9) not null, quoted decimal(18,9) not null)',
  );
  const rows = Array.from({ length: PRODUCTS }, (_, i) => `('P-${i + 1}', ${i + 1}.000000001, 1)`);
  await erp.query(`insert into supply values ${rows.join(', ')}`);
  flow = await CanonicalPipeline.open({
    nats,
    sources: {
      wms: { kind: 'postgres', url: wmsUrl },
      erp: { kind: 'mysql', url: erpUrl, tables: ['erp.*'] },
    },
    targetUrl: await postgres.createDatabase('vis'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: { wms: { map: join(folder, 'wms.yaml') }, erp: { map: join(folder, 'erp.yaml') } },
        owner: { on_hand: 'wms' },
        extra_rows: 'delete',
      },
      moves: {
        canonical: 'inventory_movement',
        from: { wms: { map: join(folder, 'wms.yaml') } },
        delivery: { every: '1s' },
      },
      claims: {
        canonical: 'reservation',
        from: { wms: { map: join(folder, 'wms.yaml') } },
        delivery: { cron: '0 0 1 1 *' },
      },
    },
  });
  const verify = { ...flow.config.monitoring.verify, grace: 200 };
  config = { ...flow.config, monitoring: { ...flow.config.monitoring, verify } };
  client = await connectNats(config.nats, 'test');
  flow.start('capture:wms', 'capture:erp', 'transform:stock', 'apply:stock', 'transform:moves', 'apply:moves');
  const complete = `select count(*) from canonical.inventory_position where on_hand is not null and on_order is not null`;
  await flow.shows(complete, [String(PRODUCTS)]);
  await flow.shows('select count(*) from canonical.inventory_movement', [String(PRODUCTS)]);
});
afterAll(async () => {
  await flow?.close();
  await client?.close();
  await wms?.end();
  erp?.destroy();
  await Promise.all([postgres?.dispose(), mysql?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function compare(name: string, repair = false): Promise<FlowOutcome> {
  const signal = new AbortController().signal;
  return await verifyOnce(config, name, {
    nats: client,
    repair,
    resume: false,
    turn: { as: 'a test' },
    maxLoad: 1,
    signal,
  });
}

/** Findings as `kind key`, sorted. */
function named(outcome: FlowOutcome): string[] {
  return outcome.tables
    .flatMap((table) => openFindings(table).map(({ kind, key }) => `${kind} ${key!.join('/')}`))
    .sort();
}

/** Writes to both sources, to rows of its own, until it is stopped. */
function write(): { stop: () => Promise<void> } {
  let on = true;
  const done = (async () => {
    for (let i = 0; on; i++) {
      // So many a second as a warehouse has, and not as many as these servers bear.
      await setTimeout(4);
      const id = 200 + (i % 200);
      await wms.query('update quant set quantity = quantity + 1, reserved = $2 where id = $1', [id, i % 7]);
      await wms.query(`update move set at = at + interval '1 microsecond' where id = $1`, [id]);
      await erp.query('update supply set ordered = ordered + 1 where sku = ?', [`P-${id}`]);
      if (i % 10 === 0) await wms.query('delete from quant where id = $1', [id]);
      if (i % 10 === 5)
        await wms.query(
          `insert into quant select p.id, p.id, 'MAIN', 1, 0 from product p where id >= 200
             and not exists (select from quant q where q.id = p.id) limit 1`,
        );
    }
  })();
  return {
    stop: async () => {
      on = false;
      await done;
    },
  };
}

it('finds what differs under live writes, names it, invents nothing, and has it mended', async () => {
  const writer = write();
  try {
    for (const name of ['stock', 'moves']) {
      const outcome = await compare(name);
      expect(named(outcome)).toEqual([]);
      expect(isProven(outcome)).toBe(true);
      expect(coverage(outcome.tables)).toBe(1);
      expect(outcome.tables[0]!.progress.rows).toBeGreaterThanOrEqual(PRODUCTS - 1);
    }
    const proven = await readVerifications(flow.target, ['stock', 'moves']);
    expect([...proven.values()].map(({ state }) => state)).toEqual(['equal', 'equal']);

    await flow.target.query(`
      update canonical.inventory_position set on_hand = on_hand + 1e-9 where sku = 'P-7';
      update canonical.inventory_position set on_order = null where sku = 'P-8';
      update canonical.inventory_position p set allocated = q.allocated from canonical.inventory_position q
       where (p.sku, q.sku) in (('P-10', 'P-11'), ('P-11', 'P-10'));
      update canonical.inventory_position set uom = 'EA ' where sku = 'P-12';
      delete from canonical.inventory_position where sku = 'P-20';
      insert into canonical.inventory_position select (jsonb_populate_record(p, '{"sku": "P-21x"}')).*
        from canonical.inventory_position p where sku = 'P-21';
      update canonical.inventory_movement set occurred_at = occurred_at + interval '1 microsecond' where id = 'M7';
      delete from canonical.inventory_movement where id = 'M9';
      insert into canonical.inventory_movement select (jsonb_populate_record(m, '{"id": "M9x"}')).*
        from canonical.inventory_movement m where id = 'M10'`);
    // A change that no log tells of.
    const silent = await createConnection({ uri: erpUrl });
    await silent.query('set sql_log_bin = 0');
    await silent.query(`update supply set quoted = 2 where sku = 'P-30'`);
    silent.destroy();
    const drift = [
      ...['P-10', 'P-11', 'P-12', 'P-30', 'P-7', 'P-8'].map((sku) => `different default/${sku}/MAIN//`),
      'extra default/P-21x/MAIN//',
      'missing default/P-20/MAIN//',
    ];
    const stock = await compare('stock');
    expect(named(stock)).toEqual(drift);
    expect(named(await compare('moves'))).toEqual(['different default/M7', 'extra default/M9x', 'missing default/M9']);
    const found = await readVerifications(flow.target, ['stock', 'moves']);
    expect([...found.values()].map(({ state, driftRows }) => [state, driftRows])).toEqual([
      ['drift', 8],
      ['drift', 3],
    ]);
    // What is equal is not written again.
    const others = `select xmin::text from canonical.inventory_movement where id in ('M1', 'M10', 'M50') order by id`;
    const before = await flow.lines(others);

    const [mended] = (await compare('stock', true)).tables;
    expect(mended!.repaired).toEqual({ asked: 8, left: [] });
    expect(countKinds(openFindings(mended!))).toEqual({ missing: 0, extra: 0, different: 0 });
    // Of a flow that does not say so extra rows are not deleted.
    const [reported] = (await compare('moves', true)).tables;
    expect(reported!.repaired).toMatchObject({ asked: 2, left: [{ kind: 'extra', key: ['default', 'M9x'] }] });
    expect(await flow.lines(others)).toEqual(before);
    await flow.target.query(`delete from canonical.inventory_movement where id = 'M9x'`);
    expect(await flow.lines(`select soft_reserved from canonical.inventory_position where sku = 'P-30'`)).toEqual([
      '2',
    ]);
    const audited = `select actor is not null, subject from waybill.audit where action = 'repair' order by subject`;
    expect(await flow.lines(audited)).toEqual(['true|flow moves', 'true|flow stock']);
  } finally {
    await writer.stop();
  }
  expect(flow.failure).toBeUndefined();
});

it('claims nothing of what waits for its delivery', async () => {
  flow.start('transform:claims', 'apply:claims');
  const claims = 'select order_number, qty from canonical.reservation order by order_number';
  await flow.shows(claims, ['O-1|1', 'O-2|1']);
  const before = await compare('claims');
  expect(named(before)).toEqual([]);
  await wms.query(`insert into claim values ('O-3', 'P-3', 'MAIN', 1, '2099-01-01');
    update claim set quantity = 2 where order_number = 'O-1'; delete from claim where order_number = 'O-2'`);
  const outcome = await compare('claims');
  expect(named(outcome)).toEqual([]);
  expect(await flow.lines(claims)).toEqual(['O-1|1', 'O-2|1']);
  const [{ progress }] = outcome.tables as [FlowOutcome['tables'][number]];
  expect(progress.leftOut).toEqual([
    { what: 'claim', why: expect.stringContaining('delivery'), records: 2, share: expect.any(Number) },
  ]);
  expect(coverage(outcome.tables)).toBeLessThan(0.5);
});

it('claims nothing of what has expired and waits for its delivery', async () => {
  await wms.query(`update claim set until = now() + interval '6 seconds' where order_number = 'O-1'`);
  // Delivered when all are written anew, it is there until the next delivery.
  const bucket = await openBucket(client, config.nats);
  await waitFor('the claim that will expire', async () => {
    const id = await requestAnew(config.nats, 'claims');
    await waitFor('all claims written anew', async () => (await readRequest(bucket, 'claims'))?.id !== id);
    return (await flow.lines(`select 1 from canonical.reservation where expires_at < '2099-01-01'`)).length === 1;
  });
  // Rows expire by whole seconds.
  const expired = `select count(*) from canonical.reservation where order_number = 'O-1' and date_trunc('second', now()) >= expires_at`;
  await flow.shows(expired, ['1']);
  const outcome = await compare('claims');
  expect(named(outcome)).toEqual([]);
  expect(await flow.lines(expired), 'nothing has been delivered').toEqual(['1']);
  const [{ progress }] = outcome.tables as [FlowOutcome['tables'][number]];
  expect(progress.leftOut).toEqual([expect.objectContaining({ why: expect.stringContaining('delivery') })]);
});

it('a heartbeat of each source passes the transform too', async () => {
  const beats = new Heartbeats(config, 'stock', 'vis');
  try {
    for (const source of ['wms', 'erp']) await beats.arrive(source);
    for (const stage of ['transform:stock', 'apply:stock']) {
      await flow.stop(stage);
      for (const source of ['wms', 'erp']) await beats.stayAway(source);
      flow.start(stage);
      for (const source of ['wms', 'erp']) await beats.arrive(source);
    }
  } finally {
    await beats.close();
  }
});

it('ends the command with 1 on drift, and repairs by itself on a schedule', async () => {
  const began = Date.now();
  await flow.target.query(`delete from canonical.inventory_movement where id = 'M11'`);
  const cli = await CommandLine.open();
  try {
    const monitoring = { listen: '127.0.0.1:0', verify: { every: '1s', max_load: 1, grace: '200ms', repair: true } };
    const yaml = JSON.stringify({ ...(JSON.parse(flow.yaml) as object), monitoring });
    const told = await cli.waybill(yaml, ['verify', 'moves']);
    expect(told.output).toContain('canonical.inventory_movement missing key ["default","M11"]');
    expect(told.output).toContain('flow moves: NOT proven equal');
    expect(told.status).toBe(1);
    const ran = await cli.waybill(yaml, ['run', '--only', 'verify:moves'], (output) => output.includes('"compared"'));
    expect(ran.output).not.toContain('"level":50');
  } finally {
    await cli.close();
  }
  expect(await flow.lines(`select id from canonical.inventory_movement where id = 'M11'`)).toEqual(['M11']);
  const proven = (await readVerifications(flow.target, ['moves'])).get('moves')!;
  expect(proven.provenAt!.getTime()).toBeGreaterThan(began);
  expect(proven.driftRows).toBe(0);
});
