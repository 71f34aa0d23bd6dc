/** How batches are written into Postgres. */
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import { messageOf } from '../../core/errors.ts';
import type { TableSchema } from '../../core/frame.ts';
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import type { Batch } from '../batch.ts';
import type { BatchStore, Left, Move, Passes, QuarantinedRow } from '../batch-store.ts';
import type { Plans, Segment, SourceRow } from '../compact.ts';
import { FollowedTables, nameOf, type SchemaStep } from '../followed-tables.ts';
import type { HeldKeys } from '../held-keys.ts';
import type { ReasonCount, RowFailure } from '../quarantine-entry.ts';
import { targetSchema } from '../target-schema.ts';
import { settleDeferred } from './deferred-checks.ts';
import { followLabels, isMissingLabel } from './enum-labels.ts';
import { advanceSql } from './position.ts';
import { quarantineSql } from './quarantine-insert.ts';
import { countKeys, failureSql, loadHeldKeys, quarantinedAt, type FlowOfTarget } from './quarantine.ts';
import { deleteSql, rowStatement } from './row-statement.ts';
import { seenSql } from './seen-keys.ts';
import { SegmentWriter } from './segment-writer.ts';
import type { TargetSession } from './session.ts';
import { SnapshotMarks } from './snapshot-marks.ts';
import { quoteLiteral } from './sql.ts';
import { TableFollower } from './table-follower.ts';
import type { TablePlan } from './table-plan.ts';
import { TablePlans } from './table-plans.ts';
import { isRowError, rowFailureReason, sqlStateOf, targetError } from './target-error.ts';
import { TargetTransaction } from './target-transaction.ts';

/** SQLSTATE of a TRUNCATE of a table to which another one refers. */
const NOT_SUPPORTED = '0A000';

export class PostgresBatches implements BatchStore<TablePlan, TargetTransaction> {
  readonly #client: ClientBase;
  readonly #flow: string;
  readonly #settings: FlowConfig;
  readonly #connect: () => Promise<TargetSession>;
  readonly followed: FollowedTables;
  readonly changesInside = true;
  readonly #plans: TablePlans;
  readonly #follower: TableFollower;
  readonly #marks: SnapshotMarks;
  readonly #segments: SegmentWriter;
  /** A deferred constraint must fail while there is still a savepoint to go back to. */
  readonly checkSql = 'SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED';

  /** `connect` opens another session of the same user. */
  constructor(client: ClientBase, flow: string, settings: FlowConfig, connect: () => Promise<TargetSession>) {
    this.#client = client;
    this.#connect = connect;
    this.#flow = flow;
    this.#settings = settings;
    this.followed = new FollowedTables(settings);
    this.#plans = new TablePlans(client, settings, this.followed);
    this.#follower = new TableFollower(client, flow, settings, this.followed);
    this.#marks = new SnapshotMarks(client, flow, settings);
    this.#segments = new SegmentWriter(this.#plans, this.#marks);
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

  async follow(steps: readonly SchemaStep[], transaction: TargetTransaction | undefined): Promise<void> {
    for (const { table, gone } of steps) if (gone !== undefined) await this.#gone(transaction!, table, gone);
    const toFit = steps.filter(({ gone }) => gone === undefined);
    const found = await this.#follower.followAll(toFit, transaction!);
    // A later step may have taken one along under another name.
    if (this.#settings.renamed_tables === 'rename') this.#plans.reset();
    else
      this.#plans.replace(
        steps.map(({ table }) => table),
        found,
      );
  }

  async begin(move: Move): Promise<TargetTransaction> {
    const transaction = new TargetTransaction(this.#client);
    await this.advance(transaction, move);
    return transaction;
  }

  async advance(transaction: TargetTransaction, move: Move): Promise<void> {
    await transaction.addAndFlushIfLarge(advanceSql(move));
  }

  async writeSegment(transaction: TargetTransaction, segment: Segment<TablePlan>): Promise<void> {
    await this.#segments.write(transaction, segment);
  }

  async barrier(transaction: TargetTransaction, rows: readonly SourceRow<TablePlan>[]): Promise<void> {
    if (rows[0]?.row[0] === 't') await this.#truncate(transaction, rows);
    for (const { plan, row, commitTimeUs } of rows) {
      if (row[0] === 't') continue;
      const [id, mark] = row[2] ?? [];
      if (mark === 'gone') await this.#gone(transaction, plan.table, String(id));
      else await this.#marks.apply(transaction, plan, row[2] ?? [], commitTimeUs);
      if (mark === 'end') await this.#follower.loaded(plan.table, transaction);
    }
  }

  async #gone(transaction: TargetTransaction, table: TableSchema, why: string): Promise<void> {
    if (await this.#follower.gone(table, why, transaction)) this.#marks.forget(transaction, nameOf(table));
  }

  /**
   * In one statement, or a foreign key between them is in the way. Without CASCADE: the source names each table that its own
   * reached, and others of the target are nobody's to empty. Where deleted rows stay, all are marked.
   */
  async #truncate(transaction: TargetTransaction, rows: readonly SourceRow<TablePlan>[]): Promise<void> {
    const emptied = rows.filter(({ plan }) => plan.deletedAt === undefined);
    const tables = [...new Set(emptied.map(({ plan }) => plan.rows))].join(', ');
    const restarts = emptied.every(({ row }) => row[2]?.includes('restart_identity') === true);
    if (emptied.length > 0) {
      const truncate = `TRUNCATE ${tables}${restarts ? ' RESTART IDENTITY' : ''}`;
      await this.#empty(
        transaction,
        emptied.map(({ plan }) => plan),
        truncate,
      );
    }
    for (const { plan, commitTimeUs } of rows)
      if (plan.deletedAt !== undefined) transaction.add(deleteSql(plan, `${plan.deletedAt} IS NULL`, commitTimeUs));
    // What waited for these rows has nothing to wait for any more.
    for (const { plan } of rows)
      transaction.add(
        `DELETE FROM waybill.quarantine WHERE flow = ${quoteLiteral(this.#flow)} AND source = ${quoteLiteral(this.#settings.mirror)}` +
          ` AND table_schema = ${quoteLiteral(plan.table.schema)} AND table_name = ${quoteLiteral(plan.table.name)}`,
      );
  }

  /**
   * A table that is stopped may refer to these, and keep them from being truncated, also where the source emptied it, too. It
   * stops no other: what it does not refer to is deleted, and a table of which it does is stopped as well.
   */
  async #empty(transaction: TargetTransaction, plans: readonly TablePlan[], truncate: string): Promise<void> {
    const refused = await this.#tryWhole(transaction, truncate);
    if (refused === undefined) return;
    if (sqlStateOf(refused) !== NOT_SUPPORTED || !(await this.#onlyUnwrittenRefer(plans))) throw refused;
    for (const plan of plans.toSorted((a, b) => this.#plans.rank(b) - this.#plans.rank(a))) {
      const kept = await this.#tryWhole(transaction, `DELETE FROM ${plan.rows}; ${this.checkSql}`);
      if (kept === undefined) continue;
      if (!isRowError(kept)) throw kept;
      this.#follower.stop(plan.table, kept, `emptying ${nameOf(plan.table)}`, transaction);
      this.#plans.replace([plan.table], new Map());
      await this.#plans.prepareOrder();
    }
  }

  /** Gives what the server refused a statement for; nothing is left of it then. */
  async #tryWhole(transaction: TargetTransaction, sql: string): Promise<unknown> {
    transaction.add('SAVEPOINT emptied');
    await transaction.flush();
    try {
      transaction.add(`${sql}; RELEASE SAVEPOINT emptied`);
      await transaction.flush();
      return undefined;
    } catch (thrown) {
      if (sqlStateOf(thrown) === undefined) throw thrown;
      await transaction.rollbackTo('emptied');
      transaction.add('RELEASE SAVEPOINT emptied');
      return thrown;
    }
  }

  /**
   * Whether all tables that refer to these, without being of them, are such as the flow has and does not write. A partition
   * is of its table, at either end of a foreign key.
   */
  async #onlyUnwrittenRefer(plans: readonly TablePlan[]): Promise<boolean> {
    const { rows } = await this.#client.query<{ referring: string; schema: string; name: string }>(
      `WITH given AS (SELECT oid FROM unnest($1::int8[]::oid[]) oid),
            emptied AS (SELECT oid FROM given UNION SELECT relid FROM given, pg_partition_tree(oid))
       SELECT DISTINCT conrelid AS referring, nspname AS schema, relname AS name
         FROM pg_constraint c
         CROSS JOIN LATERAL (SELECT conrelid AS oid UNION SELECT relid FROM pg_partition_ancestors(conrelid)) of_it
         JOIN pg_class t ON t.oid = of_it.oid JOIN pg_namespace n ON n.oid = relnamespace
        WHERE contype = 'f' AND confrelid IN (SELECT oid FROM emptied) AND conrelid NOT IN (SELECT oid FROM emptied)`,
      [plans.map(({ target }) => target.oid)],
    );
    const unwritten = new Set(
      this.followed.unwritten().map((table) => nameOf({ ...table, schema: targetSchema(table, this.#settings) })),
    );
    const known = new Set(rows.filter((table) => unwritten.has(nameOf(table))).map(({ referring }) => referring));
    return rows.every(({ referring }) => known.has(referring));
  }

  async load(): Promise<void> {
    await this.#marks.load();
    await this.#follower.load();
  }

  get #ofTarget(): FlowOfTarget {
    return { flow: this.#flow, settings: this.#settings, followed: this.followed };
  }

  async heldKeys(except?: string): Promise<HeldKeys> {
    return await loadHeldKeys(this.#client, this.#ofTarget, except);
  }

  quarantinedAt(position: string): AsyncIterable<readonly QuarantinedRow<TablePlan>[]> {
    return quarantinedAt(this.#client, this.#ofTarget, position);
  }

  releaseSql(ids: readonly string[]): readonly string[] {
    return [`DELETE FROM waybill.quarantine WHERE id IN (${ids.join(', ')})`];
  }

  failureSql(id: string, failure: RowFailure): string {
    return failureSql(id, failure);
  }

  async countKeys(): Promise<ReasonCount[]> {
    return await countKeys(this.#client, this.#flow);
  }

  quarantineSql(item: SourceRow<TablePlan>, failure: RowFailure): readonly string[] {
    return [quarantineSql(this.#flow, this.#settings.mirror, item, failure)];
  }

  async tryRow(item: SourceRow<TablePlan>): Promise<RowFailure | undefined> {
    const { plan, row } = item;
    const failure = await this.#tryOnce(item);
    if (failure === undefined || !isMissingLabel(failure.sqlState) || this.#settings.schema_changes === 'stop')
      return failure;
    const followed = await followLabels(this.#client, this.#connect, plan, row);
    if (followed === undefined) return failure;
    const { refused } = followed;
    if (refused === undefined) return await this.#tryOnce(item);
    return { ...failure, message: `${failure.message}; ${messageOf(refused)}` };
  }

  async #tryOnce({ plan, row, commitTimeUs }: SourceRow<TablePlan>): Promise<RowFailure | undefined> {
    const seen = this.#marks.seenTable(plan);
    return await this.#underSavepoint(() => {
      const record = seen === undefined ? '' : seenSql(plan, seen, [row]);
      return `${rowStatement(plan, row, commitTimeUs)}; ${record}`;
    });
  }

  /** Gives the failure when the statements failed because of a row, and then nothing is left of them. */
  async #underSavepoint(statements: () => string): Promise<RowFailure | undefined> {
    let begun = false;
    try {
      // A value without a form in the target throws here, before anything is sent.
      const sql = statements();
      begun = true;
      await this.#client.query(`SAVEPOINT one_row; ${sql}; RELEASE SAVEPOINT one_row`);
      return undefined;
    } catch (thrown) {
      if (!isRowError(thrown)) throw thrown;
      if (begun) await this.#client.query('ROLLBACK TO SAVEPOINT one_row; RELEASE SAVEPOINT one_row');
      const sqlState = sqlStateOf(thrown)!;
      return { reason: rowFailureReason(sqlState), sqlState, message: messageOf(thrown) };
    }
  }

  async settleTransaction(
    rows: readonly SourceRow<TablePlan>[],
    passes: Passes<TablePlan>,
  ): Promise<Left<TablePlan>[]> {
    return await settleDeferred(this.#client, rows, passes);
  }

  async recordSeen(transaction: TargetTransaction, { plan, row }: SourceRow<TablePlan>): Promise<void> {
    const seen = this.#marks.seenTable(plan);
    if (seen === undefined) return;
    await transaction.flush();
    // A key without a form in the target: no row there can have it, and the failure is of no account.
    await this.#underSavepoint(() => seenSql(plan, seen, [row]));
  }

  isRowError(thrown: unknown): boolean {
    return isRowError(thrown);
  }

  error(thrown: unknown, doing: string): Error {
    return targetError(thrown, doing);
  }
}
