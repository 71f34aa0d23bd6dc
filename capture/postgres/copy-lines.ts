/**
 * COPY text format (PostgreSQL documentation, COPY, "Text Format"): the rows of a chunk, kept as the lines they came as,
 * and written into frames byte for byte.
 */
import { copyFieldValue, mostJsonBytes, parseCopyLine, writeLineAsJson } from '../../core/copy-line.ts';
import type { FrameWriter } from '../../core/frame-writer.ts';
import type { TableSchema } from '../../core/frame.ts';
import { isPlain, publishedRow, type PublishedTable } from './published-table.ts';

const FIRST_BYTES = 64 * 1024;
const FIRST_ROWS = 1024;

type RowTable = Pick<PublishedTable, 'binary' | 'keyIndexes' | 'writes'>;

/** Memory for lines of COPY, one behind the other. */
export class LineMemory {
  data: Buffer = Buffer.allocUnsafe(FIRST_BYTES);
  /** Offsets behind the lines. */
  ends = new Uint32Array(FIRST_ROWS);
  /** Number of lines. */
  length = 0;

  /** Bytes of all lines. */
  get bytes(): number {
    return this.startOf(this.length);
  }

  /** Forgets all lines, and memory that was needed for more than `usualBytes` of them. */
  clear(usualBytes: number): void {
    this.length = 0;
    if (this.data.length > 2 * usualBytes) this.data = Buffer.allocUnsafe(FIRST_BYTES);
  }

  startOf(line: number): number {
    return line === 0 ? 0 : this.ends[line - 1]!;
  }

  /** Adds a line of so many bytes, which `append` brings. */
  note(bytes: number): void {
    const after = this.startOf(this.length) + bytes;
    if (this.length === this.ends.length) {
      const grown = new Uint32Array(this.length * 2);
      grown.set(this.ends);
      this.ends = grown;
    }
    this.ends[this.length++] = after;
  }

  /** Brings the bytes `source[start, end)` of lines that were noted, all of those that lack theirs. */
  append(source: Buffer, start: number, end: number): void {
    const after = this.startOf(this.length);
    const at = after - (end - start);
    if (after > this.data.length) {
      const grown = Buffer.allocUnsafe(Math.max(after, this.data.length * 2));
      this.data.copy(grown, 0, 0, at);
      this.data = grown;
    }
    source.copy(this.data, at, start, end);
  }
}

/** Rows of all columns of a table, as lines of COPY: the last ones of a memory when they were added. */
export class CopyRows {
  /** Number of rows. */
  length = 0;
  /** Whether there was no room for more rows, of which there may be some. */
  isCut = false;
  /** Whether values go into frames as they are. */
  readonly plain: boolean;
  readonly #table: RowTable;
  readonly #memory: LineMemory;
  readonly #first: number;

  constructor(table: RowTable, memory: LineMemory = new LineMemory()) {
    this.plain = isPlain(table);
    this.#table = table;
    this.#memory = memory;
    this.#first = memory.length;
  }

  /** Bytes of the lines. */
  get bytes(): number {
    return this.#start(this.length) - this.#start(0);
  }

  /** Adds the line `source[start, end)`, which ends with a line feed. Nothing else may have been added to the memory since. */
  add(source: Buffer, start: number, end: number): void {
    this.note(end - start);
    this.#memory.append(source, start, end);
  }

  /** Adds a line of so many bytes, which the memory gets later. */
  note(bytes: number): void {
    this.#memory.note(bytes);
    this.length += 1;
  }

  #start(row: number): number {
    return this.#memory.startOf(this.#first + row);
  }

  /** Values of the key columns as the source has them, unescaped, in key order. */
  key(row: number): readonly string[] {
    const fields = this.#line(row).split('\t');
    return this.#table.keyIndexes.map((index) => copyFieldValue(fields[index] ?? '') ?? '');
  }

  /** Writes the row as frames carry it: an array of texts and nulls. */
  write(row: number, writer: FrameWriter): void {
    if (!this.plain) {
      writer.writeJson(Buffer.from(JSON.stringify(publishedRow(this.#table, parseCopyLine(this.#line(row))))));
      return;
    }
    const start = this.#start(row);
    const end = this.#start(row + 1) - 1;
    const buffer = writer.claim(mostJsonBytes(this.#memory.data.subarray(start, end)));
    writer.moveTo(writeLineAsJson(this.#memory.data, start, end, buffer, writer.bytes));
  }

  /** Writes rows from `from` on as the lines that they are: one, and more within so many bytes. Gives the row behind them. */
  writeLines(from: number, bytes: number, table: TableSchema, writer: FrameWriter): number {
    const start = this.#start(from);
    let to = from + 1;
    while (to < this.length && this.#start(to + 1) - start <= bytes) to += 1;
    writer.addLines('r', table, to - from, this.#memory.data, start, this.#start(to));
    return to;
  }

  #line(row: number): string {
    return this.#memory.data.toString('utf8', this.#start(row), this.#start(row + 1) - 1);
  }
}
