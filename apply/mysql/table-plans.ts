/** The plans of a session: one per table version, made on first sight, with the order that foreign keys ask for. */
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import type { FollowedTables } from '../followed-tables.ts';
import { parentsFirst } from '../parents-first.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { createTablePlan, type TablePlan } from './table-plan.ts';
import type { TablePlaces } from './table-places.ts';
import { targetError } from './target-error.ts';
import { findTargetTable, lostError } from './target-table.ts';

export class TablePlans {
  readonly #session: MysqlSession;
  readonly #places: TablePlaces;
  readonly #followed: FollowedTables;
  readonly #plans = new Map<string, TablePlan>();
  #ofFrame = new WeakMap<object, (TablePlan | undefined)[]>();
  readonly #deletes: FlowConfig['deletes'];
  #order: Map<string, number> | undefined;
  /** By table: those of which rows may refer to it. */
  #referrers = new Map<string, Set<string>>();

  constructor(session: MysqlSession, places: TablePlaces, followed: FollowedTables, deletes: FlowConfig['deletes']) {
    this.#deletes = deletes;
    this.#session = session;
    this.#places = places;
    this.#followed = followed;
  }

  /** Forgets all plans: a table of the target was changed. */
  reset(): void {
    this.#plans.clear();
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
    if (plan === undefined) throw lostError(this.#places.of(table).schema, table.name);
    return plan;
  }

  /** Undefined where the target lacks the table, or columns of it. */
  async #find(table: TableSchema): Promise<TablePlan | undefined> {
    const id = `${table.schema}\0${table.name}\0${table.version}`;
    const known = this.#plans.get(id);
    if (known !== undefined) return known;
    const { wanted, schema } = this.#places.of(table);
    const found = await findTargetTable(this.#session, wanted, schema, this.#deletes);
    if (found === undefined) return undefined;
    const plan = createTablePlan(wanted, found, this.#deletes);
    this.#plans.set(id, plan);
    this.#order = undefined;
    return plan;
  }

  /** Reads the foreign keys between the tables again if there is a new one. */
  async prepareOrder(): Promise<void> {
    if (this.#order !== undefined) return;
    const tables = [...new Set([...this.#plans.values()].map(targetId))];
    const schemas = [...new Set([...this.#plans.values()].map((plan) => quoteLiteral(plan.target.schema)))].join(', ');
    try {
      const rows =
        schemas === ''
          ? []
          : await this.#session.rows(
              `SELECT DISTINCT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME
                 FROM information_schema.REFERENTIAL_CONSTRAINTS
                WHERE CONSTRAINT_SCHEMA IN (${schemas}) OR UNIQUE_CONSTRAINT_SCHEMA IN (${schemas})`,
            );
      const edges = rows.map(([schema, child, parentSchema, parent]) => ({
        child: `${schema}\0${child}`,
        parent: `${parentSchema}\0${parent}`,
      }));
      this.#referrers = new Map();
      for (const { child, parent } of edges)
        this.#referrers.set(parent, (this.#referrers.get(parent) ?? new Set()).add(child));
      this.#order = parentsFirst(tables, edges);
    } catch (thrown) {
      throw targetError(thrown, 'reading the foreign keys of the target');
    }
  }

  /** Place of a plan's table in the order parents first. */
  rank(plan: TablePlan): number {
    return this.#order?.get(targetId(plan)) ?? 0;
  }

  /** Whether rows of other tables, or of its own, may refer to this one. */
  referenced(plan: TablePlan): boolean {
    return this.#referrers.has(targetId(plan));
  }

  /** Whether rows refer to this table, and all of them are in tables of `plans`. */
  referencedWithin(plan: TablePlan, plans: readonly TablePlan[]): boolean {
    const referrers = this.#referrers.get(targetId(plan));
    if (referrers === undefined) return false;
    const within = new Set(plans.map(targetId));
    return [...referrers].every((referrer) => within.has(referrer));
  }
}

function targetId({ target }: TablePlan): string {
  return `${target.schema}\0${target.name}`;
}
