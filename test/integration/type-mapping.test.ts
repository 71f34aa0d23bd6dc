/**
 * Random values of every type go from one kind of database into another, and are compared with what both servers
 * themselves print. WAYBILL_TEST_SEED repeats a run.
 */
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { MysqlSession } from '../../apply/mysql/session.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { columnTextSql } from '../../core/mysql-column-text.ts';
import { parseTypeText } from '../../core/column-kind.ts';
import type { TargetConfig } from '../../core/config.ts';
import type { ColumnSchema, Dialect, RowChange, TableSchema } from '../../core/frame.ts';
import { createRandom, type Random } from '../../sandbox/demo/random.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { FrameFeed, ins } from '../support/frame-feed.ts';
import { tableCases } from '../support/mysql-columns.ts';
import { POSTGRES_COLUMNS, POSTGRES_TYPES } from '../support/postgres-columns.ts';

type Row = (string | null)[];
type Flavour = 'mysql' | 'mariadb';

const ROWS = 250;
const LITERAL_ROWS = 60;
const FRAME_BYTES = 300_000;
const TIMEOUT_MS = 240_000;
const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? 267_803_490);

let nats: NatsServer;
let postgres: PostgresServer;
const servers = {} as Record<Flavour, MysqlServer>;
const sessions = {} as Record<Flavour, MysqlSession>;
let client: Client;
let feed: FrameFeed | undefined;
let databases = 0;

beforeAll(async () => {
  process.stdout.write(`seed ${seed}\n`);
  [nats, postgres, servers.mysql, servers.mariadb] = await Promise.all([
    startNats(),
    startPostgres(),
    startMysql({ flavour: 'mysql' }),
    startMysql({ flavour: 'mariadb' }),
  ]);
  client = new Client({ connectionString: await postgres.createDatabase('types') });
  await client.connect();
  await client.query(
    `SET datestyle TO 'ISO, YMD'; SET intervalstyle TO iso_8601; SET timezone TO 'UTC'; SET bytea_output TO hex; ${POSTGRES_TYPES}`,
  );
  for (const flavour of ['mysql', 'mariadb'] as const) {
    const url = await servers[flavour].createDatabase('source');
    sessions[flavour] = await MysqlSession.open({ kind: flavour, url }, 'test');
  }
}, 240_000);
afterEach(async () => {
  await feed?.close();
  feed = undefined;
});
afterAll(async () => {
  await client?.end();
  for (const session of Object.values(sessions)) await session.close();
  await Promise.all([nats?.dispose(), postgres?.dispose(), servers.mysql?.dispose(), servers.mariadb?.dispose()]);
});

/** Sends rows as inserts, in many (LOAD DATA, COPY) or few (literals) to a batch, and waits until they are applied. */
async function apply(target: TargetConfig, table: TableSchema, rows: readonly Row[]): Promise<FrameFeed> {
  const kind = await targetOf(target);
  const desk = await kind.openDesk('test');
  const made = await FrameFeed.open({
    natsUrl: nats.url,
    target,
    flow: { schema: 'types', zero_dates: 'null' },
    createStore: () => kind.store,
    readPosition: async () => (await desk.readPositions()).find((row) => row.flow === 'mirror')?.position,
  });
  feed = made;
  const close = made.close.bind(made);
  made.close = async () => {
    await close();
    await desk.close();
  };
  await publish(made, table, rows);
  made.start();
  await made.caughtUp();
  const refused = (await desk.listQuarantine('mirror')).map((entry) => entry.message);
  expect([...new Set(refused)]).toEqual([]);
  return made;
}

async function publish(to: FrameFeed, table: TableSchema, rows: readonly Row[]): Promise<void> {
  let piece: RowChange[] = [];
  let bytes = 0;
  for (const row of rows) {
    const size = Buffer.byteLength(JSON.stringify(row));
    if (piece.length > 0 && bytes + size > FRAME_BYTES) {
      await to.frame([table], [piece]);
      piece = [];
      bytes = 0;
    }
    piece.push(ins(...row));
    bytes += size;
  }
  if (piece.length > 0) await to.frame([table], [piece]);
}

/** Applies the rows in both ways, and compares what the target has of them with what is expected. */
async function compare(
  target: TargetConfig,
  table: TableSchema,
  rows: readonly Row[],
  read: () => Promise<Row[]>,
  expected: readonly Row[],
): Promise<void> {
  const made = await apply(target, table, rows);
  expectRows(table, await read(), expected);
  await made.frame([table], [[['t', 0, []]]]);
  await publish(made, table, rows.slice(0, LITERAL_ROWS));
  await made.caughtUp();
  expectRows(table, await read(), expected.slice(0, LITERAL_ROWS));
}

function expectRows(table: TableSchema, found: readonly Row[], expected: readonly Row[]): void {
  expect(found).toHaveLength(expected.length);
  const differences: string[] = [];
  for (const [index, row] of expected.entries())
    for (const [at, value] of row.entries())
      if (found[index]![at] !== value)
        differences.push(
          `${table.columns[at]!.name} ${table.columns[at]!.type}: ${JSON.stringify(value)?.slice(0, 150)} became ${JSON.stringify(found[index]![at])?.slice(0, 150)}`,
        );
  expect(differences.slice(0, 20)).toEqual([]);
}

interface Source {
  readonly table: TableSchema;
  readonly rows: Row[];
}

/** A table of random rows in a MySQL or MariaDB, and its rows in their canonical text. */
async function mysqlSource(flavour: Flavour, name: string, into: Dialect): Promise<Source> {
  const session = sessions[flavour];
  const random = createRandom(seed);
  const columns = tableCases(flavour, servers[flavour].version).find((table) => table.name === name)!.columns;
  // j1 of MySQL has exact decimals, which no text brings into a document of MySQL: those rows go to quarantine.
  const inexact = flavour === 'mysql' && into === 'mysql' ? 'j1' : '';
  const given = columns.filter((column) => column.value !== undefined && column.name !== inexact);
  const definitions = given.map((column) => `${column.name} ${column.definition}`);
  const literals = (): string =>
    given.map((column) => (random.chance(0.08) ? 'NULL' : column.value!(random))).join(', ');
  // The values are written as the oracle tests write them: with backslashes, and as they come.
  await session.run("SET @ours = @@sql_mode; SET sql_mode = ''");
  await session.run(
    `DROP TABLE IF EXISTS ${name}; CREATE TABLE ${name} (id bigint PRIMARY KEY, ${definitions.join(', ')}) ROW_FORMAT=DYNAMIC`,
  );
  const names = ['id', ...given.map((column) => column.name)].join(', ');
  for (let id = 0; id < ROWS; id += 50) {
    const tuples = Array.from({ length: 50 }, (_, index) => `(${id + index}, ${literals()})`);
    await session.run(`INSERT INTO ${name} (${names}) VALUES ${tuples.join(', ')}`);
  }
  // The error value of an enum, '', has no label: such a row goes to quarantine.
  for (const column of given)
    if (column.definition === "enum('a','b')")
      await session.run(`UPDATE ${name} SET ${column.name} = 'a' WHERE ${column.name} = 0`);
  const catalog = await session.rows(
    `SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME FROM information_schema.COLUMNS
      WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '${name}' ORDER BY ORDINAL_POSITION`,
  );
  const texts = catalog.map(([column, dataType, columnType]) =>
    columnTextSql({ name: column!, dataType: dataType!, columnType: columnType! }, flavour),
  );
  const rows = await session.rows(`SELECT ${texts.join(', ')} FROM ${name} t ORDER BY t.id`);
  await session.run('SET sql_mode = @ours');
  return {
    table: {
      dialect: flavour,
      schema: 'source',
      name,
      version: flavour,
      identity: 'default',
      key: ['id'],
      columns: catalog.map(([column, , columnType, nullable, collation]) => ({
        name: column!,
        // information_schema shows characters beyond the basic plane in labels as question marks.
        type: columnType!.replace("'?'", "'\u{1F600}'"),
        portable: columnType!,
        notNull: nullable === 'NO',
        ...(collation === null || collation === undefined ? {} : { collation }),
      })),
    },
    rows,
  };
}

/** What a target of the MySQL kind has of a table, as the server itself prints it. */
async function mysqlRows(flavour: Flavour, table: TableSchema): Promise<Row[]> {
  const texts = table.columns.map((column) => {
    const name = parseTypeText(column.type).name;
    const columnType = column.type;
    return columnTextSql({ name: column.name, dataType: name, columnType }, flavour);
  });
  const rows = await sessions[flavour].rows(`SELECT ${texts.join(', ')} FROM types.${table.name} t ORDER BY t.id`);
  return rows.map((row) => row.map((value, index) => asNumber(table.columns[index]!, value)));
}

/** The flavours print the same float in different notations. */
function asNumber({ type }: ColumnSchema, value: string | null): string | null {
  if (value === null) return null;
  const { name } = parseTypeText(type);
  if (name === 'float') return String(Math.fround(Number(value)));
  return name === 'double' ? String(Number(value)) : value;
}

const KINDS = ['numbers', 'times', 'texts', 'bytes', 'documents'];

describe.each<[Flavour, Flavour]>([
  ['mysql', 'mariadb'],
  ['mariadb', 'mysql'],
  ['mysql', 'mysql'],
  ['mariadb', 'mariadb'],
])('%s into %s', (from, to) => {
  test.each(KINDS)(
    '%s',
    async (name) => {
      const { table, rows } = await mysqlSource(from, name, to);
      await sessions[to].run('DROP DATABASE IF EXISTS types; DROP DATABASE IF EXISTS waybill');
      const target: TargetConfig = { kind: to, url: servers[to].url };
      const expected = rows.map((row) => row.map((value, index) => asNumber(table.columns[index]!, value)));
      await compare(target, table, rows, () => mysqlRows(to, table), expected);
    },
    TIMEOUT_MS,
  );
});

describe.each<Flavour>(['mysql', 'mariadb'])('%s into postgres', (from) => {
  test.each(KINDS)(
    '%s',
    async (name) => {
      const { table, rows } = await mysqlSource(from, name, 'postgres');
      const url = await postgres.createDatabase(`from_${from}_${++databases}`);
      const reader = new Client({ connectionString: url });
      await reader.connect();
      try {
        await reader.query("SET timezone TO 'UTC'; SET datestyle TO 'ISO, YMD'");
        const list = table.columns.map(postgresText).join(', ');
        const read = async (): Promise<Row[]> => {
          const result = await reader.query({
            text: `SELECT ${list} FROM types.${name} t ORDER BY t.id`,
            rowMode: 'array',
          });
          return (result.rows as unknown as Row[]).map((row) =>
            row.map((value, index) => normalized(table.columns[index]!, value)),
          );
        };
        const expected: Row[] = [];
        for (const row of rows)
          expected.push(
            await Promise.all(row.map(async (value, index) => await inPostgres(reader, table.columns[index]!, value))),
          );
        await compare({ kind: 'postgres', url }, table, rows, read, expected);
      } finally {
        await reader.end();
      }
    },
    TIMEOUT_MS,
  );
});

/** How Postgres is asked for a column of a MySQL source. */
function postgresText({ name, type }: ColumnSchema): string {
  const kind = parseTypeText(type).name;
  if (kind === 'time') return `extract(epoch FROM ${name})::text`;
  if (/binary|blob|vector|geometry|point|linestring|polygon|geom/.test(kind))
    return `replace(encode(${name}, 'base64'), E'\\n', '')`;
  return `${name}::text`;
}

/** Texts of one value that differ between the databases, made one. */
function normalized({ type }: ColumnSchema, value: string | null): string | null {
  if (value === null) return null;
  const { name } = parseTypeText(type);
  if (name === 'float') return String(Math.fround(Number(value)));
  if (name === 'double' || name === 'year') return String(Number(value));
  if (name === 'time') return Number(value).toFixed(6);
  if (name === 'datetime' || name === 'timestamp')
    return value
      .replace(/\+00$/, '')
      .replace(/(\.\d*?)0*$/, '$1')
      .replace(/\.$/, '');
  return value;
}

/** What Postgres should have for a value of MySQL. */
async function inPostgres(reader: Client, column: ColumnSchema, value: string | null): Promise<string | null> {
  if (value === null) return null;
  const { name } = parseTypeText(column.type);
  if (/^(date|datetime|timestamp)$/.test(name) && /^0000|-00/.test(value)) return null;
  if (name === 'json' || name === 'inet4' || name === 'inet6') {
    const type = name === 'json' ? 'jsonb' : 'inet';
    const { rows } = await reader.query<{ text: string }>(`SELECT $1::${type}::text AS text`, [value]);
    return rows[0]!.text;
  }
  if (name === 'time') {
    const [, sign, hours, minutes, seconds] = /^(-?)(\d+):(\d+):([\d.]+)$/.exec(value)!;
    const total = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
    return (sign === '-' ? -total : total).toFixed(6);
  }
  return normalized(column, value);
}

describe.each<Flavour>(['mysql', 'mariadb'])('postgres into %s', (to) => {
  test(
    'every type',
    async () => {
      const random: Random = createRandom(seed);
      await client.query('DROP TABLE IF EXISTS every_type');
      const definitions = POSTGRES_COLUMNS.map(({ name, type }) => `${name} ${type}`);
      await client.query(`CREATE TABLE every_type (id integer PRIMARY KEY, ${definitions.join(', ')})`);
      for (let id = 0; id < ROWS; id++) {
        const values = POSTGRES_COLUMNS.map(({ value }) => (random.chance(0.08) ? 'NULL' : value(random)));
        await client.query(`INSERT INTO every_type VALUES (${id}, ${values.join(', ')})`);
      }
      const columns = POSTGRES_COLUMNS.map(({ name, type }) => ({
        name,
        type: type === 'mood' || type === 'price' || type === 'pair' ? `public.${type}` : type,
        portable: type === 'price' ? 'numeric(12,4)' : type === 'mood' || type === 'pair' ? 'text' : type,
        notNull: false,
      }));
      const table: TableSchema = {
        schema: 'public',
        name: 'every_type',
        version: '1',
        identity: 'default',
        key: ['id'],
        columns: [{ name: 'id', type: 'integer', portable: 'integer', notNull: true }, ...columns],
      };
      const list = table.columns.map(({ name, type }) =>
        type === 'bytea'
          ? `replace(encode(${name}, 'base64'), E'\\n', '')`
          : type === 'boolean'
            ? `CASE WHEN ${name} THEN 't' ELSE 'f' END`
            : `${name}::text`,
      );
      const { rows } = await client.query({
        text: `SELECT ${list.join(', ')} FROM every_type t ORDER BY t.id`,
        rowMode: 'array',
      });
      await sessions[to].run('DROP DATABASE IF EXISTS types; DROP DATABASE IF EXISTS waybill');
      const expected = (rows as unknown as Row[]).map((row) =>
        row.map((value, index) => inMysql(table.columns[index]!, value)),
      );
      const read = async (): Promise<Row[]> => {
        const found = await sessions[to].rows(
          `SELECT ${table.columns.map(mysqlText).join(', ')} FROM types.every_type t ORDER BY t.id`,
        );
        return found.map((row) => row.map((value, index) => inMysql(table.columns[index]!, value)));
      };
      await compare({ kind: to, url: servers[to].url }, table, rows as unknown as Row[], read, expected);
    },
    TIMEOUT_MS,
  );
});

/** How MySQL is asked for a column of a Postgres source. */
function mysqlText({ name, type }: ColumnSchema): string {
  if (type === 'bytea') return `REPLACE(TO_BASE64(${name}), '\n', '')`;
  if (type === 'bit(7)') return `LPAD(BIN(${name} + 0), 7, '0')`;
  if (type === 'bit(64)') return `LPAD(BIN(${name} + 0), 64, '0')`;
  return `CAST(${name} AS CHAR)`;
}

/** Texts of one value that differ between the databases, made one. */
function inMysql({ type, portable }: ColumnSchema, value: string | null): string | null {
  if (value === null) return null;
  if (/^(real|double)/.test(type)) return String(Number(value));
  if (portable.startsWith('numeric'))
    return value.includes('.') ? value.replace(/0+$/, '').replace(/\.$/, '').replace(/^-0$/, '0') : value;
  if (type === 'boolean') return value === 't' ? '1' : value === 'f' ? '0' : value;
  if (type.startsWith('character(')) return value.replace(/ +$/, '');
  if (/^time(stamp)?\b/.test(type) && !type.startsWith('time with '))
    return value
      .replace(/\+00$/, '')
      .replace(/(\.\d*?)0*$/, '$1')
      .replace(/\.$/, '');
  if (type === 'json' || type === 'jsonb') return canonicalJson(value);
  return value;
}

/** A document with its keys in order; its numbers fit. */
function canonicalJson(text: string): string {
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(sorted);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(
      Object.entries(value)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, item]) => [key, sorted(item)]),
    );
  };
  return JSON.stringify(sorted(JSON.parse(text)));
}
