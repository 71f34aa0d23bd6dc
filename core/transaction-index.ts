/** The transactions of a frame, indexed in place: what batches ask of each of them, without decoding any. */
import type { Part, TransactionEntry } from './frame.ts';

const QUOTE = 0x22;
const COMMA = 0x2c;
const ZERO = 0x30;
const NINE = 0x39;
const OPEN = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE = 0x5d;
const PARTS = ['whole', 'first', 'middle', 'last'] as const satisfies readonly Part[];
const LETTERS = Buffer.from(PARTS.map((part) => part[0]).join(''), 'latin1');
/** What an entry takes of a frame, and of this index. */
const ENTRY_BYTES = 64;
const INDEX_BYTES = 13;

export class TransactionIndex {
  length = 0;
  /** Rows of all transactions. */
  totalRows = 0;
  /** Offset behind the entries, where their `]` is. */
  end = 0;
  #times!: Float64Array;
  /** The first row of each transaction, once it was asked for. */
  #starts: Uint32Array | undefined;
  #rows!: Uint32Array;
  #parts!: Uint8Array;

  private constructor(capacity: number) {
    this.#allocate(capacity);
  }

  /** The index of transactions that are decoded already. */
  static of(entries: readonly TransactionEntry[]): TransactionIndex {
    const index = new TransactionIndex(entries.length);
    for (const entry of entries) index.#add(entry[4], entry[3], PARTS.indexOf(entry[5]));
    return index;
  }

  /**
   * Indexes the entries of which the first begins at `from`. Undefined where they are not laid out as a frame writer
   * does it (no spaces, no escapes): then they must be decoded.
   */
  static read(bytes: Buffer, from: number): TransactionIndex | undefined {
    const index = new TransactionIndex(Math.ceil((bytes.length - from) / ENTRY_BYTES));
    return index.#read(bytes, from) ? index : undefined;
  }

  rowsOf(index: number): number {
    return this.#rows[index]!;
  }

  /** Undefined where there is no such transaction. */
  partOf(index: number): Part | undefined {
    return index < this.length ? PARTS[this.#parts[index]!] : undefined;
  }

  /** Newest commit time of the transactions `[from, to)`, microseconds since 1970; 0 where there is none. */
  newestTime(from: number, to: number): number {
    let newest = 0;
    for (let i = from; i < to; i++) if (this.#times[i]! > newest) newest = this.#times[i]!;
    return newest;
  }

  /** Commit time of the transaction that a row belongs to, microseconds since 1970. */
  timeOfRow(row: number): number {
    const starts = (this.#starts ??= this.#firstRows());
    let low = 0;
    for (let high = this.length - 1; low < high;) {
      const middle = (low + high + 1) >>> 1;
      if (starts[middle]! <= row) low = middle;
      else high = middle - 1;
    }
    return this.#times[low] ?? 0;
  }

  #firstRows(): Uint32Array {
    const starts = new Uint32Array(this.length);
    for (let i = 1; i < this.length; i++) starts[i] = starts[i - 1]! + this.#rows[i - 1]!;
    return starts;
  }

  #allocate(capacity: number): void {
    const memory = new ArrayBuffer(capacity * INDEX_BYTES);
    const times = new Float64Array(memory, 0, capacity);
    const rows = new Uint32Array(memory, capacity * 8, capacity);
    const parts = new Uint8Array(memory, capacity * 12, capacity);
    if (this.length > 0) {
      times.set(this.#times);
      rows.set(this.#rows);
      parts.set(this.#parts);
    }
    this.#times = times;
    this.#rows = rows;
    this.#parts = parts;
  }

  #add(rows: number, timeUs: number, part: number): void {
    if (this.length === this.#parts.length) this.#allocate(this.length * 2 + 16);
    this.#rows[this.length] = rows;
    this.#times[this.length] = timeUs;
    this.#parts[this.length] = part;
    this.totalRows += rows;
    this.length += 1;
  }

  #at = 0;
  #number = 0;

  #read(bytes: Buffer, from: number): boolean {
    this.#at = from;
    if (bytes[from] !== CLOSE)
      do {
        if (bytes[this.#at++] !== OPEN || !this.#digits(bytes, COMMA)) return false;
        if (!this.#string(bytes) || !this.#string(bytes)) return false;
        if (!this.#digits(bytes, COMMA)) return false;
        const timeUs = this.#number;
        if (!this.#digits(bytes, COMMA)) return false;
        const rows = this.#number;
        const start = this.#at + 1;
        const part = LETTERS.indexOf(bytes[start] ?? 0);
        if (part < 0 || !this.#string(bytes) || this.#at - 2 - start !== PARTS[part]!.length) return false;
        if (!this.#digits(bytes, CLOSE) && !this.#origin(bytes)) return false;
        this.#add(rows, timeUs, part);
      } while (bytes[this.#at++] === COMMA);
    else this.#at += 1;
    this.end = this.#at - 1;
    return bytes[this.end] === CLOSE && bytes[this.#at] === COMMA;
  }

  /** Passes over digits and the byte that ends them. */
  #digits(bytes: Buffer, end: number): boolean {
    let at = this.#at;
    let value = 0;
    for (let byte = bytes[at]!; byte >= ZERO && byte <= NINE; byte = bytes[++at]!) value = value * 10 + (byte - ZERO);
    const some = at > this.#at;
    this.#number = value;
    this.#at = at + 1;
    return some && bytes[at] === end;
  }

  /** Passes over the origin that stands behind the ordinal, and the end of the entry. */
  #origin(bytes: Buffer): boolean {
    if (bytes[this.#at - 1] !== COMMA || bytes[this.#at] !== QUOTE) return false;
    let at = this.#at + 1;
    for (; bytes[at] !== QUOTE; at++) if (at >= bytes.length || bytes[at] === BACKSLASH) return false;
    this.#at = at + 2;
    return bytes[at + 1] === CLOSE;
  }

  /** Passes over a string without escapes and the comma behind it. */
  #string(bytes: Buffer): boolean {
    let at = this.#at;
    if (bytes[at] !== QUOTE) return false;
    const { length } = bytes;
    do {
      at += 1;
      if (bytes[at] === BACKSLASH) return false;
    } while (bytes[at] !== QUOTE && at < length);
    this.#at = at + 2;
    return bytes[at + 1] === COMMA;
  }
}
