/** Which rows of a table changed between two positions, from the frames of the stream. */
import { parseFrameHeaders, readFrames } from '../../core/cdc-stream.ts';
import {
  decodeFrame,
  type FramePayload,
  type RowChange,
  type TableSchema,
  type TransactionEntry,
  type Value,
} from '../../core/frame.ts';
import { natsError, type Nats } from '../../core/nats.ts';
import type { Transactions } from '../../core/pg-snapshot.ts';
import { comparePositions, entryLiesBefore, entryPosition, type Position } from '../../core/position.ts';
import { findStartSequence } from '../../core/start-sequence.ts';
import { canonicalRow } from './canonical-text.ts';
import { frameValue } from './canonical-value.ts';
import { digestOf, formatDigest } from './digest.ts';
import type { ComparedTable } from './side.ts';

/** One text for a key (or, without one, for the content of a row), the same for both sides and for frames. */
export function rowId(key: readonly string[]): string {
  return JSON.stringify(key);
}

export class Touched {
  readonly #ids = new Set<string>();
  #all = false;

  add(id: string): void {
    this.#ids.add(id);
  }

  /** Everything may have changed: a truncation, another version of the table, a value that only a database can read. */
  addAll(): void {
    this.#all = true;
  }

  has(id: string): boolean {
    return this.#all || this.#ids.has(id);
  }
}

export interface Span {
  /** Frames are read from here on. */
  readonly lookBack: Position;
  /** Every change that commits from here on counts. */
  readonly from: Position;
  /** Frames that begin here or later do not count. */
  readonly to: Position;
  /** Transactions that the source's snapshot did not see, though the log may show their commit before `from`. */
  readonly inProgress: Transactions;
}

/** The rows of `table` that changed in a span. The stream must hold it already. */
export async function readTouched(nats: Nats, stream: string, table: ComparedTable, span: Span): Promise<Touched> {
  const touched = new Touched();
  const stop = new AbortController();
  const startSeq = await findStartSequence(nats, stream, span.lookBack);
  const first = await nats.manager.streams.getMessage(stream, { seq: startSeq }).catch((thrown: unknown) => {
    throw natsError(thrown, `reading sequence ${startSeq} of stream ${stream}`);
  });
  if (first === null) return touched;
  const position = parseFrameHeaders(first.header, `${stream} sequence ${startSeq}`).start;
  for await (const frame of readFrames(nats, stream, { startSeq, position, signal: stop.signal })) {
    if (comparePositions(frame.start, span.to) >= 0) break;
    collect(decodeFrame(frame.payload, frame.place), table, span, touched);
    if (comparePositions(frame.end, span.to) >= 0) break;
  }
  stop.abort();
  return touched;
}

function collect(frame: FramePayload, table: ComparedTable, span: Span, touched: Touched): void {
  const index = frame.tables.findIndex((each) => each.schema === table.schema && each.name === table.name);
  if (index < 0) return;
  const read = reader(frame.tables[index]!, table);
  let at = 0;
  for (const entry of frame.tx) {
    const end = at + entry[4];
    const counts = !liesBefore(entry, span.from) || span.inProgress.has(entry[0]);
    for (; at < end; at++)
      if (counts && frame.rows[at]![1] === index) touch(frame.rows[at]!, table.key.length > 0, read, touched);
  }
}

function liesBefore(entry: TransactionEntry, from: Position): boolean {
  if (from.kind === 'mysql' || from.kind === 'mariadb') return entryLiesBefore(entry, from);
  return comparePositions(entryPosition(entry, 0), from) < 0;
}

type Read = (image: readonly Value[], fallback?: readonly Value[]) => string | undefined;

/** Gives the id of an image; undefined where it cannot be told. */
function reader(schema: TableSchema, table: ComparedTable): Read {
  const keyed = table.key.length > 0;
  const columns = (keyed ? table.key : table.columns.map((_, index) => index)).map((index) => {
    const column = table.columns[index]!;
    const at = schema.columns.findIndex((each) => each.name === column.name);
    const { type = '', portable = '' } = schema.columns[at] ?? {};
    return { at, kind: column.kind, zeroDates: column.zeroDates, type, portable };
  });
  const { dialect = 'postgres' } = schema;
  const kinds = columns.map((column) => column.kind);
  return (image, fallback) => {
    const values: (string | null)[] = [];
    for (const column of columns) {
      const { at, kind, zeroDates } = column;
      let value = image[at];
      if (value === 0) value = fallback?.[at];
      if (value === undefined || value === 0) return undefined;
      const text = value === null ? null : frameValue(column, dialect, kind, zeroDates, value);
      if (text === undefined) return undefined;
      values.push(text);
    }
    if (!keyed) return formatDigest(digestOf(canonicalRow(kinds, values), table.hash));
    return values.includes(null) ? undefined : rowId(values as string[]);
  };
}

function touch(row: RowChange, keyed: boolean, read: Read, touched: Touched): void {
  const [op, , after, kind, before] = row;
  if (op === 't' || op === 's') return touched.addAll();
  // The stream knows the row by its (hashed) key alone, the comparison by its content.
  if (!keyed && (op === 'u' || op === 'd') && kind !== 'f') return touched.addAll();
  for (const id of [...(after === null ? [] : [read(after, before)]), ...(before === undefined ? [] : [read(before)])])
    if (id === undefined) touched.addAll();
    else touched.add(id);
}
