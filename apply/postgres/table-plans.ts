/** The plans of a session: one per table version, made on first sight, with the order that foreign keys ask for. */
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import { nameOf, type FollowedTables } from '../followed-tables.ts';
import { parentsFirst } from '../parents-first.ts';
import { targetSchema } from '../target-schema.ts';
import { createTablePlan, type TablePlan, type TargetTable } from './table-plan.ts';
import { targetError } from './target-error.ts';
import { findTargetTable, lostError } from './target-table.ts';

export class TablePlans {
  readonly #client: ClientBase;
  readonly #settings: FlowConfig;
  readonly #followed: FollowedTables;
  readonly #plans = new Map<string, TablePlan>();
  #ofFrame = new WeakMap<object, (TablePlan | undefined)[]>();
  #order: Map<number, number> | undefined;
  #referenced = new Set<number>();

  constructor(client: ClientBase, settings: FlowConfig, followed: FollowedTables) {
    this.#client = client;
    this.#settings = settings;
    this.#followed = followed;
  }

  /** Forgets all plans: tables of the target were changed. */
  reset(): void {
    this.#plans.clear();
    this.#forgetFrames();
  }

  /** Forgets the plans of tables that were changed. `found`: target tables as they are now. */
  replace(changed: readonly TableSchema[], found: ReadonlyMap<TableSchema, TargetTable>): void {
    const names = new Set(changed.map(nameOf));
    for (const [id, { table }] of this.#plans) if (names.has(nameOf(table))) this.#plans.delete(id);
    for (const [table, target] of found) this.#add(table, target);
    this.#forgetFrames();
  }

  #forgetFrames(): void {
    this.#ofFrame = new WeakMap();
    this.#order = undefined;
  }

  /** The plans for the tables of a frame, by their index; undefined for those that the flow leaves out or does not follow. */
  async resolve(frame: { readonly tables: readonly TableSchema[] }): Promise<readonly (TablePlan | undefined)[]> {
    const known = this.#ofFrame.get(frame);
    if (known !== undefined) return known;
    const plans: (TablePlan | undefined)[] = [];
    for (const table of frame.tables)
      plans.push(
        this.#followed.includes(table) && this.#followed.isCurrent(table) ? await this.#planFor(table) : undefined,
      );
    this.#ofFrame.set(frame, plans);
    return plans;
  }

  /** Makes plans for the tables of a frame that the flow follows; those that the target lacks are noted as lost. */
  async look(frame: { readonly tables: readonly TableSchema[] }): Promise<void> {
    for (const table of frame.tables)
      if (this.#followed.includes(table) && this.#followed.isCurrent(table) && (await this.#find(table)) === undefined)
        this.#followed.lose(table);
  }

  async #planFor(table: TableSchema): Promise<TablePlan> {
    const plan = await this.#find(table);
    if (plan === undefined) throw lostError(targetSchema(table, this.#settings), table.name);
    return plan;
  }

  /** Undefined where the target lacks the table, or columns of it. */
  async #find(table: TableSchema): Promise<TablePlan | undefined> {
    const plan = this.#plans.get(planId(table));
    if (plan !== undefined) return plan;
    const schema = targetSchema(table, this.#settings);
    const found = await findTargetTable(this.#client, table, schema, this.#settings);
    return found === undefined ? undefined : this.#add(table, found);
  }

  #add(table: TableSchema, target: TargetTable): TablePlan {
    const plan = createTablePlan(table, target, this.#settings);
    this.#plans.set(planId(table), plan);
    this.#order = undefined;
    return plan;
  }

  /** Reads the foreign keys between the tables again if there is a new one. */
  async prepareOrder(): Promise<void> {
    if (this.#order !== undefined) return;
    const oids = [...new Set([...this.#plans.values()].map((plan) => plan.target.oid))];
    try {
      const { rows } = await this.#client.query<{ child: string; parent: string }>(
        `SELECT DISTINCT conrelid::int8 AS child, confrelid::int8 AS parent FROM pg_constraint
          WHERE contype = 'f' AND (conrelid = ANY ($1::int8[]::oid[]) OR confrelid = ANY ($1::int8[]::oid[]))`,
        [oids],
      );
      const edges = rows.map((row) => ({ child: Number(row.child), parent: Number(row.parent) }));
      this.#referenced = new Set(edges.map((edge) => edge.parent));
      this.#order = parentsFirst(oids, edges);
    } catch (thrown) {
      throw targetError(thrown, 'reading the foreign keys of the target');
    }
  }

  /** Place of a plan's table in the order parents first. */
  rank(plan: TablePlan): number {
    return this.#order?.get(plan.target.oid) ?? 0;
  }

  /** Whether rows of other tables may refer to this one. */
  referenced(plan: TablePlan): boolean {
    return this.#referenced.has(plan.target.oid);
  }
}

function planId({ schema, name, version }: TableSchema): string {
  return `${schema}\0${name}\0${version}`;
}
