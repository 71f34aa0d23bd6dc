/**
 * The rows of a chunk as they are read: kept as the lines that frames carry (docs/frame-format.md, "Lines"), and no more of
 * them at once than memory is meant for.
 */
import { encodeBase64 } from '../../core/base64.ts';
import { buffersUsed, giveUp } from '../../core/buffer-memory.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import { parseCopyLine } from '../../core/copy-line.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { FrameWriter } from '../../core/frame-writer.ts';
import type { TableSchema } from '../../core/frame.ts';
import { MOST_COPY_ESCAPE_BYTES, TextCopier } from '../../core/json-text.ts';
import type { KeyTexts } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { isReadAsBytes } from './chunk-sql.ts';
import type { SqlClient, TakeRow } from './connection.ts';
import { guarded, publishRead } from './published-table.ts';

/** What is kept of a chunk before it is published in part: more than a chunk has whose rows are as long as those before. */
const PIECE_BYTES = 8 << 20;
const FIRST_BYTES = 64 << 10;
const FIRST_ROWS = 1024;
const TAB = 0x09;
const LINE_FEED = 0x0a;
const BACKSLASH = 0x5c;
const UPPER_N = 0x4e;
/** Text Resultset Row of the client/server protocol: NULL, and behind it the bytes that say in how many a length follows. */
const NULL_FIELD = 0xfb;
const LENGTH_WIDTHS = [0, 2, 3, 8, 0] as const;

/** Memory that is kept from one chunk to the next. */
const KEPT_BYTES = 2 * PIECE_BYTES;

/** Rows with all columns of their table's schema, as the source has them. */
export class ReadRows {
  #keyIndexes: readonly number[] = [];
  /** By column: whether the source gives its bytes, and not its text. */
  #bytes: readonly boolean[] = [];
  readonly #texts = new TextCopier('copy');
  #data = Buffer.allocUnsafeSlow(FIRST_BYTES);
  /** Offsets behind the lines. */
  #ends = new Uint32Array(FIRST_ROWS);
  /** Number of rows. */
  length = 0;

  constructor(table: Pick<CapturedTable, 'schema'>) {
    this.begin(table);
  }

  /** Forgets all rows: those of a table come. */
  begin({ schema }: Pick<CapturedTable, 'schema'>): void {
    this.length = 0;
    this.#keyIndexes = schema.key.map((key) => schema.columns.findIndex(({ name }) => name === key));
    this.#bytes = schema.columns.map(({ type }) => isReadAsBytes(type));
  }

  get bytes(): number {
    return this.#start(this.length);
  }

  /** Adds the row in the packet `source[start, end)`. Throws `source_protocol`. */
  add(source: Buffer, start: number, end: number): void {
    const from = this.bytes;
    const encoded = this.#bytes;
    const columns = encoded.length;
    // NULL is one byte there and three here; a byte, with its length before it, has four characters as base64.
    const data = this.#room(from + (end - start) * MOST_COPY_ESCAPE_BYTES + columns);
    let to = from;
    let at = start;
    for (let column = 0; column < columns; column++) {
      let bytes = source[at++]!;
      if (bytes === NULL_FIELD) {
        data[to++] = BACKSLASH;
        data[to++] = UPPER_N;
      } else {
        if (bytes > NULL_FIELD) {
          const width = LENGTH_WIDTHS[bytes - NULL_FIELD]!;
          if (width === 0 || at + width > end) throw unreadable();
          // No row is longer than six bytes can tell.
          bytes = source.readUIntLE(at, Math.min(width, 6));
          at += width;
        }
        if (at + bytes > end) throw unreadable();
        to = encoded[column]!
          ? encodeBase64(source, at, at + bytes, data, to)
          : this.#texts.copy(source, at, at + bytes, data, to);
        at += bytes;
      }
      data[to++] = TAB;
    }
    if (at !== end) throw unreadable();
    data[to - 1] = LINE_FEED;
    if (this.length === this.#ends.length) {
      const grown = new Uint32Array(this.length * 2);
      grown.set(this.#ends);
      this.#ends = grown;
    }
    this.#ends[this.length++] = to;
  }

  #room(bytes: number): Buffer {
    if (bytes > this.#data.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(bytes, this.#data.length * 2));
      this.#data.copy(grown, 0, 0, this.bytes);
      this.#letGo();
      this.#data = grown;
    }
    return this.#data;
  }

  #start(row: number): number {
    return row === 0 ? 0 : this.#ends[row - 1]!;
  }

  values(row: number): (string | null)[] {
    return parseCopyLine(this.#data.toString('utf8', this.#start(row), this.#start(row + 1) - 1));
  }

  /** Values of the key's columns, in key order: the place in the table. */
  key(row: number): string[] {
    const values = this.values(row);
    return this.#keyIndexes.map((index) => values[index] ?? '');
  }

  /** Writes row `from` as a line, and those behind it that are kept, within so many bytes. Gives the row behind them. */
  writeLines(
    from: number,
    bytes: number,
    keeps: (row: number) => boolean,
    table: TableSchema,
    writer: FrameWriter,
  ): number {
    const start = this.#start(from);
    let to = from + 1;
    while (to < this.length && this.#start(to + 1) - start <= bytes && keeps(to)) to += 1;
    writer.addLines('r', table, to - from, this.#data, start, this.#start(to));
    return to;
  }

  /** Forgets all rows, and memory that is more than is usual. */
  clear(): void {
    this.length = 0;
    this.#texts.forget();
    if (this.#data.length <= KEPT_BYTES) return;
    this.#letGo();
    this.#data = Buffer.allocUnsafeSlow(FIRST_BYTES);
  }

  #letGo(): void {
    this.#texts.forget();
    buffersUsed(this.#data.length);
    giveUp(this.#data);
  }
}

/** The rows of a statement of chunk-sql.ts, as texts. */
export async function readTexts(
  client: SqlClient,
  table: Pick<CapturedTable, 'schema'>,
  sql: string,
  doing: string,
): Promise<(string | null)[][]> {
  const row = new ReadRows(table);
  const texts: (string | null)[][] = [];
  const take: TakeRow = (buffer, start, end) => {
    row.add(buffer, start, end);
    texts.push(row.values(0));
    row.clear();
    return undefined;
  };
  await client.each(sql, doing, take);
  return texts;
}

function unreadable(): ReplicationError {
  return new ReplicationError('source_protocol', 'a row of a chunk does not have the columns that were asked for');
}

/** The rows of one chunk, in memory that is used again for the next. */
export class ChunkRows {
  readonly #table: CapturedTable;
  readonly #spare: ReadRows[];
  readonly #mostRows: number;
  #rows: ReadRows | undefined;
  #lastKey: readonly string[] | undefined;
  /** Rows that were read, also those that were taken away, and their bytes. */
  count = 0;
  bytes = 0;

  /** `spare`: rows that nobody reads any more. `mostRows`: so many are kept at most before they must be taken. */
  constructor(table: CapturedTable, spare: ReadRows[] = [], mostRows = Infinity) {
    this.#table = table;
    this.#spare = spare;
    this.#mostRows = mostRows;
  }

  #empty(): ReadRows {
    const rows = this.#spare.pop();
    rows?.begin(this.#table);
    return rows ?? new ReadRows(this.#table);
  }

  /** Adds the row in a packet. True when so much is kept that it must be taken before more comes. */
  add(source: Buffer, start: number, end: number): boolean {
    const rows = (this.#rows ??= this.#empty());
    const before = rows.bytes;
    rows.add(source, start, end);
    this.count += 1;
    this.bytes += rows.bytes - before;
    return rows.bytes >= PIECE_BYTES || rows.length >= this.#mostRows;
  }

  /** The key of the last row; undefined where there is none. */
  get lastKey(): readonly string[] | undefined {
    const rows = this.#rows;
    return rows === undefined || rows.length === 0 ? this.#lastKey : rows.key(rows.length - 1);
  }

  /** Gives what is kept, and keeps it no longer. */
  take(): ReadRows {
    const taken = this.#rows ?? this.#empty();
    this.#lastKey = this.lastKey;
    this.#rows = undefined;
    return taken;
  }
}

/** A row of a table that a column rule concerns. */
export interface GuardedRow {
  readonly json: Buffer;
  /** As frames carry it. */
  readonly key: readonly string[];
}

/** The rows as frames carry them; undefined where that is as they are. */
export function guardRows(table: CapturedTable, rules: ColumnRules, rows: ReadRows): GuardedRow[] | undefined {
  const { guards, excluded } = publishRead(table, rules);
  if (guards === undefined) return undefined;
  const { columns, key } = table.schema;
  const omitted = columns.map(({ name }) => excluded.has(name));
  const keyIndexes = key.map((own) => columns.findIndex(({ name }) => name === own));
  return Array.from({ length: rows.length }, (_, row) => {
    const values = rows
      .values(row)
      .map((text, i) => (text === null || guards[i] === undefined ? text : guarded(guards[i], text)));
    return {
      json: Buffer.from(JSON.stringify(values.filter((_value, i) => !omitted[i]!))),
      key: keyIndexes.map((index) => values[index] ?? ''),
    };
  });
}

/** A row of which only the key is known, as frames carry it. */
export function keyImage(schema: TableSchema, key: KeyTexts): Buffer {
  const image: (string | null)[] = schema.columns.map(() => null);
  for (const [i, name] of schema.key.entries()) image[schema.columns.findIndex((c) => c.name === name)] = key[i]!;
  return Buffer.from(JSON.stringify(image));
}
