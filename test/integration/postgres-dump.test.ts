/**
 * What pg_dump says: rows of every type go from one PostgreSQL database to another, by first load and by stream, and the
 * dumps of both sides have the same data. WAYBILL_TEST_SEED repeats a run.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readProgress } from '../../capture/snapshot-request.ts';
import { openBucket } from '../../core/lease.ts';
import { createRandom, type Random } from '../../sandbox/demo/random.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { getPostgresTool, type PostgresToolCommand } from '../../sandbox/postgres-tools.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { run } from '../../sandbox/process.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';
import { ORACLE_TYPES, oracleColumns, type OracleColumn } from '../support/postgres-oracle-columns.ts';
import { waitFor } from '../support/wait.ts';

/** The oldest whose pg_dump every machine has or can get. */
const MAJOR = 15;
const LOADED = 60;
const STREAMED = 120;
const WIDE_COLUMNS = 1600;
const TIMEOUT_MS = 180_000;
const TABLES = ['every_type', 'Wide Tisch ✓', 'computed', 'again', 'measures', 'keyless', 'large'];
const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? 20_241_112);

let nats: NatsServer;
let servers: readonly [source: PostgresServer, target: PostgresServer];
let pgDump: PostgresToolCommand;
let pipeline: CrossPipeline | undefined;
const clients: pg.Client[] = [];

beforeAll(async () => {
  const own = await Promise.all([startPostgres({ version: MAJOR }), startPostgres({ version: MAJOR })]);
  servers = own;
  [nats, pgDump] = await Promise.all([startNats(), getPostgresTool('pg_dump', MAJOR)]);
  process.stdout.write(`seed ${seed}; ${pgDump.origin}\n`);
}, TIMEOUT_MS);
afterAll(async () => {
  await pipeline?.close();
  for (const client of clients) await client.end();
  await Promise.all([nats?.dispose(), ...(servers ?? []).map((server) => server.dispose())]);
}, TIMEOUT_MS);

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  clients.push(client);
  return client;
}

async function insert(
  client: pg.Client,
  columns: readonly OracleColumn[],
  random: Random,
  from: number,
  count: number,
): Promise<void> {
  const tuples = Array.from({ length: count }, (_, i) => {
    const values = columns.map(({ value, type }) => (random.chance(0.08) ? 'NULL' : `(${value(random)})::${type}`));
    return `(${from + i}, ${values.join(', ')})`;
  });
  await client.query(`INSERT INTO every_type VALUES ${tuples.join(', ')}`);
}

/** The data of tables as pg_dump writes it: by table with its columns, the rows sorted. */
async function dataOf(url: string): Promise<Map<string, string[]>> {
  const tables = TABLES.flatMap((name) => ['--table', `public.${quote(name)}`]);
  // Partitions are one table in the target.
  const text = await run(pgDump.file, [
    ...pgDump.args,
    '--data-only',
    '--load-via-partition-root',
    '--table',
    'public.measures_*',
    ...tables,
    url,
  ]);
  const data = new Map<string, string[]>();
  let rows: string[] | undefined;
  for (const line of text.split('\n')) {
    if (rows === undefined) {
      const head = /^COPY (.*) FROM stdin;$/.exec(line)?.[1];
      if (head === undefined) continue;
      rows = data.get(head) ?? [];
      data.set(head, rows);
    } else if (line === '\\.') rows = undefined;
    else rows.push(line);
  }
  for (const found of data.values()) found.sort();
  return data;
}

it(
  'pg_dump finds the same data on both sides',
  async () => {
    const [source, target] = servers;
    const [sourceUrl, targetUrl] = [await source.createDatabase('dumped'), await target.createDatabase('dumped')];
    const [db, store] = [await connect(sourceUrl), await connect(targetUrl)];
    pipeline = await CrossPipeline.open({
      from: { dialect: 'postgres', server: { createDatabase: async () => sourceUrl } },
      to: { dialect: 'postgres', server: { createDatabase: async () => targetUrl } },
      nats,
      flow: { schema: 'public' },
    });
    const random = createRandom(seed);
    const columns = oracleColumns(MAJOR);
    for (const client of [db, store]) await client.query(ORACLE_TYPES);
    const wideColumns = Array.from({ length: WIDE_COLUMNS - 1 }, (_, i) => `"Spalte ${i}" smallint`);
    await db.query(
      `CREATE TABLE every_type (gone int, id int PRIMARY KEY, ${columns.map(({ name, type }) => `${name} ${type}`).join(', ')});
       ALTER TABLE every_type DROP COLUMN gone;
       CREATE TABLE "Wide Tisch ✓" (id int PRIMARY KEY, ${wideColumns.join(', ')});
       CREATE TABLE computed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED, c text DEFAULT 'd');
       CREATE TABLE again (id int PRIMARY KEY, x int, y text);
       ALTER TABLE again DROP COLUMN x; ALTER TABLE again ADD COLUMN x text DEFAULT 'new';
       CREATE TABLE measures (day date, n int, v text, PRIMARY KEY (day, n)) PARTITION BY RANGE (day);
       CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
       CREATE TABLE measures_2 PARTITION OF measures FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
       CREATE TABLE keyless (v text, at timestamptz); ALTER TABLE keyless REPLICA IDENTITY FULL;
       CREATE TABLE large (id int PRIMARY KEY, n int, t text, b bytea);
       CREATE TABLE markers (id text PRIMARY KEY);`,
    );
    const some = async (from: number): Promise<void> => {
      const wide = Array.from({ length: WIDE_COLUMNS - 1 }, (_, i) => (i % 9 === 0 ? 'NULL' : (i + from) % 999));
      await db.query(
        `INSERT INTO "Wide Tisch ✓" VALUES (${from}, ${wide.join(', ')});
         INSERT INTO computed (a) VALUES (1), (${from}); INSERT INTO again VALUES (${from}, E'tab\\tline\\nback\\\\slash');
         INSERT INTO measures SELECT date '2026-01-20' + i, ${from}, 'v' || i FROM generate_series(0, 30) i;
         INSERT INTO keyless VALUES ('twice', 'infinity'), ('twice', 'infinity'), (NULL, '0044-03-15 BC'), ('', now());
         INSERT INTO large SELECT ${from}, 0, string_agg(md5(i::text), ''), decode(string_agg(md5(i::text), ''), 'hex')
           FROM generate_series(1, 30000) i`,
      );
    };
    await insert(db, columns, random, 0, LOADED);
    await some(1);
    await pipeline.start();
    const arrived = async (marker: string): Promise<void> => {
      await db.query('INSERT INTO markers VALUES ($1)', [marker]);
      await waitFor(`marker ${marker}`, async () => {
        if (pipeline!.failure !== undefined) throw pipeline!.failure;
        return (await store.query('SELECT FROM markers WHERE id = $1', [marker])).rowCount === 1;
      });
    };
    // What streams overtakes what is still to be loaded.
    const bucket = await openBucket(pipeline.nats, pipeline.config.nats);
    await waitFor('the tables to be read', async () => {
      if (pipeline!.failure !== undefined) throw pipeline!.failure;
      const tables = (await readProgress(bucket, 'one'))?.tables ?? [];
      return tables.length > 0 && tables.every(({ state }) => state === 'done');
    });
    await arrived('loaded');
    await insert(db, columns, random, LOADED, STREAMED);
    for (let i = 0; i < 40; i++) {
      const { name, type, value } = random.pick(columns);
      await db.query(
        `UPDATE every_type SET ${name} = (${value(random)})::${type} WHERE id = ${random.between(0, LOADED + STREAMED - 1)}`,
      );
    }
    await some(2);
    // Values out of line that did not change are not in the log.
    await db.query(
      `DELETE FROM every_type WHERE id % 17 = 3; UPDATE every_type SET id = id + 1000 WHERE id % 19 = 4;
       UPDATE large SET n = n + 1; UPDATE computed SET a = 9 WHERE id = 1; UPDATE measures SET day = day + 5, n = 11 WHERE n = 1;
       DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE v = 'twice')`,
    );
    await arrived('streamed');
    expect((await store.query('SELECT table_name, message FROM waybill.quarantine')).rows).toEqual([]);
    const [here, there] = [await dataOf(sourceUrl), await dataOf(targetUrl)];
    expect([...here.keys()].toSorted()).toEqual([...there.keys()].toSorted());
    expect(here.size).toBe(TABLES.length);
    let values = 0;
    for (const [table, rows] of here) {
      expect(rows.length, table).toBeGreaterThan(1);
      values += rows.reduce((sum, row) => sum + row.split('\t').length, 0);
      const other = there.get(table)!;
      const differing = rows.filter((row, index) => row !== other[index]).map((row) => row.slice(0, 200));
      expect([rows.length, differing], table).toEqual([other.length, []]);
    }
    process.stdout.write(`${values} values in two dumps are the same\n`);
  },
  TIMEOUT_MS,
);
