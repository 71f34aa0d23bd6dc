/**
 * Row by row: what is done with a batch that failed. Every row runs in source order under a savepoint of its own; rows
 * that fail are tried again behind the others of their source transaction while that helps (a constraint may be met by
 * a later row), and what still fails goes to quarantine with its key, while its neighbours go on.
 */
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import { messageOf } from '../../core/errors.ts';
import { entryPosition, formatPosition } from '../../core/position.ts';
import { transactionsOf, type Run } from '../batch.ts';
import { isIgnored, type Plans, type SourceRow } from '../compact.ts';
import type { HeldKeys } from '../held-keys.ts';
import { HELD, type RowFailure } from '../quarantine-entry.ts';
import { touchedKeys } from '../row-key.ts';
import { quarantineSql } from './quarantine-insert.ts';
import { rowStatement } from './row-statement.ts';
import { seenSql } from './seen-keys.ts';
import type { SnapshotMarks } from './snapshot-marks.ts';
import type { TablePlan } from './table-plan.ts';
import { isRowError, rowFailureReason, sqlStateOf } from './target-error.ts';
import type { TargetTransaction } from './target-transaction.ts';

export interface ReplayContext {
  readonly client: ClientBase;
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly marks: SnapshotMarks;
  readonly held: HeldKeys;
  /** Does a truncate or a snapshot mark inside the transaction. */
  readonly barrier: (transaction: TargetTransaction, row: SourceRow<TablePlan>) => Promise<void>;
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
  const settle = async (): Promise<void> => {
    await replayTransaction(context, transaction, rows);
    rows = [];
  };
  for (const run of runs) {
    const plans = plansOf(run);
    for (const { entry, from, to } of transactionsOf(run)) {
      if (entry[5] === 'whole' || entry[5] === 'first') await settle();
      const position = formatPosition(entryPosition(entry, 0));
      for (let index = from; index < to; index++) {
        const plan = plans[run.frame.tableIndex(index)];
        if (plan === undefined || isIgnored(run.frame.op(index), context.settings)) continue;
        const row = run.frame.row(index);
        const item = { plan, row, position, ordinal: entry[6] + index - from };
        if (row[0] !== 't' && row[0] !== 's') {
          rows.push(item);
          continue;
        }
        await settle();
        await context.barrier(transaction, item);
        if (row[0] === 't') context.held.releaseTable(plan.id);
        await transaction.flush();
      }
    }
  }
  await settle();
}

async function replayTransaction(
  context: ReplayContext,
  transaction: TargetTransaction,
  rows: readonly SourceRow<TablePlan>[],
): Promise<void> {
  if (rows.length === 0) return;
  const { client } = context;
  await client.query('SAVEPOINT replayed');
  let left = await replayPasses(context, rows);
  if (left.length === 0) {
    try {
      await client.query('SET CONSTRAINTS ALL IMMEDIATE');
      await client.query('SET CONSTRAINTS ALL DEFERRED');
    } catch (thrown) {
      if (!isRowError(thrown)) throw thrown;
      // A deferred constraint is broken: find the row by checking each one at once.
      await client.query('ROLLBACK TO SAVEPOINT replayed');
      await client.query('SET CONSTRAINTS ALL IMMEDIATE');
      left = await replayPasses(context, rows);
      await client.query('SET CONSTRAINTS ALL DEFERRED');
    }
  }
  await client.query('RELEASE SAVEPOINT replayed');
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
  const { client } = context;
  const seen = context.marks.seenTable(item.plan);
  let begun = false;
  try {
    // A value without a form in the target throws here, before anything is sent.
    const statement = rowStatement(item.plan, item.row);
    const record = seen === undefined ? '' : seenSql(item.plan, seen, [item.row]);
    begun = true;
    await client.query(`SAVEPOINT one_row; ${statement}; ${record}; RELEASE SAVEPOINT one_row`);
    return undefined;
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    if (begun) await client.query('ROLLBACK TO SAVEPOINT one_row');
    const sqlState = sqlStateOf(thrown)!;
    return { reason: rowFailureReason(sqlState), sqlState, message: messageOf(thrown) };
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
  if (seen !== undefined && failure !== HELD) await recordSeen(context, transaction, item, seen);
  for (const key of touchedKeys(plan, row)) context.held.add(plan.id, key);
  context.quarantined(failure.reason, 1);
}

async function recordSeen(
  context: ReplayContext,
  transaction: TargetTransaction,
  item: SourceRow<TablePlan>,
  seen: string,
): Promise<void> {
  await transaction.flush();
  let begun = false;
  try {
    const record = seenSql(item.plan, seen, [item.row]);
    if (record === '') return;
    begun = true;
    await context.client.query(`SAVEPOINT seen_row; ${record}; RELEASE SAVEPOINT seen_row`);
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    // Its key has no form in the target, so no row there can have it.
    if (begun) await context.client.query('ROLLBACK TO SAVEPOINT seen_row');
  }
}
