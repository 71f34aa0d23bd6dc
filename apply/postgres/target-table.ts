/** Target tables: made when missing, refused when their shape does not fit. What changes later is follow-changes.ts. */
import type { ClientBase } from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import type { FlowConfig } from '../../core/config.ts';
import { dialectOf } from '../../core/column-kind.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { mapToPostgres } from '../type-mapping.ts';
import { qualifiedName, quoteName } from './sql.ts';
import type { TargetColumn, TargetTable } from './table-plan.ts';
import { targetError } from './target-error.ts';
import { CREATION_LOCK } from './waybill-schema.ts';

export interface FoundColumn extends TargetColumn {
  readonly name: string;
  readonly notNull: boolean;
  readonly defaulted: boolean;
}

/** The target table for a version of a source table. Throws `target_shape` or `target_privilege`. */
export async function ensureTargetTable(
  client: ClientBase,
  table: TableSchema,
  schema: string,
  settings: Pick<FlowConfig, 'zero_dates'>,
): Promise<TargetTable> {
  try {
    refuseForeign(table, schema, settings);
    const types = await targetTypes(client, table, settings);
    let found = await readTable(client, schema, table.name);
    if (found === undefined) {
      await createTable(client, table, schema, types, settings);
      found = (await readTable(client, schema, table.name))!;
    } else {
      const known = new Set(found.columns.map((column) => column.name));
      const added = table.columns.filter((column) => !known.has(column.name));
      if (added.length > 0) {
        const adds = added.map(
          (column) => `ADD COLUMN IF NOT EXISTS ${quoteName(column.name)} ${types.get(column.name)}`,
        );
        await client.query(`ALTER TABLE ${qualifiedName(schema, table.name)} ${adds.join(', ')}`);
        found = (await readTable(client, schema, table.name))!;
      }
    }
    await checkShape(client, table, schema, found, types, settings);
    return {
      schema,
      name: table.name,
      oid: found.oid,
      holdsRows: found.holdsRows,
      columns: new Map(found.columns.map((column) => [column.name, column])),
    };
  } catch (thrown) {
    throw targetError(thrown, `preparing table ${schema}.${table.name} in the target`);
  }
}

/** Most bytes of a name in Postgres. */
const MAX_NAME_BYTES = 63;

/** What a table of MySQL or MariaDB has that Postgres has no form for. Throws `target_shape`. */
function refuseForeign(table: TableSchema, schema: string, settings: Pick<FlowConfig, 'zero_dates'>): void {
  const problems = foreignProblems(table, settings);
  if (problems.length > 0) throw shapeError(schema, table.name, problems.join('. '));
}

/** Why a table of another kind of source cannot be written to Postgres; empty when it can. */
export function foreignProblems(table: TableSchema, settings: Pick<FlowConfig, 'zero_dates'>): string[] {
  const dialect = dialectOf(table);
  if (dialect === 'postgres') return [];
  const long = [table.name, ...table.columns.map((column) => column.name)].filter(
    (name) => Buffer.byteLength(name) > MAX_NAME_BYTES,
  );
  return [
    ...long.map(
      (name) => `the name ${name} has more than ${MAX_NAME_BYTES} bytes; exclude the table, or rename it at the source`,
    ),
    ...table.columns
      .filter((column) => mapToPostgres(column, dialect, settings) === undefined)
      .map((column) => `column ${column.name} (${column.type}) has no type here; exclude the table`),
  ];
}

/** The type that each column has in the target: the source's where it exists there, else the portable one. */
export async function targetTypes(
  client: ClientBase,
  table: TableSchema,
  settings: Pick<FlowConfig, 'zero_dates'>,
): Promise<Map<string, string>> {
  const { columns } = table;
  const dialect = dialectOf(table);
  if (dialect !== 'postgres')
    return new Map(columns.map((column) => [column.name, mapToPostgres(column, dialect, settings)!.type]));
  const { rows } = await client.query<{ known: boolean }>(
    'SELECT to_regtype(t) IS NOT NULL AS known FROM unnest($1::text[]) WITH ORDINALITY AS u(t, n) ORDER BY n',
    [columns.map((column) => column.type.replace(/\([^)]*\)/, ''))],
  );
  return new Map(
    columns.map((column, index) => [column.name, rows[index]?.known === true ? column.type : column.portable]),
  );
}

async function createTable(
  client: ClientBase,
  table: TableSchema,
  schema: string,
  types: ReadonlyMap<string, string>,
  settings: Pick<FlowConfig, 'zero_dates'>,
): Promise<void> {
  const own = dialectOf(table) === 'postgres';
  const lines = table.columns.map((column) => {
    const notNull = column.notNull && !mayBeNull(table, column, types.get(column.name)!, settings);
    return (
      `${quoteName(column.name)} ${types.get(column.name)}${notNull ? ' NOT NULL' : ''}` +
      (own && column.default !== undefined ? ` DEFAULT ${column.default}` : '')
    );
  });
  if (table.key.length > 0) lines.push(`PRIMARY KEY (${table.key.map(quoteName).join(', ')})`);
  const { rowCount } = await client.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [schema]);
  // Several flows may make their first table at once, and IF NOT EXISTS does not see what another one has begun to make. Sent
  // together the statements are one transaction, where none is open, and the lock is held to its end.
  const statements = [
    `SELECT pg_advisory_xact_lock(${CREATION_LOCK})`,
    ...(rowCount === 0 ? [`CREATE SCHEMA IF NOT EXISTS ${quoteName(schema)}`] : []),
    `CREATE TABLE IF NOT EXISTS ${qualifiedName(schema, table.name)} (${lines.join(', ')})`,
  ];
  await client.query(statements.join('; '));
}

/** A zero date that becomes NULL needs room for one. */
export function mayBeNull(
  table: TableSchema,
  column: ColumnSchema,
  type: string,
  settings: Pick<FlowConfig, 'zero_dates'>,
): boolean {
  if (dialectOf(table) === 'postgres' || settings.zero_dates !== 'null') return false;
  return /^(date|timestamp)/.test(type) && !table.key.includes(column.name);
}

export async function readTable(
  client: ClientBase,
  schema: string,
  name: string,
): Promise<{ oid: number; holdsRows: boolean; columns: FoundColumn[] } | undefined> {
  const { rows } = await client.query<{
    oid: string;
    holds: boolean;
    attname: string;
    type: string;
    attnotnull: boolean;
    atthasdef: boolean;
    generated: string;
    identity: string;
  }>(
    `SELECT c.oid::int8::text::bigint AS oid, c.relkind IN ('r', 'f') AS holds, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
            a.atthasdef, a.attgenerated::text AS generated, a.attidentity::text AS identity
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'f', 'v') ORDER BY a.attnum`,
    [schema, name],
  );
  if (rows.length === 0) return undefined;
  return {
    oid: Number(rows[0]!.oid),
    holdsRows: rows[0]!.holds,
    columns: rows.map((row) => ({
      name: row.attname,
      type: row.type,
      notNull: row.attnotnull,
      defaulted: row.atthasdef || row.identity !== '',
      generated: row.generated !== '',
      identityAlways: row.identity === 'a',
    })),
  };
}

async function checkShape(
  client: ClientBase,
  table: TableSchema,
  schema: string,
  found: { oid: number; columns: FoundColumn[] },
  types: ReadonlyMap<string, string>,
  settings: Pick<FlowConfig, 'zero_dates'>,
): Promise<void> {
  const dialect = dialectOf(table);
  const byName = new Map(found.columns.map((column) => [column.name, column]));
  for (const column of table.columns) {
    const target = byName.get(column.name);
    if (target === undefined) throw shapeError(schema, table.name, `column ${column.name} (${column.type}) is missing`);
    const mapped = types.get(column.name) ?? column.type;
    const fits =
      dialect === 'postgres'
        ? accepts(target.type, mapped) || accepts(target.type, column.portable)
        : accepts(target.type, mapped) ||
          mapToPostgres(column, dialect, settings)!.accepts.has(target.type.replace(/\([^)]*\)/, ''));
    if (!fits)
      throw shapeError(
        schema,
        table.name,
        `column ${column.name} is ${target.type} in the target and ${column.type} in the source`,
      );
    byName.delete(column.name);
  }
  for (const extra of byName.values())
    if (extra.notNull && !extra.defaulted && !extra.generated)
      throw shapeError(
        schema,
        table.name,
        `column ${extra.name} (${extra.type}) is not in the source, and is NOT NULL without a default`,
      );
  if (table.key.length === 0) return;
  if (!(await hasUniqueKey(client, found.oid, table.key)))
    throw shapeError(schema, table.name, `it has no unique index on its key columns (${table.key.join(', ')})`);
}

/** Whether rows can be told apart in the target by these columns. */
export async function hasUniqueKey(client: ClientBase, oid: number, key: readonly string[]): Promise<boolean> {
  const { rowCount } = await client.query(
    `SELECT 1 FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = cardinality($2::text[])
        AND (SELECT bool_and(a.attname = ANY ($2::text[])) FROM pg_attribute a
              WHERE a.attrelid = $1 AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) LIMIT 1`,
    [oid, key],
  );
  return (rowCount ?? 0) > 0;
}

const FAMILIES: readonly RegExp[] = [
  /^(smallint|integer|bigint|numeric|oid)/,
  /^(real|double precision|numeric)/,
  /^(character|bpchar|text|citext|name)/,
  /^(json|jsonb)$/,
  /^(inet|cidr)$/,
];

/** Whether a column of type `target` reads the text of type `source`. Rows that do not fit go to quarantine. */
export function accepts(target: string, source: string): boolean {
  const bare = (type: string): string => type.replace(/\([^)]*\)/, '');
  if (bare(target) === bare(source)) return true;
  if (/^(text|citext|character varying)$/.test(target)) return true;
  if (bare(source) === 'date' && target.startsWith('timestamp')) return true;
  if (target.endsWith('[]') !== source.endsWith('[]')) return false;
  return FAMILIES.some((family) => family.test(target) && family.test(source));
}

export function shapeError(schema: string, name: string, what: string): ReplicationError {
  return new ReplicationError('target_shape', `target table ${schema}.${name}: ${what}`, {
    context: { table: `${schema}.${name}` },
  });
}
