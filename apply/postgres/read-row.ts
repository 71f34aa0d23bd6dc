/** One row of a table in the target, for people. */
import type { ClientBase } from 'pg';
import { qualifiedName, quoteName } from './sql.ts';
import { targetError } from './target-error.ts';

/** The columns of the row that has these values, as text; undefined where there is none. */
export async function readRow(
  client: ClientBase,
  schema: string,
  table: string,
  columns: readonly string[],
  key: readonly (readonly [column: string, value: string])[],
): Promise<readonly (string | null)[] | undefined> {
  const list = columns.map((column) => `${quoteName(column)}::text`).join(', ');
  const where = key.map(([column], index) => `${quoteName(column)}::text = $${index + 1}`).join(' AND ');
  try {
    const { rows } = await client.query({
      text: `SELECT ${list} FROM ${qualifiedName(schema, table)} WHERE ${where} LIMIT 1`,
      values: key.map(([, value]) => value),
      rowMode: 'array',
    });
    return rows[0] as (string | null)[] | undefined;
  } catch (thrown) {
    throw targetError(thrown, `reading ${schema}.${table}`);
  }
}
