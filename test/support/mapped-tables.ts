/** Source tables as frames bring them, for tests of mappings without a database. */
import type { RowChange, TableSchema, Value } from '../../core/frame.ts';
import type { ContributionChange } from '../../transform/mapping/contribution-change.ts';
import type { CompiledBlock } from '../../transform/mapping/block-plan.ts';
import type { ChangePlace, MappingEngine } from '../../transform/mapping/engine.ts';

/** A table from `name type` pairs; the first columns named in `key` are its key. */
export function tableOf(
  name: string,
  columns: Readonly<Record<string, string>>,
  key: readonly string[] = ['id'],
): TableSchema {
  return {
    schema: 'public',
    name,
    version: JSON.stringify(columns),
    identity: 'default',
    key,
    columns: Object.entries(columns).map(([column, type]) => ({ name: column, type, portable: type, notNull: false })),
  };
}

export type RowObject = Readonly<Record<string, string | null>>;

/** An image of a row, positional; columns that are not named are null. */
export function imageOf(table: TableSchema, row: RowObject): Value[] {
  for (const name of Object.keys(row))
    if (!table.columns.some((column) => column.name === name)) throw new Error(`${table.name} has no column ${name}`);
  return table.columns.map((column) => row[column.name] ?? null);
}

/** Feeds an engine with changes by table name, one transaction after the other. */
export class SourceFeed {
  readonly #engine: MappingEngine;
  readonly #tables: ReadonlyMap<string, TableSchema>;
  #position = 0;

  constructor(engine: MappingEngine, tables: readonly TableSchema[]) {
    this.#engine = engine;
    this.#tables = new Map(tables.map((table) => [table.name, table]));
  }

  /** The place of the transaction that comes next. */
  get place(): ChangePlace {
    return { position: `p${this.#position}`, timeUs: 1_772_352_902_000_000 + this.#position * 1_000_000 };
  }

  put(table: string, ...rows: RowObject[]): this {
    for (const row of rows) this.#apply(table, (schema) => ['i', 0, imageOf(schema, row)]);
    return this;
  }

  update(table: string, row: RowObject, before?: RowObject): this {
    return this.#apply(table, (schema) =>
      before === undefined
        ? ['u', 0, imageOf(schema, row)]
        : ['u', 0, imageOf(schema, row), 'k', imageOf(schema, before)],
    );
  }

  remove(table: string, ...keys: RowObject[]): this {
    for (const key of keys) this.#apply(table, (schema) => ['d', 0, null, 'k', imageOf(schema, key)]);
    return this;
  }

  change(table: string, change: RowChange): this {
    return this.#apply(table, () => change);
  }

  /** Ends the transaction; gives what changed, in a stable order. */
  flush(nowUs = this.place.timeUs): ContributionChange[] {
    this.#position += 1;
    return this.#engine.flush(nowUs).toSorted((a, b) => a.index - b.index || (a.key < b.key ? -1 : 1));
  }

  #apply(table: string, make: (schema: TableSchema) => RowChange): this {
    const schema = this.#tables.get(table);
    if (schema === undefined) throw new Error(`no table ${table}`);
    this.#engine.apply(make(schema), [schema], this.place);
    return this;
  }
}

/** The values of a contribution that are there, by field. */
export function shown(block: CompiledBlock, values: readonly (string | null | undefined)[]): Record<string, string> {
  return Object.fromEntries(
    block.block.entity.fields.flatMap(({ name }, index) => {
      const value = values[index];
      return typeof value === 'string' && value !== '' ? [[name, value]] : [];
    }),
  );
}

/** Changes for comparison: the record and its values, or `gone`; and what is held, by group, as rules. */
export function summary(changes: readonly ContributionChange[]): unknown[] {
  return changes.map((change) => {
    const held = [...change.held].map(
      ([group, violations]) => `${group}: ${violations.map(({ field, rule }) => `${field} ${rule}`).join('; ')}`,
    );
    const values = change.values === undefined ? 'gone' : shown(change.block, change.values);
    return held.length === 0 ? values : { values, held };
  });
}
