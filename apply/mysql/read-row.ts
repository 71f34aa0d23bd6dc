/** One row of a table in the target, for people. */
import type { MysqlSession } from './session.ts';
import { qualifiedName, quoteLiteral, quoteName } from './sql.ts';
import { targetError } from './target-error.ts';

/** The columns of the row that has these values, as text; undefined where there is none. */
export async function readRow(
  session: MysqlSession,
  schema: string,
  table: string,
  columns: readonly string[],
  key: readonly (readonly [column: string, value: string])[],
): Promise<readonly (string | null)[] | undefined> {
  const list = columns.map((column) => `CAST(${quoteName(column)} AS CHAR)`).join(', ');
  const where = key.map(([column, value]) => `${quoteName(column)} = ${quoteLiteral(value)}`).join(' AND ');
  try {
    const [row] = await session.rows(`SELECT ${list} FROM ${qualifiedName(schema, table)} WHERE ${where} LIMIT 1`);
    return row;
  } catch (thrown) {
    throw targetError(thrown, `reading ${schema}.${table}`);
  }
}
