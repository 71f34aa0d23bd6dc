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
  | { readonly k: 'begin' | 'end' | CancelMark; readonly id: string; readonly oid: number }
  | ({ readonly k: RangeMark; readonly id: string; readonly oid: number } & KeyBounds)
  | { readonly k: 'low'; readonly chunk: string; readonly oid: number }
  | HighMark
  | SchemaMark;

/** `end`: names the reading of a table that ends with this chunk, unless the chunk has to be read again. */
interface HighMark {
  readonly k: 'high';
  readonly chunk: string;
  readonly oid: number;
  readonly end?: string;
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

/** A version of a table that begins, or ends, at a mark. */
export interface MarkedVersion<T = PublishedTable> {
  readonly table: T;
  readonly what: string;
  readonly mark: 'schema' | 'gone';
}

/** Prefix of the messages that the event trigger writes. */
export const DDL_PREFIX = 'waybill.ddl';

/** The statement that writes marks into the log, in this order, in the transaction at hand. */
export function marksSql(prefix: string, marks: readonly Mark[]): string {
  const messages = marks.map(
    (mark) => `pg_logical_emit_message(true, ${quoteLiteral(prefix)}, ${quoteLiteral(JSON.stringify(mark))}::text)`,
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
