/** The life of an installation on the real command line, with the least privileges that it prints itself. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { ddlTriggerSql } from '../../capture/postgres/ddl-trigger.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from '../support/wait.ts';

const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');
let source: PostgresServer;
let target: PostgresServer;
let nats: NatsServer;
let folder: string;
let configFile: string;
let db: Client;
let store: Client;
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-cli-'));
  [source, target, nats] = await Promise.all([startPostgres(), startPostgres(), startNats()]);
  const [sourceUrl, targetUrl] = await Promise.all([source.createDatabase('wms'), target.createDatabase('vis')]);
  [db, store] = await Promise.all([sourceUrl, targetUrl].map(connect) as [Promise<Client>, Promise<Client>]);
  await db.query('create table orders (id int primary key, v text); create table audit_log (id int primary key)');
  await db.query(`insert into orders select i, 'v' from generate_series(1, 100) i`);
  await db.query(`create role waybill login replication password 'p-source'`);
  await store.query(`create role waybill login password 'p-target'`);
  configFile = join(folder, 'waybill.yaml');
  await writeFile(
    configFile,
    `version: 1
nats: { servers: ["${nats.url}"], stream: { sync_interval: 0s } }
sources:
  wms: { kind: postgres, url: "${withUser(sourceUrl, 'p-source')}", tables: ["public.*", "!public.audit_*"], heartbeat: 1s }
targets: { vis: { kind: postgres, url: "${withUser(targetUrl, 'p-target')}" } }
flows: { copy: { mirror: wms, to: vis, schema: wms } }
`,
  );
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(async () => {
  await Promise.all([db?.end(), store?.end()]);
  await Promise.all([source?.dispose(), target?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  await client.connect();
  return client;
}

function withUser(url: string, password: string): string {
  const parsed = new URL(url);
  parsed.username = 'waybill';
  parsed.password = password;
  return parsed.href;
}

/** A command under way; its output grows. */
function start(...args: string[]): { child: ChildProcess; output: () => string; ended: Promise<number | null> } {
  const child = spawn(PROGRAM, [...args, '--config', configFile], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, WAYBILL_LEASE_TTL_MS: '1500' },
  });
  children.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  const ended = once(child, 'close').then(([status]) => status as number | null);
  return { child, output: () => output, ended };
}

/** Drains a running process; what it does must not rest on anything that its libraries are about to take away. */
async function drain({ child, output, ended }: ReturnType<typeof start>): Promise<void> {
  child.kill('SIGTERM');
  expect(await ended, output()).toBe(0);
  expect(output()).not.toContain('DeprecationWarning');
}

async function waybill(...args: string[]): Promise<string> {
  const { output, ended } = start(...args);
  expect(await ended, output()).toBe(0);
  return output();
}

const countOf = async (client: Client, table: string): Promise<number> =>
  (await client.query<{ n: number }>(`select count(*)::int as n from ${table}`)).rows[0]!.n;

const majorOf = ({ version }: PostgresServer): number => Number.parseInt(version, 10);

const run = () => start('run', '--listen', '127.0.0.1:0');

it('prints grants that suffice, and check agrees', async () => {
  const sourceGrants = await waybill('grants', 'wms');
  const targetGrants = await waybill('grants', 'vis');
  expect(`${sourceGrants}${targetGrants}`).not.toMatch(/p-source|p-target/);
  // As its comments say, the owner of the tables makes the publication.
  await db.query(
    majorOf(source) < 15
      ? `${sourceGrants}create publication waybill_wms for table orders with (publish_via_partition_root = true)`
      : sourceGrants.replace('-- CREATE PUBLICATION', 'CREATE PUBLICATION'),
  );
  await store.query(targetGrants);
  const findings = JSON.parse(await waybill('check', '--json')) as { severity: string; subject: string }[];
  expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
  expect(JSON.parse(await waybill('schema'))).toMatchObject({ type: 'object' });
  expect(JSON.parse(await waybill('schema', 'product'))).toMatchObject({ title: 'product', 'x-key': ['sku'] });
});

it('replicates with them, drains at SIGTERM, and leaves at once at a second one', async () => {
  const running = run();
  await waitFor('the rows', async () => (await countOf(store, 'wms.orders')) === 100);
  const slot = await db.query<{ failover: boolean | null }>(
    `select (to_jsonb(s) ->> 'failover')::bool as failover from pg_replication_slots s where slot_name = 'waybill_wms'`,
  );
  expect(slot.rows, 'a failover slot').toEqual([{ failover: majorOf(source) < 17 ? null : true }]);
  expect((await store.query(`select from pg_tables where tablename = 'audit_log'`)).rowCount).toBe(0);
  await drain(running);
  expect(running.output()).toContain('draining');

  // A target that does not answer keeps the first signal waiting, not the second.
  const stuck = run();
  await db.query(`insert into orders values (101, 'w')`);
  await waitFor('the next row', async () => (await countOf(store, 'wms.orders')) === 101);
  await store.query('begin; lock table wms.orders in access exclusive mode');
  await db.query(`insert into orders values (102, 'x')`);
  await waitFor('the flow to wait for the lock', async () => {
    const waiting = await store.query(`select from pg_locks where not granted and relation = 'wms.orders'::regclass`);
    return waiting.rowCount === 1;
  });
  stuck.child.kill('SIGTERM');
  await waitFor('the drain', async () => stuck.output().includes('draining'));
  expect(stuck.child.exitCode).toBeNull();
  stuck.child.kill('SIGTERM');
  expect(await stuck.ended).toBe(130);
  await store.query('commit');
});

it('reads tables again on request, and shows how far it is', async () => {
  const running = run();
  await waitFor('the rows', async () => (await countOf(store, 'wms.orders')) === 102);
  expect(await waybill('snapshot', 'wms', 'public.orders', '--wait')).toMatch(
    /asked for[\s\S]*1 of 1 table, 102 of about 102 rows \(100 %\)/,
  );
  // What the stream holds the target may have yet to take.
  await db.query(`update orders set v = 'w' where id = 1`);
  await waitFor(
    'the target',
    async () => (await store.query(`select from wms.orders where id = 1 and v = 'w'`)).rowCount === 1,
  );
  await store.query(
    `update wms.orders set v = 'bad' where id between 10 and 30; insert into wms.orders values (-1, 'bad')`,
  );
  expect(await waybill('snapshot', 'wms', 'public.orders', '--from', '-5', '--to', '20', '--wait')).toMatch(
    /a range of public.orders asked for[\s\S]*1 of 1 table, 19 of about \d+ rows/,
  );
  await waitFor(
    'the range, and no more of it',
    async () =>
      (await store.query(`select from wms.orders where v = 'bad'`)).rowCount === 11 &&
      (await countOf(store, 'wms.orders')) === 102,
  );
  await store.query(`update wms.orders set v = 'v' where v = 'bad'`);
  expect(await waybill('audit')).toMatch(/snapshot.*"from":\["-5"\]/);
  const refused = start('snapshot', 'wms', 'public.orders', '--from', 'x');
  expect(await refused.ended).toBe(2);
  expect(refused.output()).toMatch(/do not fit the key of public.orders \(id integer\)[\s\S]*remedy/);
  const several = start('snapshot', 'wms', '--from', '1');
  expect(await several.ended).toBe(2);
  expect(several.output()).toContain('--from and --to are for one table, and none is named');
  const refusals: readonly (readonly [readonly string[], string])[] = [
    [['public.ordres', '--wait'], 'there is no captured table "public.ordres" (did you mean "public.orders"?)'],
    [['public.audit_log'], 'there is no captured table "public.audit_log"'],
    [['public.orders', '--cancel'], '--cancel is for all that is read of a source'],
    [['public.orders', '--reset'], '--reset is for all that is read of a source'],
    [['--cancel', '--reset'], '--cancel and --reset exclude each other'],
  ];
  for (const [words, message] of refusals) {
    const no = start('snapshot', 'wms', ...words);
    expect(await no.ended).toBe(2);
    expect(no.output()).toContain(message);
  }
  expect(await waybill('snapshot', 'wms', '--cancel', '--wait')).toContain(
    'the capture of wms has stopped its snapshot',
  );
  await drain(running);
});

it('says how things stand, once and again and again', async () => {
  const running = run();
  await waitFor('the rows', async () => (await countOf(store, 'wms.orders')) === 102);
  const status = await waitFor('both to be in step', async () => {
    const report = JSON.parse(await waybill('status', '--json')) as {
      sources: Record<string, unknown>[];
      flows: Record<string, unknown>[];
    };
    const { state, slotActive } = report.sources[0]!;
    return report.flows[0]!['pendingFrames'] === 0 && slotActive === true && state === 'streaming' && report;
  });
  expect(status.sources[0]).toMatchObject({ name: 'wms' });
  expect(status.flows[0]).toMatchObject({
    name: 'copy',
    quarantined: 0,
    position: expect.stringMatching(/^[0-9A-F]+\//) as unknown,
  });
  const watching = start('status', '--watch');
  await waitFor('a second look', async () => (watching.output().match(/SOURCE +STATE/g)?.length ?? 0) >= 2);
  watching.child.kill('SIGINT');
  await watching.ended;
  await drain(running);
});

it('shows the stream as lines of JSON', async () => {
  const lines = async (...args: string[]): Promise<Record<string, unknown>[]> =>
    (await waybill('tail', 'wms', ...args))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const all = await lines('--table', 'public.orders', '--limit', '104');
  expect(all[0]).toMatchObject({ op: 'mark', table: 'public.orders' });
  const inserted = all.find(({ op }) => op === 'insert')!;
  expect(inserted).toMatchObject({ table: 'public.orders', after: { id: '101', v: 'w' } });
  const from = await lines('--from', String(inserted['position']), '--table', 'public.orders', '--limit', '1');
  expect(from[0]).toMatchObject({ op: 'insert', after: { id: '102', v: 'x' } });
  // Whoever reads it has left (`| head`).
  const { child, ended, output } = start('tail', 'wms');
  child.stdout!.destroy();
  expect(await ended, output()).toBe(0);
});

it('keeps a refused row, shows it, and applies it when asked to', async () => {
  const running = run();
  await store.query(`alter table wms.orders add constraint short check (length(v) < 5)`);
  await db.query(`insert into orders values (200, 'much too long'), (201, 'ok')`);
  await waitFor(
    'the neighbour',
    async () => (await store.query('select from wms.orders where id = 201')).rowCount === 1,
  );
  const listed = JSON.parse(await waybill('quarantine', 'list', '--json')) as { id: string; reason: string }[];
  expect(listed).toMatchObject([{ reason: 'constraint' }]);
  const { id } = listed[0]!;
  const ofNone = start('quarantine', 'show', 'copy', String(Number(id) + 1000));
  expect(await ofNone.ended, ofNone.output()).toBe(2);
  expect(await waybill('quarantine', 'show', 'copy', id)).toContain('much too long');
  const failing = start('quarantine', 'replay', 'copy', id);
  expect(await failing.ended, 'the cause is still there').toBe(1);
  await store.query('alter table wms.orders drop constraint short');
  expect(await waybill('quarantine', 'replay', 'copy', id)).toContain('1 applied');
  expect((await store.query(`select from wms.orders where v = 'much too long'`)).rowCount).toBe(1);
  expect(JSON.parse(await waybill('quarantine', 'list', '--json'))).toEqual([]);
  const { rows: noted } = await store.query<{ detail: string }>(
    `select detail from waybill.audit where action = 'quarantine-replay' order by id`,
  );
  type Detail = { applied: number; before: unknown; after: unknown };
  expect(
    noted.map(({ detail }) => {
      const { applied, before, after } = JSON.parse(detail) as Detail;
      return { applied, before, after };
    }),
  ).toEqual([
    { applied: 0, before: { constraint: 1 }, after: { constraint: 1 } },
    { applied: 1, before: { constraint: 1 }, after: {} },
  ]);

  // Somebody emptied the table: a snapshot brings it back.
  await store.query('delete from wms.orders');
  expect(await waybill('snapshot', 'wms', 'public.orders')).toContain('public.orders');
  await waitFor('the rows again', async () => (await countOf(store, 'wms.orders')) === 104);
  await drain(running);
});

it('gives no answer where it is told to stop before there is one', async () => {
  // The stages do not run, so that the comparison waits for what was written since.
  await db.query(`insert into orders values (300, 'waits')`);
  const comparing = start('verify', 'copy');
  await waitFor('a comparison', async () => {
    const { rows } = await store.query(`select from waybill.drift_run where state = 'running'`);
    return rows.length > 0;
  });
  comparing.child.kill('SIGINT');
  expect(await comparing.ended, comparing.output()).toBe(130);
  expect(comparing.output()).toContain('`waybill verify copy --resume` goes on from here');
});

it('goes away without a trace, and only when told so', async () => {
  const refused = start('teardown', 'wms');
  expect(await refused.ended).toBe(2);
  expect(refused.output()).toContain('replication slot waybill_wms');
  expect((await db.query('select from pg_replication_slots')).rowCount).toBe(1);
  // The publication belongs to the owner of the tables; without it the rest is Waybill's own.
  await db.query('drop publication waybill_wms');
  // So do the event triggers belong to whoever may make them.
  await db.query(ddlTriggerSql());
  const torn = start('teardown', 'wms', '--yes');
  expect(await torn.ended).toBe(1);
  expect(torn.output()).toContain('removed stream waybill_cdc_wms');
  const left = [...torn.output().matchAll(/^left .* run: (DROP .*;)$/gm)].map(([, sql]) => sql!);
  expect(left).toEqual([
    'DROP EVENT TRIGGER waybill_ddl;',
    'DROP EVENT TRIGGER waybill_drop;',
    'DROP FUNCTION waybill.note_ddl();',
    'DROP SCHEMA waybill;',
  ]);
  for (const sql of left) await db.query(sql);
  expect((await db.query('select from pg_replication_slots')).rowCount).toBe(0);
  expect(await waybill('teardown', 'wms')).toContain('nothing of source wms is left');
  const config = parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats;
  const connection = await connectNats(config, 'test');
  const keys: string[] = [];
  for await (const key of await (await openBucket(connection, config)).keys()) keys.push(key);
  await connection.close();
  expect(keys.filter((key) => key.includes('wms'))).toEqual([]);
});
