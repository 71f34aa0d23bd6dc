/**
 * COPY in text format (PostgreSQL documentation, COPY, "Text Format"). Values pass from a frame into COPY data byte for
 * byte: the escapes of JSON strings and of COPY are nearly the same.
 */
import { giveUp } from '../../core/buffer-memory.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { Value } from '../../core/frame.ts';
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import { byteaText } from './sql.ts';
import type { TablePlan } from './table-plan.ts';

const PIECE_BYTES = 64 * 1024;
/** A row that is larger has room for what it becomes and no more: `Buffer.write` writes nothing where 2^31 bytes are left. */
const LARGE_ROW_BYTES = 1 << 20;
/** Characters of base64, a multiple of four. */
const BASE64_PIECE = 1 << 20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const TAB = 0x09;
const LINE_FEED = 0x0a;
const UPPER_N = 0x4e;
const LOWER_N = 0x6e;
const LOWER_U = 0x75;
const SPECIAL = /[\\\t\n\r]/;
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };
/** What may follow a backslash in JSON and stays as it is: `\\`, `\b`, `\f`, `\n`, `\r`, `\t` mean the same in COPY. */
const SAME_IN_COPY = new Set(Buffer.from('\\bfnrt', 'latin1'));

export function copyField(text: string): string {
  return SPECIAL.test(text) ? text.replace(/[\\\t\n\r]/g, (char) => ESCAPES[char]!) : text;
}

/** One line: `prefix` (empty or ending with a tab), then the given columns of the image. */
export function copyLine(plan: TablePlan, columns: readonly number[], image: readonly Value[], prefix: string): string {
  let line = prefix;
  for (let i = 0; i < columns.length; i++) {
    const index = columns[i]!;
    const value = image[index];
    if (i > 0) line += '\t';
    if (typeof value !== 'string') line += '\\N';
    else if (plan.bytea[index] === true) line += `\\${byteaText(value)}`;
    else if (plan.convert[index] === undefined) line += copyField(value);
    else {
      const text = plan.convert[index](value);
      line += text === null ? '\\N' : copyField(text);
    }
  }
  return `${line}\n`;
}

/** Room for a piece, and mostly for the row that makes it one. */
const BUFFER_BYTES = PIECE_BYTES + 1024;

/** Gathers lines into pieces, in two buffers by turns. One serves all the COPYs of a connection, one after the other. */
export class CopyBuffer {
  #buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #other: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #length = 0;

  /** Whether there is enough for a piece. */
  get full(): boolean {
    return this.#length >= PIECE_BYTES;
  }

  get empty(): boolean {
    return this.#length === 0;
  }

  /** Takes what has gathered: valid until the piece behind it has been taken too. */
  take(): Buffer {
    const taken = this.#buffer;
    const piece = taken.subarray(0, this.#length);
    this.#buffer = this.#other;
    this.#other = taken;
    this.#length = 0;
    return piece;
  }

  /** After a COPY has ended, however it did: forgets what was not taken, and gives up what large rows have needed. */
  clear(): void {
    this.#length = 0;
    this.#buffer = asBefore(this.#buffer);
    this.#other = asBefore(this.#other);
  }

  /** Adds a line that is complete. */
  line(text: string): void {
    this.#reserve(text.length * 3);
    this.#length += this.#buffer.write(text, this.#length, 'utf8');
  }

  /** Adds the written columns of a row's after-image, as a line behind `prefix` (empty or ending with a tab). */
  frameRow(plan: TablePlan, frame: IndexedFrame, row: number, prefix: string): void {
    const { written, bytea, convert } = plan;
    const size = frame.rowBytes(row);
    // A value of bytea grows by half; of the others only those that are converted may grow.
    const most = size <= LARGE_ROW_BYTES || plan.converts ? 2 * size : 1.5 * size;
    this.#reserve(prefix.length + Math.ceil(most) + 64 * (plan.written.length + 1));
    const { bytes } = frame;
    const buffer = this.#buffer;
    let to = this.#length;
    if (prefix !== '') to += buffer.write(prefix, to, 'latin1');
    let at = frame.imageStart(row) + 1;
    let next = 0;
    for (let column = 0; next < written.length; column++) {
      const wanted = written[next] === column;
      if (wanted && next > 0) buffer[to++] = TAB;
      const first = bytes[at];
      if (first !== QUOTE) {
        if (wanted) {
          buffer[to++] = BACKSLASH;
          buffer[to++] = UPPER_N;
        }
        at += first === LOWER_N ? 4 : 1;
      } else if (!wanted) at = frame.endOfValue(at);
      else if (bytea[column] === true) {
        const end = frame.endOfValue(at);
        buffer[to++] = BACKSLASH;
        to = writeBytea(buffer, to, bytes, at + 1, end - 1);
        at = end;
      } else if (convert[column] !== undefined) {
        const end = frame.endOfValue(at);
        const text = convert[column]!(JSON.parse(bytes.toString('utf8', at, end)) as string);
        to += buffer.write(text === null ? '\\N' : copyField(text), to, 'utf8');
        at = end;
      } else {
        at += 1;
        for (let byte = bytes[at]!; byte !== QUOTE; byte = bytes[at]!) {
          if (byte !== BACKSLASH) {
            buffer[to++] = byte;
            at += 1;
            continue;
          }
          const escaped = bytes[at + 1]!;
          if (SAME_IN_COPY.has(escaped)) {
            buffer[to++] = BACKSLASH;
            buffer[to++] = escaped;
            at += 2;
          } else if (escaped === LOWER_U) {
            const end = endOfUnicode(bytes, at);
            to += buffer.write(copyField(jsonString(bytes, at, end)), to, 'utf8');
            at = end;
          } else {
            if (escaped !== QUOTE) jsonString(bytes, at, at + 2);
            buffer[to++] = escaped;
            at += 2;
          }
        }
        at += 1;
      }
      if (wanted) next += 1;
      if (bytes[at] === COMMA) at += 1;
    }
    buffer[to++] = LINE_FEED;
    this.#length = to;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.#length);
    giveUp(this.#buffer);
    this.#buffer = grown;
  }
}

/** A buffer of the size that most rows need: this one, or one in its place. */
function asBefore(buffer: Buffer): Buffer {
  if (buffer.length <= 2 * BUFFER_BYTES) return buffer;
  giveUp(buffer);
  return Buffer.allocUnsafeSlow(BUFFER_BYTES);
}

/** Writes what stands in base64 as Postgres reads a `bytea`; gives the offset behind it. */
function writeBytea(buffer: Buffer, offset: number, base64: Buffer, start: number, end: number): number {
  if (end - start <= BASE64_PIECE)
    return offset + buffer.write(byteaText(base64.toString('latin1', start, end)), offset, 'latin1');
  let to = offset + buffer.write(byteaText(''), offset, 'latin1');
  for (let at = start; at < end; at += BASE64_PIECE) {
    const bytes = Buffer.from(base64.toString('latin1', at, Math.min(at + BASE64_PIECE, end)), 'base64');
    to += buffer.write(bytes.toString('hex'), to, 'latin1');
  }
  return to;
}

/** End of a run of `\uXXXX` escapes: the halves of a surrogate pair belong together. */
function endOfUnicode(bytes: Buffer, from: number): number {
  let at = from;
  while (bytes[at] === BACKSLASH && bytes[at + 1] === LOWER_U) at += 6;
  return at;
}

/** The text of a part of a JSON string. Throws `frame_unreadable` when it has no meaning there. */
function jsonString(bytes: Buffer, from: number, to: number): string {
  try {
    return JSON.parse(`"${bytes.toString('latin1', from, to)}"`) as string;
  } catch (cause) {
    throw new ReplicationError('frame_unreadable', 'a value of a frame holds an unknown escape', { cause });
  }
}
