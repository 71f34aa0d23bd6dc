/** Drift between real servers: every kind that is planted is found, nothing is invented, and repairs go through the stream. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { verify } from '../../cli/commands/verify.ts';
import { lastProof, lastRun } from '../../cli/console/drift.ts';
import { openBucket } from '../../core/lease.ts';
import { createLogger } from '../../core/logger.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { comparePlan } from '../../monitoring/drift/compare-plan.ts';
import { LookBack } from '../../monitoring/drift/confirm.ts';
import { formatDigest } from '../../monitoring/drift/digest.ts';
import { oneAtATime } from '../../monitoring/drift/one-at-a-time.ts';
import { closeSides, openSides } from '../../monitoring/drift/open-sides.ts';
import { newTableProgress, verifyTable } from '../../monitoring/drift/verify-table.ts';
import { Pace } from '../../monitoring/drift/pace.ts';
import { PostgresDriftSource, type DigestPlace } from '../../monitoring/drift/postgres/postgres-side.ts';
import { isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { readVerifications } from '../../monitoring/drift/postgres/read-verifications.ts';
import type { KeyTexts } from '../../monitoring/drift/side.ts';
import { runSchedule } from '../../monitoring/drift/schedule.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { openReader } from '../../monitoring/sql-reader.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { NobodyStandby } from '../support/nobody-standby.ts';
import { Pipeline } from '../support/pipeline.ts';
import { waitFor } from '../support/wait.ts';

let postgres: PostgresServer;
let nats: NatsServer;
let pipeline: Pipeline | undefined;

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterEach(async () => {
  await pipeline?.close();
  pipeline = undefined;
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

const DDL = `
create table items (id bigint primary key, sku text, qty numeric, price numeric(12,2), note text, at timestamptz not null,
  ok boolean, doc jsonb, raw bytea);
insert into items select i, 'SKU-' || i, i / 7.0, i % 1000, case when i % 5 = 0 then null else 'note ' || i end,
  '2024-01-01'::timestamptz + i * interval '1 second', i % 2 = 0, jsonb_build_object('n', i), decode(md5(i::text), 'hex')
  from generate_series(1, 20000) i;
create table codes (code text, lot numeric, body text, primary key (code, lot));
insert into codes select 'Code ' || i, i / 2.0, repeat('b', i % 50) from generate_series(1, 5000) i;
create table log (at timestamptz, line text);
alter table log replica identity full;
insert into log select '2024-01-01'::timestamptz + (i % 100) * interval '1 second', 'line ' || (i % 500) from generate_series(1, 3000) i;
create table hot (id int primary key, n bigint not null);
insert into hot select i, 0 from generate_series(1, 50) i;
create view busy as select id from items where ok;`;
const TABLES = ['items', 'codes', 'log', 'hot'];

/** What is planted in the target, behind the back of the flow. */
const PLANTS: Readonly<Record<string, string>> = {
  'items missing 101': `delete from items where id = 101`,
  'items extra 900001': `insert into items select 900001, sku, qty, price, note, at, ok, doc, raw from items where id = 102`,
  'items different 103': `update items set sku = 'other' where id = 103`,
  'items different 104, 106: a swapped pair': `update items set qty = (select qty from items i where i.id = 210 - items.id) where id in (104, 106)`,
  'items different 108: an empty text for NULL': `update items set note = '' where id = 110`,
  'items different 111: 1e-9': `update items set qty = qty + 0.000000001 where id = 111`,
  'items different 112: a microsecond': `update items set at = at + interval '1 microsecond' where id = 112`,
  'items different 113: a trailing space': `update items set note = note || ' ' where id = 113`,
  'items different 114: another normal form': `update items set note = normalize(note || 'é', NFD) where id = 114`,
  'items different 115: one bit': `update items set raw = set_bit(raw, 0, 1 - get_bit(raw, 0)) where id = 115`,
  'codes different': `update codes set body = body || 'x' where code = 'Code 77'`,
  'codes missing': `delete from codes where code = 'Code 78'`,
  'codes extra': `insert into codes values ('Code 79', 39.51, 'b')`,
  'log, a row twice': `insert into log values ('2024-01-01 00:00:07+00', 'line 7')`,
  'log, a row gone': `delete from log where ctid = (select min(ctid) from log where line = 'line 11')`,
};
const EXPECTED = [
  'codes different ["Code 77","38.5"]',
  'codes extra ["Code 79","39.51"]',
  'codes missing ["Code 78","39"]',
  'items different ["103"]',
  'items different ["104"]',
  'items different ["106"]',
  'items different ["110"]',
  'items different ["111"]',
  'items different ["112"]',
  'items different ["113"]',
  'items different ["114"]',
  'items different ["115"]',
  'items extra ["900001"]',
  'items missing ["101"]',
  'log extra 1',
  'log missing 1',
];

function found(outcome: FlowOutcome): string[] {
  return outcome.tables
    .flatMap((table) =>
      openFindings(table).map(
        ({ kind, key, copies }) => `${table.name} ${kind} ${key === null ? copies : JSON.stringify(key)}`,
      ),
    )
    .sort();
}

/** Writes into the source without a pause, but never into the rows that are planted. */
function workload(url: string): { stop(): Promise<number> } {
  let running = true;
  let transactions = 0;
  let loggedMs = 0;
  const work = (async () => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    while (running) {
      transactions += 1;
      // A table without a key is read again as a whole, for which it must be left alone for a moment.
      const logs = performance.now() - loggedMs > 400;
      if (logs) loggedMs = performance.now();
      const id = 1000 + Math.floor(Math.random() * 15_000);
      await client.query(
        `begin; update hot set n = n + 1 where id = ${1 + (transactions % 50)};
         update items set qty = qty + 1, note = '${randomUUID()}' where id = ${id};
         delete from items where id = ${id + 1}; insert into items (id, at) values (${1_000_000 + transactions}, now());
         update codes set body = '${randomUUID()}' where code = 'Code ${500 + (transactions % 4000)}';
         ${logs ? `insert into log values (now(), '${randomUUID()}');` : ''} commit`,
      );
      if (transactions % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await client.end();
  })();
  return {
    async stop() {
      running = false;
      await work;
      return transactions;
    },
  };
}

describe('drift', () => {
  it('finds nothing where nothing differs, and all that is planted where something does, at rest', async () => {
    pipeline = await Pipeline.open(postgres, nats, DDL, { schema: 'wms' });
    pipeline.start();
    await pipeline.target.query('set search_path to wms');
    await waitForRows(pipeline);
    const clean = await pipeline.verify();
    expect(found(clean)).toEqual([]);
    expect(isProven(clean)).toBe(true);
    expect(clean.tables.map((table) => [table.name, table.progress.rows])).toEqual([
      ['codes', 5000],
      ['hot', 50],
      ['items', 20_000],
      ['log', 3000],
    ]);
    for (const sql of Object.values(PLANTS)) await pipeline.target.query(sql);
    const drifted = await pipeline.verify();
    expect(found(drifted)).toEqual(EXPECTED);
    expect(isProven(drifted)).toBe(false);
    const stored = await pipeline.target.query(
      `select table_name || ' ' || kind as what from waybill.drift where state = 'open' order by 1`,
    );
    expect(stored.rowCount).toBe(EXPECTED.length);
  });

  it('tells drift from changes in flight while the source is written to, repairs it through the stream, and proves it', async () => {
    pipeline = await Pipeline.open(postgres, nats, DDL, { schema: 'wms' });
    pipeline.start();
    await pipeline.target.query('set search_path to wms');
    await waitForRows(pipeline);
    const load = workload(pipeline.config.sources['wms']!.url);
    try {
      expect(found(await pipeline.verify())).toEqual([]);
      for (const sql of Object.values(PLANTS)) await pipeline.target.query(sql);
      const drifted = await pipeline.verify({ repair: true });
      expect(drifted.tables.flatMap((table) => table.repaired?.asked ?? [])).toEqual([3, 11, 2]);
      expect(found(drifted)).toEqual([]);
    } finally {
      expect(await load.stop()).toBeGreaterThan(50);
    }
    const proven = await pipeline.verify();
    expect(found(proven)).toEqual([]);
    expect(isProven(proven)).toBe(true);
    const open = await pipeline.target.query(`select from waybill.drift where state = 'open'`);
    expect(open.rowCount).toBe(0);
  });

  it('takes what waits for a synchronous standby of the source for what it is: in flight', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `create table a (id int primary key, v text); insert into a values (1, 'old'); create table b (id int primary key)`,
    );
    // One server has both databases. Who compares may wait for nobody by itself.
    for (const client of [pipeline.source, pipeline.target])
      await client.query(
        `do $$ begin execute format('alter database %I set synchronous_commit = local', current_database()); end $$`,
      );
    pipeline.start();
    await pipeline.settled(['a']);
    const { source, target } = pipeline;
    const standby = await NobodyStandby.name(pipeline.config.sources['wms']!.url);
    try {
      await standby.commit(`update a set v = 'new'`);
      await waitFor('the change in the target', async () => {
        const { rows } = await target.query<{ v: string }>('select v from a');
        return rows[0]!.v === 'new';
      });
      // Its frame is not the last one.
      await source.query('set synchronous_commit = local');
      for (let id = 1; id <= 3; id++) {
        await source.query('insert into b values ($1)', [id]);
        await pipeline.settled(['b']);
      }
      let ended = false;
      const verified = pipeline.verify().finally(() => (ended = true));
      verified.catch(() => undefined);
      await waitFor('the comparison to wait as well', async () => ended || (await standby.waiting()) > 1);
      await standby.release();
      const outcome = await verified;
      expect(found(outcome)).toEqual([]);
      expect(isProven(outcome)).toBe(true);
    } finally {
      await standby.release();
    }
  });

  it('deletes extra rows only where it is told to', async () => {
    pipeline = await Pipeline.open(postgres, nats, 'create table a (id int primary key); insert into a values (1)');
    pipeline.start();
    await pipeline.settled(['a']);
    await pipeline.target.query('insert into a values (2)');
    const kept = await pipeline.verify({ repair: true, deleteExtra: false });
    expect(found(kept)).toEqual(['a extra ["2"]']);
    const ignored = await pipeline.verify({ ignoreExtra: true });
    expect(found(ignored)).toEqual([]);
    const deleted = await pipeline.verify({ repair: true });
    expect(found(deleted)).toEqual([]);
    expect((await pipeline.target.query('select id from a')).rows).toEqual([{ id: 1 }]);
  });

  it('claims no more than it has looked at where more rows differ than it lists', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      'create table a (id int primary key); insert into a select generate_series(1, 9)',
    );
    pipeline.start();
    await pipeline.settled(['a']);
    await pipeline.target.query(
      'delete from a where id <= 5; insert into a values (100); alter table a add check (id <> 5)',
    );
    const listed = await pipeline.verify({ repair: true, deleteExtra: false, maxFindings: 2 });
    // The whole table is not read again, since that would remove the extra row.
    expect(listed.tables[0]!.repaired).toMatchObject({ asked: 2, left: { length: 2 } });
    expect((await pipeline.target.query('select id from a where id <= 5 or id = 100 order by 1')).rows).toEqual([
      { id: 1 },
      { id: 2 },
      { id: 100 },
    ]);
    await pipeline.target.query('delete from a where id < 3');
    const whole = await pipeline.verify({ repair: true, maxFindings: 2 });
    expect(found(whole)).toEqual(['a missing ["5"]']);
    expect(isProven(whole)).toBe(false);
  });

  it('goes on where it was stopped', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `create table big (id int primary key, t text); insert into big select i, 'x' from generate_series(1, 60000) i`,
    );
    pipeline.start();
    await pipeline.settled(['big']);
    await pipeline.target.query(`update big set t = 'y' where id = 10`);
    const stop = new AbortController();
    const stopped = pipeline.verify({ signal: stop.signal, maxLoad: 0.05 });
    const saved = async (): Promise<boolean> => {
      const { rows } = await pipeline!.target.query<{ cursor: string[] | null }>(
        `select tables -> 'public.big' -> 'cursor' as cursor from waybill.drift_run order by id desc limit 1`,
      );
      return rows[0]?.cursor != null;
    };
    while (!(await saved().catch(() => false))) await new Promise((resolve) => setTimeout(resolve, 5));
    stop.abort();
    await expect(stopped).rejects.toThrow();
    const { rows } = await pipeline.target.query<{ rows: number }>(
      `select (tables -> 'public.big' -> 'rows')::int as rows from waybill.drift_run order by id desc limit 1`,
    );
    expect(rows[0]!.rows).toBeLessThan(60_000);
    const resumed = await pipeline.verify({ resume: true });
    expect(resumed.tables[0]!.progress.rows).toBe(60_000);
    expect(found(resumed)).toEqual(['big different ["10"]']);
    expect((await pipeline.target.query('select from waybill.drift_run')).rowCount).toBe(1);
  });

  it('reads a table in ranges, and goes on where it was stopped, also by keys in the order of a language', async () => {
    const key = 'k text collate "en-x-icu" primary key';
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `create table words (${key}, n int); insert into words select (array['a', 'B', 'é', 'Z'])[1 + i % 4] || '-' || i, i
         from generate_series(1, 60000) i`,
    );
    await pipeline.target.query(`create table words (${key}, n int)`);
    pipeline.start();
    await pipeline.settled(['words']);
    await pipeline.target.query(`update words set n = 0 where k = 'B-41'; delete from words where k = 'é-42'`);
    const stop = new AbortController();
    const stopped = pipeline.verify({ signal: stop.signal, maxLoad: 0.05 });
    const compared = async (): Promise<{ cursor: string[] | null; rows: number } | undefined> => {
      const { rows } = await pipeline!.target.query<{ cursor: string[] | null; rows: number }>(
        `select t -> 'cursor' as cursor, (t -> 'rows')::int as rows
           from (select tables -> 'public.words' as t from waybill.drift_run order by id desc limit 1) x`,
      );
      return rows[0];
    };
    await waitFor('a first range', async () => (await compared().catch(() => undefined))?.cursor != null);
    stop.abort();
    await expect(stopped).rejects.toThrow();
    expect((await compared())!.rows).toBeLessThan(60_000);
    const resumed = await pipeline.verify({ resume: true });
    expect(found(resumed)).toEqual(['words different ["B-41"]', 'words missing ["é-42"]']);
    expect(resumed.tables[0]!.progress.rows).toBe(60_000);
  });

  it('finds the same where the order of keys is believed to be that of the other side and is not', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `create table words (k text collate "en-x-icu" primary key, n int);
       insert into words select (array['a', 'B', 'é', 'Z'])[1 + i % 4] || '-' || i, i from generate_series(1, 12000) i`,
    );
    await pipeline.target.query('create table words (k text collate "C" primary key, n int)');
    pipeline.start();
    await pipeline.settled(['words']);
    await pipeline.target.query(`update words set n = 0 where k = 'B-41'; delete from words where k = 'é-42';
      insert into words values ('b-43', 1)`);
    const sides = await openSides(pipeline.config, 'mirror');
    try {
      const [[source], [target]] = [await sides.source.tables(), await sides.target.tables()];
      const plan = comparePlan(source!, target);
      expect(plan.ranged).toBe(false);
      const progress = newTableProgress();
      const lookBack = new LookBack();
      lookBack.note(await sides.source.watermark());
      let ranges = 0;
      await verifyTable({
        ...sides,
        plan: { ...plan, ranged: true },
        nats: pipeline.nats,
        stream: cdcStreamName(pipeline.config.nats.prefix, 'wms'),
        pace: new Pace(1, new AbortController().signal),
        graceMs: 50,
        ignoreExtra: false,
        lookBack,
        progress,
        maxFindings: 100,
        onProgress: () => Promise.resolve(void (ranges += 1)),
      });
      expect(ranges).toBeGreaterThan(2);
      expect(progress.rows).toBe(12_000);
      expect(progress.findings.map(({ kind, key }) => `${kind} ${key!.join()}`).sort()).toEqual([
        'different B-41',
        'extra b-43',
        'missing é-42',
      ]);
    } finally {
      await closeSides(sides);
    }
  });

  it('finds a table that the target lost', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      'create table a (id int primary key); insert into a values (1), (2)',
    );
    pipeline.start();
    await pipeline.settled(['a']);
    await pipeline.target.query('drop table a');
    expect(found(await pipeline.verify())).toEqual(['a missing ["1"]', 'a missing ["2"]']);
  });

  it('finds a row that the target has twice, and proves nothing of rows that lack a column', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `create table a (id int primary key, v text); insert into a values (1, 'x'), (2, 'y');
       create table b (id int primary key, v text); insert into b values (1, 'x')`,
    );
    pipeline.start();
    await pipeline.settled(['a', 'b']);
    await pipeline.target.query('alter table a drop constraint a_pkey; insert into a select * from a where id = 2');
    expect(found(await pipeline.verify())).toEqual(['a extra ["2"]']);
    await pipeline.target.query(
      `delete from a where id = 2; insert into a values (2, 'y'); alter table b drop column v`,
    );
    const outcome = await pipeline.verify();
    expect(found(outcome)).toEqual([]);
    expect(outcome.tables.map(({ progress, skippedColumns }) => [progress.unresolved, skippedColumns])).toEqual([
      [0, []],
      [1, ['v']],
    ]);
    expect(isProven(outcome)).toBe(false);
    expect((await readVerifications(pipeline.target, ['mirror'])).get('mirror')).toMatchObject({ state: 'unresolved' });
    const reader = await openReader('target', pipeline.config.targets['vis']!, 'test');
    expect(await lastRun(reader, 'mirror')).toMatchObject({ state: 'done', unresolved: true });
    await reader.close();
  });

  it('proves nothing of a flow that has no table, and leaves open what was found', async () => {
    pipeline = await Pipeline.open(postgres, nats, 'create table a (id int primary key); insert into a values (1)');
    pipeline.start();
    await pipeline.settled(['a']);
    const proven = await pipeline.verify();
    expect(isProven(proven)).toBe(true);
    await pipeline.target.query('delete from a');
    expect(found(await pipeline.verify())).toEqual(['a missing ["1"]']);
    await expect(pipeline.verify({ includes: () => false })).rejects.toMatchObject({
      code: 'source_table_missing',
      message: expect.stringContaining('flow mirror: nothing was compared'),
    });
    expect((await readVerifications(pipeline.target, ['mirror'])).get('mirror')).toMatchObject({
      state: 'failed',
      driftRows: 1,
      provenAt: proven.startedAt,
    });
    const reader = await openReader('target', pipeline.config.targets['vis']!, 'test');
    expect(await lastProof(reader, 'mirror'), 'the console looks behind the newest comparison').toBe(
      proven.startedAt.toISOString(),
    );
    await reader.close();
  });

  it('closes what it found of tables that the flow has no more', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      'create table a (id int primary key); create table b (id int primary key); insert into b values (1), (2)',
    );
    pipeline.start();
    await pipeline.settled(['a', 'b']);
    await pipeline.target.query('delete from b where id = 1');
    expect(found(await pipeline.verify())).toEqual(['b missing ["1"]']);
    const open = async (): Promise<unknown> =>
      (await readVerifications(pipeline!.target, ['mirror'])).get('mirror')!.driftRows;
    expect(await open()).toBe(1);
    await pipeline.source.query('drop table b');
    expect(isProven(await pipeline.verify())).toBe(true);
    expect(await open()).toBe(0);
  });

  it('reads and compares keys with backslashes in databases that take these for escapes', async () => {
    const escapes = `do $$ begin execute format('alter database %I set standard_conforming_strings = off', current_database()); end $$`;
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `${escapes}; set standard_conforming_strings = on;
       create table odd (k text collate "C" primary key, n int)`,
      {},
      postgres,
      { snapshot_chunk_rows: 1 },
    );
    for (const key of ['\\', 'a\\', 'a\\n', 'a\n', `a'\\b`, 'b', `\\'`, `'`])
      await pipeline.source.query('insert into odd values ($1, 1)', [key]);
    await pipeline.target.query(escapes);
    pipeline.start();
    await pipeline.settled(['odd']);
    const outcome = await pipeline.verify();
    expect([found(outcome), isProven(outcome), outcome.tables[0]!.progress.rows]).toEqual([[], true, 8]);
    await pipeline.target.query(`update odd set n = 2`);
    expect(found(await pipeline.verify())).toHaveLength(8);
    expect(found(await pipeline.verify({ repair: true }))).toEqual([]);
    const side = await PostgresDriftSource.open('x', {
      url: pipeline.config.sources['wms']!.url,
      applicationName: 'test',
      include: () => true,
    });
    try {
      const [table] = await side.tables();
      const plan = comparePlan(table!, table);
      const pace = new Pace(1, AbortSignal.timeout(60_000));
      let rows = 0;
      let after: KeyTexts | null = null;
      do {
        const upTo: KeyTexts | null = (await side.boundary(plan.source, after, 1)) ?? null;
        rows += (await side.scan(plan.source, { kind: 'range', after, upTo }, 0, pace)).rows;
        after = upTo;
      } while (after !== null);
      expect(rows).toBe(8);
    } finally {
      await side.close();
    }
  });

  it('a row that comes while a table without a key begins to be read is not there twice', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      `create table log (line text); alter table log replica identity full; insert into log values ('first');
       create function public.pg_logical_emit_message(transactional boolean, prefix text, content text) returns pg_lsn
         language plpgsql as $body$ begin
           if content::json ->> 'k' = 'low' then insert into log values ('as it began ' || clock_timestamp()); end if;
           return pg_catalog.pg_logical_emit_message(transactional, prefix, content);
         end $body$;
       do $body$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database()); end $body$`,
    );
    pipeline.start();
    await pipeline.settled(['log']);
    const outcome = await pipeline.verify();
    expect([found(outcome), isProven(outcome)]).toEqual([[], true]);
    await pipeline.target.query(`delete from log where line = 'first'`);
    expect(found(await pipeline.verify({ repair: true }))).toEqual([]);
    const { rows } = await pipeline.target.query('select line from log group by line having count(*) > 1');
    expect(rows).toEqual([]);
    await pipeline.settled(['log']);
  });

  it('a key with a NUL is kept, and is the same when a comparison goes on', async () => {
    pipeline = await Pipeline.open(postgres, nats, 'create table a (id int primary key)');
    await pipeline.target.query('create schema waybill');
    const { store, ...sides } = await openSides(pipeline.config, 'mirror');
    try {
      const run = await store.begin(false);
      const key = ['a\0b', 'a\\u0000'];
      const finding = { id: JSON.stringify(key), key, kind: 'missing', copies: 1 } as const;
      run.tables.set('public.a', { ...newTableProgress(), findings: [finding], candidates: [finding] });
      await store.save(run, 'public.a');
      await store.settle(run, 'public', 'a', { key: ['k', 'l'], images: new Map() });
      const again = await store.begin(true);
      expect(again.tables.get('public.a')).toEqual(run.tables.get('public.a'));
      expect((await pipeline.target.query('select key from waybill.drift')).rows).toEqual([
        { key: ['a␀b', 'a\\u0000'] },
      ]);
    } finally {
      await closeSides({ ...sides, store });
    }
  });

  it('`waybill verify` answers by its exit status, and repairs', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      'create table a (id int primary key); insert into a values (1), (2)',
      {
        extra_rows: 'delete',
      },
    );
    pipeline.start();
    await pipeline.settled(['a']);
    const file = join(await mkdtemp(join(tmpdir(), 'waybill-')), 'waybill.yaml');
    await writeFile(file, pipeline.yaml);
    const lines = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    try {
      expect(await verify([], { config: file })).toBe(0);
      await pipeline.target.query('delete from a where id = 1; insert into a values (3)');
      // A flow that cannot be compared keeps no other from being, and is told of.
      const two = JSON.parse(pipeline.yaml) as { flows: Record<string, object> };
      two.flows = { nothing: { ...two.flows['mirror'], tables: ['public.typo'] }, ...two.flows };
      await writeFile(file, JSON.stringify(two));
      expect(await verify([], { config: file, json: true })).toBe(1);
      expect(JSON.parse(String(lines.mock.lastCall?.[0]))).toMatchObject([
        { flow: 'nothing', equal: false, error: { code: 'source_table_missing', remedy: expect.anything() } },
        { flow: 'mirror', equal: false, tables: [{ table: 'public.a', missing: 1, extra: 1, different: 0 }] },
      ]);
      expect(await verify(['nothing'], { config: file })).toBe(1);
      await writeFile(file, pipeline.yaml);
      expect(await verify([], { config: file, repair: true })).toBe(0);
      expect(await verify([], { config: file })).toBe(0);
      await expect(verify(['miror'], { config: file })).rejects.toThrow('did you mean "mirror"?');
    } finally {
      lines.mockRestore();
    }
  });

  it('compares a flow once at a time: whoever comes later waits, and is told for whom', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      'create table a (id int primary key); insert into a values (1), (2)',
    );
    pipeline.start();
    await pipeline.settled(['a']);
    const file = join(await mkdtemp(join(tmpdir(), 'waybill-')), 'waybill.yaml');
    await writeFile(file, pipeline.yaml);
    const said = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    vi.spyOn(console, 'log').mockImplementation(() => undefined);
    try {
      const bucket = await openBucket(pipeline.nats, pipeline.config.nats);
      const { signal } = new AbortController();
      let waiting: Promise<number> | undefined;
      const first = oneAtATime(bucket, 'mirror', { as: 'the schedule', signal }, async () => {
        const here = async (): Promise<number> => (await pipeline!.verify()).tables.length;
        waiting = verify([], { config: file });
        await expect
          .poll(() => said.mock.lastCall?.[0])
          .toMatch(/mirror is being compared by the schedule \(.+ process/);
        await expect(
          oneAtATime(bucket, 'mirror', { as: 'the console', waitMs: 1, signal }, here),
        ).rejects.toMatchObject({
          code: 'verify_busy',
          message: expect.stringMatching(/^flow mirror is being compared by the schedule \(.+\)$/),
        });
        expect((await pipeline!.target.query(`select to_regclass('waybill.drift_run') as runs`)).rows).toEqual([
          { runs: null },
        ]);
        return await here();
      });
      expect(await first).toBe(1);
      expect(await waiting).toBe(0);
    } finally {
      vi.restoreAllMocks();
    }
  });

  it('a schedule compares again and again, and says so in the metrics', async () => {
    pipeline = await Pipeline.open(
      postgres,
      nats,
      'create table a (id int primary key); insert into a values (1), (2)',
    );
    pipeline.start();
    await pipeline.settled(['a']);
    const metrics = new Metrics();
    const stop = new AbortController();
    const running = runSchedule({
      flow: 'mirror',
      everyMs: 100,
      nats: pipeline.config.nats,
      holder: 'test',
      leaseTtlMs: 10_000,
      report: metrics.driftReport('mirror'),
      log: createLogger('silent'),
      signal: stop.signal,
      verify: async (_, signal) => {
        const report = metrics.driftReport('mirror');
        return await pipeline!.verify({
          signal,
          resume: true,
          onTable: (table) => report.compared(table),
          onShare: (share) => report.coverage(share),
        });
      },
    });
    const series = async (line: RegExp): Promise<number | undefined> => {
      const found = line.exec(await metrics.registry.metrics())?.[1];
      return found === undefined ? undefined : Number(found);
    };
    const verified = /^waybill_drift_verified_timestamp_seconds\{flow="mirror"\} (\S+)$/m;
    const first = await waitFor('a first proof', () => series(verified));
    expect(Math.abs(first - Date.now() / 1000)).toBeLessThan(20);
    // Also while the next comparison is under way.
    expect(await series(/^waybill_drift_coverage_ratio\{flow="mirror"\} (\S+)$/m)).toBe(1);
    await pipeline.target.query('delete from a where id = 1');
    const missing = /^waybill_drift_rows\{flow="mirror",table="public.a",kind="missing"\} (\S+)$/m;
    await waitFor('the missing row', async () => ((await series(missing)) === 1 ? true : undefined));
    await pipeline.target.query('insert into a values (1)');
    await waitFor('its return', async () => ((await series(missing)) === 0 ? true : undefined));
    await waitFor('a later proof', async () => ((await series(verified))! > first ? true : undefined));
    stop.abort();
    await running;
  });

  it.each(['server', 'here'] as const)('digests of every type, worked out there (%s), agree', async (place) => {
    expect(await digests('server')).toEqual(await digests(place));
  });
});

async function waitForRows(pipeline: Pipeline): Promise<void> {
  await pipeline.source.query('set search_path to public');
  await pipeline.settled(TABLES);
}

const TYPES = `
create type mood as enum ('a b', 'c');
create domain code as text;
create table every_type (id int primary key, a smallint, b bigint, c numeric, d numeric(20,5), e real, f double precision,
  g text, h varchar(20), i char(8), j bytea, k date, l timestamp, m timestamptz, n time, o timetz, p interval, q boolean,
  r uuid, s json, t jsonb, u inet, v cidr, w int[], x text[], y mood, z code, aa point, ab int4range, ac bit(5), ad xml, ae oid);
insert into every_type (id) values (0);
insert into every_type values
 (1, -1, 9223372036854775807, '1.500', 1.5, 0.1, 1e300, E'a\\tb\\n\\\\;:é', 'v', 'pad', '\\x00ff', '-infinity', 'infinity', '0044-03-15 12:00:00.000001+00 BC', '24:00', '12:00+02',
  '-1 mon 3 days -00:00:00.000001', true, '00000000-0000-0000-0000-000000000001', '{"a": 1.0 , "a":2}', '{"b":1,"a":[1.50]}', '10.0.0.1', '10.0.0.0/8', '{1,NULL,3}', '{"NULL",NULL,""}', 'a b', 'z', '(1,2)', '[1,5)', '10101', '<a/>', 5),
 (2, 0, 0, 'NaN', 0, 'NaN', '-Infinity', '', '', '', '', '2024-02-29', '2024-02-29 00:00:00.1', '2024-02-29 00:00:00.123456+05:30', '00:00', '00:00+00',
  'PT0S', false, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'null', 'null', '::1', '::/0', '{}', '{}', 'c', '', '(1e-10,-0)', 'empty', '00000', '', 0),
 (3, 1, -1, 1e-12, -0.00001, -0.0, 5e-324, 'Infinity', '1', '1', '\\x', 'infinity', '-infinity', 'infinity', '23:59:59.999999', '00:00:00-14', '1 year', null, null, '[]', '{}', '10.0.0.1/24', null, '{{1,2},{3,4}}', '{a,"b,c","d\\"e"}', null, 'é', null, null, null, null, null);`;

/** Digests of every row, compared with itself and with a target whose types differ. */
async function digests(place: DigestPlace): Promise<unknown> {
  const url = await postgres.createDatabase(`types_${randomUUID().slice(0, 8)}`);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(TYPES);
  await client.end();
  const side = await PostgresDriftSource.open('x', {
    url,
    applicationName: 'test',
    include: () => true,
    digests: place,
  });
  try {
    const pace = new Pace(1, AbortSignal.timeout(60_000));
    const [table] = await side.tables();
    const other: Record<string, string> = {
      c: 'numeric(30,15)',
      e: 'numeric',
      g: 'character(40)',
      s: 'jsonb',
      k: 'timestamp without time zone',
      v: 'inet',
      i: 'character(12)',
      l: 'timestamp with time zone',
      m: 'timestamp without time zone',
      u: 'text',
    };
    const result: unknown[] = [];
    for (const target of [
      table,
      { ...table!, columns: table!.columns.map((c) => ({ ...c, type: other[c.name] ?? c.type })) },
    ]) {
      const plan = comparePlan(table!, target);
      const sums = await side.scan(plan.source, { kind: 'all' }, 3, pace);
      const again = await side.scan(plan.source, { kind: 'range', after: ['0'], upTo: ['2'] }, 3, pace);
      const { rows } = await side.rows(plan.source, { kind: 'all' }, 0, [0], pace);
      const looked = await side.lookUp(plan.source, [['3'], ['1'], ['77']]);
      expect(sums.rows).toBe(4);
      expect(again.rows).toBe(2);
      expect(looked.rows).toHaveLength(2);
      result.push(
        rows.map((row) => `${row.key.join()} ${formatDigest(row.digest)}`).sort(),
        looked.rows.map((row) => formatDigest(row.digest)).sort(),
      );
      expect(sums.differing(await side.scan(plan.source, { kind: 'all' }, 3, pace))).toEqual([]);
    }
    return result;
  } finally {
    await side.close();
  }
}
