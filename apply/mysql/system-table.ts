/** The tables of a system in MySQL or MariaDB that outbound flows write to, as they are. */
import type { SystemColumn, SystemTable } from '../outbound/outbound-shape.ts';
import type { MysqlSession } from './session.ts';
import { qualifiedName, quoteName } from './sql.ts';
import type { TargetColumn } from './table-shape.ts';
import { errnoOf, sqlStateOf } from './target-error.ts';
import { readTable } from './target-table.ts';

export type MysqlColumn = TargetColumn & SystemColumn;

export interface MysqlSystemTable extends SystemTable {
  readonly details: ReadonlyMap<string, MysqlColumn>;
}

/** Reads tables by their names; one without a database lies in `database`. Undefined for one that is not there. */
export async function readSystemTables(
  session: MysqlSession,
  database: string | undefined,
  names: readonly string[],
): Promise<Map<string, MysqlSystemTable | undefined>> {
  const tables = new Map<string, MysqlSystemTable | undefined>();
  for (const name of names) tables.set(name, await readSystemTable(session, database, name));
  return tables;
}

async function readSystemTable(
  session: MysqlSession,
  database: string | undefined,
  name: string,
): Promise<MysqlSystemTable | undefined> {
  const dot = name.indexOf('.');
  const schema = dot < 0 ? database : name.slice(0, dot);
  const found = schema === undefined ? undefined : await readTable(session, schema, name.slice(dot + 1));
  if (schema === undefined || found === undefined) return undefined;
  const rights = await readRights(session, qualifiedName(schema, name.slice(dot + 1)), [...found.columns.values()]);
  const details = new Map(
    [...found.columns.values()].map((column) => [
      column.name,
      // Texts of keys have no blanks at their ends, which these collations pass over.
      {
        ...column,
        exact: column.charset !== undefined && /(?:_bin|^binary)$/.test(column.collation ?? ''),
        denied: rights.ofColumn(column.name),
      },
    ]),
  );
  return {
    schema,
    name: name.slice(dot + 1),
    foundByName: schema === database,
    details,
    columns: details,
    unique: found.uniques.map((index) =>
      [...index].map((column) => (column === '' ? '' : found.columns.get(column)!.name)),
    ),
    denied: rights.denied,
    hides: rights.hides,
  };
}

interface Rights {
  readonly denied: readonly string[];
  readonly hides: boolean;
  ofColumn(name: string): readonly string[];
}

/** ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR */
const DENIED = new Set([1142, 1143]);

/**
 * What this user may not do with a table, by way of whatever grants and roles: asked by having statements explained, for
 * which it takes the rights to run them. Nothing is run.
 */
async function readRights(session: MysqlSession, table: string, columns: readonly TargetColumn[]): Promise<Rights> {
  const may = async (statement: string): Promise<boolean> => {
    try {
      await session.rows(`EXPLAIN ${statement}`);
      return true;
    } catch (thrown) {
      if (DENIED.has(errnoOf(thrown) ?? 0)) return false;
      // It met something else behind the rights, such as a column that must be given.
      if (sqlStateOf(thrown) !== undefined) return true;
      throw thrown;
    }
  };
  const names = (of: readonly TargetColumn[]): string => of.map(({ name }) => quoteName(name)).join(', ');
  const statements: Readonly<Record<string, (of: readonly TargetColumn[]) => string>> = {
    SELECT: (of) => `SELECT ${names(of)} FROM ${table} WHERE FALSE`,
    INSERT: (of) =>
      `INSERT INTO ${table} (${names(of)}) SELECT ${of.map(() => 'NULL').join(', ')} FROM DUAL WHERE FALSE`,
    UPDATE: (of) => `UPDATE ${table} SET ${of.map(({ name }) => `${quoteName(name)} = NULL`).join(', ')} WHERE FALSE`,
  };
  const written = columns.filter(({ generated }) => !generated);
  const denied: string[] = [];
  const ofColumn = new Map<string, string[]>();
  for (const [verb, statement] of Object.entries(statements)) {
    const all = verb === 'SELECT' ? columns : written;
    if (all.length === 0 || (await may(statement(all)))) continue;
    const refused: string[] = [];
    for (const column of all) if (!(await may(statement([column])))) refused.push(column.name);
    if (refused.length === all.length) denied.push(verb);
    else for (const name of refused) ofColumn.set(name, [...(ofColumn.get(name) ?? []), verb]);
  }
  if (!(await may(`DELETE FROM ${table} WHERE FALSE`))) denied.push('DELETE');
  const hides = !(await may(`SELECT * FROM ${table} WHERE FALSE`));
  return { denied, hides, ofColumn: (name) => ofColumn.get(name) ?? [] };
}
