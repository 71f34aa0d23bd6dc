/** Reads tables of a Postgres source in pieces, each by a statement of its own: no lock, no long transaction. */
import type pg from 'pg';
import { parseCopyLine } from '../../core/copy-line.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { FIRST_ROWS, nextPieceRows, type ScannedRow, type TableScan, type Work } from '../table-scan.ts';
import { chunkSql } from './chunk-sql.ts';
import { connectSource } from './connection.ts';
import { CopyOut } from './copy-out.ts';
import { matchingTables } from './publication.ts';
import { publishedRow, publishTable, type PublishedTable } from './published-table.ts';
import { sourceError } from './source-error.ts';

export async function openPostgresScan(
  settings: PostgresSourceConfig,
  applicationName: string,
  work: Work,
): Promise<TableScan> {
  const client = await connectSource(settings, applicationName);
  try {
    const rules = ColumnRules.compile(settings.columns);
    const found = (await matchingTables(client, settings.tables)).map((table) => publishTable(table, rules));
    const tables = new Map(found.map((table) => [table.published, table]));
    return {
      tables: [...tables.keys()],
      pieces: (table) => pieces(client, tables.get(table)!, work),
      close: async () => {
        await client.end().catch(() => undefined);
      },
    };
  } catch (thrown) {
    await client.end().catch(() => undefined);
    throw thrown;
  }
}

async function* pieces(
  client: pg.Client,
  table: PublishedTable,
  work: Work,
): AsyncGenerator<readonly ScannedRow[], void, void> {
  const keyless = table.keyIndexes.length === 0;
  let after: readonly string[] | null = null;
  let limit: number | undefined = keyless ? undefined : FIRST_ROWS;
  for (;;) {
    const piece = await work(() => read(client, table, chunkSql(table, { after, upTo: null }, limit)));
    yield piece.rows;
    if (limit === undefined || piece.rows.length < limit) return;
    after = piece.last;
    limit = nextPieceRows(piece.rows.length, piece.bytes);
  }
}

interface Piece {
  readonly rows: ScannedRow[];
  /** Key of the last row as the source has it. */
  readonly last: readonly string[];
  readonly bytes: number;
}

async function read(client: pg.Client, table: PublishedTable, sql: string): Promise<Piece> {
  const rows: ScannedRow[] = [];
  let bytes = 0;
  let last: readonly (string | null)[] = [];
  try {
    const copy = client.query(new CopyOut(`copy (${sql}) to stdout`));
    while (await copy.more())
      while (copy.next()) {
        bytes += copy.end - copy.start;
        last = parseCopyLine(copy.data.toString('utf8', copy.start, copy.end - 1));
        rows.push(publishedRow(table, last));
      }
  } catch (thrown) {
    throw sourceError(thrown, `reading ${table.schema.schema}.${table.schema.name}`);
  }
  return { rows, last: table.keyIndexes.map((index) => last[index] ?? ''), bytes };
}
