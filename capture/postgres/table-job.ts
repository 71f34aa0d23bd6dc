/** A table that is being read by a snapshot, and its ranges. */
import { isOrdered, type RangeMark } from '../../core/key-order.ts';
import { isUnasked, type KeyRange, type TableProgress } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import type { ChunkReader } from './chunk-reader.ts';
import { framedBounds } from './key-span.ts';
import type { BeginMark, Mark } from './log-marks.ts';
import type { PublishedTable } from './published-table.ts';

/** So often a chunk is read before its table is set aside. */
export const MOST_ATTEMPTS = 20;

/** What becomes of a table: read to its end; read anew under another key; gone; left for later; asked for once more; left where it is. */
export type Verdict = 'read' | 'anew' | 'gone' | 'aside' | 'superseded' | 'stopped';

export interface TableJob {
  readonly table: TableProgress;
  captured: PublishedTable;
  /** Names the reading in its begin and end marks. */
  readonly id: string;
  /** Ranges that are neither read to their end nor left: what is left makes another verdict than `read`. */
  open: number;
  /** Goes into the log with the first chunk. */
  begin?: Mark | undefined;
  /** The end mark went with the last chunk. */
  ended?: boolean;
  /** Bytes of a row and rows of a chunk, by what has been read so far. */
  rowBytes: number;
  rows: number;
  /** Chunks that the source is sending. */
  copying: number;
  verdict: Verdict;
}

export interface RangeJob {
  readonly job: TableJob;
  readonly range: Pick<KeyRange, 'cursor' | 'upTo' | 'done'>;
  /** Its place among the ranges that the table was cut into. */
  readonly place: number;
}

/** Tells targets that the whole table is read from here on. */
export function beginMark({ table, captured: { oid }, id }: TableJob): BeginMark {
  return { k: 'begin', id, oid, ...(isUnasked(table) ? { unasked: true } : {}) };
}

/** Tells targets which rows are read, where they can tell which those are. */
export async function markRange(
  reader: ChunkReader,
  { table: { span }, captured, id }: TableJob,
  k: RangeMark,
): Promise<void> {
  const bounds = framedBounds(captured, span!);
  if (isOrdered(captured.published, bounds)) await reader.mark({ k, id, oid: captured.oid, ...bounds });
}

export function nameOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${schema}.${name}`;
}

/** Whether the table has the partition that is to be read. */
export function holds(table: CapturedTable, part: TableProgress['part']): boolean {
  return part === undefined || table.parts.some(({ schema, name }) => schema === part.schema && name === part.name);
}

/** Forgets how far a table has been read. */
export function beginAnew(table: TableProgress): void {
  table.state = 'pending';
  table.cursor = null;
  delete table.reading;
  delete table.ranges;
}

export function keyOf({ schema }: CapturedTable): string {
  return JSON.stringify([
    schema.key,
    schema.key.map((name) => schema.columns.find((each) => each.name === name)?.type),
  ]);
}
