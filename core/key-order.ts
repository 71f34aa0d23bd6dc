/**
 * Ranges of keys that mean the same on both sides. A target may remove the rows of a range that a snapshot did not see only
 * where it sorts keys as the source does: otherwise a row that lies outside for the source, and so was not read, might lie
 * inside for the target. Texts sort by collations, of which no two databases are sure to have the same.
 */
import { parseTypeText } from './column-kind.ts';
import type { ColumnSchema, Dialect, TableSchema, Value } from './frame.ts';

/** What kind of order the values of a type have. */
export type KeyOrder = 'number' | 'long number' | 'date' | 'time' | 'bytes' | 'uuid';

const NUMBERS = /^(?:(?:tiny|small|medium|big)?int|integer|numeric|decimal|year)$/;
const TIMES = /^(?:timestamp(?: with(?:out)? time zone)?|datetime)$/;
const BYTES = /^(?:bytea|binary|varbinary)$/;

/** The order of a type, as a database of this kind names it; undefined for one that others may sort in another way. */
export function keyOrder(dialect: Dialect, type: string): KeyOrder | undefined {
  if (type.endsWith(']')) return undefined;
  const { name, args } = parseTypeText(type);
  // Numbers of any length are rounded where there are none such.
  if (name === 'numeric' && args.length === 0) return 'long number';
  if (NUMBERS.test(name)) return 'number';
  if (name === 'date') return 'date';
  if (TIMES.test(name)) return 'time';
  if (BYTES.test(name)) return 'bytes';
  // MariaDB sorts them by their parts from the last one on.
  return name === 'uuid' && dialect === 'postgres' ? 'uuid' : undefined;
}

/** Digits behind the point that values of a type keep. */
function scaleOf(dialect: Dialect, type: string, order: KeyOrder): number {
  const { args } = parseTypeText(type);
  if (order === 'time') return args[0] ?? (dialect === 'postgres' ? 6 : 0);
  return order === 'number' ? (args[1] ?? 0) : 0;
}

/** Where rows are, if not in their source. */
interface Place {
  readonly dialect: Dialect;
  readonly typeAt: (column: ColumnSchema) => string | undefined;
}

/** Whether values have the same order there. What is rounded or filled up to a length may cross a bound. */
function keepsOrder(dialect: Dialect, column: ColumnSchema, order: KeyOrder, there: Place): boolean {
  const type = there.typeAt(column) ?? '';
  if (keyOrder(there.dialect, type) !== order) return false;
  const [from, to] = [parseTypeText(column.type), parseTypeText(type)];
  if (to.name === 'binary') return from.name === to.name && from.args[0] === to.args[0];
  return scaleOf(there.dialect, type, order) >= scaleOf(dialect, column.type, order);
}

/** Bounds, as frames carry values, that every database reads as the same. */
const PLAIN: Readonly<Record<KeyOrder, RegExp>> = {
  number: /^-?\d+(?:\.\d+)?$/,
  'long number': /^-?\d+(?:\.\d+)?$/,
  date: /^(?!0000)\d{4}-(?!00)\d\d-(?!00)\d\d$/,
  time: /^(?!0000)\d{4}-(?!00)\d\d-(?!00)\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?:\+00)?$/,
  bytes: /^[A-Za-z0-9+/]*={0,2}$/,
  uuid: /^[0-9a-f-]{36}$/,
};

/** A range of keys: from `from` on, to before `to`, by the first columns of the key; null where it has no bound. */
export interface KeyBounds {
  readonly from: readonly string[] | null;
  readonly to: readonly string[] | null;
}

/** What the marks around a range of a table say. */
export type RangeMark = 'begin_range' | 'end_range';

/** The content of a mark. */
export function rangeMark(id: string, mark: RangeMark, { from, to }: KeyBounds): Value[] {
  const text = (bound: readonly string[] | null): Value => (bound === null ? null : JSON.stringify(bound));
  return [id, mark, text(from), text(to)];
}

/** The bounds that a mark names; undefined where it names none that can be read. */
export function boundsOfMark([, , from, to]: readonly Value[]): KeyBounds | undefined {
  const bounds = [from, to].map(parsedBound);
  const isBound = (bound: unknown): bound is readonly string[] | null =>
    bound === null || (Array.isArray(bound) && bound.length > 0 && bound.every((value) => typeof value === 'string'));
  const [first, last] = bounds;
  return isBound(first) && isBound(last) && (first !== null || last !== null) ? { from: first, to: last } : undefined;
}

function parsedBound(text: Value | undefined): unknown {
  if (typeof text !== 'string') return null;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Whether each database says the same of what lies within these bounds. `typeAt` gives the type of a column where the rows
 * are, if they are elsewhere.
 */
export function isOrdered(
  table: Pick<TableSchema, 'key' | 'columns' | 'dialect'>,
  { from, to }: KeyBounds,
  there?: Place,
): boolean {
  const compared = Math.max(from?.length ?? 0, to?.length ?? 0);
  if (compared > table.key.length) return false;
  return table.key.slice(0, compared).every((name, index) => {
    const column = table.columns.find((each) => each.name === name);
    const dialect = table.dialect ?? 'postgres';
    const order = column === undefined ? undefined : keyOrder(dialect, column.type);
    if (order === undefined) return false;
    if (there !== undefined && !keepsOrder(dialect, column!, order, there)) return false;
    return [from?.[index], to?.[index]].every((text) => text === undefined || PLAIN[order].test(text));
  });
}

interface Compared {
  readonly column: string;
  readonly bound: string;
}

/** The condition that a key lies behind a bound, or (`at`) on it. Written out: MySQL reads no index for rows compared. */
export function behindSql(parts: readonly Compared[], at: boolean): string {
  return orderSql(parts, '>', at);
}

/** The condition that a key lies before a bound. */
export function beforeSql(parts: readonly Compared[]): string {
  return orderSql(parts, '<', false);
}

function orderSql(parts: readonly Compared[], sign: '<' | '>', at: boolean): string {
  const equal = (some: readonly Compared[]): string[] => some.map(({ column, bound }) => `${column} = ${bound}`);
  const cases = parts.map(
    ({ column, bound }, index) => `(${[...equal(parts.slice(0, index)), `${column} ${sign} ${bound}`].join(' AND ')})`,
  );
  return [...cases, ...(at ? [`(${equal(parts).join(' AND ')})`] : [])].join(' OR ');
}
