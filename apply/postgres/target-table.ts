/** Target tables: made when missing, refused when their shape does not fit. What changes later is follow-changes.ts. */
import type { ClientBase } from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import type { FlowConfig } from '../../core/config.ts';
import { dialectOf } from '../../core/column-kind.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import { mapToPostgres } from '../type-mapping.ts';
import { qualifiedName, quoteName } from './sql.ts';
import type { TargetTable } from './table-plan.ts';
import { columnProblems, DELETED_AT_TYPE, sourceProblems, type FoundTable, type ShapeSettings } from './table-shape.ts';
import { targetError } from './target-error.ts';
import { CREATION_LOCK } from './waybill-schema.ts';

/** A version of a source table, and the schema that its target table is in. */
export interface WantedTable {
  readonly table: TableSchema;
  readonly schema: string;
}

/** The target table for a version of a source table. Throws `target_shape` or `target_privilege`. */
export async function ensureTargetTable(
  client: ClientBase,
  table: TableSchema,
  schema: string,
  settings: ShapeSettings,
): Promise<TargetTable> {
  return (await ensureTargetTables(client, [{ table, schema }], settings))[0]!;
}

/**
 * The target tables for versions of different source tables, in their order: all together, for a question costs a round
 * trip. Throws `target_shape` or `target_privilege`, also where only one of them cannot be had.
 */
export async function ensureTargetTables(
  client: ClientBase,
  wanted: readonly WantedTable[],
  settings: ShapeSettings,
): Promise<TargetTable[]> {
  try {
    for (const { table, schema } of wanted) refuseForeign(table, schema, settings);
    const types = await typesOfTables(
      client,
      wanted.map(({ table }) => table),
      settings,
    );
    const found = await readTables(client, wanted);
    const changed = wanted
      .map((_, index) => index)
      .filter(
        (index) => found[index] === undefined || lackedColumns(wanted[index]!.table, found[index], settings).length > 0,
      );
    if (changed.length > 0) {
      const missing = changed.filter((index) => found[index] === undefined);
      if (missing.length > 0)
        await createTables(
          client,
          missing.map((index) => ({ ...wanted[index]!, types: types[index]! })),
          settings,
        );
      for (const index of changed)
        if (found[index] !== undefined) await addColumns(client, wanted[index]!, found[index], types[index]!, settings);
      const again = await readTables(
        client,
        changed.map((index) => wanted[index]!),
      );
      for (const [n, index] of changed.entries()) found[index] = again[n];
    }
    return await asTargets(client, wanted, found, types, settings);
  } catch (thrown) {
    const names = wanted.map(({ table, schema }) => `${schema}.${table.name}`).join(', ');
    throw targetError(thrown, `preparing ${wanted.length === 1 ? 'table' : 'tables'} ${names} in the target`);
  }
}

/** The target table of a version that it was made to fit before; undefined where it, or a column of it, is missing. */
export async function findTargetTable(
  client: ClientBase,
  table: TableSchema,
  schema: string,
  settings: ShapeSettings,
): Promise<TargetTable | undefined> {
  try {
    refuseForeign(table, schema, settings);
    const found = await readTable(client, schema, table.name);
    if (found === undefined || lackedColumns(table, found, settings).length > 0) return undefined;
    const types = await typesOfTables(client, [table], settings);
    return (await asTargets(client, [{ table, schema }], [found], types, settings))[0];
  } catch (thrown) {
    throw targetError(thrown, `looking at table ${schema}.${table.name} in the target`);
  }
}

/** Tables as they were found, once nothing is missing. Throws `target_shape` where one does not fit. */
async function asTargets(
  client: ClientBase,
  wanted: readonly WantedTable[],
  found: readonly (FoundTable | undefined)[],
  types: readonly ReadonlyMap<string, string>[],
  settings: ShapeSettings,
): Promise<TargetTable[]> {
  for (const [index, { table, schema }] of wanted.entries()) {
    const [missing] = lackedColumns(table, found[index], settings);
    if (missing !== undefined) throw shapeError(schema, table.name, `column ${missing} is missing`);
    const [problem] = columnProblems(table, found[index]!, types[index]!, settings, schema);
    if (problem !== undefined) throw shapeError(schema, table.name, problem);
  }
  const keyless = await withoutKey(
    client,
    wanted.map(({ table }, index) => ({ table, oid: found[index]!.oid })),
  );
  for (const [index, { table, schema }] of wanted.entries())
    if (keyless[index] !== undefined) throw shapeError(schema, table.name, keyless[index]);
  return wanted.map(({ table, schema }, index) => {
    const { oid, holdsRows, columns } = found[index]!;
    return { schema, name: table.name, oid, holdsRows, columns: new Map(columns.map((each) => [each.name, each])) };
  });
}

/** The columns of a version that the target lacks: all of them where it has no such table. */
export function missingColumns(table: TableSchema, found: FoundTable | undefined): string[] {
  const known = new Set(found?.columns.map((column) => column.name));
  return table.columns.map(({ name }) => name).filter((name) => !known.has(name));
}

/** The same, with the column of ours where deleted rows stay. */
function lackedColumns(table: TableSchema, found: FoundTable | undefined, { deletes }: ShapeSettings): string[] {
  const missing = missingColumns(table, found);
  const lacks = deletes === 'soft' && found?.columns.some(({ name }) => name === DELETED_AT) !== true;
  return lacks ? [...missing, DELETED_AT] : missing;
}

async function addColumns(
  client: ClientBase,
  { table, schema }: WantedTable,
  found: FoundTable,
  types: ReadonlyMap<string, string>,
  settings: ShapeSettings,
): Promise<void> {
  const adds = lackedColumns(table, found, settings).map(
    (name) => `ADD COLUMN IF NOT EXISTS ${quoteName(name)} ${name === DELETED_AT ? DELETED_AT_TYPE : types.get(name)}`,
  );
  await client.query(`ALTER TABLE ${qualifiedName(schema, table.name)} ${adds.join(', ')}`);
}

/** What a source table has that Postgres or the flow has no form for. Throws `target_shape`. */
function refuseForeign(table: TableSchema, schema: string, settings: ShapeSettings): void {
  const problems = sourceProblems(table, settings);
  if (problems.length > 0) throw shapeError(schema, table.name, problems.join('. '));
}

/** The type that each column has in the target: the source's where it exists there, else the portable one. */
export async function targetTypes(
  client: ClientBase,
  table: TableSchema,
  settings: ShapeSettings,
): Promise<Map<string, string>> {
  return (await typesOfTables(client, [table], settings))[0]!;
}

async function typesOfTables(
  client: ClientBase,
  tables: readonly TableSchema[],
  settings: ShapeSettings,
): Promise<Map<string, string>[]> {
  const bare = (type: string): string => type.replace(/\([^)]*\)/, '');
  const asked = new Set<string>();
  for (const table of tables)
    if (dialectOf(table) === 'postgres') for (const { type } of table.columns) asked.add(bare(type));
  const known = new Set<string>();
  if (asked.size > 0) {
    const { rows } = await client.query<{ type: string }>(
      'SELECT t AS type FROM unnest($1::text[]) AS u(t) WHERE to_regtype(t) IS NOT NULL',
      [[...asked]],
    );
    for (const { type } of rows) known.add(type);
  }
  return tables.map((table) => {
    const dialect = dialectOf(table);
    const typeOf = (column: ColumnSchema): string => {
      if (dialect !== 'postgres') return mapToPostgres(column, dialect, settings)!.type;
      return known.has(bare(column.type)) ? column.type : column.portable;
    };
    return new Map(table.columns.map((column) => [column.name, typeOf(column)]));
  });
}

async function createTables(
  client: ClientBase,
  tables: readonly (WantedTable & { readonly types: ReadonlyMap<string, string> })[],
  settings: ShapeSettings,
): Promise<void> {
  const schemas = [...new Set(tables.map(({ schema }) => schema))];
  const { rows } = await client.query<{ name: string }>(
    'SELECT nspname AS name FROM pg_namespace WHERE nspname = ANY ($1)',
    [schemas],
  );
  const there = new Set(rows.map(({ name }) => name));
  // Several flows may make their first table at once, and IF NOT EXISTS does not see what another one has begun to make. Sent
  // together the statements are one transaction, where none is open, and the lock is held to its end.
  const statements = [
    `SELECT pg_advisory_xact_lock(${CREATION_LOCK})`,
    ...schemas.filter((name) => !there.has(name)).map((name) => `CREATE SCHEMA IF NOT EXISTS ${quoteName(name)}`),
    ...tables.map(({ table, schema, types }) => createSql(table, schema, types, settings)),
  ];
  await client.query(statements.join('; '));
}

function createSql(
  table: TableSchema,
  schema: string,
  types: ReadonlyMap<string, string>,
  settings: ShapeSettings,
): string {
  const own = dialectOf(table) === 'postgres';
  const lines = table.columns.map((column) => {
    const notNull = column.notNull && !mayBeNull(table, column, types.get(column.name)!, settings);
    return (
      `${quoteName(column.name)} ${types.get(column.name)}${notNull ? ' NOT NULL' : ''}` +
      (own && column.default !== undefined ? ` DEFAULT ${column.default}` : '')
    );
  });
  if (settings.deletes === 'soft') lines.push(`${quoteName(DELETED_AT)} ${DELETED_AT_TYPE}`);
  if (table.key.length > 0) lines.push(`PRIMARY KEY (${table.key.map(quoteName).join(', ')})`);
  return `CREATE TABLE IF NOT EXISTS ${qualifiedName(schema, table.name)} (${lines.join(', ')})`;
}

/** A zero date that becomes NULL needs room for one. */
export function mayBeNull(table: TableSchema, column: ColumnSchema, type: string, settings: ShapeSettings): boolean {
  if (dialectOf(table) === 'postgres' || settings.zero_dates !== 'null') return false;
  return /^(date|timestamp)/.test(type) && !table.key.includes(column.name);
}

/**
 * Adds the column that says since when a row is gone to tables that were made before their flow had `deletes: soft`. Those
 * that are not there are left out. Throws `target_privilege`.
 */
export async function addDeletedAt(
  client: ClientBase,
  tables: readonly { readonly schema: string; readonly name: string }[],
): Promise<void> {
  try {
    const found = await readTables(
      client,
      tables.map(({ schema, name }) => ({ schema, table: { name } })),
    );
    for (const [index, { schema, name }] of tables.entries())
      if (found[index]?.columns.every((column) => column.name !== DELETED_AT) === true)
        await client.query(
          `ALTER TABLE ${qualifiedName(schema, name)} ADD COLUMN IF NOT EXISTS ${quoteName(DELETED_AT)} ${DELETED_AT_TYPE}`,
        );
  } catch (thrown) {
    throw targetError(thrown, `adding column ${DELETED_AT} to the tables of the flow`);
  }
}

export async function readTable(client: ClientBase, schema: string, name: string): Promise<FoundTable | undefined> {
  return (await readTables(client, [{ schema, table: { name } }]))[0];
}

/** In the order asked for; undefined for one that is not there. */
async function readTables(
  client: ClientBase,
  wanted: readonly { readonly schema: string; readonly table: Pick<TableSchema, 'name'> }[],
): Promise<(FoundTable | undefined)[]> {
  const { rows } = await client.query<{
    n: string;
    oid: string;
    holds: boolean;
    attname: string;
    type: string;
    attnotnull: boolean;
    atthasdef: boolean;
    generated: string;
    identity: string;
  }>(
    `SELECT w.n, c.oid::int8::text::bigint AS oid, c.relkind IN ('r', 'f') AS holds, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
            a.atthasdef, a.attgenerated::text AS generated, a.attidentity::text AS identity
       FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, n)
       JOIN pg_namespace n ON n.nspname = w.schema::name
       JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name::name AND c.relkind IN ('r', 'p', 'f', 'v')
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      ORDER BY w.n, a.attnum`,
    [wanted.map(({ schema }) => schema), wanted.map(({ table }) => table.name)],
  );
  const found: (FoundTable | undefined)[] = wanted.map(() => undefined);
  for (const row of rows) {
    const table = (found[Number(row.n) - 1] ??= { oid: Number(row.oid), holdsRows: row.holds, columns: [] });
    table.columns.push({
      name: row.attname,
      type: row.type,
      notNull: row.attnotnull,
      defaulted: row.atthasdef || row.identity !== '',
      generated: row.generated !== '',
      identityAlways: row.identity === 'a',
    });
  }
  return found;
}

type RightSettings = Pick<FlowConfig, 'deletes' | 'truncate' | 'extra_rows'>;

/** What of a table that the target has does not fit a version of its source table. */
export interface ExistingProblem {
  readonly severity: 'error' | 'warning';
  readonly message: string;
  /** It is about rights, not the shape. */
  readonly ofRights: boolean;
}

/**
 * What of tables that the target has, its own or made earlier, does not fit versions of source tables, in their order: shapes,
 * and rights to write. Nothing of one that is yet to be made.
 */
export async function existingProblems(
  client: ClientBase,
  wanted: readonly WantedTable[],
  settings: ShapeSettings & RightSettings,
): Promise<ExistingProblem[][]> {
  const types = await typesOfTables(
    client,
    wanted.map(({ table }) => table),
    settings,
  );
  const found = await readTables(client, wanted);
  const there = wanted.flatMap(({ table }, index) =>
    found[index] === undefined ? [] : [{ table, oid: found[index].oid, index }],
  );
  const keyless = await withoutKey(client, there);
  const lacking = await missingRights(
    client,
    there.map(({ oid }) => oid),
  );
  const problems: ExistingProblem[][] = wanted.map(() => []);
  for (const [n, { table, oid, index }] of there.entries()) {
    const { schema } = wanted[index]!;
    const key = keyless[n];
    const shape = [
      ...columnProblems(table, found[index]!, types[index]!, settings, schema),
      ...(key === undefined ? [] : [key]),
    ];
    problems[index]!.push(
      ...shape.map((message): ExistingProblem => ({ severity: 'error', message, ofRights: false })),
      ...rightProblems(table, lacking.get(oid) ?? [], settings),
    );
  }
  return problems;
}

/** What of the rights that the user lacks a flow uses. */
function rightProblems(
  table: TableSchema,
  lacking: readonly string[],
  { deletes, truncate, extra_rows: extraRows }: RightSettings,
): ExistingProblem[] {
  const isKeyed = table.key.length > 0;
  // With "soft" rows that go, and those of a table that is emptied, are marked.
  const isNeeded = (right: string): boolean => {
    if (right === 'DELETE') return deletes === 'apply' || (deletes === 'ignore' && extraRows === 'delete');
    // A table without a key is emptied before it is read again.
    return right !== 'TRUNCATE' || !isKeyed || (truncate === 'apply' && deletes !== 'soft');
  };
  const needed = lacking.filter(isNeeded);
  const problems: ExistingProblem[] = [];
  if (needed.length > 0)
    problems.push({ severity: 'error', message: `the user lacks ${needed.join(', ')} on it`, ofRights: true });
  if (isKeyed && lacking.includes('DELETE') && !needed.includes('DELETE'))
    problems.push({
      severity: 'warning',
      message: 'the user lacks DELETE on it, which a row takes whose key changes at the source',
      ofRights: true,
    });
  return problems;
}

/** Of the rights to write a table those that this user lacks, by oid. */
async function missingRights(client: ClientBase, oids: readonly number[]): Promise<Map<number, string[]>> {
  const { rows } = await client.query<{ oid: string; rights: string[] }>(
    `SELECT o::int8 AS oid, array_agg(r ORDER BY n) AS rights
       FROM unnest($1::int8[]) o, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) WITH ORDINALITY r(r, n)
      WHERE NOT has_table_privilege(o::oid, r) GROUP BY o`,
    [oids],
  );
  return new Map(rows.map(({ oid, rights }) => [Number(oid), rights]));
}

/** Why rows of tables cannot be told apart in the target, in their order; undefined where they can. */
async function withoutKey(
  client: ClientBase,
  tables: readonly { readonly table: TableSchema; readonly oid: number }[],
): Promise<(string | undefined)[]> {
  const keyed = tables.filter(({ table }) => table.key.length > 0);
  const keys =
    keyed.length === 0
      ? new Map<number, string[][]>()
      : await uniqueKeys(
          client,
          keyed.map(({ oid }) => oid),
        );
  return tables.map(({ table, oid }) =>
    table.key.length === 0 || isUnique(keys.get(oid), table.key)
      ? undefined
      : `it has no unique index on its key columns (${table.key.join(', ')})`,
  );
}

/** Whether rows can be told apart in the target by these columns. */
export async function hasUniqueKey(client: ClientBase, oid: number, key: readonly string[]): Promise<boolean> {
  return isUnique((await uniqueKeys(client, [oid])).get(oid), key);
}

function isUnique(keys: readonly (readonly string[])[] | undefined, key: readonly string[]): boolean {
  return keys?.some((columns) => columns.length === key.length && columns.every((name) => key.includes(name))) === true;
}

/** The columns of the unique indexes that an upsert may rely on, by the oids of their tables. */
async function uniqueKeys(client: ClientBase, oids: readonly number[]): Promise<Map<number, string[][]>> {
  const { rows } = await client.query<{ oid: string; columns: string[] }>(
    `SELECT i.indrelid::int8 AS oid,
            ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid
                     AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) AS columns
       FROM pg_index i WHERE i.indrelid = ANY ($1::int8[]::oid[]) AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL`,
    [oids],
  );
  const keys = new Map<number, string[][]>();
  for (const { oid, columns } of rows) {
    const known = keys.get(Number(oid));
    if (known === undefined) keys.set(Number(oid), [columns]);
    else known.push(columns);
  }
  return keys;
}

/** The target lacks a table that it had, or a column of it. */
export function lostError(schema: string, name: string): ReplicationError {
  return shapeError(schema, name, 'it, or a column of it, is missing, and had been written');
}

export function shapeError(schema: string, name: string, what: string): ReplicationError {
  return new ReplicationError('target_shape', `target table ${schema}.${name}: ${what}`, {
    context: { table: `${schema}.${name}` },
  });
}
