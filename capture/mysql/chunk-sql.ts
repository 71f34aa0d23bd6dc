/** The statements that read chunks of a table, and single rows of it; `ReadRows` takes what they give. */
import { beforeSql, behindSql } from '../../core/key-order.ts';
import type { KeySpan, KeyTexts } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { quoteIdent, quoteLiteral } from './connection.ts';
import { baseType } from './log-type.ts';

/**
 * The statement that reads one chunk in key order after `cursor`: all columns of the table's schema, those that are
 * `excluded` as NULL.
 */
export function chunkSql(
  table: CapturedTable,
  cursor: KeyTexts | null,
  limit: number | undefined,
  excluded?: ReadonlySet<string>,
  span?: KeySpan,
): string {
  const keys = keyTypes(table).map(({ name, type }) => orderedBy(name, type));
  const conditions = [
    ...(cursor === null || keys.length === 0 ? [] : [behindSql(compared(table, cursor), false)]),
    // What lies behind a row of the span lies behind its beginning.
    ...spanConditions(table, span !== undefined && cursor !== null ? { ...span, from: null } : span),
  ];
  const order = keys.length === 0 ? '' : ` ORDER BY ${keys.join(', ')}`;
  return `${selectFrom(table, excluded)}${whereSql(conditions)}${order}${limit === undefined ? '' : ` LIMIT ${limit}`}`;
}

/** The statement of which the plan tells how many rows a span has about. */
export function guessSql(table: CapturedTable, span: KeySpan): string {
  return `EXPLAIN SELECT 1 FROM ${qualified(table)}${whereSql(spanConditions(table, span))}`;
}

function whereSql(conditions: readonly string[]): string {
  return conditions.length === 0 ? '' : ` WHERE ${conditions.map((condition) => `(${condition})`).join(' AND ')}`;
}

function spanConditions(table: CapturedTable, span: KeySpan | undefined): string[] {
  return [
    ...(span?.from == null ? [] : [behindSql(compared(table, span.from), true)]),
    ...(span?.to == null ? [] : [beforeSql(compared(table, span.to))]),
  ];
}

/** Columns of the key, as many as there are values, each with its own. */
function compared(table: CapturedTable, values: KeyTexts): { column: string; bound: string }[] {
  return keyTypes(table)
    .slice(0, values.length)
    .map(({ name, type }, index) => ({ column: orderedBy(name, type), bound: keyLiteral(values[index]!, type) }));
}

/** The statement that reads the rows with these keys. */
export function keysSql(table: CapturedTable, keys: readonly KeyTexts[], excluded?: ReadonlySet<string>): string {
  return `${selectFrom(table, excluded)} WHERE ${keys.map((key) => hasKey(table, key)).join(' OR ')}`;
}

/** The statement that says for each key, as a column of `0` or `1`, whether there is a row with it. */
export function existSql(table: CapturedTable, keys: readonly KeyTexts[]): string {
  return `SELECT ${keys.map((key) => `EXISTS (SELECT 1 FROM ${qualified(table)} WHERE ${hasKey(table, key)})`).join(', ')}`;
}

/**
 * Whether the statements here give the bytes of a column, which whoever reads them encodes: `TO_BASE64` gives NULL where its
 * text would be longer than `max_allowed_packet`, while the value itself is not. Vectors are never so long.
 */
export function isReadAsBytes(type: string): boolean {
  return READ_AS_BYTES.test(baseType(type));
}

const READ_AS_BYTES =
  /^(?:binary|varbinary|(?:tiny|medium|long)?blob|geometry|point|linestring|polygon|multi(?:point|linestring|polygon)|geom(?:etry)?collection)$/;

function selectFrom(table: CapturedTable, excluded?: ReadonlySet<string>): string {
  const columns = table.columns
    .filter((column) => !column.generated)
    .map((column) => {
      if (excluded?.has(column.schema.name) === true) return 'NULL';
      return isReadAsBytes(column.schema.type) ? quoteIdent(column.schema.name) : column.textSql;
    });
  return `SELECT ${columns.join(', ')} FROM ${qualified(table)}`;
}

function qualified({ schema }: CapturedTable): string {
  return `${quoteIdent(schema.schema)}.${quoteIdent(schema.name)}`;
}

/** The key's columns with their types as the catalog shows them. */
function keyTypes(table: CapturedTable): { name: string; type: string }[] {
  return table.schema.key.map((name) => ({
    name,
    type: table.columns.find((column) => column.schema.name === name)!.shown,
  }));
}

function hasKey(table: CapturedTable, key: KeyTexts): string {
  const parts = keyTypes(table).map(
    ({ name, type }, index) => `${quoteIdent(name)} = ${keyLiteral(key[index]!, type)}`,
  );
  return `(${parts.join(' AND ')})`;
}

/**
 * Enums sort by their number and compare by their label: both by label here, and no two labels are equal, whatever the
 * connection's collation says of case and accents.
 */
function orderedBy(name: string, type: string): string {
  const column = quoteIdent(name);
  return /^(?:enum|set)\b/.test(type) ? `CAST(${column} AS CHAR) COLLATE utf8mb4_bin` : column;
}

const NUMERIC = /^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i;

function keyLiteral(text: string, type: string): string {
  const base = baseType(type);
  if (/^(?:tiny|small|medium|big)?int$|^(?:decimal|double|year)$/.test(base) && NUMERIC.test(text)) return text;
  // As the number of its text it is a double, which few floats are equal to.
  if (base === 'float') return `CAST(${NUMERIC.test(text) ? text : quoteLiteral(text)} AS FLOAT)`;
  if (base === 'bit') return `b'${text.replaceAll(/[^01]/g, '')}'`;
  if (/^(?:binary|varbinary|\w*blob)$/.test(base)) return `X'${Buffer.from(text, 'base64').toString('hex')}'`;
  return quoteLiteral(text);
}

/** Types of which equal values have one text. */
const TEXT_IS_VALUE =
  /^(?:(?:tiny|small|medium|big)?int|decimal|year|date|time|datetime|timestamp|bit|uuid|binary|varbinary)$/;

/** Whether keys that are equal for the source have equal texts: not so where a collation decides, or a float. */
export function keyTextIsKey(table: CapturedTable): boolean {
  return keyTypes(table).every(({ type }) => TEXT_IS_VALUE.test(baseType(type)));
}
