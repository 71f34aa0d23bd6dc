/**
 * Tables of a source read as they are, beside the log and without a word in it: rows in the form in which frames carry
 * them, for whoever proves that what came through the log is all that there is.
 */
import type { SourceConfig } from '../core/config.ts';
import type { TableSchema } from '../core/frame.ts';

/** A row as frames carry it, after the column rules of its source. */
export type ScannedRow = readonly (string | null)[];

export interface TableScan {
  /** The captured tables, as frames describe them. */
  readonly tables: readonly TableSchema[];
  /**
   * The rows of one of `tables` in pieces, in the order of its key: each piece is of a moment of its own. Throws
   * `source_query` and the like, also where the table was altered meanwhile.
   */
  pieces(table: TableSchema): AsyncGenerator<readonly ScannedRow[], void, void>;
  close(): Promise<void>;
}

/** Does a piece of work on the source, and rests so that nobody notices. */
export type Work = <T>(piece: () => Promise<T>) => Promise<T>;

/** Connects to a source. Loads nothing of the other kinds. Throws `source_unreachable` or another classified error. */
export async function openTableScan(settings: SourceConfig, applicationName: string, work: Work): Promise<TableScan> {
  if (settings.kind === 'postgres') {
    const { openPostgresScan } = await import('./postgres/table-scan.ts');
    return await openPostgresScan(settings, applicationName, work);
  }
  const { openMysqlScan } = await import('./mysql/table-scan.ts');
  return await openMysqlScan(settings, work);
}

/** How many rows the next piece has: about `PIECE_BYTES`, by what the last one took. */
export function nextPieceRows(rows: number, bytes: number): number {
  const average = Math.max(1, bytes / Math.max(1, rows));
  return Math.max(LEAST_ROWS, Math.min(MOST_ROWS, Math.floor(PIECE_BYTES / average)));
}

export const FIRST_ROWS = 1000;
const LEAST_ROWS = 50;
/** Few enough for whoever works on them at once to let others have their turn. */
const MOST_ROWS = 2000;
const PIECE_BYTES = 512 << 10;
