/** The life of an installation between servers of the oldest version that is supported, with the least privileges. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { POSTGRES_MAJORS } from '../../sandbox/postgres-programs.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CommandLine } from '../support/command-line.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const [OLDEST] = POSTGRES_MAJORS;
const LARGE_ROWS = 30_000;

let nats: NatsServer;
let source: PostgresServer;
let target: PostgresServer;
let commands: CommandLine;
let db: pg.Client;
let store: pg.Client;
let config: string;
let stage: Stage | undefined;

beforeAll(async () => {
  commands = await CommandLine.open();
  const settings = { logical_decoding_work_mem: '64kB' };
  [source, target, nats] = await Promise.all([
    startPostgres({ version: OLDEST!, settings }),
    startPostgres({ version: OLDEST! }),
    startNats(),
  ]);
  const urls = [await source.createDatabase('wms'), await target.createDatabase('vis')];
  [db, store] = urls.map((url) => new pg.Client({ connectionString: url })) as [pg.Client, pg.Client];
  await Promise.all([db.connect(), store.connect()]);
  await db.query(`create role waybill login replication; create table orders (id int primary key, v text);
    create table parts (id int, day date, primary key (id, day)) partition by range (day);
    create table parts_1 partition of parts for values from ('2024-01-01') to ('2025-01-01');
    insert into orders select i, 'v' from generate_series(1, 500) i; insert into parts values (1, '2024-03-01')`);
  await store.query('create role waybill login');
  const [from, to] = urls.map((url) => Object.assign(new URL(url), { username: 'waybill' }).href);
  config = `version: 1
nats: { servers: ["${nats.url}"], stream: { sync_interval: 0s } }
sources: { wms: { kind: postgres, url: "${from}", tables: ["public.*"], streaming: "on", heartbeat: 1s } }
targets: { vis: { kind: postgres, url: "${to}" } }
flows: { copy: { mirror: wms, to: vis, schema: wms } }
`;
});
afterAll(async () => {
  await stage?.end('SIGKILL');
  await Promise.all([db?.end(), store?.end()]);
  await Promise.all([source?.dispose(), target?.dispose(), nats?.dispose(), commands?.close()]);
});

async function answer(status: number, ...args: string[]): Promise<string> {
  const outcome = await commands.waybill(config, args);
  expect(outcome.status, outcome.output).toBe(status);
  return outcome.output;
}

const countOf = async (client: pg.Client, rows: string): Promise<number> =>
  (await client.query<{ n: number }>(`select count(*)::int as n from ${rows}`)).rows[0]!.n;

it('is what the sandbox calls the oldest', () => {
  expect([OLDEST, source.version.split('.')[0], target.version.split('.')[0]]).toEqual([14, '14', '14']);
});

it('needs no more than the grants that it prints', async () => {
  await db.query(await answer(0, 'grants', 'wms'));
  // Here a publication cannot name a schema: as the grants say, it names the tables.
  await db.query('create publication waybill_wms for table orders, parts with (publish_via_partition_root = true)');
  await store.query(await answer(0, 'grants', 'vis'));
  const findings = JSON.parse(await answer(0, 'check', '--json')) as { severity: string; subject: string }[];
  expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
});

it('loads, follows, proves and repairs', async () => {
  const configFile = await commands.writeConfig(config);
  const logFile = `${commands.folder}/stage.log`;
  stage = new Stage({ configFile, only: 'capture:wms,apply:copy', logFile, leaseTtlMs: 1500 });
  stage.start();
  await waitFor('the first load', async () => {
    const there = await store.query(`select from pg_tables where schemaname = 'wms'`);
    return there.rowCount === 2 && (await countOf(store, 'wms.orders')) === 500;
  });
  await db.query(`begin; insert into orders select i, repeat('w', 100) from generate_series(1001, ${1000 + LARGE_ROWS}) i;
    savepoint s; delete from orders; rollback to s; update orders set v = 'u' where id <= 10; delete from orders where id = 11;
    insert into parts values (2, '2024-05-01'); commit`);
  await db.query(`alter table orders add column note text default 'n'; update orders set note = 'x' where id = 12`);
  await waitFor(
    'the changes',
    async () => (await countOf(store, `wms.orders o where to_jsonb(o) ->> 'note' = 'x'`)) === 1,
  );
  expect(await answer(0, 'verify', 'copy')).toContain('copy');
  expect(await countOf(store, `wms.orders where v = 'u'`)).toBe(10);
  expect(await countOf(store, `wms.orders where note = 'x'`)).toBe(1);
  expect(await countOf(store, 'wms.orders')).toBe(499 + LARGE_ROWS);
  expect(await countOf(store, 'wms.parts')).toBe(2);
  await store.query(`update wms.orders set v = 'bad' where id < 4`);
  expect(await answer(0, 'verify', 'copy', '--repair')).toContain('3 asked, 0 left');
  expect(await countOf(store, `wms.orders where v = 'bad'`)).toBe(0);
  await db.query('truncate orders');
  await waitFor('the truncate', async () => (await countOf(store, 'wms.orders')) === 0);
  const status = JSON.parse(await answer(0, 'status', '--json')) as { sources: Record<string, unknown>[] };
  expect(status.sources[0]).toMatchObject({ name: 'wms', slotActive: true });
});

it('goes away without a trace', async () => {
  expect(await stage?.end('SIGTERM')).toBe(0);
  await db.query('drop publication waybill_wms');
  expect(await answer(0, 'teardown', 'wms', '--yes')).toContain('removed replication slot waybill_wms');
  expect((await db.query('select from pg_replication_slots')).rowCount).toBe(0);
  expect(await answer(0, 'teardown', 'wms')).toContain('nothing of source wms is left');
});
