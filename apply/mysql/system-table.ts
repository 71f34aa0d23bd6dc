/** The tables of a system in MySQL or MariaDB that outbound flows write to, as they are. */
import type { SystemTable } from '../outbound/outbound-shape.ts';
import type { MysqlSession } from './session.ts';
import type { TargetColumn } from './table-shape.ts';
import { readTable } from './target-table.ts';

export interface MysqlSystemTable extends SystemTable {
  readonly details: ReadonlyMap<string, TargetColumn>;
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
  const details = new Map([...found.columns.values()].map((column) => [column.name, column]));
  return {
    schema,
    name: name.slice(dot + 1),
    details,
    columns: details,
    unique: found.uniques.map((index) =>
      [...index].map((column) => (column === '' ? '' : found.columns.get(column)!.name)),
    ),
    // The server lists no table, and no column, of which this user may do nothing; what else is missing shows in use.
    denied: [],
  };
}
