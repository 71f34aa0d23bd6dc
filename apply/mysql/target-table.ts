/** Target tables: made when missing, followed when the source gets a column, refused when their shape does not fit. */
import { ReplicationError } from '../../core/errors.ts';
import type { TableSchema } from '../../core/frame.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral, quoteName } from './sql.ts';
import { addColumnsSql, createTableSql, type Surroundings } from './table-ddl.ts';
import { shapeProblems, type FoundTable, type TargetColumn } from './table-shape.ts';
import { targetError } from './target-error.ts';

export interface TargetTable {
  readonly schema: string;
  readonly name: string;
  readonly flavour: 'mysql' | 'mariadb';
  readonly columns: ReadonlyMap<string, TargetColumn>;
}

/** Runs a statement that commits implicitly. */
export type RunDdl = (sql: string) => Promise<void>;

/** SQL mode in which the labels of enums mean what COLUMN_TYPE prints. */
const LABEL_MODE = `SET @waybill_mode = @@sql_mode; SET sql_mode = REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', '')`;

/** The target table for a version of a source table. Throws `target_shape` or `target_privilege`. */
export async function ensureTargetTable(
  session: MysqlSession,
  table: TableSchema,
  schema: string,
  ddl: RunDdl,
): Promise<TargetTable> {
  const { flavour } = session.facts;
  const run = (sql: string): Promise<void> =>
    ddl(sql.includes('\\') ? `${LABEL_MODE}; ${sql}; SET sql_mode = @waybill_mode` : sql);
  try {
    let found = await readTable(session, schema, table.name);
    refuse(table, schema, shapeProblems(table, schema, found, flavour));
    if (found === undefined) {
      const [there] = await session.rows(
        `SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ${quoteLiteral(schema)}`,
      );
      if (there === undefined) await run(`CREATE DATABASE IF NOT EXISTS ${quoteName(schema)} CHARACTER SET utf8mb4`);
      await run(createTableSql(table, schema, await surroundings(session)));
      found = await readTable(session, schema, table.name);
    } else {
      const { columns } = found;
      const missing = table.columns.filter(({ name }) => !columns.has(name.toLowerCase())).map(({ name }) => name);
      if (missing.length > 0) {
        await run(addColumnsSql(table, schema, missing, await surroundings(session)));
        found = await readTable(session, schema, table.name);
      }
    }
    if (found === undefined) throw new ReplicationError('target_shape', `table ${schema}.${table.name} is not there`);
    refuse(table, schema, shapeProblems(table, schema, found, flavour));
    return { schema, name: table.name, flavour, columns: found.columns };
  } catch (thrown) {
    throw targetError(thrown, `preparing table ${schema}.${table.name} in the target`);
  }
}

function refuse(table: TableSchema, schema: string, problems: readonly string[]): void {
  if (problems.length > 0)
    throw new ReplicationError('target_shape', `target table ${schema}.${table.name}: ${problems.join('. ')}`, {
      context: { table: `${schema}.${table.name}` },
    });
}

async function surroundings(session: MysqlSession): Promise<Surroundings> {
  const rows = await session.rows(
    'SELECT COLLATION_NAME, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY',
  );
  return { flavour: session.facts.flavour, charsets: new Map(rows.map(([name, charset]) => [name!, charset!])) };
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
      defaulted: autoIncrement || (fallback !== null && fallback !== undefined),
      generated,
      autoIncrement,
      collation: collation ?? undefined,
      charset: charset ?? undefined,
    });
  }
  const indexed = await session.rows(
    `SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS WHERE ${where} AND NON_UNIQUE = 0`,
  );
  const uniques = new Map<string, Set<string>>();
  for (const [index, column, part] of indexed) {
    const set = uniques.get(index!) ?? new Set<string>();
    uniques.set(index!, set);
    // An expression or a part of a column is not the column.
    set.add(column === null || part !== null ? '' : column!.toLowerCase());
  }
  return { columns, uniques: [...uniques.values()] };
}
