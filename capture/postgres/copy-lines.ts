/**
 * COPY text format (PostgreSQL documentation, COPY, "Text Format"): the rows of a chunk, kept as the lines they came as,
 * and written into frames byte for byte.
 */
import type { FrameWriter } from '../../core/frame-writer.ts';
import { publishedRow, type PublishedTable } from './published-table.ts';

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const TAB = 0x09;
const UPPER_N = 0x4e;
const LOWER_V = 0x76;
const SPACE = 0x20;
/** What may follow a backslash in COPY and means the same in JSON. */
const SAME_IN_JSON = new Set(Buffer.from('bfnrt\\', 'latin1'));
const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
/** What a byte may become at most: `\u0001`. */
const MOST_BYTES = 6;
const FIRST_BYTES = 64 * 1024;
const FIRST_ROWS = 1024;

type RowTable = Pick<PublishedTable, 'binary' | 'keyIndexes' | 'writes'>;

/** Rows of all columns of a table, as lines of COPY without their line feeds, one behind the other. */
export class CopyRows {
  #table!: RowTable;
  /** Whether values go into frames as they are, but for their escapes. */
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
    this.#plain = table.writes === undefined && !table.binary.includes(true);
  }

  /** Number of rows. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of the lines. */
  get bytes(): number {
    return this.#start(this.#length);
  }

  /** Adds the line `source[start, end)`, which ends with a line feed. */
  add(source: Buffer, start: number, end: number): void {
    const at = this.bytes;
    const after = at + end - 1 - start;
    if (after > this.#data.length) {
      const grown = Buffer.allocUnsafe(Math.max(after, this.#data.length * 2));
      this.#data.copy(grown, 0, 0, at);
      this.#data = grown;
    }
    source.copy(this.#data, at, start, end - 1);
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
    return this.#table.keyIndexes.map((index) => fieldValue(fields[index] ?? '') ?? '');
  }

  /** Writes the row as frames carry it: an array of texts and nulls. */
  write(row: number, writer: FrameWriter): void {
    if (this.#plain) writeLine(writer, this.#data, this.#start(row), this.#ends[row]!);
    else writer.writeJson(Buffer.from(JSON.stringify(publishedRow(this.#table, parseCopyLine(this.#line(row))))));
  }

  #line(row: number): string {
    return this.#data.toString('utf8', this.#start(row), this.#ends[row]);
  }
}

/** The values of a line without its line feed, as the source has them. */
export function parseCopyLine(line: string): (string | null)[] {
  return line.split('\t').map(fieldValue);
}

/** A field's text; null for the mark of NULL. */
function fieldValue(field: string): string | null {
  if (field === String.raw`\N`) return null;
  return field.includes('\\') ? field.replaceAll(/\\(.)/gsu, (_, char: string) => ESCAPES[char] ?? char) : field;
}

function writeLine(writer: FrameWriter, source: Buffer, start: number, end: number): void {
  const buffer = writer.claim((end - start) * MOST_BYTES + MOST_BYTES);
  let to = writer.bytes;
  let at = start;
  buffer[to++] = OPEN;
  for (;;) {
    const next = at + 2;
    if (
      source[at] === BACKSLASH &&
      source[at + 1] === UPPER_N &&
      (next === end || source[next] === TAB) &&
      next <= end
    ) {
      to += buffer.write('null', to, 'latin1');
      at = next;
    } else {
      buffer[to++] = QUOTE;
      for (; at < end; at++) {
        const byte = source[at]!;
        if (byte >= SPACE && byte !== QUOTE && byte !== BACKSLASH) buffer[to++] = byte;
        else if (byte === TAB) break;
        else if (byte === BACKSLASH) to = writeEscape(buffer, to, source[++at]!);
        else to = writeByte(buffer, to, byte);
      }
      buffer[to++] = QUOTE;
    }
    if (at === end) break;
    buffer[to++] = COMMA;
    at += 1;
  }
  buffer[to++] = CLOSE;
  writer.moveTo(to);
}

/** What stands behind a backslash. */
function writeEscape(buffer: Buffer, to: number, byte: number): number {
  if (byte === LOWER_V) return writeByte(buffer, to, 0x0b);
  if (!SAME_IN_JSON.has(byte)) return writeByte(buffer, to, byte);
  buffer[to] = BACKSLASH;
  buffer[to + 1] = byte;
  return to + 2;
}

function writeByte(buffer: Buffer, to: number, byte: number): number {
  if (byte < SPACE) return to + buffer.write(`\\u00${byte.toString(16).padStart(2, '0')}`, to, 'latin1');
  if (byte === QUOTE) buffer[to++] = BACKSLASH;
  buffer[to] = byte;
  return to + 1;
}
