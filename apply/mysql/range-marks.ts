/**
 * The same for a range of a table's keys: what a snapshot of the range did not see of it does not exist. A row of
 * `waybill.snapshot_range` is the state.
 */
import type { FlowConfig } from '../../core/config.ts';
import type { ColumnSchema, Value } from '../../core/frame.ts';
import { beforeSql, behindSql, type KeyBounds } from '../../core/key-order.ts';
import { markedRange } from '../marked-range.ts';
import { type UnseenRows, makeSeenTable, seenTableName } from './seen-tables.ts';
import type { MysqlSession } from './session.ts';
import { qualifiedName, quoteLiteral } from './sql.ts';
import { literal, type TablePlan } from './table-plan.ts';
import type { RunDdl } from './target-table.ts';
import type { TargetTransaction } from './target-transaction.ts';

interface Range {
  /** The seen table, quoted. */
  readonly seen: string;
  readonly id: string;
}

const PREFIX = 'seen_range_';

export class RangeMarks {
  readonly #session: MysqlSession;
  readonly #flow: string;
  readonly #settings: FlowConfig;
  readonly #unseen: UnseenRows;
  /** The ranges under way, by source table. */
  readonly #ranges = new Map<string, Range>();

  constructor(session: MysqlSession, flow: string, settings: FlowConfig, unseen: UnseenRows) {
    this.#unseen = unseen;
    this.#session = session;
    this.#flow = flow;
    this.#settings = settings;
  }

  async load(): Promise<void> {
    this.#ranges.clear();
    const rows = await this.#session.rows(
      `SELECT table_schema, table_name, seen_table, id FROM waybill.snapshot_range WHERE flow = ${quoteLiteral(this.#flow)}`,
    );
    for (const [schema, name, seen, id] of rows)
      this.#ranges.set(`${schema}.${name}`, { seen: qualifiedName('waybill', seen!), id: id! });
  }

  seenTable(id: string): string | undefined {
    return this.#ranges.get(id)?.seen;
  }

  /** Makes the seen table that a range which begins may need. */
  async prepare(plan: TablePlan, ddl: RunDdl): Promise<void> {
    if (!this.#ranges.has(plan.id))
      await makeSeenTable(this.#session, seenTableName(this.#flow, plan, PREFIX), plan, ddl);
  }

  /** Does what a mark asks, inside the transaction. */
  async apply(
    transaction: TargetTransaction,
    plan: TablePlan,
    content: readonly Value[],
    timeUs: number,
  ): Promise<void> {
    const [id, mark] = content;
    if (mark === 'begin_range') await this.#begin(transaction, plan, String(id), this.#rangeOf(plan, content));
    else if (mark === 'end_range')
      this.#end(transaction, plan, { id: String(id), range: this.#rangeOf(plan, content), timeUs });
    else if (mark === 'cancel_range' && this.#ranges.get(plan.id)?.id === shortened(String(id)))
      this.forget(transaction, plan.id);
  }

  #rangeOf(plan: TablePlan, content: readonly Value[]): KeyBounds | undefined {
    const typeAt = (column: ColumnSchema): string | undefined => plan.columns[plan.table.columns.indexOf(column)]?.type;
    return markedRange(plan, content, this.#settings, plan.target.flavour, typeAt);
  }

  async #begin(
    transaction: TargetTransaction,
    plan: TablePlan,
    id: string,
    range: KeyBounds | undefined,
  ): Promise<void> {
    // One that was begun twice.
    this.forget(transaction, plan.id);
    if (range === undefined) return;
    await transaction.flush();
    const [filled] = await this.#session.rows(
      `SELECT 1 FROM ${plan.qualified} WHERE 1${withinSql(plan, range)} LIMIT 1`,
    );
    if (filled === undefined) return;
    const name = seenTableName(this.#flow, plan, PREFIX);
    const { schema, name: table } = plan.table;
    transaction.add(
      `INSERT INTO waybill.snapshot_range (flow, table_schema, table_name, seen_table, id) VALUES` +
        ` (${[this.#flow, schema, table, name, shortened(id)].map(quoteLiteral).join(', ')})`,
    );
    this.#ranges.set(plan.id, { seen: qualifiedName('waybill', name), id: shortened(id) });
  }

  #end(
    transaction: TargetTransaction,
    plan: TablePlan,
    { id, range, timeUs }: { id: string; range: KeyBounds | undefined; timeUs: number },
  ): void {
    const known = this.#ranges.get(plan.id);
    // The end of another one says nothing of this one.
    if (known?.id !== shortened(id)) return;
    if (range !== undefined && this.#settings.deletes !== 'ignore')
      transaction.add(this.#unseen.deleteSql(plan, known.seen, withinSql(plan, range), timeUs));
    this.forget(transaction, plan.id);
  }

  /** Gives up a range: what is not seen of it stays. */
  forget(transaction: Pick<TargetTransaction, 'add'>, id: string): void {
    const known = this.#ranges.get(id);
    if (known === undefined) return;
    this.#ranges.delete(id);
    transaction.add(this.#deleteState(id));
    transaction.add(`DELETE FROM ${known.seen}`);
  }

  /** The same outside of transactions: the table gets another shape, and its range is not worth following it. */
  async giveUp(id: string): Promise<void> {
    if (!this.#ranges.delete(id)) return;
    await this.#session.run(this.#deleteState(id));
  }

  #deleteState(id: string): string {
    return (
      `DELETE FROM waybill.snapshot_range WHERE flow = ${quoteLiteral(this.#flow)}` +
      ` AND CONCAT(table_schema, '.', table_name) = ${quoteLiteral(id)}`
    );
  }
}

function shortened(id: string): string {
  return id.slice(0, 255);
}

/** Conditions, each begun with AND, that the key of a row lies in a range. */
function withinSql(plan: TablePlan, { from, to }: KeyBounds): string {
  const compared = (bound: readonly string[]): { column: string; bound: string }[] =>
    bound.map((text, i) => {
      const index = plan.key[i]!;
      return { column: `${plan.qualified}.${plan.names[index]}`, bound: literal(plan, index, text) };
    });
  return [
    ...(from === null ? [] : [behindSql(compared(from), true)]),
    ...(to === null ? [] : [beforeSql(compared(to))]),
  ]
    .map((condition) => ` AND (${condition})`)
    .join('');
}
