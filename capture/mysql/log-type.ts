/** What the log alone says of a column's type: for tables that were changed or dropped since. */
import type { BinlogColumn } from './table-map.ts';
import { BINARY_COLLATION, TYPE } from './column-types.ts';

const INTEGERS: Readonly<Record<number, string>> = {
  [TYPE.tiny]: 'tinyint',
  [TYPE.short]: 'smallint',
  [TYPE.int24]: 'mediumint',
  [TYPE.long]: 'int',
  [TYPE.longlong]: 'bigint',
};
const PLAIN: Readonly<Record<number, string>> = {
  [TYPE.float]: 'float',
  [TYPE.double]: 'double',
  [TYPE.year]: 'year',
  [TYPE.date]: 'date',
  [TYPE.json]: 'json',
  [TYPE.geometry]: 'geometry',
  [TYPE.vector]: 'vector',
};
const TIMES: Readonly<Record<number, string>> = {
  [TYPE.time]: 'time',
  [TYPE.time2]: 'time',
  [TYPE.datetime]: 'datetime',
  [TYPE.datetime2]: 'datetime',
  [TYPE.timestamp]: 'timestamp',
  [TYPE.timestamp2]: 'timestamp',
};
const BLOBS = ['', 'tinyblob', 'blob', 'mediumblob', 'longblob'] as const;
const TEXTS = ['', 'tinytext', 'text', 'mediumtext', 'longtext'] as const;
/** Longest varchar in characters of four bytes. */
const VARCHAR_CHARS = 16_383;

/** The type text as COLUMN_TYPE would have it. */
export function logTypeText(column: BinlogColumn): string {
  const { type, meta, collation } = column;
  const characters = Math.floor(meta / column.characterBytes);
  const binary = collation === undefined || collation === BINARY_COLLATION;
  if (INTEGERS[type] !== undefined) return `${INTEGERS[type]}${column.unsigned ? ' unsigned' : ''}`;
  if (PLAIN[type] !== undefined) return PLAIN[type];
  if (TIMES[type] !== undefined) return meta > 0 ? `${TIMES[type]}(${meta})` : TIMES[type];
  const labels = (column.labels ?? []).map((label) => `'${label.replaceAll("'", "''")}'`).join(',');
  switch (type) {
    case TYPE.newdecimal:
      return `decimal(${meta >> 8},${meta & 255})${column.unsigned ? ' unsigned' : ''}`;
    case TYPE.bit:
      return `bit(${meta})`;
    case TYPE.enum:
      return `enum(${labels})`;
    case TYPE.set:
      return `set(${labels})`;
    case TYPE.varchar:
    case TYPE.varString:
    case TYPE.varcharCompressed:
      if (binary) return `varbinary(${meta})`;
      return characters > VARCHAR_CHARS ? 'text' : `varchar(${characters})`;
    case TYPE.string:
      return binary ? `binary(${meta})` : `char(${Math.min(255, characters)})`;
    default:
      return (binary ? BLOBS : TEXTS)[meta] ?? (binary ? 'longblob' : 'longtext');
  }
}

/** Whether the catalog shows the type of an enum or set of the log as `shown`: escaped, and with `?` for what it lacks. */
export function showsAs(column: BinlogColumn, shown: string): boolean {
  const word = column.type === TYPE.enum ? 'enum' : 'set';
  const list = (lossy: boolean): string =>
    (column.labels ?? [])
      .map((label) => (lossy ? label.replaceAll(/[\u{10000}-\u{10FFFF}]/gu, '?') : label))
      .map((label) => `'${label.replaceAll("'", "''")}'`)
      .join(',');
  const plain = shown.replaceAll(/\\(.)/g, (_, char: string) => ESCAPES[char] ?? char);
  return plain === `${word}(${list(true)})` || shown === `${word}(${list(false)})`;
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', '0': '\0', t: '\t', Z: '\u001a' };

/** The part of a type text before its arguments: `int`, `decimal`. */
export function baseType(typeText: string): string {
  return /^[a-z0-9]+/i.exec(typeText)?.[0]?.toLowerCase() ?? '';
}

const GEOMETRIES = new Set(
  ['geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring'].concat([
    'multipolygon',
    'geometrycollection',
    'geomcollection',
  ]),
);
/** Types of MariaDB whose values the log shows as BINARY. */
export const HINTED = new Set(['uuid', 'inet4', 'inet6']);

/** Whether a column of the log can be the one that the catalog describes: the same type, precision and sign. */
export function typesAgree(column: BinlogColumn, typeText: string): boolean {
  const logged = logTypeText(column);
  const [ours, theirs] = [baseType(logged), baseType(typeText)];
  if (ours === 'geometry') return GEOMETRIES.has(theirs);
  if (ours === 'binary' && HINTED.has(theirs)) return true;
  if (ours !== theirs) return column.type === TYPE.blobCompressed || column.type === TYPE.varcharCompressed;
  const unsigned = /\bunsigned\b|\bzerofill\b/.test(typeText);
  if (INTEGERS[column.type] !== undefined) return unsigned === column.unsigned;
  if (ours === 'decimal') return typeText.startsWith(logged.replace(/ unsigned$/, '')) && unsigned === column.unsigned;
  if (ours === 'enum' || ours === 'set') return logged === typeText;
  return TIMES[column.type] === undefined || typeText === logged;
}
