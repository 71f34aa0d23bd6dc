/**
 * Writes batches, each with the position it brings, in one target transaction. Invariant 4. A source transaction that
 * comes in several batches keeps the target transaction open until its end. Invariant 3.
 */
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import type { FlowReport } from '../../core/metrics.ts';
import { formatPosition, type Position } from '../../core/position.ts';
import type { Batch, Run } from '../batch.ts';
import { compact, type Plans, type SourceRow, type TableCount } from '../compact.ts';
import type { HeldKeys } from '../held-keys.ts';
import { HELD } from '../quarantine-entry.ts';
import type { BatchSink, FlowPosition } from '../target-store.ts';
import { advanceSql } from './position.ts';
import { loadHeldKeys } from './quarantine.ts';
import { quarantine, replayRows, type ReplayContext } from './row-replay.ts';
import { SegmentWriter } from './segment-writer.ts';
import { SnapshotMarks } from './snapshot-marks.ts';
import { quoteLiteral } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import { TablePlans } from './table-plans.ts';
import { isRowError, targetError } from './target-error.ts';
import { TargetTransaction } from './target-transaction.ts';

export interface BatchWriterOptions {
  readonly client: ClientBase;
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly stream: string;
  readonly at: FlowPosition;
  readonly report: FlowReport;
}

export class BatchWriter implements BatchSink {
  readonly #options: BatchWriterOptions;
  readonly #plans: TablePlans;
  readonly #marks: SnapshotMarks;
  readonly #segments: SegmentWriter;
  #held!: HeldKeys;
  #position: Position;
  #open: TargetTransaction | undefined;

  private constructor(options: BatchWriterOptions) {
    const { client, settings, flow } = options;
    this.#options = options;
    this.#position = options.at.position;
    this.#plans = new TablePlans(client, settings);
    this.#marks = new SnapshotMarks(client, flow, settings);
    this.#segments = new SegmentWriter(this.#plans, this.#marks);
  }

  static async create(options: BatchWriterOptions): Promise<BatchWriter> {
    const writer = new BatchWriter(options);
    await writer.#reload();
    return writer;
  }

  /** A source transaction has been written in part; nobody else sees it yet. */
  get open(): boolean {
    return this.#open !== undefined;
  }

  get position(): Position {
    return this.#position;
  }

  /** Writes and, at a transaction's end, commits. Errors are classified; after one the session must be closed. */
  async write(batch: Batch): Promise<void> {
    const started = performance.now();
    try {
      const counts = await this.#write(batch);
      if (batch.next !== undefined) this.#position = batch.next;
      this.#report(batch, counts, (performance.now() - started) / 1000);
    } catch (thrown) {
      throw targetError(thrown, `writing a batch of flow ${this.#options.flow}`);
    }
  }

  async #write(batch: Batch): Promise<readonly TableCount[]> {
    const resolved = new Map<IndexedFrame, readonly (TablePlan | undefined)[]>();
    for (const run of batch.runs) resolved.set(run.frame, await this.#plans.resolve(run.frame));
    await this.#plans.prepareOrder();
    const plansOf = (run: Run): readonly (TablePlan | undefined)[] => resolved.get(run.frame)!;
    const partial = this.#open !== undefined || batch.next === undefined;
    const transaction = this.#open ?? this.#begin(batch);
    const compacted = compact(batch.runs, plansOf, this.#options.settings, this.#held);
    if (partial) transaction.add('SAVEPOINT part');
    try {
      for (const segment of compacted.segments) {
        await this.#segments.write(transaction, segment);
        if (segment.barrier !== undefined) await this.#barrier(transaction, segment.barrier);
      }
      for (const item of compacted.held) await quarantine(this.#context(), transaction, item, HELD);
      await this.#finish(transaction, batch, partial);
    } catch (thrown) {
      if (!isRowError(thrown)) throw thrown;
      await this.#replay(transaction, batch, plansOf, partial);
    }
    return compacted.counts;
  }

  /** The batch once more, row by row. */
  async #replay(
    transaction: TargetTransaction,
    batch: Batch,
    plansOf: Plans<TablePlan>,
    partial: boolean,
  ): Promise<void> {
    if (partial) await transaction.rollbackTo('part');
    else await transaction.rollback();
    const again = partial ? transaction : this.#begin(batch);
    // The compaction that failed may have held or released keys, and begun or ended snapshots.
    if (partial) await transaction.flush();
    await this.#reload();
    await replayRows(this.#context(), again, batch.runs, plansOf);
    await this.#finish(again, batch, partial);
  }

  #begin(batch: Batch): TargetTransaction {
    const transaction = new TargetTransaction(this.#options.client);
    transaction.add(this.#advance(batch, batch.next ?? this.#position));
    return transaction;
  }

  async #finish(transaction: TargetTransaction, batch: Batch, partial: boolean): Promise<void> {
    if (batch.next === undefined) {
      await transaction.flush();
      this.#open = transaction;
      return;
    }
    if (this.#open !== undefined) transaction.add(this.#advance(batch, batch.next));
    // A deferred constraint must fail while there is still a savepoint to go back to.
    if (partial) transaction.add('SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT part');
    await transaction.commit();
    this.#open = undefined;
  }

  async #barrier(transaction: TargetTransaction, { plan, row }: SourceRow<TablePlan>): Promise<void> {
    if (row[0] === 's') {
      const [id, mark] = row[2] ?? [];
      await this.#marks.apply(transaction, plan, String(id), String(mark));
      return;
    }
    const { flow, settings } = this.#options;
    const has = (option: string): boolean => row[2]?.includes(option) === true;
    const restart = has('restart_identity') ? ' RESTART IDENTITY' : '';
    transaction.add(`TRUNCATE ${plan.qualified}${restart}${has('cascade') ? ' CASCADE' : ''}`);
    // What waited for these rows has nothing to wait for any more.
    transaction.add(
      `DELETE FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(settings.mirror)}` +
        ` AND table_schema = ${quoteLiteral(plan.table.schema)} AND table_name = ${quoteLiteral(plan.table.name)}` +
        ' AND hold IS NULL',
    );
  }

  async #reload(): Promise<void> {
    const { client, flow, settings } = this.#options;
    this.#held = await loadHeldKeys(client, flow, settings.mirror);
    await this.#marks.load();
  }

  #advance(batch: Batch, next: Position): string {
    const { flow, settings, stream, at } = this.#options;
    return advanceSql({
      flow,
      source: settings.mirror,
      expected: this.#position,
      next,
      stream,
      seq: batch.seq,
      commitTimeUs: batch.commitTimeUs,
      quarantineVersion: at.quarantineVersion,
    });
  }

  #context(): ReplayContext {
    const { client, flow, settings, report } = this.#options;
    return {
      client,
      flow,
      settings,
      marks: this.#marks,
      held: this.#held,
      barrier: (transaction, row) => this.#barrier(transaction, row),
      quarantined: (reason, keys) => report.quarantined(reason, keys),
    };
  }

  #report(batch: Batch, counts: readonly TableCount[], seconds: number): void {
    const { report } = this.#options;
    const { rows, transactions, commitTimeUs } = batch;
    report.applied({ rows, transactions, seconds, commitTimeUs, position: formatPosition(this.#position) });
    for (const { table, counts: byOp } of counts)
      for (const [op, count] of Object.entries(byOp)) if (count > 0) report.rows(table.schema, table.name, op, count);
  }
}
