/** Target tables: made when missing, followed when the source gets a column, refused when their shape does not fit. */
import { ReplicationError } from '../../core/errors.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import { softProblems } from '../soft-problems.ts';
import { lostReason } from '../schema-stop.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral, quoteName } from './sql.ts';
import { addColumnsSql, createTableSql, DELETED_AT_TYPE, type Surroundings } from './table-ddl.ts';
import { shapeProblems, type FoundTable, type TargetColumn } from './table-shape.ts';
import { errnoOf, targetError } from './target-error.ts';

export interface TargetTable {
  readonly schema: string;
  readonly name: string;
  readonly flavour: 'mysql' | 'mariadb';
  readonly columns: ReadonlyMap<string, TargetColumn>;
}

/** Runs a statement that commits implicitly. */
export type RunDdl = (sql: string) => Promise<void>;

/** The target table for a version of a source table. Throws `target_shape` or `target_privilege`. */
export async function ensureTargetTable(
  session: MysqlSession,
  table: TableSchema,
  schema: string,
  ddl: RunDdl,
  deletes: FlowConfig['deletes'],
): Promise<TargetTable> {
  const { flavour } = session.facts;
  try {
    let found = await readTable(session, schema, table.name);
    refuse(table, schema, [
      ...softProblems(table, { deletes }),
      ...shapeProblems(table, schema, found, flavour, deletes),
    ]);
    const missing = missingColumns(table, found);
    const lacks = found !== undefined && deletes === 'soft' && !found.columns.has(DELETED_AT);
    if (found === undefined) {
      const [there] = await session.rows(
        `SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ${quoteLiteral(schema)}`,
      );
      if (there === undefined) await ddl(`CREATE DATABASE IF NOT EXISTS ${quoteName(schema)} CHARACTER SET utf8mb4`);
      await ddl(createTableSql(table, schema, await surroundings(session), deletes));
      found = await readTable(session, schema, table.name);
    } else if (missing.length > 0 || lacks) {
      if (missing.length > 0) await ddl(addColumnsSql(table, schema, missing, await surroundings(session)));
      if (lacks) await ddl(addDeletedAtSql(schema, table.name));
      found = await readTable(session, schema, table.name);
    }
    if (found === undefined) throw new ReplicationError('target_shape', `table ${schema}.${table.name} is not there`);
    refuse(table, schema, shapeProblems(table, schema, found, flavour, deletes));
    return { schema, name: table.name, flavour, columns: found.columns };
  } catch (thrown) {
    throw targetError(thrown, `preparing table ${schema}.${table.name} in the target`);
  }
}

/** The target table of a version that it was made to fit before; undefined where it, or a column of it, is missing. */
export async function findTargetTable(
  session: MysqlSession,
  table: TableSchema,
  schema: string,
  deletes: FlowConfig['deletes'],
): Promise<TargetTable | undefined> {
  const { flavour } = session.facts;
  try {
    const found = await readTable(session, schema, table.name);
    const missing = missingColumns(table, found);
    if (deletes === 'soft' && found?.columns.has(DELETED_AT) === false) missing.push(DELETED_AT);
    if (found === undefined || missing.length > 0) {
      await requireGone(session, schema, table.name, found === undefined ? [] : missing);
      return undefined;
    }
    refuse(table, schema, [
      ...softProblems(table, { deletes }),
      ...shapeProblems(table, schema, found, flavour, deletes),
    ]);
    return { schema, name: table.name, flavour, columns: found.columns };
  } catch (thrown) {
    throw targetError(thrown, `looking at table ${schema}.${table.name} in the target`);
  }
}

/**
 * Adds the column that says since when a row is gone to tables that were made before their flow had `deletes: soft`. Those
 * that are not there are left out. Throws `target_privilege`.
 */
export async function addDeletedAt(
  session: MysqlSession,
  tables: readonly { readonly schema: string; readonly name: string }[],
): Promise<void> {
  try {
    for (const { schema, name } of tables)
      if ((await readTable(session, schema, name))?.columns.has(DELETED_AT) === false)
        await session.run(addDeletedAtSql(schema, name));
  } catch (thrown) {
    throw targetError(thrown, `adding column ${DELETED_AT} to the tables of the flow`);
  }
}

function addDeletedAtSql(schema: string, name: string): string {
  return `ALTER TABLE ${quoteName(schema)}.${quoteName(name)} ADD COLUMN ${quoteName(DELETED_AT)} ${DELETED_AT_TYPE} NULL`;
}

function missingColumns(table: TableSchema, found: FoundTable | undefined): string[] {
  return table.columns.map(({ name }) => name).filter((name) => found?.columns.has(name.toLowerCase()) !== true);
}

/** ER_BAD_DB_ERROR, ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const ABSENT: ReadonlySet<number | undefined> = new Set([1049, 1054, 1146]);

/**
 * The lists of tables and columns hide what a user has no rights on, and for moments what MariaDB alters: what they lack is
 * gone only where the server says so itself. Throws `target_privilege` where it says that this user may not look, and
 * `target_query` where it is there.
 */
async function requireGone(
  session: MysqlSession,
  schema: string,
  name: string,
  columns: readonly string[],
): Promise<void> {
  const what = columns.length === 0 ? '1' : columns.map(quoteName).join(', ');
  try {
    await session.rows(`SELECT ${what} FROM ${quoteName(schema)}.${quoteName(name)} LIMIT 0`);
  } catch (thrown) {
    if (ABSENT.has(errnoOf(thrown))) return;
    throw targetError(thrown, `looking whether table ${schema}.${name} is in the target`);
  }
  throw new ReplicationError('target_query', `table ${schema}.${name} is in the target, which does not list it`);
}

/** Throws `target_shape` where the target lacks a table that was written to, or columns that it had. */
export async function refuseLost(
  session: MysqlSession,
  table: TableSchema,
  schema: string,
  found: FoundTable | undefined,
): Promise<void> {
  const missing = missingColumns(table, found);
  if (missing.length === 0) return;
  await requireGone(session, schema, table.name, found === undefined ? [] : missing);
  throw shapeError(schema, table.name, found === undefined ? lostReason() : lostReason(missing));
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

function refuse(table: TableSchema, schema: string, problems: readonly string[]): void {
  if (problems.length > 0) throw shapeError(schema, table.name, problems.join('. '));
}

/** What decides how columns are defined in this target. */
export async function surroundings(session: MysqlSession): Promise<Surroundings> {
  const place = 'information_schema.COLLATION_CHARACTER_SET_APPLICABILITY';
  // MariaDB has collations that several character sets share, and then the full name in a column of its own.
  const full = await session.rows(
    "SELECT 1 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'information_schema'" +
      " AND TABLE_NAME = 'COLLATION_CHARACTER_SET_APPLICABILITY' AND COLUMN_NAME = 'FULL_COLLATION_NAME'",
  );
  const name = full.length === 0 ? 'COLLATION_NAME' : 'FULL_COLLATION_NAME';
  const rows = await session.rows(`SELECT ${name}, CHARACTER_SET_NAME FROM ${place}`);
  return {
    flavour: session.facts.flavour,
    charsets: new Map(rows.map(([collation, charset]) => [collation!, charset!])),
  };
}

/** The table as it is in the target; undefined when it is not there. */
export async function readTable(session: MysqlSession, schema: string, name: string): Promise<FoundTable | undefined> {
  const where = `TABLE_SCHEMA = ${quoteLiteral(schema)} AND TABLE_NAME = ${quoteLiteral(name)}`;
  const rows = await session.rows(
    `SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, COLLATION_NAME, CHARACTER_SET_NAME
       FROM information_schema.COLUMNS WHERE ${where} ORDER BY ORDINAL_POSITION`,
  );
  if (rows.length === 0) return undefined;
  const columns = new Map<string, TargetColumn>();
  for (const [column, type, nullable, fallback, extra, collation, charset] of rows) {
    const generated = /\b(VIRTUAL|STORED|PERSISTENT) GENERATED\b/i.test(extra ?? '');
    const autoIncrement = /auto_increment/i.test(extra ?? '');
    columns.set(column!.toLowerCase(), {
      name: column!,
      type: type!,
      notNull: nullable === 'NO',
      defaulted: autoIncrement || (fallback !== null && fallback !== undefined && fallback !== 'NULL'),
      fallback: defaultText(fallback ?? null, type!, extra ?? '', session.facts.flavour),
      generated,
      autoIncrement,
      collation: collation ?? undefined,
      charset: charset ?? undefined,
    });
  }
  const indexed = await session.rows(
    `SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS WHERE ${where} AND NON_UNIQUE = 0
      ORDER BY INDEX_NAME, SEQ_IN_INDEX`,
  );
  const uniques = new Map<string, Set<string>>();
  const primary: string[] = [];
  for (const [index, column, part] of indexed) {
    const set = uniques.get(index!) ?? new Set<string>();
    uniques.set(index!, set);
    // An expression or a part of a column is not the column.
    set.add(column === null || part !== null ? '' : column!.toLowerCase());
    if (index === 'PRIMARY') primary.push(column!.toLowerCase());
  }
  return { columns, uniques: [...uniques.values()], primary };
}

/** COLUMN_DEFAULT as SQL: MariaDB prints it so, MySQL the bare text of constants. */
function defaultText(
  text: string | null,
  type: string,
  extra: string,
  flavour: 'mysql' | 'mariadb',
): string | undefined {
  if (text === null || text === 'NULL') return undefined;
  if (flavour === 'mariadb') return text;
  if (/DEFAULT_GENERATED/.test(extra)) return /^current_timestamp/i.test(text) ? text : `(${text})`;
  if (/^(?:b'|0x)/.test(text) && /^(?:bit|binary|varbinary)/.test(type)) return text;
  if (/^current_timestamp/i.test(text) && /^(?:datetime|timestamp)/.test(type)) return text;
  return quoteLiteral(text);
}
