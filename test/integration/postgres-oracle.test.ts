/**
 * The database as the oracle: rows of every type are written into Postgres 14 to 18, go through first load, stream and
 * batches, and come out in a schema of the same database, where the server itself compares both sides.
 * WAYBILL_TEST_SEED repeats a run; WAYBILL_TEST_POSTGRES_URL names a server of one's own that is taken instead.
 */
import { createHash, randomUUID } from 'node:crypto';
import pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createRandom, type Random } from '../../sandbox/demo/random.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { POSTGRES_MAJORS, type PostgresMajor } from '../../sandbox/postgres-programs.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';
import { ORACLE_TYPES, oracleColumns, type OracleColumn } from '../support/postgres-oracle-columns.ts';
import { waitFor } from '../support/wait.ts';

const LOADED = 60;
const STREAMED = 120;
const MEGABYTES = 8;
const WIDE_COLUMNS = 1600;
const TIMEOUT_MS = 180_000;
/** Types that have no equality, or one that is not identity. */
const NO_EQUALITY =
  /^(json|jsonb?path|pg_snapshot|xml|point|line|lseg|box|path|polygon|circle|bytea\[\]|cid|tid|lquery|pair|nested)/;
const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? 20_241_111);

let nats: NatsServer;
let server: PostgresServer | undefined;
let pipeline: CrossPipeline | undefined;
let client: pg.Client | undefined;

beforeAll(async () => {
  process.stdout.write(`seed ${seed}\n`);
  nats = await startNats();
}, 120_000);
afterEach(async () => {
  await pipeline?.close();
  pipeline = undefined;
  await client?.end();
  client = undefined;
  await server?.dispose();
  server = undefined;
}, 60_000);
afterAll(async () => await nats?.dispose());

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;

async function insert(columns: readonly OracleColumn[], random: Random, from: number, count: number): Promise<void> {
  const tuples = Array.from({ length: count }, (_, i) => {
    const values = columns.map(({ value, type }) => (random.chance(0.08) ? 'NULL' : `(${value(random)})::${type}`));
    return `(${from + i}, ${values.join(', ')})`;
  });
  await client!.query(`INSERT INTO every_type VALUES ${tuples.join(', ')}`);
}

/** How many values of the two tables the server itself finds distinct, column by column. */
async function compare(name: string): Promise<{ values: number; distinct: string[] }> {
  const { rows: columns } = await client!.query<{ name: string; type: string }>(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum`,
    [`public.${quote(name)}`],
  );
  const distinct: string[] = [];
  let values = 0;
  for (let at = 0; at < columns.length; at += 100) {
    const piece = columns.slice(at, at + 100);
    const counts = piece.map(({ name: column, type }) => {
      const [a, b] = [`s.${quote(column)}`, `t.${quote(column)}`];
      const same = NO_EQUALITY.test(type) ? '' : ` OR ${a} IS DISTINCT FROM ${b}`;
      return `count(*) FILTER (WHERE ${a}::text IS DISTINCT FROM ${b}::text OR pg_typeof(${a}) <> pg_typeof(${b})${same})`;
    });
    const { rows } = await client!.query({
      text: `SELECT count(*), ${counts.join(', ')} FROM public.${quote(name)} s FULL JOIN mirrored.${quote(name)} t ON s.id = t.id`,
      rowMode: 'array',
    });
    const [total, ...found] = (rows as unknown as string[][])[0]!;
    values += Number(total) * piece.length;
    for (const [index, count] of found.entries())
      if (count !== '0') distinct.push(`${name}.${piece[index]!.name} ${piece[index]!.type}: ${count} of ${total}`);
  }
  const names = columns.map((column) => quote(column.name)).join(', ');
  const [source, target] = [await dump(`public.${quote(name)}`, names), await dump(`mirrored.${quote(name)}`, names)];
  if (source !== target) distinct.push(`${name}: what COPY writes of it`);
  return { values, distinct };
}

/** The hash of a table as a dump has it. */
async function dump(table: string, columns: string): Promise<string> {
  const hash = createHash('sha256');
  const stream = client!.query(copyTo(`COPY (SELECT ${columns} FROM ${table} ORDER BY id) TO STDOUT`));
  for await (const data of stream) hash.update(data as Buffer);
  return hash.digest('hex');
}

async function arrived(marker: string): Promise<void> {
  await client!.query('INSERT INTO markers VALUES ($1)', [marker]);
  await waitFor(`marker ${marker} in the target`, async () => {
    if (pipeline!.failure !== undefined) return true;
    const { rowCount } = await client!.query('SELECT FROM mirrored.markers WHERE id = $1', [marker]);
    return rowCount === 1;
  });
  if (pipeline!.failure !== undefined) throw pipeline!.failure;
}

/** A server of one's own, instead of those of each version. */
const GIVEN = 'WAYBILL_TEST_POSTGRES_URL';
const versions = (process.env[GIVEN] ?? '') === '' ? POSTGRES_MAJORS : [GIVEN];

describe.each<PostgresMajor | string>(versions)('Postgres %s', (wanted) => {
  it(
    'every type arrives as it is',
    async () => {
      server = await startPostgres(typeof wanted === 'string' ? { env: wanted } : { version: wanted });
      const major = Number.parseInt(server.version, 10);
      const url = await server.createDatabase(`oracle_${randomUUID().slice(0, 8)}`);
      const same = { dialect: 'postgres', server: { createDatabase: async () => url } } as const;
      pipeline = await CrossPipeline.open({ from: same, to: same, nats });
      client = new pg.Client({ connectionString: url });
      await client.connect();
      const random = createRandom(seed + major);
      const columns = oracleColumns(major);
      await client.query(ORACLE_TYPES);
      await client.query(
        `CREATE TABLE every_type (gone int, id int PRIMARY KEY, ${columns.map(({ name, type }) => `${name} ${type}`).join(', ')});
         ALTER TABLE every_type DROP COLUMN gone;
         CREATE TABLE markers (id text PRIMARY KEY);
         CREATE TABLE large (id int PRIMARY KEY, n int, t text, b bytea);
         CREATE TABLE "Wide Tisch ✓" (id int PRIMARY KEY, ${Array.from({ length: WIDE_COLUMNS - 1 }, (_, i) => `"Spalte ${i}" smallint`).join(', ')});
         CREATE TABLE computed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED, c text DEFAULT 'd');
         CREATE TABLE again (id int PRIMARY KEY, x int, y text);
         ALTER TABLE again DROP COLUMN x; ALTER TABLE again ADD COLUMN x text DEFAULT 'new';`,
      );
      const wide = (id: number): string =>
        `INSERT INTO "Wide Tisch ✓" VALUES (${id}, ${Array.from({ length: WIDE_COLUMNS - 1 }, (_, i) => (i % 9 === 0 ? 'NULL' : (i + id) % 999)).join(', ')})`;
      const large = (id: number): string =>
        `INSERT INTO large SELECT ${id}, 0, string_agg(md5(i::text || '${id}'), ''), decode(string_agg(md5(i::text), ''), 'hex')
           FROM generate_series(1, ${(MEGABYTES * 1024 * 1024) / 32}) i`;
      await insert(columns, random, 0, LOADED);
      await client.query(
        `${wide(1)}; ${large(1)}; INSERT INTO computed (a) VALUES (1), (2); INSERT INTO again VALUES (1, 'y', 'x')`,
      );

      await pipeline.start();
      await arrived('loaded');
      await insert(columns, random, LOADED, STREAMED);
      for (let i = 0; i < 60; i++) {
        const some = Array.from({ length: 3 }, () => random.pick(columns));
        const sets = some.map(({ name, type, value }) => `${name} = (${value(random)})::${type}`);
        await client.query(
          `UPDATE every_type SET ${[...new Map(sets.map((set) => [set.split(' ')[0], set])).values()].join(', ')} WHERE id = ${random.between(0, LOADED + STREAMED - 1)}`,
        );
      }
      await client.query(`DELETE FROM every_type WHERE id % 17 = 3`);
      await client.query(`UPDATE every_type SET id = id + 1000 WHERE id % 19 = 4`);
      // Values out of line that did not change are not in the log.
      await client.query(`${wide(2)}; ${large(2)}`);
      await client.query(`UPDATE large SET n = n + 1; UPDATE "Wide Tisch ✓" SET "Spalte 7" = 1`);
      await client.query(
        `INSERT INTO computed (a) VALUES (3); UPDATE computed SET a = 9 WHERE id = 1; INSERT INTO again VALUES (2, 'y')`,
      );
      await client.query(`ALTER TYPE mood ADD VALUE 'new label' BEFORE 'sad'`);
      await client.query(`UPDATE every_type SET c39 = 'new label' WHERE id % 5 = 0`);
      await arrived('streamed');

      let compared = 0;
      const distinct: string[] = [];
      for (const table of ['every_type', 'large', 'Wide Tisch ✓', 'computed', 'again', 'markers']) {
        const result = await compare(table);
        compared += result.values;
        distinct.push(...result.distinct);
      }
      process.stdout.write(`Postgres ${server.version}: ${compared} values of ${columns.length} columns compared\n`);
      expect(distinct).toEqual([]);
      const refused = await client.query('SELECT table_name, message FROM waybill.quarantine');
      expect(refused.rows).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
