/** One row change by itself, outside of any batch: what fails is this row, and the server's message says why. */
import type { RowChange, Value } from '../../core/frame.ts';
import { changedKey, filledImage, isPartial } from '../row-key.ts';
import { ValueMisfit } from '../value-misfit.ts';
import { runLarge } from './large-statement.ts';
import { clearKeySql, deleteSql, insertSql, keyCondition, keylessStatement, updateSql } from './row-statement.ts';
import type { MysqlSession } from './session.ts';
import type { TablePlan } from './table-plan.ts';

/** Warnings that say nothing of a value: deprecated syntax, statements unsafe for a log of statements. */
const HARMLESS = new Set(['1287', '1592', '1681', '3719', '3778', '3135', '4095']);

/** Runs a statement; gives the rows that it found or made. Throws `ValueMisfit` when it bent a value. */
export async function runExactly(session: MysqlSession, sql: string): Promise<number> {
  if (sql === '') return 0;
  const [outcome] = await runLarge(session, sql);
  if (outcome!.warnings > 0) {
    const warnings = await session.rows('SHOW WARNINGS');
    const meant = warnings.find(([, code]) => !HARMLESS.has(code!));
    if (meant !== undefined) throw new ValueMisfit(`the target would store a value in another form: ${meant[2]}`);
  }
  return outcome!.rows;
}

/**
 * Applies a change of operation i, r, u or d, committed at `timeUs` (microseconds since 1970). Throws what the server said.
 */
export async function applyRow(
  session: MysqlSession,
  plan: TablePlan,
  row: RowChange,
  timeUs: number | undefined,
): Promise<void> {
  if (plan.key.length === 0) {
    await runExactly(session, keylessStatement(plan, row));
    return;
  }
  if (row[0] === 'd') {
    await runExactly(session, deleteSql(plan, keyCondition(plan, row[4]!), timeUs));
    return;
  }
  const image = row[0] === 'u' ? filledImage(row) : row[2]!;
  const partial = isPartial(plan, image);
  const update = (before?: readonly Value[]): string =>
    updateSql(plan, image, plan.written, keyCondition(plan, before ?? image, row[4]));
  let found = 0;
  // The row moves rather than being deleted, so that rows that refer to it may follow.
  if (changedKey(plan, row) !== undefined) {
    await runExactly(session, clearKeySql(plan, image, row[4]));
    found = await runExactly(session, update(row[4]));
  } else if (partial) await runExactly(session, update());
  if (partial || found > 0) return;
  // Not an upsert: that would meet other unique indexes, too. An update finds the row by its key alone.
  if ((await runExactly(session, update())) === 0) await runExactly(session, insertSql(plan, image));
}
