/** How batches are written into MySQL and MariaDB. */
import type { FlowConfig } from '../../core/config.ts';
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import type { Batch } from '../batch.ts';
import type { BatchStore, Left, Move, Passes, QuarantinedRow } from '../batch-store.ts';
import type { Plans, Segment, SourceRow } from '../compact.ts';
import { FollowedTables, type SchemaStep } from '../followed-tables.ts';
import type { HeldKeys } from '../held-keys.ts';
import type { ReasonCount, RowFailure } from '../quarantine-entry.ts';
import { applyRow, runExactly } from './apply-row.ts';
import { quarantineSql } from './quarantine-insert.ts';
import { FORGET_PIECES } from './quarantine-pieces.ts';
import { countKeys, failureSql, loadHeldKeys, quarantinedAt, type FlowOfTarget } from './quarantine.ts';
import { deleteSql } from './row-statement.ts';
import { seenSql } from './seen-keys.ts';
import { SegmentWriter } from './segment-writer.ts';
import type { MysqlSession } from './session.ts';
import { SnapshotMarks } from './snapshot-marks.ts';
import { quoteLiteral, uncheckedDelete } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import { TableFollower } from './table-follower.ts';
import { TablePlaces } from './table-places.ts';
import { TablePlans } from './table-plans.ts';
import { isRowError, targetError } from './target-error.ts';
import { TargetTransaction } from './target-transaction.ts';
import { TransactionDdl } from './transaction-ddl.ts';
import { underSavepoint } from './under-savepoint.ts';

export class MysqlBatches implements BatchStore<TablePlan, TargetTransaction> {
  readonly #session: MysqlSession;
  readonly #flow: string;
  readonly #settings: FlowConfig;
  readonly followed: FollowedTables;
  /** DDL commits implicitly. */
  readonly changesInside = false;
  readonly #plans: TablePlans;
  readonly #follower: TableFollower;
  readonly #marks: SnapshotMarks;
  readonly #segments: SegmentWriter;
  /** No constraint is deferred. */
  readonly checkSql = '';

  /** `database`: the one that the target's url names. */
  constructor(session: MysqlSession, database: string | undefined, flow: string, settings: FlowConfig) {
    this.#session = session;
    this.#flow = flow;
    this.#settings = settings;
    this.followed = new FollowedTables(settings);
    const { followed } = this;
    const places = new TablePlaces(settings, database);
    this.#plans = new TablePlans(session, places, followed, settings.deletes);
    this.#marks = new SnapshotMarks(session, flow, settings, (plan) => this.#plans.referencedWithin(plan, [plan]));
    this.#follower = new TableFollower({ session, flow, settings, followed, places, marks: this.#marks });
    this.#segments = new SegmentWriter(this.#plans, this.#marks, session.facts);
  }

  async look(batch: Batch): Promise<void> {
    for (const { frame } of batch.runs) await this.#plans.look(frame);
  }

  async plansFor(batch: Batch): Promise<Plans<TablePlan>> {
    const resolved = new Map<IndexedFrame, readonly (TablePlan | undefined)[]>();
    for (const { frame } of batch.runs) resolved.set(frame, await this.#plans.resolve(frame));
    await this.#plans.prepareOrder();
    return ({ frame }) => resolved.get(frame)!;
  }

  async follow(steps: readonly SchemaStep[], open: TargetTransaction | undefined): Promise<void> {
    for (const step of steps) await this.#follower.follow(step, open);
    this.#plans.reset();
  }

  async committed(): Promise<void> {
    await this.#follower.committed();
  }

  async prepare(segments: readonly Segment<TablePlan>[], open: TargetTransaction | undefined): Promise<void> {
    const ddl = new TransactionDdl(this.#session, open);
    await this.#marks.prepare(segments, ddl.run);
  }

  async begin(move: Move): Promise<TargetTransaction> {
    return await TargetTransaction.begin(this.#session, move);
  }

  async advance(transaction: TargetTransaction, move: Move): Promise<void> {
    await transaction.advance(move);
  }

  async writeSegment(transaction: TargetTransaction, segment: Segment<TablePlan>): Promise<void> {
    if (!transaction.givenUp) await this.#segments.write(transaction, segment);
  }

  /** Truncates that follow each other are done children first. */
  async barrier(transaction: TargetTransaction, rows: readonly SourceRow<TablePlan>[]): Promise<void> {
    const ordered = rows.toSorted((a, b) => this.#plans.rank(b.plan) - this.#plans.rank(a.plan));
    const emptied = ordered.filter(({ row }) => row[0] === 't').map(({ plan }) => plan);
    for (const item of ordered)
      if (item.row[0] === 's') await this.#mark(transaction, item);
      else this.#truncate(transaction, item, this.#plans.referencedWithin(item.plan, emptied));
  }

  async #mark(transaction: TargetTransaction, { plan, row, commitTimeUs }: SourceRow<TablePlan>): Promise<void> {
    const content = row[2] ?? [];
    const [what, mark] = content;
    if (mark === 'gone') {
      if (this.#follower.gone(plan.table, String(what), transaction)) this.#marks.forget(transaction, plan.id);
      return;
    }
    await this.#marks.apply(transaction, plan, content, commitTimeUs);
    if (mark === 'end') this.#follower.loaded(plan.table);
  }

  /**
   * TRUNCATE commits implicitly, so it is a DELETE. The source names each table that its own reached, with CASCADE too;
   * others of the target are nobody's to empty. Where deleted rows stay, all are marked. `unchecked`: whatever refers to the
   * rows goes, too.
   */
  #truncate(transaction: TargetTransaction, { plan, commitTimeUs }: SourceRow<TablePlan>, unchecked: boolean): void {
    const all = `DELETE FROM ${plan.qualified}`;
    if (plan.deletedAt !== undefined) transaction.add(deleteSql(plan, `${plan.deletedAt} IS NULL`, commitTimeUs));
    else transaction.add(unchecked ? uncheckedDelete(all, this.#session.facts.flavour) : all);
    // What waited for these rows has nothing to wait for any more.
    transaction.add(
      `DELETE FROM waybill.quarantine WHERE flow = ${quoteLiteral(this.#flow)} AND source = ${quoteLiteral(this.#settings.mirror)}` +
        ` AND table_schema = ${quoteLiteral(plan.table.schema)} AND table_name = ${quoteLiteral(plan.table.name)}`,
    );
    transaction.add(FORGET_PIECES);
  }

  async load(): Promise<void> {
    await this.#marks.load();
    await this.#follower.load();
  }

  get #ofTarget(): FlowOfTarget {
    return { flow: this.#flow, settings: this.#settings, followed: this.followed };
  }

  async heldKeys(except?: string): Promise<HeldKeys> {
    return await loadHeldKeys(this.#session, this.#ofTarget, except);
  }

  quarantinedAt(position: string): AsyncIterable<readonly QuarantinedRow<TablePlan>[]> {
    return quarantinedAt(this.#session, this.#ofTarget, position);
  }

  releaseSql(ids: readonly string[]): readonly string[] {
    return [`DELETE FROM waybill.quarantine WHERE id IN (${ids.join(', ')})`, FORGET_PIECES];
  }

  failureSql(id: string, failure: RowFailure): string {
    return failureSql(id, failure);
  }

  async countKeys(): Promise<ReasonCount[]> {
    return await countKeys(this.#session, this.#flow);
  }

  quarantineSql(item: SourceRow<TablePlan>, failure: RowFailure): readonly string[] {
    return quarantineSql(this.#flow, this.#settings.mirror, item, failure, this.#session.facts.maxPacketBytes);
  }

  async tryRow({ plan, row, commitTimeUs }: SourceRow<TablePlan>): Promise<RowFailure | undefined> {
    const seen = this.#marks.seenTable(plan);
    return await underSavepoint(this.#session, async () => {
      await applyRow(this.#session, plan, row, commitTimeUs);
      if (seen !== undefined) for (const sql of seenSql(plan, seen, [row])) await runExactly(this.#session, sql);
    });
  }

  async settleTransaction(_: readonly SourceRow<TablePlan>[], passes: Passes<TablePlan>): Promise<Left<TablePlan>[]> {
    return await passes();
  }

  async recordSeen(transaction: TargetTransaction, { plan, row }: SourceRow<TablePlan>): Promise<void> {
    const seen = this.#marks.seenTable(plan);
    if (seen === undefined || transaction.givenUp) return;
    await transaction.flush();
    // A key without a form in the target: no row there can have it, and the failure is of no account.
    await underSavepoint(this.#session, async () => {
      for (const sql of seenSql(plan, seen, [row])) await runExactly(this.#session, sql);
    });
  }

  isRowError(thrown: unknown): boolean {
    return isRowError(thrown);
  }

  error(thrown: unknown, doing: string): Error {
    return targetError(thrown, doing);
  }
}
