/**
 * Row by row: what is done with a batch that failed. Every row runs in source order under a savepoint of its own; rows
 * that fail are tried again behind the others of their source transaction while that helps (a constraint may be met by
 * a later row), and what still fails goes to quarantine with its key, while its neighbours go on.
 */
import type { FlowConfig } from '../core/config.ts';
import { entryPosition, formatPosition } from '../core/position.ts';
import { transactionsOf, type Run } from './batch.ts';
import type { BatchStore, Left, StoreTransaction } from './batch-store.ts';
import { isIgnored, type Plans, type SourceRow } from './compact.ts';
import type { HeldKeys } from './held-keys.ts';
import { HELD, type RowFailure } from './quarantine-entry.ts';
import { touchedKeys } from './row-key.ts';
import type { PlanShape } from './table-changes.ts';

export interface ReplayContext<P extends PlanShape, T extends StoreTransaction> {
  readonly store: BatchStore<P, T>;
  readonly settings: FlowConfig;
  readonly held: HeldKeys;
  /** A change went to the quarantine. */
  readonly quarantined: () => void;
}

export async function replayRows<P extends PlanShape, T extends StoreTransaction>(
  context: ReplayContext<P, T>,
  transaction: T,
  runs: readonly Run[],
  plansOf: Plans<P>,
): Promise<void> {
  await transaction.flush();
  let rows: SourceRow<P>[] = [];
  let barriers: SourceRow<P>[] = [];
  const settle = async (): Promise<void> => {
    await replayTransaction(context, transaction, rows);
    rows = [];
  };
  const passBarriers = async (): Promise<void> => {
    if (barriers.length === 0) return;
    await context.store.barrier(transaction, barriers);
    await transaction.flush();
    for (const { plan, row } of barriers) if (row[0] === 't') context.held.releaseTable(plan.id);
    barriers = [];
  };
  for (const run of runs) {
    const plans = plansOf(run);
    for (const { entry, start, from, to } of transactionsOf(run)) {
      if (entry[5] === 'whole' || entry[5] === 'first') {
        await passBarriers();
        await settle();
      }
      const position = formatPosition(entryPosition(entry, 0));
      for (let index = from; index < to; index++) {
        const plan = plans[run.frame.tableIndex(index)];
        if (plan === undefined || isIgnored(run.frame.op(index), plan, context.settings)) continue;
        const row = run.frame.row(index);
        const item = { plan, row, position, ordinal: entry[6] + index - start, commitTimeUs: entry[3] };
        if (row[0] === 't' || row[0] === 's') {
          await settle();
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
  await settle();
}

async function replayTransaction<P extends PlanShape, T extends StoreTransaction>(
  context: ReplayContext<P, T>,
  transaction: T,
  rows: readonly SourceRow<P>[],
): Promise<void> {
  if (rows.length === 0) return;
  const left = await context.store.settleTransaction(() => replayPasses(context, rows));
  for (const { item, failure } of left) await quarantine(context, transaction, item, failure);
  await transaction.flush();
}

async function replayPasses<P extends PlanShape, T extends StoreTransaction>(
  { store, held }: ReplayContext<P, T>,
  rows: readonly SourceRow<P>[],
): Promise<Left<P>[]> {
  let pending: readonly SourceRow<P>[] = rows;
  for (;;) {
    const left: Left<P>[] = [];
    const waiting = new Set<string>();
    for (const item of pending) {
      const keys = touchedKeys(item.plan, item.row);
      const names = keys.map((key) => `${item.plan.id}\0${key}`);
      const behind = keys.some((key) => held.has(item.plan.id, key)) || names.some((name) => waiting.has(name));
      const failure = behind ? HELD : await store.tryRow(item);
      if (failure === undefined) continue;
      for (const name of names) waiting.add(name);
      left.push({ item, failure });
    }
    if (left.length === 0 || left.length === pending.length) return left;
    pending = left.map(({ item }) => item);
  }
}

/** Adds a change to the quarantine and holds its keys. */
export async function quarantine<P extends PlanShape, T extends StoreTransaction>(
  { store, held, quarantined }: ReplayContext<P, T>,
  transaction: T,
  item: SourceRow<P>,
  failure: RowFailure,
): Promise<void> {
  const { plan, row } = item;
  for (const sql of store.quarantineSql(item, failure)) await transaction.addAndFlushIfLarge(sql);
  await store.recordSeen(transaction, item);
  for (const key of touchedKeys(plan, row)) held.add(plan.id, key);
  quarantined();
}
