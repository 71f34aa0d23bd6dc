/**
 * What the stream was told of each table, and what the log has brought of it since then: stored, so that a capture that
 * was killed before it told of a change tells of it when it comes back.
 */
import type { ColumnRules } from '../../core/column-rules.ts';

import { withLabelsOf, tableName, type CapturedTable } from './catalog.ts';
import { hiddenDifferences } from './earlier-table.ts';

/** Statements about a table that the log has brought, and the stream may not have been told the outcome of. */
export interface Statements {
  readonly count: number;
  /** Whether one may have given rows other values. */
  readonly changesRows: boolean;
  /** Whether one dropped something: a column that is there all the same came again. */
  readonly drops: boolean;
  /** Whether one gave columns names and places in a way that two versions do not show. Absent in old entries. */
  readonly exchanges?: boolean;
  /** Whether one gave a column a place among the others. Absent in old entries. */
  readonly places?: boolean;
  /** Whether one may have given a column another type: false where a name with another type is another column's. */
  readonly retypes?: boolean;
  /** Whether one gave the table another name. */
  readonly renames: boolean;
}

/** What several statements come to. */
export function sumOf(before: Statements | undefined, next: Omit<Statements, 'count'>): Statements {
  return {
    count: (before?.count ?? 0) + 1,
    changesRows: next.changesRows || before?.changesRows === true,
    drops: next.drops || before?.drops === true,
    exchanges: next.exchanges === true || before?.exchanges === true,
    places: next.places === true || before?.places === true,
    retypes: next.retypes !== false || (before !== undefined && before.retypes !== false),
    renames: next.renames || before?.renames === true,
  };
}

/** An entry of the registry. */
export interface ToldTable {
  /** As the stream was told last. */
  readonly table: CapturedTable;
  readonly since?: Statements;
}

/** Where entries are stored, by the names of tables. */
export interface ToldStore {
  put(id: string, told: ToldTable): Promise<void>;
  delete(id: string): Promise<void>;
}

/** An entry without what a column rule keeps at home: defaults are values. The table's version stays. */
export function storedEntry(told: ToldTable, rules: ColumnRules): ToldTable {
  const { schema, columns } = told.table;
  return {
    ...told,
    table: {
      ...told.table,
      schema: { ...schema, columns: schema.columns.map((column) => rules.storable(schema, column)) },
      columns: columns.map((column) => ({ ...column, schema: rules.storable(schema, column.schema) })),
    },
  };
}

export class ToldTables {
  readonly #store: ToldStore;
  readonly #told: Map<string, ToldTable>;
  readonly #forgotten = new Set<string>();
  #writes: Promise<void> = Promise.resolve();

  private constructor(store: ToldStore, told: Map<string, ToldTable>) {
    this.#store = store;
    this.#told = told;
  }

  /**
   * `stored` are the entries that there are, `tables` what the catalog has now. A stream that begins `afresh` begins
   * with the catalog; tables that the configuration no longer chooses are forgotten.
   */
  static async open(
    store: ToldStore,
    stored: ReadonlyMap<string, ToldTable>,
    tables: readonly CapturedTable[],
    how: { readonly afresh: boolean; readonly included: (schema: string, name: string) => boolean },
  ): Promise<ToldTables> {
    const told = new Map<string, ToldTable>();
    const current = new Set(tables.map(({ schema }) => tableName(schema)));
    for (const [id, entry] of stored) {
      const { schema, name } = entry.table.schema;
      if (!how.afresh && how.included(schema, name)) told.set(id, entry);
      else if (!current.has(id)) await store.delete(id);
    }
    const opened = new ToldTables(store, told);
    const added = tables.filter(({ schema }) => !told.has(tableName(schema)));
    for (const table of added) told.set(tableName(table.schema), { table });
    await opened.#write(added.map(({ schema }) => tableName(schema)));
    return opened;
  }

  get entries(): ReadonlyMap<string, ToldTable> {
    return this.#told;
  }

  get(id: string): ToldTable | undefined {
    return this.#told.get(id);
  }

  /** The labels of enums and sets that the catalog cannot show, where the stream was told them. */
  labelled(table: CapturedTable): CapturedTable {
    const told = this.#told.get(tableName(table.schema));
    return told === undefined ? table : withLabelsOf(table, told.table);
  }

  /** The log has brought statements about these tables. Stored when it resolves. */
  async note(statements: ReadonlyMap<string, Omit<Statements, 'count'>>): Promise<void> {
    const noted: string[] = [];
    for (const [id, statement] of statements) {
      const told = this.#told.get(id);
      if (told === undefined) continue;
      this.#told.set(id, { table: told.table, since: sumOf(told.since, statement) });
      noted.push(id);
    }
    await this.#write(noted);
  }

  /** A table that is new to the capture. Stored when it resolves. */
  async add(table: CapturedTable): Promise<void> {
    const id = tableName(table.schema);
    if (this.#told.has(id)) return;
    this.#told.set(id, { table });
    await this.#write([id]);
  }

  /** The stream is told that a table is gone; stored with the next settlement. */
  forget(id: string): void {
    if (this.#told.delete(id)) this.#forgotten.add(id);
  }

  /** The stream holds what these tables are, and no statement came since they were read. */
  async settle(tables: Iterable<CapturedTable>): Promise<void> {
    const changed = [...this.#forgotten];
    this.#forgotten.clear();
    for (const table of tables) {
      const id = tableName(table.schema);
      const told = this.#told.get(id);
      const isSame = told?.table.schema.version === table.schema.version && told.since === undefined;
      if (isSame && hiddenDifferences(told.table, table).length === 0) continue;
      this.#told.set(id, { table });
      changed.push(id);
    }
    await this.#write(changed);
  }

  /** One after another, each with what is true by then. */
  async #write(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const before = this.#writes;
    this.#writes = before.then(async () => {
      await Promise.all(
        ids.map(async (id) => {
          const told = this.#told.get(id);
          await (told === undefined ? this.#store.delete(id) : this.#store.put(id, told));
        }),
      );
    });
    await this.#writes;
  }
}
