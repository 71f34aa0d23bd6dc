/** What the source knows of the sizes of tables that are to be read. */
import type pg from 'pg';
import { spanFits } from '../key-span.ts';
import type { TableProgress } from '../snapshot-request.ts';
import { ESTIMATE_SQL } from './chunk-sql.ts';
import type { PublishedTable } from './published-table.ts';
import { guessRows } from './row-guess.ts';
import { sourceError } from './source-error.ts';

/**
 * Estimates the rows of each table that has some to be read, and gives the bytes that tables take, of those that were
 * analysed. Looks at no table itself, which might be locked, where the catalog tells enough.
 */
export async function estimateTables(
  client: pg.Client,
  tables: readonly TableProgress[],
  tableByName: (schema: string, name: string) => PublishedTable | undefined,
): Promise<Map<TableProgress, number>> {
  const byOid = new Map<string, { table: TableProgress; captured: PublishedTable }>();
  const bytesOf = new Map<TableProgress, number>();
  for (const table of tables) {
    const captured = tableByName(table.schema, table.name);
    if (captured !== undefined && table.span !== undefined) {
      if (spanFits(table.span, captured.schema))
        table.estimate = Math.round(await guessRows(client, captured, table.span));
    } else if (captured !== undefined && table.keys === undefined) byOid.set(String(captured.oid), { table, captured });
  }
  try {
    type Row = { oid: string; rows: number | null; bytes: number | null };
    const { rows } = await client.query<Row>(ESTIMATE_SQL, [[...byOid.keys()]]);
    for (const { oid, rows: count, bytes } of rows) {
      const { table, captured } = byOid.get(oid)!;
      table.estimate = Math.round(count ?? (await guessRows(client, captured)));
      if (bytes !== null) bytesOf.set(table, bytes);
    }
  } catch (thrown) {
    throw sourceError(thrown, 'estimating the rows of tables');
  }
  return bytesOf;
}
