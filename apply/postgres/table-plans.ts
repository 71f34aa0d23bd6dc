/** The plans of a session: one per table version, made on first sight, with the order that foreign keys ask for. */
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import { compileTablePatterns, type TableFilter } from '../../core/table-pattern.ts';
import { parentsFirst } from '../parents-first.ts';
import { targetSchema } from '../target-schema.ts';
import { createTablePlan, type TablePlan } from './table-plan.ts';
import { targetError } from './target-error.ts';
import { ensureTargetTable } from './target-table.ts';

export class TablePlans {
  readonly #client: ClientBase;
  readonly #settings: FlowConfig;
  readonly #includes: TableFilter;
  readonly #plans = new Map<string, TablePlan>();
  readonly #ofFrame = new WeakMap<object, (TablePlan | undefined)[]>();
  #order: Map<number, number> | undefined;
  #referenced = new Set<number>();

  constructor(client: ClientBase, settings: FlowConfig) {
    this.#client = client;
    this.#settings = settings;
    this.#includes = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
  }

  /** The plans for the tables of a frame, by their index; undefined for tables that the flow leaves out. */
  async resolve(frame: { readonly tables: readonly TableSchema[] }): Promise<readonly (TablePlan | undefined)[]> {
    const known = this.#ofFrame.get(frame);
    if (known !== undefined) return known;
    const plans: (TablePlan | undefined)[] = [];
    for (const table of frame.tables)
      plans.push(this.#includes(table.schema, table.name) ? await this.#planFor(table) : undefined);
    this.#ofFrame.set(frame, plans);
    return plans;
  }

  async #planFor(table: TableSchema): Promise<TablePlan> {
    const id = `${table.schema}\0${table.name}\0${table.version}`;
    let plan = this.#plans.get(id);
    if (plan === undefined) {
      const schema = targetSchema(table, this.#settings);
      const target = await ensureTargetTable(this.#client, table, schema, this.#settings);
      plan = createTablePlan(table, target, this.#settings);
      this.#plans.set(id, plan);
      this.#order = undefined;
    }
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
