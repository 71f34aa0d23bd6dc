/**
 * Row by row: what is done with a batch that failed. Every row runs in source order under a savepoint of its own; rows
 * that fail are tried again behind the others of their source transaction while that helps (a constraint may be met by
 * a later row), and what still fails goes to quarantine with its key, while its neighbours go on.
 */
import type { FlowConfig } from '../../core/config.ts';
import { messageOf } from '../../core/errors.ts';
import { entryPosition, formatPosition } from '../../core/position.ts';
import { transactionsOf, type Run } from '../batch.ts';
import { isIgnored, type Plans, type SourceRow } from '../compact.ts';
import type { HeldKeys } from '../held-keys.ts';
import { HELD, type RowFailure } from '../quarantine-entry.ts';
import { touchedKeys } from '../row-key.ts';
import { applyRow, runExactly } from './apply-row.ts';
import { quarantineSql } from './quarantine-insert.ts';
import { seenSql } from './seen-keys.ts';
import type { MysqlSession } from './session.ts';
import type { SnapshotMarks } from './snapshot-marks.ts';
import type { TablePlan } from './table-plan.ts';
import { errnoOf, isRowError, rowFailureReason, sqlStateOf } from './target-error.ts';
import type { TargetTransaction } from './target-transaction.ts';

export interface ReplayContext {
  readonly session: MysqlSession;
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly marks: SnapshotMarks;
  readonly held: HeldKeys;
  /** Does truncates that follow each other, or a snapshot mark, inside the transaction. */
  readonly barrier: (transaction: TargetTransaction, rows: readonly SourceRow<TablePlan>[]) => Promise<void>;
  readonly quarantined: (reason: string, keys: number) => void;
}

export async function replayRows(
  context: ReplayContext,
  transaction: TargetTransaction,
  runs: readonly Run[],
  plansOf: Plans<TablePlan>,
): Promise<void> {
  await transaction.flush();
  let rows: SourceRow<TablePlan>[] = [];
  let barriers: SourceRow<TablePlan>[] = [];
  const settle = async (): Promise<void> => {
    await replayTransaction(context, transaction, rows);
    rows = [];
  };
  const passBarriers = async (): Promise<void> => {
    if (barriers.length === 0) return;
    await context.barrier(transaction, barriers);
    await transaction.flush();
    for (const { plan, row } of barriers) if (row[0] === 't') context.held.releaseTable(plan.id);
    barriers = [];
  };
  for (const run of runs) {
    const plans = plansOf(run);
    for (const { entry, from, to } of transactionsOf(run)) {
      if (entry[5] === 'whole' || entry[5] === 'first') {
        await passBarriers();
        await settle();
      }
      const position = formatPosition(entryPosition(entry, 0));
      for (let index = from; index < to; index++) {
        const plan = plans[run.frame.tableIndex(index)];
        if (plan === undefined || isIgnored(run.frame.op(index), context.settings)) continue;
        const row = run.frame.row(index);
        const item = { plan, row, position, ordinal: entry[6] + index - from };
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

async function replayTransaction(
  context: ReplayContext,
  transaction: TargetTransaction,
  rows: readonly SourceRow<TablePlan>[],
): Promise<void> {
  if (rows.length === 0) return;
  const left = await replayPasses(context, rows);
  for (const { item, failure } of left) await quarantine(context, transaction, item, failure);
  await transaction.flush();
}

interface Left {
  readonly item: SourceRow<TablePlan>;
  readonly failure: RowFailure;
}

async function replayPasses(context: ReplayContext, rows: readonly SourceRow<TablePlan>[]): Promise<Left[]> {
  let pending: readonly SourceRow<TablePlan>[] = rows;
  for (;;) {
    const left: Left[] = [];
    const waiting = new Set<string>();
    for (const item of pending) {
      const keys = touchedKeys(item.plan, item.row);
      const names = keys.map((key) => `${item.plan.id}\0${key}`);
      const behind = keys.some((key) => context.held.has(item.plan.id, key)) || names.some((name) => waiting.has(name));
      const failure = behind ? HELD : await tryRow(context, item);
      if (failure === undefined) continue;
      for (const name of names) waiting.add(name);
      left.push({ item, failure });
    }
    if (left.length === 0 || left.length === pending.length) return left;
    pending = left.map(({ item }) => item);
  }
}

async function tryRow(context: ReplayContext, item: SourceRow<TablePlan>): Promise<RowFailure | undefined> {
  const { session } = context;
  const seen = context.marks.seenTable(item.plan);
  return await underSavepoint(session, async () => {
    await applyRow(session, item.plan, item.row);
    if (seen !== undefined) for (const sql of seenSql(item.plan, seen, [item.row])) await runExactly(session, sql);
  });
}

/** Runs `work` under a savepoint; gives the failure when it failed because of a row, and then nothing is left of it. */
export async function underSavepoint(
  session: MysqlSession,
  work: () => Promise<void>,
): Promise<(RowFailure & { sqlState: string; message: string }) | undefined> {
  await session.run('SAVEPOINT one_row');
  try {
    await work();
    await session.run('RELEASE SAVEPOINT one_row');
    return undefined;
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    await session.run('ROLLBACK TO SAVEPOINT one_row; RELEASE SAVEPOINT one_row');
    const sqlState = sqlStateOf(thrown)!;
    return { reason: rowFailureReason(sqlState, errnoOf(thrown)), sqlState, message: messageOf(thrown) };
  }
}

/** Adds a change to the quarantine and holds its keys. */
export async function quarantine(
  context: ReplayContext,
  transaction: TargetTransaction,
  item: SourceRow<TablePlan>,
  failure: RowFailure,
): Promise<void> {
  const { plan, row } = item;
  await transaction.addAndFlushIfLarge(quarantineSql(context.flow, context.settings.mirror, item, failure));
  // The row exists at the source, so the end of a snapshot must not delete what the target has of it.
  const seen = context.marks.seenTable(plan);
  if (seen !== undefined && failure !== HELD) {
    await transaction.flush();
    // A key without a form in the target: no row there can have it, and the failure is of no account.
    await underSavepoint(context.session, async () => {
      for (const sql of seenSql(plan, seen, [row])) await runExactly(context.session, sql);
    });
  }
  for (const key of touchedKeys(plan, row)) context.held.add(plan.id, key);
  context.quarantined(failure.reason, 1);
}
