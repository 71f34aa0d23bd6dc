/**
 * Compares the demo's ERP with a mirror of it in full: every row and every column, by texts that mean the same in MySQL,
 * MariaDB and Postgres. It shares no code with Waybill, which is what it judges.
 */
import { createHash } from 'node:crypto';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { Client } from 'pg';
import { compareRows, type Difference } from './equality.ts';
import { ERP_TABLES } from './erp-schema.ts';

/** Where the mirror is. */
export interface ErpMirror {
  readonly kind: 'postgres' | 'mysql' | 'mariadb';
  readonly url: string;
  readonly schema: string;
}

/** Gives what differs, and nothing when both sides are equal. */
export async function compareErp(sourceUrl: string, mirror: ErpMirror): Promise<Difference[]> {
  const source = await openMysql(sourceUrl);
  const target = mirror.kind === 'postgres' ? await openPostgres(mirror.url) : await openMysql(mirror.url);
  try {
    const database = decodeURIComponent(new URL(sourceUrl).pathname.slice(1));
    const differences: Difference[] = [];
    for (const table of ERP_TABLES) differences.push(...(await compareTable(source, database, target, mirror, table)));
    return differences;
  } finally {
    await source.close();
    await target.close();
  }
}

interface Column {
  readonly name: string;
  /** 'varchar', 'timestamp with time zone', … */
  readonly type: string;
  readonly inKey: boolean;
}

interface Side {
  columns(schema: string, table: string): Promise<Column[]>;
  /** Every row of the table, its columns in the order given, each as the text that `canonicalText` makes. */
  rows(
    schema: string,
    table: string,
    columns: readonly Column[],
    as: readonly ValueForm[],
  ): Promise<(string | null)[][]>;
  close(): Promise<void>;
}

/** What a text stands for, by the column of the source. */
type ValueForm = 'text' | 'bytes' | 'number' | 'moment' | 'duration' | 'document';

const FORMS: Readonly<Record<string, ValueForm>> = {
  ...Object.fromEntries(
    ['tinyint', 'smallint', 'mediumint', 'int', 'bigint', 'decimal', 'year', 'date', 'enum', 'set'].map(asText),
  ),
  ...Object.fromEntries(['char', 'varchar', 'tinytext', 'text', 'mediumtext', 'longtext'].map(asText)),
  ...Object.fromEntries(
    ['binary', 'varbinary', 'tinyblob', 'blob', 'mediumblob', 'longblob'].map((t) => [t, 'bytes'] as const),
  ),
  float: 'number',
  double: 'number',
  datetime: 'moment',
  timestamp: 'moment',
  time: 'duration',
  json: 'document',
};

function asText(type: string): readonly [string, ValueForm] {
  return [type, 'text'];
}

async function compareTable(
  source: Side,
  database: string,
  target: Side,
  mirror: ErpMirror,
  table: string,
): Promise<Difference[]> {
  const columns = await source.columns(database, table);
  if (columns.length === 0) throw new Error(`the source has no table ${table}`);
  const there = new Map((await target.columns(mirror.schema, table)).map((column) => [column.name, column]));
  if (there.size === 0) return [{ table, kind: 'no table', key: `${mirror.schema}.${table}` }];
  const lacking = columns.filter(({ name }) => !there.has(name));
  if (lacking.length > 0) return lacking.map(({ name }) => ({ table, kind: 'no column', key: name }));

  const theirs = columns.map(({ name }) => there.get(name)!);
  const forms = columns.map(({ name, type }, index) => {
    const form = FORMS[type];
    if (form === undefined) throw new Error(`${table}.${name}: columns of type ${type} are not compared yet`);
    // What is a document on one side only is text on the other.
    return /json/.test(theirs[index]!.type) ? 'document' : form;
  });
  const hashed = (rows: readonly (string | null)[][]): Map<string, string> =>
    new Map(
      rows.map((row) => [
        row.filter((_, index) => columns[index]!.inKey).join(','),
        createHash('md5').update(JSON.stringify(row)).digest('base64'),
      ]),
    );
  const [left, right] = await Promise.all([
    source.rows(database, table, columns, forms),
    target.rows(mirror.schema, table, theirs, forms),
  ]);
  const differences = compareRows(table, hashed(left), hashed(right));
  if (left.length !== right.length && differences.length === 0)
    differences.push({ table, kind: 'extra', key: `${right.length} rows for ${left.length}` });
  return differences;
}

async function openMysql(url: string): Promise<Side> {
  const connection = await createConnection({ uri: url, charset: 'utf8mb4', connectTimeout: 10_000 });
  connection.on('error', () => undefined);
  await connection.query("set session time_zone = '+00:00'");
  return {
    async columns(schema, table) {
      const rows = await mysqlTexts(
        connection,
        `select column_name, data_type, column_key = 'PRI' from information_schema.columns
          where table_schema = ? and table_name = ? and coalesce(generation_expression, '') = '' order by ordinal_position`,
        [schema, table],
      );
      return rows.map(([name, type, inKey]) => ({ name: name!, type: type!.toLowerCase(), inKey: inKey === '1' }));
    },
    async rows(schema, table, columns, forms) {
      const list = columns.map(({ name }, index) =>
        forms[index] === 'bytes' ? `lower(hex(\`${name}\`))` : `\`${name}\``,
      );
      const rows = await mysqlTexts(connection, `select ${list.join(', ')} from \`${schema}\`.\`${table}\``);
      return rows.map((row) => row.map((text, index) => canonicalText(text, forms[index]!)));
    },
    async close() {
      connection.destroy();
      await Promise.resolve();
    },
  };
}

async function mysqlTexts(
  connection: Connection,
  sql: string,
  values: readonly string[] = [],
): Promise<(string | null)[][]> {
  const [rows] = await connection.query<RowDataPacket[]>(
    { sql, rowsAsArray: true, typeCast: (field) => field.string('utf8') },
    [...values],
  );
  return rows as unknown as (string | null)[][];
}

async function openPostgres(url: string): Promise<Side> {
  const client = new Client({ connectionString: url, application_name: 'comparison' });
  client.on('error', () => undefined);
  await client.connect();
  await client.query(`set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set extra_float_digits = 1`);
  return {
    async columns(schema, table) {
      const { rows } = await client.query<Column>(
        `select a.attname as name, format_type(a.atttypid, null) as type,
                coalesce(a.attnum = any (i.indkey::int2[]), false) as "inKey"
           from pg_attribute a
           join pg_class c on c.oid = a.attrelid
           join pg_namespace n on n.oid = c.relnamespace
           left join pg_index i on i.indrelid = c.oid and i.indisprimary
          where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped`,
        [schema, table],
      );
      return rows;
    },
    async rows(schema, table, columns, forms) {
      const list = columns.map(({ name }, index) => {
        const column = `"${name}"`;
        if (forms[index] === 'bytes') return `encode(${column}, 'hex')`;
        if (forms[index] === 'duration') return `extract(epoch from ${column})::text`;
        return `${column}::text`;
      });
      const { rows } = await client.query({
        text: `select ${list.join(', ')} from "${schema}"."${table}"`,
        rowMode: 'array',
      });
      return (rows as (string | null)[][]).map((row) => row.map((text, index) => canonicalText(text, forms[index]!)));
    },
    close: async () => await client.end(),
  };
}

/** One text for all that a value may be written as. */
export function canonicalText(text: string | null, form: ValueForm): string | null {
  if (text === null || form === 'text' || form === 'bytes') return text;
  if (form === 'number') return String(Number(text));
  if (form === 'document') return JSON.stringify(sortKeys(JSON.parse(text)));
  if (form === 'moment') {
    // '2026-03-01 08:15:02.5', '2026-03-01 08:15:02.500000', '2026-03-01 08:15:02.5+00'
    const parts = /^([^.+]*)(?:\.(\d+))?(?:\+00)?$/.exec(text);
    if (parts === null) throw new Error(`${text} is no moment in UTC`);
    return `${parts[1]!}.${(parts[2] ?? '').padEnd(6, '0')}`;
  }
  // '-838:59:58.001' of MySQL, '-3020398.001000' of Postgres
  const parts = /^(-?)(?:(\d+):(\d+):)?(\d+(?:\.\d+)?)$/.exec(text);
  if (parts === null) throw new Error(`${text} is no duration`);
  const [, sign = '', hours = '0', minutes = '0', seconds = '0'] = parts;
  const micros = Math.round((Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1e6);
  return `${sign}${micros}`;
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, sortKeys(item)]));
}
