/** How each column of a table is read: resolved once for a table map, so that rows only look up small integers. */
import { ReplicationError } from '../../core/errors.ts';
import { type Charset, type Charsets } from './charset.ts';
import { BINARY_COLLATION, TYPE } from './column-types.ts';
import { decimalBytes } from './decimal.ts';
import type { BinlogColumn, TableMap } from './table-map.ts';
import { fractionBytes } from './temporal.ts';

/** What to do with a value. Numbers, since a switch over small integers costs next to nothing. */
export const READ = {
  int8: 0,
  uint8: 1,
  int16: 2,
  uint16: 3,
  int24: 4,
  uint24: 5,
  int32: 6,
  uint32: 7,
  int64: 8,
  uint64: 9,
  float: 10,
  double: 11,
  decimal: 12,
  year: 13,
  date: 14,
  time2: 15,
  datetime2: 16,
  timestamp2: 17,
  oldTime: 18,
  oldDatetime: 19,
  oldTimestamp: 20,
  bit: 21,
  enum: 22,
  set: 23,
  utf8: 24,
  charset: 25,
  base64: 26,
  paddedBase64: 27,
  json: 28,
  uuid: 29,
  inet4: 30,
  inet6: 31,
  compressedText: 32,
  compressedBase64: 33,
  nothing: 34,
  omit: 35,
} as const;

export interface ColumnPlan {
  /** One of READ for each column. */
  readonly reads: Uint8Array;
  /** Bytes of a value, or minus the bytes of the length that it starts with. */
  readonly sizes: Int32Array;
  /** See BinlogColumn.meta. */
  readonly metas: Int32Array;
  /** The character set of READ.charset and READ.compressedText, the labels (JSON strings) of READ.enum and READ.set. */
  readonly extras: readonly (Charset | readonly Buffer[] | undefined)[];
}

/** How many bytes values take: enough to step over rows, whatever metadata the log has. */
export function planSizes(map: TableMap): Int32Array {
  return Int32Array.from(map.columns, (column) => sizeOf(column));
}

/**
 * How the values of a table are written. Throws `source_binlog_settings` where the log lacks metadata, and
 * `source_encoding` for a character set that cannot be read.
 */
export function planColumns(map: TableMap, charsets: Charsets): ColumnPlan {
  const table = `${map.schema}.${map.name}`;
  if (!map.fullMetadata)
    throw new ReplicationError(
      'source_binlog_settings',
      `the log describes ${table} without names: binlog_row_metadata was not FULL when the change was written`,
    );
  const reads = new Uint8Array(map.columns.length);
  const extras: (Charset | readonly Buffer[] | undefined)[] = [];
  for (const [index, column] of map.columns.entries()) {
    const place = `column ${column.name} of ${table}`;
    const read = readOf(column, map.hints.get(index), place);
    reads[index] = read;
    if (read === READ.enum || read === READ.set) {
      if (column.labels === undefined)
        throw new ReplicationError('source_binlog_settings', `the log has no labels of ${place}`);
      const labels = read === READ.enum ? ['', ...column.labels] : column.labels;
      extras.push(labels.map((label) => jsonLabel(label, read === READ.set)));
    } else if (read === READ.charset || read === READ.compressedText) {
      const charset = charsets.of(column.collation ?? BINARY_COLLATION, place);
      if (charset.kind === 'utf8' && read === READ.charset) reads[index] = READ.utf8;
      extras.push(charset);
    } else extras.push(undefined);
  }
  return { reads, sizes: planSizes(map), metas: Int32Array.from(map.columns, ({ meta }) => meta), extras };
}

/** A label of an enum as a JSON string; of a set without its quotes, since it is joined with others. */
function jsonLabel(label: string, bare: boolean): Buffer {
  const json = JSON.stringify(label);
  return Buffer.from(bare ? json.slice(1, -1) : json);
}

function sizeOf({ type, meta }: BinlogColumn): number {
  switch (type) {
    case TYPE.tiny:
    case TYPE.year:
      return 1;
    case TYPE.short:
      return 2;
    case TYPE.int24:
    case TYPE.date:
    case TYPE.time:
      return 3;
    case TYPE.long:
    case TYPE.float:
    case TYPE.timestamp:
      return 4;
    case TYPE.longlong:
    case TYPE.double:
    case TYPE.datetime:
      return 8;
    case TYPE.time2:
      return 3 + fractionBytes(meta);
    case TYPE.timestamp2:
      return 4 + fractionBytes(meta);
    case TYPE.datetime2:
      return 5 + fractionBytes(meta);
    case TYPE.newdecimal:
      return decimalBytes(meta >> 8, meta & 0xff);
    case TYPE.bit:
      return (meta + 7) >> 3;
    case TYPE.enum:
    case TYPE.set:
      return meta;
    case TYPE.string:
    case TYPE.varchar:
    case TYPE.varString:
    case TYPE.varcharCompressed:
      return meta > 255 ? -2 : -1;
    case TYPE.null:
      return 0;
    default:
      return -meta;
  }
}

function readOf(column: BinlogColumn, hint: string | undefined, place: string): number {
  const { type, unsigned, meta } = column;
  if (hint === 'omit') return READ.omit;
  const binary = column.collation === undefined || column.collation === BINARY_COLLATION;
  switch (type) {
    case TYPE.tiny:
      return unsigned ? READ.uint8 : READ.int8;
    case TYPE.short:
      return unsigned ? READ.uint16 : READ.int16;
    case TYPE.int24:
      return unsigned ? READ.uint24 : READ.int24;
    case TYPE.long:
      return unsigned ? READ.uint32 : READ.int32;
    case TYPE.longlong:
      return unsigned ? READ.uint64 : READ.int64;
    case TYPE.float:
      return READ.float;
    case TYPE.double:
      return READ.double;
    case TYPE.newdecimal:
      return READ.decimal;
    case TYPE.year:
      return READ.year;
    case TYPE.date:
      return READ.date;
    case TYPE.time2:
      return READ.time2;
    case TYPE.datetime2:
      return READ.datetime2;
    case TYPE.timestamp2:
      return READ.timestamp2;
    case TYPE.time:
      return READ.oldTime;
    case TYPE.datetime:
      return READ.oldDatetime;
    case TYPE.timestamp:
      return READ.oldTimestamp;
    case TYPE.bit:
      return READ.bit;
    case TYPE.enum:
      return READ.enum;
    case TYPE.set:
      return READ.set;
    case TYPE.json:
      return READ.json;
    case TYPE.null:
      return READ.nothing;
    case TYPE.geometry:
    case TYPE.vector:
      return READ.base64;
    case TYPE.string:
    case TYPE.varchar:
    case TYPE.varString:
      if (hint === 'uuid') return READ.uuid;
      if (hint === 'inet4') return READ.inet4;
      if (hint === 'inet6') return READ.inet6;
      if (!binary) return READ.charset;
      return type === TYPE.string ? READ.paddedBase64 : READ.base64;
    case TYPE.blob:
    case TYPE.tinyBlob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
      return binary ? READ.base64 : READ.charset;
    case TYPE.blobCompressed:
    case TYPE.varcharCompressed:
      return binary ? READ.compressedBase64 : READ.compressedText;
    default:
      throw new ReplicationError('source_protocol', `${place} has type ${type} (${meta}), which cannot be read`);
  }
}
