/**
 * MySQL's binary JSON (mysql-server sql-common/json_binary.h) as the text that the server prints for it: members in
 * stored order, `, ` and `: ` between, doubles with a fraction or exponent, decimals and 64-bit integers exact, dates
 * and times and opaque values as strings.
 */
import { ReplicationError } from '../../core/errors.ts';
import { TYPE } from './column-types.ts';
import { decimalBytes, writeDecimal } from './decimal.ts';
import { writeInt64, writeTwo, writeUint64 } from './digits.ts';
import { doubleText } from './float-text.ts';
import { writeHms, writeHours, writeMicros, writeYmd } from './temporal.ts';

/** Types of values in a document. */
export const KIND = {
  smallObject: 0,
  largeObject: 1,
  smallArray: 2,
  largeArray: 3,
  literal: 4,
  int16: 5,
  uint16: 6,
  int32: 7,
  uint32: 8,
  int64: 9,
  uint64: 10,
  double: 11,
  string: 12,
  opaque: 15,
} as const;

const LITERALS = ['null', 'true', 'false'] as const;
const HEX = '0123456789abcdef';
const SHORT: Readonly<Record<number, string>> = { 8: 'b', 9: 't', 10: 'n', 12: 'f', 13: 'r' };
/** Base64 inside JSON is broken into lines of this length by the server. */
const BASE64_LINE = 76;

/** Prints documents into a buffer of its own; one instance is reused for all values. */
export class JsonPrinter {
  #out: Buffer = Buffer.allocUnsafe(4096);
  #length = 0;
  #source: Buffer = Buffer.alloc(0);
  #end = 0;

  /** The text is in `buffer[0, length)` until the next call. Throws `source_protocol` for bytes that are no document. */
  print(source: Buffer, start: number, end: number): number {
    this.#source = source;
    this.#end = end;
    this.#length = 0;
    try {
      // A document of no bytes stands for null: an ALTER TABLE may leave such ones behind.
      if (start === end) this.#ascii('null');
      else this.#value(source[start]!, start + 1, end);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw this.#malformed(cause);
    }
    return this.#length;
  }

  get buffer(): Buffer {
    return this.#out;
  }

  #malformed(cause?: unknown): ReplicationError {
    return new ReplicationError('source_protocol', 'a binary JSON document is malformed', { cause });
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#out.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#length + bytes, this.#out.length * 2));
    this.#out.copy(grown, 0, 0, this.#length);
    this.#out = grown;
  }

  #ascii(text: string): void {
    this.#reserve(text.length);
    this.#length += this.#out.write(text, this.#length, 'latin1');
  }

  /** A value of type `kind` whose bytes are at `at`; `end` bounds the document it stands in. */
  #value(kind: number, at: number, end: number): void {
    const source = this.#source;
    switch (kind) {
      case KIND.smallObject:
      case KIND.largeObject:
        return this.#container(at, end, true, kind === KIND.largeObject);
      case KIND.smallArray:
      case KIND.largeArray:
        return this.#container(at, end, false, kind === KIND.largeArray);
      case KIND.literal: {
        const literal = LITERALS[source.readUInt8(at)];
        if (literal === undefined) throw this.#malformed();
        return this.#ascii(literal);
      }
      case KIND.int16:
        return this.#ascii(String(source.readInt16LE(at)));
      case KIND.uint16:
        return this.#ascii(String(source.readUInt16LE(at)));
      case KIND.int32:
        return this.#ascii(String(source.readInt32LE(at)));
      case KIND.uint32:
        return this.#ascii(String(source.readUInt32LE(at)));
      case KIND.int64:
        this.#reserve(24);
        this.#length = writeInt64(this.#out, this.#length, source.readUInt32LE(at), source.readUInt32LE(at + 4));
        return;
      case KIND.uint64:
        this.#reserve(24);
        this.#length = writeUint64(this.#out, this.#length, source.readUInt32LE(at), source.readUInt32LE(at + 4));
        return;
      case KIND.double: {
        const text = doubleText(source.readDoubleLE(at));
        return this.#ascii(/[.e]/.test(text) ? text : `${text}.0`);
      }
      case KIND.string: {
        const { length, from } = this.#variable(at);
        return this.#string(from, from + length);
      }
      case KIND.opaque:
        return this.#opaque(at);
      default:
        throw new ReplicationError('source_protocol', `a binary JSON document has a value of unknown type ${kind}`);
    }
  }

  /** A length of seven bits a byte, lowest first, and what follows it. */
  #variable(at: number): { length: number; from: number } {
    let length = 0;
    for (let i = 0; i < 5; i++) {
      const byte = this.#source.readUInt8(at + i);
      length += (byte & 0x7f) * 128 ** i;
      if ((byte & 0x80) === 0) {
        if (at + i + 1 + length > this.#end) throw this.#malformed();
        return { length, from: at + i + 1 };
      }
    }
    throw this.#malformed();
  }

  #container(at: number, end: number, object: boolean, large: boolean): void {
    const source = this.#source;
    const width = large ? 4 : 2;
    const read = (from: number): number => (large ? source.readUInt32LE(from) : source.readUInt16LE(from));
    const count = read(at);
    const bytes = read(at + width);
    if (at + bytes > end) throw this.#malformed();
    const keys = at + 2 * width;
    const values = keys + (object ? count * (width + 2) : 0);
    if (values + count * (width + 1) > at + bytes) throw this.#malformed();
    this.#ascii(object ? '{' : '[');
    for (let i = 0; i < count; i++) {
      if (i > 0) this.#ascii(', ');
      if (object) {
        const key = keys + i * (width + 2);
        const from = at + read(key);
        const length = source.readUInt16LE(key + width);
        if (from + length > at + bytes) throw this.#malformed();
        this.#string(from, from + length);
        this.#ascii(': ');
      }
      const entry = values + i * (width + 1);
      const kind = source.readUInt8(entry);
      const inline =
        (kind >= KIND.literal && kind <= KIND.uint16) || (large && (kind === KIND.int32 || kind === KIND.uint32));
      if (inline) this.#value(kind, entry + 1, at + bytes);
      else {
        const offset = read(entry + 1);
        // An offset that points back into the head could nest without end.
        if (offset < values + count * (width + 1) - at || offset >= bytes) throw this.#malformed();
        this.#value(kind, at + offset, at + bytes);
      }
    }
    this.#ascii(object ? '}' : ']');
  }

  #string(from: number, to: number): void {
    const source = this.#source;
    this.#reserve((to - from) * 6 + 2);
    const out = this.#out;
    let at = this.#length;
    out[at++] = 0x22;
    for (let i = from; i < to; i++) {
      const byte = source[i]!;
      if (byte >= 0x20 && byte !== 0x22 && byte !== 0x5c) {
        out[at++] = byte;
        continue;
      }
      out[at++] = 0x5c;
      if (byte >= 0x20) out[at++] = byte;
      else {
        const short = SHORT[byte];
        at += out.write(short ?? `u00${HEX[byte >> 4]}${HEX[byte & 15]}`, at, 'latin1');
      }
    }
    out[at++] = 0x22;
    this.#length = at;
  }

  #opaque(at: number): void {
    const source = this.#source;
    const type = source.readUInt8(at);
    const { length, from } = this.#variable(at + 1);
    switch (type) {
      case TYPE.newdecimal: {
        const [precision, scale] = [source.readUInt8(from), source.readUInt8(from + 1)];
        if (scale > precision || 2 + decimalBytes(precision, scale) !== length) throw this.#malformed();
        this.#reserve(80);
        this.#length = writeDecimal(this.#out, this.#length, source, from + 2, precision, scale);
        return;
      }
      case TYPE.date:
      case TYPE.datetime:
      case TYPE.timestamp:
      case TYPE.time:
        if (length !== 8) throw this.#malformed();
        return this.#temporal(type, source.readBigInt64LE(from));
      default: {
        const lines = source.toString('base64', from, from + length).match(/.{1,76}/g) ?? [];
        if (lines.length > 0 && lines[0]!.length > BASE64_LINE) throw this.#malformed();
        return this.#ascii(`"base64:type${type}:${lines.join('\\n')}"`);
      }
    }
  }

  /** The packed form of my_time.cc: 24 bits of microseconds below, date and time as in DATETIME2 and TIME2. */
  #temporal(type: number, packed: bigint): void {
    const size = packed < 0n ? -packed : packed;
    const micros = Number(size & 0xff_ffffn);
    const whole = Number(size >> 24n);
    this.#reserve(64);
    const out = this.#out;
    let at = this.#length;
    out[at++] = 0x22;
    if (packed < 0n) out[at++] = 0x2d;
    if (type === TYPE.time) {
      at = writeHours(out, at, (whole >> 12) & 0x3ff);
      out[at++] = 0x3a;
      at = writeTwo(out, at, (whole >> 6) & 63);
      out[at++] = 0x3a;
      at = writeTwo(out, at, whole & 63);
      at = writeMicros(out, at, micros, 6);
    } else {
      const date = Math.floor(whole / 0x2_0000);
      const time = whole - date * 0x2_0000;
      const yearMonth = date >> 5;
      const year = (yearMonth / 13) | 0;
      at = writeYmd(out, at, year, yearMonth - year * 13, date & 31);
      if (type !== TYPE.date) {
        out[at++] = 0x20;
        at = writeHms(out, at, (time >> 12) & 31, (time >> 6) & 63, time & 63);
        at = writeMicros(out, at, micros, 6);
      }
    }
    out[at++] = 0x22;
    this.#length = at;
  }
}
