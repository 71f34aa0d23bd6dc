/** Writes the values of the log's rows into frames, in the canonical text of column-text.ts. */
import { ReplicationError } from '../../core/errors.ts';
import type { FrameWriter } from '../../core/frame-writer.ts';
import { writeCharset, type Charset } from './charset.ts';
import { READ, type ColumnPlan } from './column-plan.ts';
import { inflateColumn } from './compression.ts';
import { writeDecimal } from './decimal.ts';
import { writeInt, writeInt64, writeUint, writeUint64 } from './digits.ts';
import { doubleText, floatText } from './float-text.ts';
import { JsonPrinter } from './json-binary.ts';
import { inet4Text, inet6Text, uuidText } from './network-text.ts';
import type { TableMap } from './table-map.ts';
import * as temporal from './temporal.ts';

const QUOTE = 0x22;
/** Room for any value of fixed size: the longest is a decimal of 65 digits. */
const FIXED_ROOM = 96;

export class ValueWriter {
  readonly #json = new JsonPrinter();

  /** Writes the value of column `index`, one of fixed size, whose bytes start at `at`. */
  fixed(writer: FrameWriter, map: TableMap, plan: ColumnPlan, index: number, source: Buffer, at: number): void {
    const out = writer.claim(FIXED_ROOM);
    let to = writer.bytes;
    out[to++] = QUOTE;
    switch (plan.reads[index]) {
      case READ.int8:
        to = writeInt(out, to, (source[at]! << 24) >> 24);
        break;
      case READ.uint8:
        to = writeUint(out, to, source[at]!);
        break;
      case READ.int16:
        to = writeInt(out, to, ((source[at]! | (source[at + 1]! << 8)) << 16) >> 16);
        break;
      case READ.uint16:
        to = writeUint(out, to, source[at]! | (source[at + 1]! << 8));
        break;
      case READ.int24:
        to = writeInt(out, to, (low24(source, at) << 8) >> 8);
        break;
      case READ.uint24:
        to = writeUint(out, to, low24(source, at));
        break;
      case READ.int32:
        to = writeInt(out, to, low24(source, at) | (source[at + 3]! << 24));
        break;
      case READ.uint32:
        to = writeUint(out, to, uint32(source, at));
        break;
      case READ.int64:
        to = writeInt64(out, to, uint32(source, at), uint32(source, at + 4));
        break;
      case READ.uint64:
        to = writeUint64(out, to, uint32(source, at), uint32(source, at + 4));
        break;
      case READ.decimal: {
        const meta = plan.metas[index]!;
        to = writeDecimal(out, to, source, at, meta >> 8, meta & 0xff);
        break;
      }
      case READ.date:
        to = temporal.writeDate(out, to, source, at);
        break;
      case READ.datetime2:
        to = temporal.writeDatetime2(out, to, source, at, plan.metas[index]!);
        break;
      case READ.timestamp2:
        to = temporal.writeTimestamp2(out, to, source, at, plan.metas[index]!);
        break;
      case READ.time2:
        to = temporal.writeTime2(out, to, source, at, plan.metas[index]!);
        break;
      case READ.year:
        to = temporal.writeYear(out, to, source[at]!);
        break;
      case READ.oldTime:
        to = temporal.writeOldTime(out, to, source, at);
        break;
      case READ.oldDatetime:
        to = temporal.writeOldDatetime(out, to, source, at);
        break;
      case READ.oldTimestamp:
        to = temporal.writeOldTimestamp(out, to, source, at);
        break;
      case READ.double:
        to += out.write(doubleText(source.readDoubleLE(at)), to, 'latin1');
        break;
      case READ.float:
        to += out.write(floatText(source.readFloatLE(at)), to, 'latin1');
        break;
      case READ.bit:
        to = writeBits(out, to, source, at, plan.metas[index]!);
        break;
      case READ.enum:
        return writeEnum(writer, map, plan, index, source, at);
      case READ.set:
        return writeSet(writer, plan, index, source, at);
      default:
        throw new ReplicationError('internal', `column ${index} of ${map.schema}.${map.name} has no reader`);
    }
    out[to++] = QUOTE;
    writer.moveTo(to);
  }

  /** Writes the value of column `index`, one of any length, whose bytes are [start, end). */
  variable(
    writer: FrameWriter,
    map: TableMap,
    plan: ColumnPlan,
    index: number,
    source: Buffer,
    start: number,
    end: number,
  ): void {
    switch (plan.reads[index]) {
      case READ.utf8:
        return writer.writeText(source, start, end);
      case READ.charset:
        return writeCharset(writer, plan.extras[index] as Charset, source, start, end);
      case READ.base64:
        return writer.writeBase64(source, start, end);
      case READ.paddedBase64: {
        const bytes = plan.metas[index]!;
        if (end - start === bytes) return writer.writeBase64(source, start, end);
        return writer.writeBase64(padded(source, start, end, bytes), 0, bytes);
      }
      case READ.json: {
        const length = this.#json.print(source, start, end);
        return writer.writeText(this.#json.buffer, 0, length);
      }
      case READ.uuid:
        return writer.writeAscii(uuidText(padded(source, start, end, 16)));
      case READ.inet4:
        return writer.writeAscii(inet4Text(padded(source, start, end, 4)));
      case READ.inet6:
        return writer.writeAscii(inet6Text(padded(source, start, end, 16)));
      case READ.compressedText:
      case READ.compressedBase64: {
        const value = inflateColumn(source.subarray(start, end));
        if (plan.reads[index] === READ.compressedBase64) return writer.writeBase64(value, 0, value.length);
        return writeCharset(writer, plan.extras[index] as Charset, value, 0, value.length);
      }
      default:
        throw new ReplicationError('internal', `column ${index} of ${map.schema}.${map.name} has no reader`);
    }
  }
}

function writeEnum(
  writer: FrameWriter,
  map: TableMap,
  plan: ColumnPlan,
  index: number,
  source: Buffer,
  at: number,
): void {
  const value = plan.sizes[index] === 1 ? source[at]! : source[at]! | (source[at + 1]! << 8);
  const label = (plan.extras[index] as readonly Buffer[])[value];
  if (label === undefined)
    throw new ReplicationError(
      'source_protocol',
      `column ${map.columns[index]!.name} of ${map.schema}.${map.name} has enum value ${value}, beyond its labels`,
    );
  writer.writeJson(label);
}

/** Labels of the bits that are set, joined by commas; lowest bit first. */
function writeSet(writer: FrameWriter, plan: ColumnPlan, index: number, source: Buffer, at: number): void {
  const labels = plan.extras[index] as readonly Buffer[];
  let room = 2;
  for (const label of labels) room += label.length + 1;
  const out = writer.claim(room);
  let to = writer.bytes;
  out[to++] = QUOTE;
  let first = true;
  for (let n = 0; n < labels.length; n++) {
    if (((source[at + (n >> 3)]! >> (n & 7)) & 1) === 0) continue;
    if (!first) out[to++] = 0x2c;
    first = false;
    to += labels[n]!.copy(out, to);
  }
  out[to++] = QUOTE;
  writer.moveTo(to);
}

/** Bits from the highest to the lowest; stored big-endian. */
function writeBits(out: Buffer, at: number, source: Buffer, from: number, bits: number): number {
  const bytes = (bits + 7) >> 3;
  let to = at;
  for (let n = bits - 1; n >= 0; n--) out[to++] = 0x30 + ((source[from + bytes - 1 - (n >> 3)]! >> (n & 7)) & 1);
  return to;
}

/** Trailing zeros that the log leaves out. */
function padded(source: Buffer, start: number, end: number, bytes: number): Buffer {
  const whole = Buffer.alloc(Math.max(bytes, end - start));
  source.copy(whole, 0, start, end);
  return whole;
}

function low24(source: Buffer, at: number): number {
  return source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16);
}

function uint32(source: Buffer, at: number): number {
  return low24(source, at) + source[at + 3]! * 0x100_0000;
}
