/** Looks at a range of keys that is asked for, with the source's own eyes. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import type { KeyBounds } from '../../core/key-order.ts';
import { refuseBound, refuseEmpty } from '../key-span.ts';
import type { KeySpan, KeyTexts } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { checkBoundsSql } from './chunk-sql.ts';
import { byteaBytes } from './published-table.ts';
import { sourceError } from './source-error.ts';

/** The span with its values as the source prints them. Throws `config_invalid` where they are none of their columns. */
export async function checkSpan(client: pg.Client, table: CapturedTable, span: KeySpan): Promise<KeySpan> {
  type Row = { from: KeyTexts | null; to: KeyTexts | null; room: boolean };
  let row: Row;
  try {
    row = (await client.query<Row>(checkBoundsSql(table, span))).rows[0]!;
  } catch (thrown) {
    const { code, message } = thrown as { code?: string; message?: string };
    // Class 22: data exceptions (PostgreSQL documentation, appendix A).
    if (code?.startsWith('22') === true) refuseBound(table.schema, span, message ?? code);
    throw thrown instanceof ReplicationError ? thrown : sourceError(thrown, 'looking at --from and --to');
  }
  if (!row.room) refuseEmpty(table.schema);
  return { ...span, from: row.from, to: row.to };
}

/** The bounds as frames carry values. */
export function framedBounds({ schema, binary }: CapturedTable, { columns, from, to }: KeySpan): KeyBounds {
  const indexes = columns.map(({ name }) => schema.columns.findIndex((each) => each.name === name));
  const framed = (bound: KeyTexts | null): KeyTexts | null =>
    bound?.map((text, i) => (binary[indexes[i]!] === true ? byteaBytes(text).toString('base64') : text)) ?? null;
  return { from: framed(from), to: framed(to) };
}
