/**
 * What a snapshot did not see does not exist. From a snapshot's `begin` the keys of a table that come by are recorded
 * in a table `waybill.seen_…`; at its `end` the rows with other keys are deleted, or marked as gone. The existence of that table is the
 * state, so a restart goes on where it was. Of a range of keys the same, with rows of the range alone.
 */
import { createHash } from 'node:crypto';
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import type { Value } from '../../core/frame.ts';
import { keyOrder, type KeyBounds } from '../../core/key-order.ts';
import { markedRange } from '../marked-range.ts';
import { appliesDeletes, isQuarantine } from '../target-schema.ts';
import { qualifiedName, quoteLiteral, quoteName } from './sql.ts';
import { literal, momentText, type TablePlan } from './table-plan.ts';
import { targetError } from './target-error.ts';
import type { TargetTransaction } from './target-transaction.ts';

interface SeenTable {
  /** Quoted. */
  readonly name: string;
  /** Names of its columns, quoted, in no order. */
  readonly key: ReadonlySet<string>;
  /** Whether only a range of the keys is read. */
  readonly isRange: boolean;
}

const RANGE_PREFIX = 'seen_range_';

export class SnapshotMarks {
  readonly #client: ClientBase;
  readonly #flow: string;
  readonly #settings: FlowConfig;
  /** The seen tables, by source table. */
  readonly #seen = new Map<string, SeenTable>();

  constructor(client: ClientBase, flow: string, settings: FlowConfig) {
    this.#client = client;
    this.#flow = flow;
    this.#settings = settings;
  }

  async load(): Promise<void> {
    this.#seen.clear();
    try {
      const { rows } = await this.#client.query<{ name: string; comment: string | null; key: string[] }>(
        `SELECT relname AS name, obj_description(oid, 'pg_class') AS comment,
                array(SELECT attname::text FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped) AS key
           FROM pg_class
          WHERE relnamespace = 'waybill'::regnamespace AND relkind = 'r' AND relname LIKE 'seen\\_%'`,
      );
      for (const { name, comment, key } of rows) {
        const prefix = `${this.#flow} `;
        if (comment?.startsWith(prefix) === true)
          this.#seen.set(comment.slice(prefix.length), {
            name: qualifiedName('waybill', name),
            key: new Set(key.map(quoteName)),
            isRange: name.startsWith(RANGE_PREFIX),
          });
      }
    } catch (thrown) {
      throw targetError(thrown, 'reading the snapshots under way');
    }
  }

  /** The seen table to record keys in while a snapshot of this table is under way. */
  seenTable(plan: TablePlan): string | undefined {
    if (plan.key.length === 0) return undefined;
    const seen = this.#seen.get(plan.id);
    return seen === undefined || !hasKey(seen, plan) ? undefined : seen.name;
  }

  /** Does what a mark asks, inside the transaction. `timeUs`: when the mark was written, microseconds since 1970. */
  async apply(
    transaction: TargetTransaction,
    plan: TablePlan,
    content: readonly Value[],
    timeUs: number,
  ): Promise<void> {
    const [id, mark] = content.map(String) as [string, string];
    if (mark === 'begin') await this.#begin(transaction, plan, id);
    else if (mark === 'end') this.#end(transaction, plan, timeUs);
    else if (mark === 'cancel' || mark === 'cancel_range') this.#cancel(transaction, plan, id, mark);
    else if (mark === 'begin_range' || mark === 'end_range') {
      const range = plan.key.length === 0 ? undefined : this.#range(plan, content);
      if (mark === 'begin_range') await this.#beginRange(transaction, plan, id, range);
      else this.#endRange(transaction, plan, id, range, timeUs);
    }
  }

  async #begin(transaction: TargetTransaction, plan: TablePlan, id: string): Promise<void> {
    const known = this.#seen.get(plan.id);
    if (known !== undefined) transaction.add(`DROP TABLE IF EXISTS ${known.name}`);
    this.#seen.delete(plan.id);
    if (plan.key.length === 0) {
      transaction.add(`TRUNCATE ${plan.rows}`);
      return;
    }
    if (await this.#isEmpty(transaction, plan.rows)) return;
    this.#watch(transaction, plan, this.#nameOf(plan, 'seen_', id), false);
  }

  async #isEmpty(transaction: TargetTransaction, rows: string): Promise<boolean> {
    const found = await transaction.ask<{ filled: boolean }>(`SELECT EXISTS (SELECT FROM ${rows}) AS filled`);
    return found[0]?.filled !== true;
  }

  #nameOf(plan: TablePlan, prefix: string, id: string): string {
    const hash = createHash('sha256').update(`${this.#flow}\0${plan.qualified}`).digest('hex').slice(0, 8);
    return qualifiedName('waybill', `${prefix}${id.replaceAll(/[^A-Za-z0-9_-]/g, '_').slice(0, 40)}_${hash}`);
  }

  #watch(transaction: TargetTransaction, plan: TablePlan, name: string, isRange: boolean): void {
    const keys = plan.key.map((index) => plan.names[index]).join(', ');
    transaction.add(`CREATE TABLE ${name} AS SELECT ${keys} FROM ${plan.qualified} WITH NO DATA`);
    transaction.add(`ALTER TABLE ${name} ADD PRIMARY KEY (${keys})`);
    transaction.add(`COMMENT ON TABLE ${name} IS ${quoteLiteral(`${this.#flow} ${plan.id}`)}`);
    this.#seen.set(plan.id, { name, key: new Set(plan.key.map((index) => plan.names[index]!)), isRange });
  }

  #range(plan: TablePlan, content: readonly Value[]): string | undefined {
    const typeAt = ({ name }: { readonly name: string }): string | undefined => plan.target.columns.get(name)?.type;
    const range = markedRange(plan, content, this.#settings, 'postgres', typeAt);
    return range === undefined ? undefined : rangeSql(plan, range);
  }

  async #beginRange(
    transaction: TargetTransaction,
    plan: TablePlan,
    id: string,
    range: string | undefined,
  ): Promise<void> {
    const known = this.#seen.get(plan.id);
    // The whole table is being read: what the range has is seen by that.
    if (known?.isRange === false) return;
    // One that was begun twice.
    this.forget(transaction, plan.id);
    if (range === undefined || (await this.#isEmpty(transaction, `${plan.rows} t WHERE ${range}`))) return;
    this.#watch(transaction, plan, this.#nameOf(plan, RANGE_PREFIX, id), true);
  }

  /** What is not read to its end removes nothing. */
  #cancel(transaction: TargetTransaction, plan: TablePlan, id: string, mark: 'cancel' | 'cancel_range'): void {
    const seen = this.#seen.get(plan.id);
    const isMeant = mark === 'cancel' ? seen?.isRange === false : seen?.name === this.#nameOf(plan, RANGE_PREFIX, id);
    if (isMeant) this.forget(transaction, plan.id);
  }

  #endRange(
    transaction: TargetTransaction,
    plan: TablePlan,
    id: string,
    range: string | undefined,
    timeUs: number,
  ): void {
    const seen = this.#seen.get(plan.id);
    // The end of another one says nothing of this one.
    if (seen?.name !== this.#nameOf(plan, RANGE_PREFIX, id)) return;
    if (range !== undefined && this.#settings.deletes !== 'ignore' && hasKey(seen, plan))
      transaction.add(goneSql(plan, `${range} AND NOT ${isSeen(seen, plan)}`, timeUs));
    this.forget(transaction, plan.id);
  }

  /** A reading does not come to its end: one that was cancelled, or of a table that the source no longer has. */
  forget(transaction: TargetTransaction, id: string): void {
    const seen = this.#seen.get(id);
    if (seen !== undefined) transaction.add(`DROP TABLE IF EXISTS ${seen.name}`);
    this.#seen.delete(id);
  }

  #end(transaction: TargetTransaction, plan: TablePlan, timeUs: number): void {
    const seen = this.#seen.get(plan.id);
    if (seen === undefined || seen.isRange) return;
    this.#seen.delete(plan.id);
    // What was seen under another key tells nothing of what is not there.
    if (appliesDeletes(plan.table, this.#settings) && hasKey(seen, plan)) {
      // Of the quarantine only what this flow's mappings held is written anew.
      const own = isQuarantine(plan.table, this.#settings)
        ? `t.flow = ${quoteLiteral(this.#flow)} AND t.hold IS NOT NULL AND `
        : '';
      transaction.add(goneSql(plan, `${own}NOT ${isSeen(seen, plan)}`, timeUs));
    }
    transaction.add(`DROP TABLE ${seen.name}`);
  }
}

/** Takes rows `t` away, or marks those that are not marked yet. */
function goneSql(plan: TablePlan, where: string, timeUs: number): string {
  if (plan.deletedAt === undefined) return `DELETE FROM ${plan.rows} t WHERE ${where}`;
  const at = quoteLiteral(momentText(timeUs));
  return `UPDATE ${plan.rows} t SET ${plan.deletedAt} = ${at} WHERE t.${plan.deletedAt} IS NULL AND ${where}`;
}

function isSeen(seen: SeenTable, plan: TablePlan): string {
  const same = plan.key.map((index) => `s.${plan.names[index]} = t.${plan.names[index]}`).join(' AND ');
  return `EXISTS (SELECT FROM ${seen.name} s WHERE ${same})`;
}

/** The condition that the key of row `t` lies in a range. */
function rangeSql(plan: TablePlan, { from, to }: KeyBounds): string {
  const compared = (sign: string, bound: readonly string[] | null): string[] => {
    const indexes = plan.key.slice(0, bound?.length ?? 0);
    const names = indexes.map((index) => `t.${plan.names[index]}`).join(', ');
    return bound === null
      ? []
      : [`(${names}) ${sign} (${indexes.map((index, i) => boundSql(plan, index, bound[i]!)).join(', ')})`];
  };
  return [...compared('>=', from), ...compared('<', to)].join(' AND ');
}

/** Numbers are written as such: in quotes, one that the column's type cannot hold would be an error. */
function boundSql(plan: TablePlan, index: number, text: string): string {
  const type = plan.target.columns.get(plan.table.columns[index]!.name)?.type ?? '';
  return keyOrder('postgres', type)?.endsWith('number') === true ? text : literal(plan, index, text);
}

/** Whether the table still has the key that it had when its snapshot began. */
function hasKey({ key }: SeenTable, plan: TablePlan): boolean {
  return key.size === plan.key.length && plan.key.every((index) => key.has(plan.names[index]!));
}
