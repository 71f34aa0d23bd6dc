/**
 * Writes batches, each with the position it brings, in one target transaction. Invariant 4. A source transaction that
 * comes in several batches keeps the target transaction open until its end. Invariant 3.
 */
import type { FlowConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { FlowReport } from '../../core/metrics.ts';
import { formatPosition, type Position } from '../../core/position.ts';
import type { Batch, Run } from '../batch.ts';
import { compact, type Plans, type SourceRow, type TableCount } from '../compact.ts';
import type { HeldKeys } from '../held-keys.ts';
import { HELD } from '../quarantine-entry.ts';
import type { BatchSink, FlowPosition } from '../target-store.ts';
import type { Move } from './position.ts';
import { loadHeldKeys } from './quarantine.ts';
import { quarantine, replayRows, type ReplayContext } from './row-replay.ts';
import { SegmentWriter } from './segment-writer.ts';
import type { MysqlSession } from './session.ts';
import { SnapshotMarks } from './snapshot-marks.ts';
import { qualifiedName, quoteLiteral } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import { TablePlans } from './table-plans.ts';
import { isRowError, targetError } from './target-error.ts';
import type { RunDdl } from './target-table.ts';
import { TargetTransaction } from './target-transaction.ts';

export interface BatchWriterOptions {
  readonly session: MysqlSession;
  /** The database that the target's url names. */
  readonly database: string | undefined;
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
    const { session, settings, flow, database } = options;
    this.#options = options;
    this.#position = options.at.position;
    this.#plans = new TablePlans(session, settings, database);
    this.#marks = new SnapshotMarks(session, flow, settings);
    this.#segments = new SegmentWriter(this.#plans, this.#marks, session.facts.localInfile);
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
    const ddl = new TransactionDdl(this.#options.session, this.#open);
    const resolved = new Map<object, readonly (TablePlan | undefined)[]>();
    for (const run of batch.runs) resolved.set(run.frame, await this.#plans.resolve(run.frame, ddl.run));
    await this.#plans.prepareOrder();
    const plansOf = (run: Run): readonly (TablePlan | undefined)[] => resolved.get(run.frame)!;
    const compacted = compact(batch.runs, plansOf, this.#options.settings, this.#held);
    await this.#marks.prepare(compacted.segments, ddl.run);
    ddl.check();
    const partial = this.#open !== undefined || batch.next === undefined;
    const transaction = this.#open ?? (await this.#begin(batch));
    if (partial) transaction.add('SAVEPOINT part');
    try {
      let truncates: SourceRow<TablePlan>[] = [];
      for (const segment of compacted.segments) {
        if (segment.tables.size > 0 || segment.barrier?.row[0] !== 't') {
          await this.#barrier(transaction, truncates);
          truncates = [];
        }
        await this.#segments.write(transaction, segment);
        if (segment.barrier?.row[0] === 't') truncates.push(segment.barrier);
        else if (segment.barrier !== undefined) await this.#barrier(transaction, [segment.barrier]);
      }
      await this.#barrier(transaction, truncates);
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
    const again = partial ? transaction : await this.#begin(batch);
    // The compaction that failed may have held or released keys, and begun or ended snapshots.
    await this.#reload();
    await replayRows(this.#context(), again, batch.runs, plansOf);
    await this.#finish(again, batch, partial);
  }

  async #begin(batch: Batch): Promise<TargetTransaction> {
    return await TargetTransaction.begin(this.#options.session, this.#move(batch, batch.next ?? this.#position));
  }

  async #finish(transaction: TargetTransaction, batch: Batch, partial: boolean): Promise<void> {
    if (batch.next === undefined) {
      await transaction.flush();
      this.#open = transaction;
      return;
    }
    if (partial) transaction.add('RELEASE SAVEPOINT part');
    if (this.#open !== undefined) await transaction.advance(this.#move(batch, batch.next));
    await transaction.commit();
    this.#open = undefined;
  }

  /** A snapshot mark, or truncates that follow each other: children first. */
  async #barrier(transaction: TargetTransaction, rows: readonly SourceRow<TablePlan>[]): Promise<void> {
    const ordered = rows.toSorted((a, b) => this.#plans.rank(b.plan) - this.#plans.rank(a.plan));
    for (const { plan, row } of ordered)
      if (row[0] === 's') await this.#marks.apply(transaction, plan, String(row[2]?.[1]));
      else this.#truncate(transaction, plan, row[2]?.includes('cascade') === true);
  }

  /** TRUNCATE commits implicitly, so it is a DELETE. */
  #truncate(transaction: TargetTransaction, plan: TablePlan, cascade: boolean): void {
    const { flow, settings } = this.#options;
    if (cascade)
      for (const [schema, name] of this.#plans.descendants(plan))
        transaction.add(`DELETE FROM ${qualifiedName(schema, name)}`);
    transaction.add(`DELETE FROM ${plan.qualified}`);
    // What waited for these rows has nothing to wait for any more.
    transaction.add(
      `DELETE FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(settings.mirror)}` +
        ` AND table_schema = ${quoteLiteral(plan.table.schema)} AND table_name = ${quoteLiteral(plan.table.name)}`,
    );
  }

  async #reload(): Promise<void> {
    const { session, flow, settings } = this.#options;
    this.#held = await loadHeldKeys(session, flow, settings.mirror);
    await this.#marks.load();
  }

  #move(batch: Batch, next: Position): Move {
    const { flow, settings, stream, at } = this.#options;
    return {
      flow,
      source: settings.mirror,
      expected: this.#position,
      next,
      stream,
      seq: batch.seq,
      commitTimeUs: batch.commitTimeUs,
      quarantineVersion: at.quarantineVersion,
    };
  }

  #context(): ReplayContext {
    const { session, flow, settings, report } = this.#options;
    return {
      session,
      flow,
      settings,
      marks: this.#marks,
      held: this.#held,
      barrier: (transaction, rows) => this.#barrier(transaction, rows),
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

/**
 * Statements that commit implicitly. In the middle of a transaction they would publish half of it (Invariant 3): it is
 * rolled back first, and begins again once the table is as it must be.
 */
class TransactionDdl {
  readonly #session: MysqlSession;
  readonly #open: TargetTransaction | undefined;
  #rolledBack = false;

  constructor(session: MysqlSession, open: TargetTransaction | undefined) {
    this.#session = session;
    this.#open = open;
  }

  readonly run: RunDdl = async (sql) => {
    if (this.#open !== undefined && !this.#rolledBack) {
      this.#rolledBack = true;
      await this.#open.rollback();
    }
    await this.#session.run(sql);
  };

  /** Throws `target_conflict` when the open transaction was given up. */
  check(): void {
    if (this.#rolledBack)
      throw new ReplicationError('target_conflict', 'a table had to be changed in the middle of a transaction');
  }
}
