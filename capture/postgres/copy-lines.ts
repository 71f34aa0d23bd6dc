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

/** Rows of all columns of a table, as lines of COPY, one behind the other. */
export class CopyRows {
  #table!: RowTable;
  #plain!: boolean;
  #data: Buffer = Buffer.allocUnsafe(FIRST_BYTES);
  #ends = new Uint32Array(FIRST_ROWS);
  #length = 0;

  constructor(table: RowTable) {
    this.reset(table);
  }

  /** Forgets the rows, and takes those of this table. */
  reset(table: RowTable): void {
    this.#length = 0;
    this.#table = table;
    this.#plain = isPlain(table);
  }

  /** Number of rows. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of the lines. */
  get bytes(): number {
    return this.#start(this.#length);
  }

  /** Whether values go into frames as they are. */
  get plain(): boolean {
    return this.#plain;
  }

  /** Adds the line `source[start, end)`, which ends with a line feed. */
  add(source: Buffer, start: number, end: number): void {
    const at = this.bytes;
    const after = at + end - start;
    if (after > this.#data.length) {
      const grown = Buffer.allocUnsafe(Math.max(after, this.#data.length * 2));
      this.#data.copy(grown, 0, 0, at);
      this.#data = grown;
    }
    source.copy(this.#data, at, start, end);
    if (this.#length === this.#ends.length) {
      const grown = new Uint32Array(this.#length * 2);
      grown.set(this.#ends);
      this.#ends = grown;
    }
    this.#ends[this.#length++] = after;
  }

  #start(row: number): number {
    return row === 0 ? 0 : this.#ends[row - 1]!;
  }

  /** Values of the key columns as the source has them, unescaped, in key order. */
  key(row: number): readonly string[] {
    const fields = this.#line(row).split('\t');
    return this.#table.keyIndexes.map((index) => copyFieldValue(fields[index] ?? '') ?? '');
  }

  /** Writes the row as frames carry it: an array of texts and nulls. */
  write(row: number, writer: FrameWriter): void {
    if (!this.#plain) {
      writer.writeJson(Buffer.from(JSON.stringify(publishedRow(this.#table, parseCopyLine(this.#line(row))))));
      return;
    }
    const start = this.#start(row);
    const end = this.#ends[row]! - 1;
    const buffer = writer.claim(mostJsonBytes(end - start));
    writer.moveTo(writeLineAsJson(this.#data, start, end, buffer, writer.bytes));
  }

  /** Writes rows from `from` on as the lines that they are: one, and more within so many bytes. Gives the row behind them. */
  writeLines(from: number, bytes: number, table: TableSchema, writer: FrameWriter): number {
    const start = this.#start(from);
    let to = from + 1;
    while (to < this.#length && this.#ends[to]! - start <= bytes) to += 1;
    writer.addLines('r', table, to - from, this.#data, start, this.#ends[to - 1]!);
    return to;
  }

  #line(row: number): string {
    return this.#data.toString('utf8', this.#start(row), this.#ends[row]! - 1);
  }
}
