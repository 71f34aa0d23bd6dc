/** What the source knows of the sizes of tables that are to be read. */
import type pg from 'pg';
import { spanFits } from '../key-span.ts';
import type { TableProgress } from '../snapshot-request.ts';
import { ESTIMATE_SQL } from './chunk-sql.ts';
import type { PublishedTable } from './published-table.ts';
import { guessRows, measureBytes } from './row-guess.ts';
import { sourceError } from './source-error.ts';
import type { TableSize } from './table-queue.ts';

/**
 * Estimates the rows of each table that has some to be read, and tells how large they are. Looks at no table itself, which
 * might be locked, where the catalog tells enough.
 */
export async function estimateTables(
  client: pg.Client,
  tables: readonly TableProgress[],
  tableByName: (schema: string, name: string) => PublishedTable | undefined,
): Promise<Map<TableProgress, TableSize>> {
  const byOid = new Map<string, { table: TableProgress; captured: PublishedTable }[]>();
  const sizes = new Map<TableProgress, TableSize>();
  for (const table of tables) {
    const { schema, name, span, part, keys } = table;
    const captured = tableByName(schema, name);
    if (captured === undefined || keys !== undefined) continue;
    if (span !== undefined) {
      if (spanFits(span, captured.schema)) {
        const rows = await guessRows(client, captured, span);
        table.estimate = Math.round(rows);
        sizes.set(table, { rows });
      }
      continue;
    }
    const read = captured.parts.find((each) => each.schema === part?.schema && each.name === part.name) ?? captured;
    const same = byOid.get(String(read.oid)) ?? [];
    byOid.set(String(read.oid), [...same, { table, captured }]);
  }
  try {
    type Row = { oid: string; rows: number | null; bytes: number | null };
    const { rows } = await client.query<Row>(ESTIMATE_SQL, [[...byOid.keys()]]);
    for (const { oid, rows: count, bytes } of rows)
      for (const { table, captured } of byOid.get(oid)!) {
        const estimate = count ?? (await guessRows(client, captured));
        table.estimate = Math.round(estimate);
        sizes.set(table, { rows: estimate, bytes: bytes ?? (await measureBytes(client, Number(oid))) });
      }
  } catch (thrown) {
    throw sourceError(thrown, 'estimating the rows of tables');
  }
  return sizes;
}
