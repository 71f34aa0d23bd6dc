/**
 * Row by row: what is done with a batch that failed. Every row runs in source order under a savepoint of its own; rows
 * that fail are tried again behind the others of their source transaction while that helps (a constraint may be met by
 * a later row), and what still fails goes to quarantine with its key, while its neighbours go on.
 */
import { entryPosition, formatPosition } from '../core/position.ts';
import { transactionsOf, type Run } from './batch.ts';
import type { StoreTransaction } from './batch-store.ts';
import { isIgnored, type Plans, type SourceRow } from './compact.ts';
import { retryRefused } from './late-rows.ts';
import type { RowFailure } from './quarantine-entry.ts';
import { replayPasses, type ReplayContext } from './row-passes.ts';
import type { PlanShape } from './table-changes.ts';

export async function replayRows<P extends PlanShape, T extends StoreTransaction>(
  context: ReplayContext<P, T>,
  transaction: T,
  runs: readonly Run[],
  plansOf: Plans<P>,
): Promise<void> {
  await transaction.flush();
  let rows: SourceRow<P>[] = [];
  let barriers: SourceRow<P>[] = [];
  /** The transaction at hand, where rows of it were refused that stand before a barrier in it. */
  let late: string | undefined;
  const settle = async (): Promise<boolean> => {
    const refused = await replayTransaction(context, transaction, rows);
    rows = [];
    return refused;
  };
  const end = async (): Promise<void> => {
    await settle();
    if (late !== undefined) await retryRefused(context, transaction, late);
    late = undefined;
  };
  const passBarriers = async (): Promise<void> => {
    if (barriers.length === 0) return;
    transaction.add(context.store.checkSql);
    await context.store.barrier(transaction, barriers);
    await transaction.flush();
    for (const { plan, row } of barriers) if (row[0] === 't') context.held().releaseTable(plan.id);
    barriers = [];
  };
  for (const run of runs) {
    const plans = plansOf(run);
    for (const { entry, start, from, to } of transactionsOf(run)) {
      if (entry[5] === 'whole' || entry[5] === 'first') {
        await passBarriers();
        await end();
      }
      const position = formatPosition(entryPosition(entry, 0));
      for (let index = from; index < to; index++) {
        const plan = plans[run.frame.tableIndex(index)];
        if (plan === undefined || isIgnored(run.frame.op(index), plan, context.settings)) continue;
        // A barrier may have stopped it.
        if (barriers.length > 0 && run.frame.op(index) !== 't') await passBarriers();
        if (context.store.followed.leavesOut(plan.table)) continue;
        const row = run.frame.row(index);
        const item = { plan, row, position, ordinal: entry[6] + index - start, commitTimeUs: entry[3] };
        if (row[0] === 't' || row[0] === 's') {
          if (await settle()) late = position;
          if (row[0] === 's') await passBarriers();
          barriers.push(item);
          if (row[0] === 's') await passBarriers();
          continue;
        }
        await passBarriers();
        rows.push(item);
      }
    }
  }
  await passBarriers();
  // Where the last one goes on, rows are tried again at its end.
  if (/^(?:first|middle)$/.test(lastPart(runs))) await settle();
  else await end();
}

function lastPart(runs: readonly Run[]): string {
  const run = runs.at(-1);
  return run?.frame.partOf(run.endEntry - 1) ?? '';
}

/** Whether any row was refused. */
async function replayTransaction<P extends PlanShape, T extends StoreTransaction>(
  context: ReplayContext<P, T>,
  transaction: T,
  rows: readonly SourceRow<P>[],
): Promise<boolean> {
  if (rows.length === 0) return false;
  const left = await context.store.settleTransaction(rows, (refused) =>
    replayPasses(context.store, context.held(), rows, refused),
  );
  for (const { item, failure } of left) await quarantine(context, transaction, item, failure);
  await transaction.flush();
  return left.length > 0;
}

/** Adds a change to the quarantine and holds its keys. */
export async function quarantine<P extends PlanShape, T extends StoreTransaction>(
  { store, held, quarantined }: ReplayContext<P, T>,
  transaction: T,
  item: SourceRow<P>,
  failure: RowFailure,
): Promise<void> {
  for (const sql of store.quarantineSql(item, failure)) await transaction.addAndFlushIfLarge(sql);
  await store.recordSeen(transaction, item);
  held().hold(item);
  quarantined(item);
}
