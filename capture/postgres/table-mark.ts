/** Marks of tables: what one is like, written into the log while it is locked, so that it is true at its place. */
import type pg from 'pg';
import { readTable, type CapturedTable } from './catalog.ts';
import { emitMark } from './log-marks.ts';
import { qualifiedName } from './publication.ts';
import { isHeld } from './read-tables.ts';
import { sourceError } from './source-error.ts';
import { differs } from './table-change.ts';

/** So long a table is waited for that somebody holds. */
export const LOCK_TIMEOUT = '2s';

/**
 * Writes what a table is like now, locked against changes meanwhile. False when it changed again or is in use; 'refused' when
 * this user may not lock it, for which the right to read it is needed.
 */
export async function markTable(
  client: pg.Client,
  markPrefix: string,
  expected: CapturedTable,
): Promise<boolean | 'refused'> {
  let isLocked = false;
  try {
    await client.query(`begin; set local lock_timeout = '${LOCK_TIMEOUT}'`);
    await client.query(`lock table only ${qualifiedName(expected.schema)} in access share mode`);
    isLocked = true;
    const found = await readTable(client, expected.oid);
    const same = found !== undefined && !differs(expected, found.table);
    if (same) await emitMark(client, markPrefix, { k: 'table', oid: expected.oid, row: found.row, published: true });
    await client.query('commit');
    return same;
  } catch (thrown) {
    await client.query('rollback').catch(() => undefined);
    const { code } = (thrown ?? {}) as { code?: unknown };
    if (code === '42501' && !isLocked) return 'refused';
    // In use by whoever changes it, or gone, or its schema has another name: it is looked at again.
    if (!isHeld(thrown) && code !== '42P01' && code !== '3F000')
      throw sourceError(thrown, 'writing a mark for a table');
    return false;
  }
}
