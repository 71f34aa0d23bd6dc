/** SQL that gives canonical text, digests and keys of rows in MySQL and MariaDB: the same answer as canonical-text.ts. */
import { parseTypeText } from '../../../core/column-kind.ts';
import { columnTextSql, type Flavour } from '../../../core/mysql-column-text.ts';
import { isSized } from '../canonical-text.ts';
import { timeText } from '../canonical-value.ts';
import type { ComparedColumn, ComparedTable, KeyTexts } from '../side.ts';
import { ENCODED, quoteName, quoteText } from './session.ts';

export function qualified(table: { readonly schema: string; readonly name: string }): string {
  return `${quoteName(table.schema)}.${quoteName(table.name)}`;
}

/** Without the zeros behind the point that say nothing, and without the point when nothing is behind it. */
function trimmed(text: string): string {
  return `TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM ${text}))`;
}

/** An expression for the column's value as text: canonical, but for the kinds that are worked out elsewhere. */
export function textSql(column: ComparedColumn, flavour: Flavour): string {
  const name = quoteName(column.name);
  const { name: dataType, args } = parseTypeText(column.type);
  const own = columnTextSql({ name: column.name, dataType, columnType: column.type }, flavour);
  switch (column.kind) {
    case 'integer':
      return `CAST(${name} + 0 AS CHAR)`;
    case 'decimal':
      // Plus nought: the text of a ZEROFILL column is padded.
      return (args[1] ?? 0) > 0 && dataType === 'decimal'
        ? trimmed(`CAST(${name} + 0 AS CHAR)`)
        : `CAST(${name} + 0 AS CHAR)`;
    case 'hex':
      return `LOWER(HEX(${name}))`;
    case 'date':
      return dated(column, name, `CAST(${name} AS CHAR)`, '1970-01-01');
    case 'moment': {
      const text = `CAST(${name} AS CHAR)`;
      const full = dataType === 'date' ? `CONCAT(${text}, ' 00:00:00')` : (args[0] ?? 0) > 0 ? trimmed(text) : text;
      return dated(column, name, full, '1970-01-01 00:00:00');
    }
    case 'micros':
      return `CAST(CAST(TRUNCATE(TIME_TO_SEC(${name}), 0) * 1000000 + IF(${name} < 0, -1, 1) * MICROSECOND(${name}) AS SIGNED) AS CHAR)`;
    case 'padded':
      return `TRIM(TRAILING ' ' FROM ${own})`;
    default:
      return own;
  }
}

/** Dates with a zero year, month or day as the flow's target has them. */
function dated({ zeroDates }: ComparedColumn, name: string, text: string, epoch: string): string {
  if (zeroDates === undefined) return text;
  const isZero = `YEAR(${name}) = 0 OR MONTH(${name}) = 0 OR DAYOFMONTH(${name}) = 0`;
  return `IF(${isZero}, ${zeroDates === 'null' ? 'NULL' : `'${epoch}'`}, ${text})`;
}

/** The canonical text of a row. NULL when it is larger than `max_allowed_packet`. */
function rowSql(columns: readonly ComparedColumn[], flavour: Flavour): string {
  const parts = columns.map((column) => {
    const text = textSql(column, flavour);
    return isSized(column.kind)
      ? `COALESCE(CONCAT(LENGTH(${text}), ':', ${text}), IF(${quoteName(column.name)} IS NULL, ':', NULL))`
      : `COALESCE(${text}, ''), ';'`;
  });
  return `CONCAT(${parts.join(', ')})`;
}

export function keyColumns(table: ComparedTable): readonly ComparedColumn[] {
  return table.key.map((index) => table.columns[index]!);
}

/** A canonical text as a literal of the key's type. */
function literal(text: string, column: ComparedColumn): string {
  switch (column.kind) {
    case 'integer':
    case 'decimal':
      return /^-?\d+(?:\.\d+)?$/.test(text) ? text : quoteText(text);
    case 'hex':
      return `X'${text.replaceAll(/[^0-9a-f]/g, '')}'`;
    case 'bits':
      return `b'${text.replaceAll(/[^01]/g, '')}'`;
    case 'micros':
      return quoteText(timeText(Number(text)));
    default:
      return quoteText(text);
  }
}

/** A condition on the key. Half-open: after `after`, up to and with `upTo`. */
export function rangeSql(table: ComparedTable, after: KeyTexts | null, upTo: KeyTexts | null): string {
  const sides = [
    ...(after === null ? [] : [beyond(table, after, '>')]),
    ...(upTo === null ? [] : [`(${beyond(table, upTo, '<')} OR ${equal(table, upTo)})`]),
  ];
  return sides.length === 0 ? 'TRUE' : sides.join(' AND ');
}

/** Written out: a comparison of rows would read the index from its beginning. */
function beyond(table: ComparedTable, key: KeyTexts, operator: '<' | '>'): string {
  const columns = keyColumns(table);
  const sides = columns.map((column, i) => {
    const before = columns.slice(0, i).map((each, j) => `${quoteName(each.name)} = ${literal(key[j]!, each)}`);
    return `(${[...before, `${quoteName(column.name)} ${operator} ${literal(key[i]!, column)}`].join(' AND ')})`;
  });
  return `(${sides.join(' OR ')})`;
}

function equal(table: ComparedTable, key: KeyTexts): string {
  return `(${keyColumns(table)
    .map((column, i) => `${quoteName(column.name)} = ${literal(key[i]!, column)}`)
    .join(' AND ')})`;
}

/** Rows with one of these keys. */
export function keysSql(table: ComparedTable, keys: readonly KeyTexts[]): string {
  const columns = keyColumns(table);
  if (columns.length > 1) return keys.map((key) => equal(table, key)).join(' OR ');
  return `${quoteName(columns[0]!.name)} IN (${keys.map((key) => literal(key[0]!, columns[0]!)).join(', ')})`;
}

export function orderSql(table: ComparedTable): string {
  return keyColumns(table)
    .map((column) => quoteName(column.name))
    .join(', ');
}

const half = (from: string): string => `CAST(CAST(CONV(${from}, 16, 10) AS UNSIGNED) AS SIGNED)`;
const HALVES = `${half('LEFT(h, 16)')} AS high, ${half('RIGHT(h, 16)')} AS low`;

/** The condition on rows, without those that are marked as gone. */
function counting({ deletedAt }: ComparedTable, where: string): string {
  return deletedAt === undefined ? where : `(${where}) AND ${quoteName(deletedAt)} IS NULL`;
}

/** Sums by bucket: bucket, rows, rows with a digest, high, low. */
export function sumsSql(table: ComparedTable, where: string, mask: number, flavour: Flavour): string {
  const hashed = `SELECT LEFT(SHA2(${rowSql(table.columns, flavour)}, 256), 32) AS h FROM ${qualified(table)} WHERE ${counting(table, where)}`;
  return (
    `SELECT low & ${mask} AS bucket, COUNT(*), COUNT(low), SUM(high), SUM(low)` +
    ` FROM (SELECT ${HALVES} FROM (${hashed}) x) y GROUP BY bucket`
  );
}

const BINARY =
  /^(?:binary|varbinary|(?:tiny|medium|long)?blob|geometry|point|linestring|polygon|multi(?:point|linestring|polygon)|geom(?:etry)?collection)$/;

/** Bytes are encoded here: of a value whose text is larger than `max_allowed_packet` the server's functions make NULL. */
function readSql(column: ComparedColumn, flavour: Flavour): string {
  const { kind, name, type } = column;
  const encoding = kind === 'hex' ? 'hex' : kind === 'plain' || kind === 'sized' ? 'base64' : undefined;
  if (encoding === undefined || !BINARY.test(parseTypeText(type).name)) return textSql(column, flavour);
  return `${quoteName(name)} AS ${quoteName(ENCODED[encoding])}`;
}

/** The columns of rows as texts. */
export function textsSql(table: ComparedTable, where: string, flavour: Flavour): string {
  return `SELECT ${table.columns.map((column) => readSql(column, flavour)).join(', ')} FROM ${qualified(table)} WHERE ${counting(table, where)}`;
}
