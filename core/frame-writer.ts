/**
 * Builds one frame's payload in place, as bytes: values are copied from the source's buffers into the frame with JSON
 * escaping and no strings in between. Rows come first in the payload and the tables last, because only then is it
 * known which tables the rows used.
 */
import { encodeBase64 } from './base64.ts';
import {
  FRAME_VERSION,
  LINES_VERSION,
  type BeforeKind,
  type Op,
  type Part,
  type TableSchema,
  type TransactionEntry,
  type Value,
} from './frame.ts';
import { ReplicationError } from './errors.ts';
import { writeDecimal, writeHex64 } from './ascii-writer.ts';
import { FrameLines } from './frame-lines.ts';
import { MOST_ESCAPE_BYTES, TextCopier } from './json-text.ts';
import { tableText } from './table-texts.ts';

const QUOTE = 0x22;
const COMMA = 0x2c;
const ZERO = 0x30;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const BACKSLASH = 0x5c;
/** From here on a native call, with a string in between, is faster than a loop. */
const NATIVE_TEXT_CHARS = 96;
const HEAD = Buffer.from(`{"v":${FRAME_VERSION},"rows":[`, 'latin1');
/** Where the digit of the version stands. */
const VERSION_AT = HEAD.indexOf(String(FRAME_VERSION));
const LINE_FEED = 0x0a;
/**
 * Larger values are written in pieces of so much, a multiple of three and of four: room for the longest escapes of a whole one
 * would be a buffer of several times its size, and `Buffer.write` writes nothing where more than 2^31 bytes are left.
 */
const PIECE_BYTES = 768 * 1024;
/** A buffer that has grown beyond so many times its usual size is let go with the frame that needed it. */
const KEPT_TIMES = 4;
/** Room kept behind the rows so that short writes need no check of their own. */
const SLACK_BYTES = 64;
const TX_HEAD = Buffer.from('],"tx":[', 'latin1');
const TABLES_HEAD = Buffer.from('],"tables":[', 'latin1');
const TABLES_TAIL = Buffer.from(']}', 'latin1');
/** What a transaction entry takes at most, of two LSNs and numbers below 2^53. */
const MOST_ENTRY_BYTES = 128;
const PARTS: Readonly<Record<Part, Buffer>> = {
  whole: Buffer.from('"whole"', 'latin1'),
  first: Buffer.from('"first"', 'latin1'),
  middle: Buffer.from('"middle"', 'latin1'),
  last: Buffer.from('"last"', 'latin1'),
};

export class FrameWriter {
  #buffer: Buffer;
  readonly #usualBytes: number;
  readonly #texts = new TextCopier('json');
  #length = 0;
  #rows = 0;
  /** Transactions as they will stand behind the rows. */
  #entries: Buffer = Buffer.allocUnsafe(MOST_ENTRY_BYTES);
  #entriesLength = 0;
  #transactions = 0;
  /** Rows as lines of COPY, as they will stand behind the JSON. */
  readonly lines: FrameLines;
  /** Whose rows the newest lines are, while more of them may follow; how many they are, and where they begin. */
  #linesOf: TableSchema | undefined;
  #linesOpen = 0;
  #linesFrom = 0;
  readonly #tables = new Map<TableSchema, number>();
  #tablesBytes = 0;

  /** `sizeBytes` is the usual size of a frame; the buffer grows for a row that is larger. */
  constructor(sizeBytes: number) {
    this.#usualBytes = sizeBytes + SLACK_BYTES;
    this.#buffer = Buffer.allocUnsafe(this.#usualBytes);
    this.lines = new FrameLines(this.#usualBytes);
    this.reset();
  }

  reset(): void {
    if (this.#buffer.length > KEPT_TIMES * this.#usualBytes) this.#buffer = Buffer.allocUnsafe(this.#usualBytes);
    this.lines.reset(KEPT_TIMES * this.#usualBytes);
    HEAD.copy(this.#buffer, 0);
    this.#length = HEAD.length;
    this.#rows = 0;
    this.#entriesLength = 0;
    this.#linesOf = undefined;
    this.#linesOpen = 0;
    this.#transactions = 0;
    this.#tables.clear();
    this.#tablesBytes = 0;
    this.#texts.forget();
  }

  /** Bytes of rows written so far: where the next one goes. */
  get bytes(): number {
    return this.#length;
  }

  /** Bytes of rows and transactions written so far. */
  get size(): number {
    return this.#length + this.lines.length + this.#entriesLength;
  }

  /** Bytes of the definitions of the tables that its rows name. */
  get tablesBytes(): number {
    return this.#tablesBytes;
  }

  /** Of the format that the frame has so far. */
  get version(): number {
    return this.lines.length === 0 ? FRAME_VERSION : LINES_VERSION;
  }

  get rows(): number {
    return this.#rows;
  }

  get transactions(): number {
    return this.#transactions;
  }

  get empty(): boolean {
    return this.#rows === 0 && this.#transactions === 0;
  }

  /** Tables in the order of their indexes. */
  get tables(): readonly TableSchema[] {
    return [...this.#tables.keys()];
  }

  /** A place between two rows, to come back to with `rewind`. */
  mark(): { readonly bytes: number; readonly rows: number } {
    this.#closeLines();
    return { bytes: this.#length, rows: this.#rows };
  }

  /** Forgets the rows behind a mark; none of them may belong to a transaction that was added. */
  rewind(mark: { readonly bytes: number; readonly rows: number }): void {
    this.#length = mark.bytes;
    this.#rows = mark.rows;
  }

  /** Starts a row: `["op",table,` follow with a tuple or `writeNull`, then `endRow`. */
  beginRow(op: Op, table: TableSchema | undefined): void {
    this.#closeLines();
    this.#reserve(32);
    let index = -1;
    if (table !== undefined) {
      index = this.#tables.get(table) ?? this.#tables.size;
      if (index === this.#tables.size && table.columns.length === 0)
        throw new ReplicationError(
          'internal',
          `${table.schema}.${table.name} has no columns: nobody could read its rows`,
        );
      if (index === this.#tables.size) {
        this.#tables.set(table, index);
        this.#tablesBytes += tableText(table).length + 1;
      }
    }
    const buffer = this.#buffer;
    let at = this.#length;
    if (this.#rows > 0) buffer[at++] = COMMA;
    buffer[at++] = OPEN;
    buffer[at++] = QUOTE;
    buffer[at++] = op.charCodeAt(0);
    buffer[at++] = QUOTE;
    buffer[at++] = COMMA;
    if (index >= 0 && index < 10) buffer[at++] = 0x30 + index;
    else at += buffer.write(String(index), at, 'latin1');
    buffer[at++] = COMMA;
    this.#length = at;
    this.#rows += 1;
  }

  /** Announces the before-image that the next tuple holds. */
  before(kind: BeforeKind): void {
    this.#reserve(8);
    const buffer = this.#buffer;
    let at = this.#length;
    buffer[at++] = COMMA;
    buffer[at++] = QUOTE;
    buffer[at++] = kind.charCodeAt(0);
    buffer[at++] = QUOTE;
    buffer[at++] = COMMA;
    this.#length = at;
  }

  endRow(): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = CLOSE;
  }

  beginTuple(): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = OPEN;
  }

  endTuple(): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = CLOSE;
  }

  comma(): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = COMMA;
  }

  writeNull(): void {
    this.#reserve(4);
    const buffer = this.#buffer;
    const at = this.#length;
    buffer[at] = 0x6e;
    buffer[at + 1] = 0x75;
    buffer[at + 2] = 0x6c;
    buffer[at + 3] = 0x6c;
    this.#length = at + 4;
  }

  /** The mark of a column that the source did not send because it did not change. */
  writeUnchanged(): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = 0x30;
  }

  /** UTF-8 text from `source[start, end)` as a JSON string. */
  writeText(source: Uint8Array, start: number, end: number): void {
    if (end - start > PIECE_BYTES) {
      this.#writeLargeText(source, start, end);
      return;
    }
    this.#reserve((end - start) * MOST_ESCAPE_BYTES + 2);
    const buffer = this.#buffer;
    buffer[this.#length] = QUOTE;
    const at = this.#texts.copy(source, start, end, buffer, this.#length + 1);
    buffer[at] = QUOTE;
    this.#length = at + 1;
  }

  #writeLargeText(source: Uint8Array, start: number, end: number): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = QUOTE;
    for (let at = start; at < end; at += PIECE_BYTES) {
      const to = Math.min(at + PIECE_BYTES, end);
      this.#reserve((to - at) * MOST_ESCAPE_BYTES);
      this.#length = this.#texts.copy(source, at, to, this.#buffer, this.#length);
    }
    this.#reserve(1);
    this.#buffer[this.#length++] = QUOTE;
  }

  /** Text of which the caller knows that it needs no escape and has no byte beyond ASCII, as a JSON string. */
  writeAscii(text: string): void {
    this.#reserve(text.length + 2);
    this.#buffer[this.#length++] = QUOTE;
    this.#length += this.#buffer.write(text, this.#length, 'latin1');
    this.#buffer[this.#length++] = QUOTE;
  }

  /** Any text as a JSON string. */
  writeString(text: string): void {
    const json = JSON.stringify(text);
    this.#reserve(json.length * 3);
    this.#length += this.#buffer.write(json, this.#length, 'utf8');
  }

  /** The bytes `source[start, end)` as a base64 string (RFC 4648, padded). */
  writeBase64(source: Buffer, start: number, end: number): void {
    this.#reserve(Math.ceil((end - start) / 3) * 4 + 2);
    this.#buffer[this.#length++] = QUOTE;
    this.#length = encodeBase64(source, start, end, this.#buffer, this.#length);
    this.#buffer[this.#length++] = QUOTE;
  }

  /**
   * Room for `bytes` more, to be written from `bytes` (the getter) on and ended with `moveTo`: for writers of digits.
   * The buffer is valid until the next call of this writer.
   */
  claim(bytes: number): Buffer {
    this.#reserve(bytes);
    return this.#buffer;
  }

  /** Takes what was written into the claimed room, up to `length`. */
  moveTo(length: number): void {
    this.#length = length;
  }

  /** What has been written since `start`, as text. */
  textFrom(start: number): string {
    return this.#buffer.toString('utf8', start, this.#length);
  }

  /** The hexadecimal text of a bytea (`\x…`) in `source[start, end)` as a base64 string. */
  writeHexAsBase64(source: Buffer, start: number, end: number): void {
    this.#reserve(Math.ceil((end - start) / 6) * 4 + 2);
    this.#buffer[this.#length++] = QUOTE;
    for (let at = start + 2; at < end; at += 2 * PIECE_BYTES) {
      const bytes = Buffer.from(source.toString('latin1', at, Math.min(at + 2 * PIECE_BYTES, end)), 'hex');
      this.#length += this.#buffer.write(bytes.toString('base64'), this.#length, 'latin1');
    }
    this.#buffer[this.#length++] = QUOTE;
  }

  /** Bytes that are JSON already. */
  writeJson(json: Uint8Array): void {
    this.#reserve(json.length);
    this.#buffer.set(json, this.#length);
    this.#length += json.length;
  }

  /** An image of texts, `null` and 0 as JSON writes them. */
  writeImage(image: readonly Value[]): void {
    // Room for all that is written character by character here: reserved once, and not for each value.
    let most = 2;
    for (let i = 0; i < image.length; i++) {
      const value = image[i]!;
      most += typeof value === 'string' && value.length <= NATIVE_TEXT_CHARS ? 2 * value.length + 3 : 5;
    }
    this.#reserve(most);
    let buffer = this.#buffer;
    let at = this.#length;
    buffer[at++] = OPEN;
    for (let i = 0; i < image.length; i++) {
      if (i > 0) buffer[at++] = COMMA;
      const value = image[i]!;
      if (value === null) {
        buffer[at++] = 0x6e;
        buffer[at++] = 0x75;
        buffer[at++] = 0x6c;
        buffer[at++] = 0x6c;
        continue;
      }
      if (value === 0) {
        buffer[at++] = 0x30;
        continue;
      }
      const end = value.length > NATIVE_TEXT_CHARS ? -1 : writePrintable(buffer, at, value);
      if (end >= 0) {
        at = end;
        continue;
      }
      this.#length = at;
      this.writeString(value);
      this.#reserve(most);
      buffer = this.#buffer;
      at = this.#length;
    }
    buffer[at++] = CLOSE;
    this.#length = at;
  }

  /** Adds rows that are given as lines of COPY, `source[start, end)`: values as Postgres prints them, each line with its end. */
  addLines(op: 'r' | 'i', table: TableSchema, rows: number, source: Buffer, start: number, end: number): void {
    this.#closeLines();
    this.#enterLines(op, table, rows, end - start);
    this.lines.add(source, start, end);
  }

  /** In place of rows: so many stand as lines behind the JSON. */
  #enterLines(op: 'r' | 'i', table: TableSchema, rows: number, bytes: number): void {
    this.beginRow(op, table);
    this.#rows += rows - 1;
    const entry = `${rows},${bytes}`;
    this.#reserve(entry.length);
    this.#length += this.#buffer.write(entry, this.#length, 'latin1');
    this.endRow();
  }

  /** Starts an inserted row that stands as a line of COPY: its columns are written to `lines`, with an end behind them. */
  beginLine(table: TableSchema): void {
    if (this.#linesOf !== table) {
      this.#closeLines();
      this.#linesOf = table;
      this.#linesFrom = this.lines.length;
    }
    this.#linesOpen += 1;
    this.#rows += 1;
  }

  /** Lines that were written one by one get their place among the rows. */
  #closeLines(): void {
    const table = this.#linesOf;
    if (table === undefined) return;
    const rows = this.#linesOpen;
    this.#linesOf = undefined;
    this.#linesOpen = 0;
    this.#rows -= rows;
    this.#enterLines('i', table, rows, this.lines.length - this.#linesFrom);
  }

  addTransaction(entry: TransactionEntry): void {
    const json = JSON.stringify(entry);
    const buffer = this.#reserveEntry(json.length * 3);
    this.#entriesLength += buffer.write(json, this.#entriesLength, 'utf8');
  }

  /** `addTransaction` for entries of which one name says all: a GTID. It needs no escape and has no byte beyond ASCII. */
  addNamedTransaction(name: string, commitTimeUs: number, rows: number, part: Part, ordinal: number): void {
    const buffer = this.#reserveEntry(MOST_ENTRY_BYTES + 2 * name.length);
    let at = this.#entriesLength;
    buffer[at++] = OPEN;
    buffer[at++] = 0x30;
    buffer[at++] = COMMA;
    const from = at;
    buffer[at++] = QUOTE;
    at += buffer.write(name, at, 'latin1');
    buffer[at++] = QUOTE;
    buffer[at++] = COMMA;
    buffer.copyWithin(at, from, at);
    at += at - from;
    at = writeDecimal(buffer, at, commitTimeUs);
    buffer[at++] = COMMA;
    at = writeDecimal(buffer, at, rows);
    buffer[at++] = COMMA;
    at += PARTS[part].copy(buffer, at);
    buffer[at++] = COMMA;
    at = writeDecimal(buffer, at, ordinal);
    buffer[at++] = CLOSE;
    this.#entriesLength = at;
  }

  /** `addTransaction` for entries with LSNs, which a busy source has by the hundred thousand. */
  addLsnTransaction(
    xid: number,
    commitLsn: bigint,
    endLsn: bigint,
    commitTimeUs: number,
    rows: number,
    part: Part,
    ordinal: number,
  ): void {
    const buffer = this.#reserveEntry(MOST_ENTRY_BYTES);
    let at = this.#entriesLength;
    buffer[at++] = OPEN;
    at = writeDecimal(buffer, at, xid);
    at = writeLsn(buffer, at, commitLsn);
    at = writeLsn(buffer, at, endLsn);
    buffer[at++] = COMMA;
    at = writeDecimal(buffer, at, commitTimeUs);
    buffer[at++] = COMMA;
    at = writeDecimal(buffer, at, rows);
    buffer[at++] = COMMA;
    at += PARTS[part].copy(buffer, at);
    buffer[at++] = COMMA;
    at = writeDecimal(buffer, at, ordinal);
    buffer[at++] = CLOSE;
    this.#entriesLength = at;
  }

  /** Room for an entry, behind the comma that parts it from the one before. */
  #reserveEntry(bytes: number): Buffer {
    const needed = this.#entriesLength + bytes + 1;
    if (needed > this.#entries.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#entries.length * 2));
      this.#entries.copy(grown, 0, 0, this.#entriesLength);
      this.#entries = grown;
    }
    if (this.#transactions > 0) this.#entries[this.#entriesLength++] = COMMA;
    this.#transactions += 1;
    return this.#entries;
  }

  /** Ends the frame. The payload is a view on this writer's buffer: valid until `reset`. */
  finish(): Buffer {
    this.#closeLines();
    const tables = [...this.#tables.keys()].map(tableText);
    this.#reserve(TX_HEAD.length + this.#entriesLength + TABLES_HEAD.length + this.#tablesBytes + TABLES_TAIL.length);
    const buffer = this.#buffer;
    let at = this.#length;
    at += TX_HEAD.copy(buffer, at);
    at += this.#entries.copy(buffer, at, 0, this.#entriesLength);
    at += TABLES_HEAD.copy(buffer, at);
    for (const [index, text] of tables.entries()) {
      if (index > 0) buffer[at++] = COMMA;
      at += text.copy(buffer, at);
    }
    this.#length = at + TABLES_TAIL.copy(buffer, at);
    if (this.lines.length > 0) {
      this.#buffer[VERSION_AT] = ZERO + LINES_VERSION;
      this.#reserve(this.lines.length + 1);
      this.#buffer[this.#length++] = LINE_FEED;
      this.#length += this.lines.copyTo(this.#buffer, this.#length);
    }
    return this.#buffer.subarray(0, this.#length);
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes + SLACK_BYTES;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, Math.floor(this.#buffer.length * 1.5)));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

/**
 * Writes a text as a JSON string, character by character, where there is room for it. Gives where it ends; -1 where one of its
 * characters is not printable ASCII.
 */
function writePrintable(buffer: Buffer, from: number, text: string): number {
  let at = from;
  buffer[at++] = QUOTE;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x20 || code > 0x7e) return -1;
    if (code === QUOTE || code === BACKSLASH) buffer[at++] = BACKSLASH;
    buffer[at++] = code;
  }
  buffer[at++] = QUOTE;
  return at;
}

/** `,"<16 hexadecimal digits>"`. */
function writeLsn(buffer: Buffer, at: number, lsn: bigint): number {
  buffer[at] = COMMA;
  buffer[at + 1] = QUOTE;
  const end = writeHex64(buffer, at + 2, lsn);
  buffer[end] = QUOTE;
  return end + 1;
}

/** Where a run of rows stands, from whether its transaction began and ended in this frame. */
export function partOf(beganHere: boolean, endsHere: boolean): Part {
  if (beganHere) return endsHere ? 'whole' : 'first';
  return endsHere ? 'last' : 'middle';
}
