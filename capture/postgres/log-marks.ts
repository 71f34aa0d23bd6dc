/** Messages of Waybill in the log of a Postgres source. */
import type pg from 'pg';
import type { KeyBounds, RangeMark } from '../../core/key-order.ts';
import type { CancelMark } from '../snapshot-request.ts';
import type { CatalogRow } from './catalog.ts';
import { quoteLiteral } from './chunk-sql.ts';
import type { PublishedTable } from './published-table.ts';
import { sourceError } from './source-error.ts';

/** What Waybill writes into the source's log about itself, as the content of transactional logical messages. */
export type Mark =
  | { readonly k: 'heartbeat' }
  | BeginMark
  | { readonly k: 'end' | CancelMark; readonly id: string; readonly oid: number }
  | ({ readonly k: RangeMark; readonly id: string; readonly oid: number } & KeyBounds)
  | { readonly k: 'low'; readonly chunk: string; readonly oid: number }
  | HighMark
  | SchemaMark;

/** `unasked`: the table is read because of what became of it, and nobody asked for that. */
export interface BeginMark {
  readonly k: 'begin';
  readonly id: string;
  readonly oid: number;
  readonly unasked?: boolean;
}

/**
 * `end`: names the reading of a table that ends with this chunk, unless the chunk has to be read again. `more`: it is but a
 * piece of the chunk, which goes on. `changed`: the rows may be of another version than they were read for.
 */
export interface HighMark {
  readonly k: 'high';
  readonly chunk: string;
  readonly oid: number;
  readonly end?: string;
  readonly more?: boolean;
  readonly changed?: boolean;
}

/** What a table is like from this place of the log on, or that it is gone. The event trigger writes the same. */
export type SchemaMark =
  | {
      readonly k: 'table';
      readonly oid: number;
      readonly row: CatalogRow;
      /** Written by the capture: the publication has the table. */
      readonly published?: boolean;
    }
  | { readonly k: 'gone'; readonly oid: number; readonly why: string };

/** The transaction that a mark is part of, and where the log has its commit. */
export interface MarkPlace {
  readonly xid: number;
  readonly lsn: bigint;
}

/** A version of a table that begins, or ends, at a mark. */
export interface MarkedVersion<T = PublishedTable> {
  readonly table: T;
  readonly what: string;
  readonly mark: 'schema' | 'gone';
}

/** Prefix of the messages that the event trigger writes. */
export const DDL_PREFIX = 'waybill.ddl';

/** The marks of `k` that name something by these texts, and a table. */
const TEXTS: Readonly<Record<Mark['k'], readonly string[] | undefined>> = {
  heartbeat: undefined,
  begin: ['id'],
  end: ['id'],
  cancel: ['id'],
  cancel_range: ['id'],
  begin_range: ['id'],
  end_range: ['id'],
  low: ['chunk'],
  high: ['chunk'],
  table: [],
  gone: ['why'],
};

const RANGE_MARKS: ReadonlySet<string> = new Set<RangeMark>(['begin_range', 'end_range']);

/** The mark that a message holds; undefined for what is none. Everybody may write messages, of whatever prefix. */
export function parseMark(content: string): Mark | undefined {
  let mark: unknown;
  try {
    mark = JSON.parse(content);
  } catch {
    return undefined;
  }
  if (!isObject(mark) || typeof mark['k'] !== 'string' || !Object.hasOwn(TEXTS, mark['k'])) return undefined;
  const texts = TEXTS[mark['k'] as Mark['k']];
  if (texts === undefined) return mark as unknown as Mark;
  const isWhole =
    Number.isSafeInteger(mark['oid']) &&
    texts.every((name) => typeof mark[name] === 'string') &&
    (mark['end'] === undefined || typeof mark['end'] === 'string') &&
    ['more', 'changed', 'unasked'].every((name) => mark[name] === undefined || typeof mark[name] === 'boolean') &&
    (mark['k'] !== 'table' || isCatalogRow(mark['row'], mark['oid'] as number)) &&
    (!RANGE_MARKS.has(mark['k']) || ['from', 'to'].every((name) => isBound(mark[name])));
  return isWhole ? (mark as unknown as Mark) : undefined;
}

function isCatalogRow(row: unknown, oid: number): boolean {
  if (!isObject(row) || row['oid'] !== String(oid) || typeof row['schema'] !== 'string') return false;
  if (typeof row['name'] !== 'string' || typeof row['partitioned'] !== 'boolean') return false;
  if (typeof row['identity'] !== 'string' || !/^[dfin]$/.test(row['identity'])) return false;
  const isTexts = (value: unknown, names: readonly string[]): boolean =>
    isObject(value) && names.every((name) => typeof value[name] === 'string');
  const isColumn = (column: unknown): boolean =>
    isTexts(column, ['name', 'type', 'portable', 'base', 'typeOid', 'stamp']) &&
    ['id', 'modifier'].every((name) => Number.isSafeInteger((column as Record<string, unknown>)[name]));
  const isPart = (part: unknown): boolean => isTexts(part, ['oid', 'schema', 'name', 'file']);
  const lists = (value: unknown, isItem: (item: unknown) => boolean): boolean =>
    value === null || (Array.isArray(value) && value.every(isItem));
  return (
    Array.isArray(row['columns']) &&
    row['columns'].every(isColumn) &&
    lists(row['parts'], isPart) &&
    lists(row['key'], (name) => typeof name === 'string')
  );
}

function isBound(bound: unknown): boolean {
  return bound === null || (Array.isArray(bound) && bound.every((text) => typeof text === 'string'));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** The statement that writes marks into the log, in this order, in the transaction at hand. */
export function marksSql(prefix: string, marks: readonly Mark[]): string {
  const messages = marks.map(
    (mark) => `pg_logical_emit_message(true, ${quoteLiteral(prefix)}, ${quoteLiteral(JSON.stringify(mark))}::text)`,
  );
  return `select ${messages.join(', ')}`;
}

/**
 * The same for the ends of chunks, each with a condition of SQL: `changed` is written where that is not true of the source by
 * then. A round trip less than to ask, and nothing comes in between.
 */
export function highMarksSql(prefix: string, marks: readonly (readonly [mark: HighMark, isReadAs: string])[]): string {
  const text = (mark: HighMark): string => quoteLiteral(JSON.stringify(mark));
  const messages = marks.map(
    ([mark, isReadAs]) =>
      `pg_logical_emit_message(true, ${quoteLiteral(prefix)}, case when ${isReadAs} then ${text(mark)} else ${text({ ...mark, changed: true })} end)`,
  );
  return `select ${messages.join(', ')}`;
}

/** Writes a mark into the source's log, in a transaction of its own. */
export async function emitMark(client: pg.Client, prefix: string, mark: Mark): Promise<void> {
  try {
    await client.query(marksSql(prefix, [mark]));
  } catch (thrown) {
    throw sourceError(thrown, 'writing a mark into the log of the source');
  }
}
