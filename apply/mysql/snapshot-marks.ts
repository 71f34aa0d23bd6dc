/**
 * What a snapshot did not see does not exist. From a snapshot's `begin` the keys of a table that come by are recorded in
 * a table `waybill.seen_…`; at its `end` the rows with other keys are deleted, or marked as gone. A row of `waybill.snapshot` is the state,
 * so a restart goes on where it was. Making a table commits implicitly: it is made, empty, before the transaction.
 */
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema, Value } from '../../core/frame.ts';
import type { Segment } from '../compact.ts';
import type { MysqlSession } from './session.ts';
import { appliesDeletes, isQuarantine } from '../target-schema.ts';
import { RangeMarks } from './range-marks.ts';
import type { SchemaDiff } from '../schema-diff.ts';
import { UnseenRows, makeSeenTable, seenColumn, seenTableName } from './seen-tables.ts';
import { qualifiedName, quoteLiteral, quoteName } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import { targetError } from './target-error.ts';
import type { RunDdl, TargetTable } from './target-table.ts';
import type { TargetTransaction } from './target-transaction.ts';

export class SnapshotMarks {
  readonly #session: MysqlSession;
  readonly #flow: string;
  readonly #settings: FlowConfig;
  /** Quoted names of the seen tables, by source table. */
  readonly #seen = new Map<string, string>();
  readonly #ranges: RangeMarks;
  readonly #unseen: UnseenRows;

  /** `isItsOnlyReferrer`: whether rows refer to a table, and all of them are its own. */
  constructor(
    session: MysqlSession,
    flow: string,
    settings: FlowConfig,
    isItsOnlyReferrer: (plan: TablePlan) => boolean,
  ) {
    this.#session = session;
    this.#flow = flow;
    this.#settings = settings;
    this.#unseen = new UnseenRows(session.facts.flavour, isItsOnlyReferrer);
    this.#ranges = new RangeMarks(session, flow, settings, this.#unseen);
  }

  async load(): Promise<void> {
    this.#seen.clear();
    try {
      const rows = await this.#session.rows(
        `SELECT table_schema, table_name, seen_table FROM waybill.snapshot WHERE flow = ${quoteLiteral(this.#flow)}`,
      );
      for (const [schema, name, seen] of rows) this.#seen.set(`${schema}.${name}`, qualifiedName('waybill', seen!));
      await this.#ranges.load();
    } catch (thrown) {
      throw targetError(thrown, 'reading the snapshots under way');
    }
  }

  /** The seen table to record keys in while a snapshot of this table is under way. */
  seenTable(plan: TablePlan): string | undefined {
    return plan.key.length === 0 ? undefined : (this.#seen.get(plan.id) ?? this.#ranges.seenTable(plan.id));
  }

  /** Makes the seen tables that the snapshots which begin in these segments may need. */
  async prepare(segments: readonly Segment<TablePlan>[], ddl: RunDdl): Promise<void> {
    for (const { barrier } of segments) {
      if (barrier?.row[0] !== 's') continue;
      const { plan } = barrier;
      const mark = barrier.row[2]?.[1];
      if (plan.key.length === 0) continue;
      // The reading of the whole table that is under way may end before the range begins.
      if (mark === 'begin_range') await this.#ranges.prepare(plan, ddl);
      else if (mark === 'begin' && !this.#seen.has(plan.id))
        await makeSeenTable(this.#session, seenTableName(this.#flow, plan), plan, ddl);
    }
  }

  /** Does what a mark asks, inside the transaction. `timeUs`: when the mark was written, microseconds since 1970. */
  async apply(
    transaction: TargetTransaction,
    plan: TablePlan,
    content: readonly Value[],
    timeUs: number,
  ): Promise<void> {
    const mark = content[1];
    if (mark === 'begin') await this.#begin(transaction, plan);
    else if (mark === 'end') this.#end(transaction, plan, timeUs);
    else if (mark === 'cancel') this.#cancel(transaction, plan);
    // While the whole table is read, what a range has is seen by that.
    else if (plan.key.length > 0 && !this.#seen.has(plan.id))
      await this.#ranges.apply(transaction, plan, content, timeUs);
  }

  async #begin(transaction: TargetTransaction, plan: TablePlan): Promise<void> {
    this.#ranges.forget(transaction, plan.id);
    if (plan.key.length === 0) {
      transaction.add(`DELETE FROM ${plan.qualified}`);
      return;
    }
    const known = this.#seen.get(plan.id);
    if (known !== undefined) {
      transaction.add(`DELETE FROM ${known}`);
      return;
    }
    await transaction.flush();
    const [filled] = await this.#session.rows(`SELECT 1 FROM ${plan.qualified} LIMIT 1`);
    if (filled === undefined) return;
    const name = seenTableName(this.#flow, plan);
    const { schema, name: table } = plan.table;
    transaction.add(
      `INSERT INTO waybill.snapshot (flow, table_schema, table_name, seen_table) VALUES (${quoteLiteral(this.#flow)},` +
        ` ${quoteLiteral(schema)}, ${quoteLiteral(table)}, ${quoteLiteral(name)})`,
    );
    this.#seen.set(plan.id, qualifiedName('waybill', name));
  }

  /** What is not read to its end removes nothing. */
  #cancel(transaction: TargetTransaction, plan: TablePlan): void {
    const seen = this.#seen.get(plan.id);
    if (seen === undefined) return;
    this.#seen.delete(plan.id);
    transaction.add(`DELETE FROM waybill.snapshot WHERE ${this.#stateOf(plan.id)}`);
    transaction.add(`DELETE FROM ${seen}`);
  }

  /** Whether a table is being read from its beginning. */
  isUnderWay(id: string): boolean {
    return this.#seen.has(id);
  }

  /** A table that the source no longer has, or has under another key, is not read to its end. */
  forget(transaction: Pick<TargetTransaction, 'add'>, id: string): void {
    this.#ranges.forget(transaction, id);
    const seen = this.#seen.get(id);
    if (seen === undefined) return;
    this.#seen.delete(id);
    transaction.add(`DELETE FROM waybill.snapshot WHERE ${this.#stateOf(id)}`);
  }

  #stateOf(id: string): string {
    return `flow = ${quoteLiteral(this.#flow)} AND CONCAT(table_schema, '.', table_name) = ${quoteLiteral(id)}`;
  }

  /** The seen table of a snapshot under way goes along with its table. Outside of transactions. */
  async follow(id: string, diff: SchemaDiff, table: TableSchema, target: TargetTable): Promise<void> {
    await this.#ranges.giveUp(id);
    const seen = this.#seen.get(id);
    if (seen === undefined) return;
    if (diff.key) {
      // What has been seen has another key: whoever changes the key has the table read again.
      this.#seen.delete(id);
      await this.#session.run(`DELETE FROM waybill.snapshot WHERE ${this.#stateOf(id)}`);
      return;
    }
    const [schema, name] = seen.split('.').map((part) => part.replaceAll('`', '')) as [string, string];
    const rows = await this.#session.rows(
      `SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ${quoteLiteral(schema)} AND TABLE_NAME = ${quoteLiteral(name)}`,
    );
    const there = new Set(rows.map(([column]) => column!.toLowerCase()));
    const changes = table.key.flatMap((key) => {
      const column = target.columns.get(key.toLowerCase());
      const pair = diff.kept.find(({ after }) => after.name === key);
      if (column === undefined || pair === undefined) return [];
      const old = there.has(pair.before.name.toLowerCase()) ? pair.before.name : column.name;
      if (old === column.name && pair.before.type === pair.after.type) return [];
      return [`CHANGE COLUMN ${quoteName(old)} ${seenColumn(column)}`];
    });
    if (changes.length > 0) await this.#session.run(`ALTER TABLE ${seen} ${changes.join(', ')}`);
  }

  #end(transaction: TargetTransaction, plan: TablePlan, timeUs: number): void {
    const seen = this.#seen.get(plan.id);
    if (seen === undefined) return;
    this.#seen.delete(plan.id);
    if (appliesDeletes(plan.table, this.#settings)) {
      // Of what mappings hold only that of this flow is written anew.
      const own = isQuarantine(plan.table, this.#settings)
        ? ` AND ${plan.qualified}.flow = ${quoteLiteral(this.#flow)}`
        : '';
      transaction.add(this.#unseen.deleteSql(plan, seen, own, timeUs));
    }
    const { schema, name } = plan.table;
    transaction.add(
      `DELETE FROM waybill.snapshot WHERE flow = ${quoteLiteral(this.#flow)}` +
        ` AND table_schema = ${quoteLiteral(schema)} AND table_name = ${quoteLiteral(name)}`,
    );
    transaction.add(`DELETE FROM ${seen}`);
  }
}
