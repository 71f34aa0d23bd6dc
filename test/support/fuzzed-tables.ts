/** Random statements about the tables of a Postgres source, with what the tables are after them. */
import type { Random } from '../../sandbox/demo/random.ts';
import { layoutStatement, renamed } from './fuzzed-layouts.ts';
import {
  ELSEWHERE,
  identitySql,
  LADDERS,
  VALUES,
  type Column,
  type Model,
  type Part,
  type Table,
} from './fuzzed-model.ts';

const CONSTANTS = ['7', "'new'", '1.25', "'2026-05-05'"];
/** Other values of the same type. */
const CHANGED: readonly ((name: string) => string)[] = [
  (name) => `${name} % 100 + 1`,
  (name) => `left(${name}, 8) || 'u'`,
  (name) => `${name} + 1`,
  (name) => `${name} + interval '1 day'`,
];
const MOST_TABLES = 5;
/** Keys of the table that takes several chunks. */
const MANY = 1500;

export class FuzzedTables {
  readonly #random: Random;
  readonly #layouts: boolean;
  readonly #model: Model = {
    tables: [{ name: 't0', columns: [{ name: 'a', ladder: 1, step: 2, notNull: false }], keyName: 't0_pkey' }],
    away: [],
    left: [],
    names: 1,
  };

  /** `layouts`: also statements about whole tables. */
  constructor(random: Random, layouts: boolean) {
    this.#random = random;
    this.#layouts = layouts;
  }

  /** What is there when it begins. */
  static readonly ddl = `create schema ${ELSEWHERE};
    create table t0 (id int primary key, a text);
    insert into t0 select n, 'v' || n from generate_series(1, ${MANY}) n`;

  /** Whether a table that the source does not have may be there in a target. */
  mayBeLeft(name: string): boolean {
    return this.#model.left.includes(name);
  }

  /** One of the tables. */
  get any(): string {
    return this.#random.pick(this.#model.tables).name;
  }

  /** Some statements, a few of them rolled back to a savepoint, or all. */
  transaction(): string {
    const random = this.#random;
    const some = (): string => Array.from({ length: random.between(1, 3) }, () => this.statement()).join('; ');
    const tables = (): Pick<Model, 'tables' | 'away'> => {
      const { tables: here, away } = this.#model;
      return structuredClone({ tables: here, away });
    };
    const before = tables();
    const first = some();
    const kept = tables();
    const undone = random.between(0, 2) === 0 ? `savepoint s; ${some()}; rollback to s; ` : '';
    Object.assign(this.#model, kept);
    const sql = `begin; ${first}; ${undone}${some()}; `;
    if (random.between(0, 9) > 0) return `${sql}commit`;
    Object.assign(this.#model, before);
    return `${sql}rollback`;
  }

  /** A narrower type, which stops the table in targets until it is read again. */
  narrow(): string | undefined {
    const table = this.#random.pick(this.#model.tables);
    const column = table.columns.find(
      ({ step, passing, name }) => step > 0 && passing === undefined && name !== table.key,
    );
    if (column === undefined) return undefined;
    column.step -= 1;
    table.stopped = true;
    const type = LADDERS[column.ladder]![column.step]!;
    return `alter table ${table.name} alter ${column.name} type ${type} using ${column.name}::${type}`;
  }

  /** The tables that are to be read again. */
  stopped(): string[] {
    const names = this.#model.tables.filter(({ stopped }) => stopped).map(({ name }) => name);
    for (const table of this.#model.tables) table.stopped = false;
    return names;
  }

  /** Takes away what no target follows. */
  tidy(): string[] {
    return this.#model.tables.flatMap((table) =>
      table.columns.filter(({ passing }) => passing !== undefined).map((column) => this.#settle(table, column)),
    );
  }

  statement(): string {
    const random = this.#random;
    const layout = this.#layouts && random.between(0, 3) === 0 ? layoutStatement(this.#model, random) : undefined;
    if (layout !== undefined) return layout;
    const kind = random.between(0, 29);
    if (kind === 0 && this.#model.tables.length < MOST_TABLES) return this.#create();
    if (kind === 1 && this.#model.tables.length > 1) return this.#dropTable();
    const table = random.pick(this.#model.tables);
    if (kind < 4) return this.#addColumn(table);
    if (kind === 4) return this.#addPassing(table);
    if (kind === 5) return `truncate ${table.name}`;
    if (kind === 6) return this.#renameTable(table);
    if (kind === 7) return this.#otherKey(table);
    if (kind === 8) return this.#many(table);
    if (kind === 9 && table.parts !== undefined) return this.#otherPart(table, table.parts);
    if (kind < 16 && table.columns.length > 0) return this.#changeColumn(table, random.pick(table.columns), kind);
    return this.#rows(table);
  }

  #changeColumn(table: Table, column: Column, kind: number): string {
    if (column.passing !== undefined && (column.generated === true || kind < 12)) return this.#settle(table, column);
    if (kind === 10) return this.#renameColumn(table, column);
    if (kind === 11) return this.#widen(table, column);
    if (kind === 12) return this.#preset(table, column);
    // Of a key neither.
    if (table.key === column.name) return this.#rows(table);
    if (kind === 13) return this.#nulls(table, column);
    if (kind === 14) return this.#convert(table, column);
    return table.columns.length > 1 ? this.#dropColumn(table, column) : this.#rows(table);
  }

  #create(): string {
    const name = `t${this.#model.names++}`;
    const table: Table = { name, columns: [], keyName: `${name}_pkey` };
    this.#model.tables.push(table);
    const rows = `insert into ${name} select generate_series(1, ${this.#random.between(0, 20)})`;
    if (this.#random.between(0, 2) > 0) return `create table ${name} (id int primary key); ${rows}`;
    table.parts = [
      { name: `${name}_a`, from: 0, to: 100 },
      { name: `${name}_b`, from: 100, to: 200 },
      { name: `${name}_c`, from: 200, to: 10_000 },
    ];
    const parts = table.parts.map(
      (part) => `create table ${part.name} partition of ${name} for values from (${part.from}) to (${part.to})`,
    );
    return `create table ${name} (id int primary key) partition by range (id); ${parts.join('; ')}; ${rows}`;
  }

  #dropTable(): string {
    const table = this.#random.pick(this.#model.tables);
    this.#model.tables = this.#model.tables.filter((each) => each !== table);
    return `drop table ${table.name}`;
  }

  #renameTable(table: Table): string {
    const name = `t${this.#model.names++}`;
    const sql = `alter table ${table.name} rename to ${name}`;
    renamed(table, name);
    return sql;
  }

  #otherKey(table: Table): string {
    const able = table.columns.filter(({ notNull, generated }) => notNull && generated !== true);
    const { key: had, keyName } = table;
    table.key = had === undefined && able.length > 0 ? this.#random.pick(able).name : undefined;
    table.keyName = `${table.name}_key_${this.#model.names++}`;
    const columns = ['id', ...(table.key === undefined ? [] : [table.key])].join(', ');
    // Of rows that only the column told apart one is left.
    const single =
      had === undefined
        ? ''
        : `delete from ${table.name} a using ${table.name} b where a.id = b.id and a.${had} < b.${had}; `;
    return `${single}alter table ${table.name} drop constraint ${keyName}, add constraint ${table.keyName} primary key (${columns})`;
  }

  /** Empties a partition, or puts another one with rows in its place. */
  #otherPart(table: Table, parts: Part[]): string {
    const index = this.#random.between(0, parts.length - 1);
    const { name: old, from, to } = parts[index]!;
    if (this.#random.between(0, 2) === 0) return `truncate ${old}`;
    const name = `p${this.#model.names++}`;
    parts[index] = { name, from, to };
    const columns = table.columns.filter(({ notNull }) => notNull).filter(({ generated }) => generated !== true);
    const values = ['n', ...columns.map(({ ladder }) => VALUES[ladder]!)].join(', ');
    const bounds = `for values from (${from}) to (${to})`;
    return (
      `alter table ${table.name} detach partition ${old}; drop table ${old}; create table ${name} (like ${table.name} including all); ` +
      `insert into ${name} (${['id', ...columns.map((column) => column.name)].join(', ')}) select ${values} from generate_series(${from}, ${from + 5}) n; ` +
      `${identitySql(table, name)}; alter table ${table.name} attach partition ${name} ${bounds}`
    );
  }

  #addColumn(table: Table): string {
    const ladder = this.#random.between(0, LADDERS.length - 1);
    const rest = this.#random.pick(['', '', ` default ${CONSTANTS[ladder]}`, ` not null default ${CONSTANTS[ladder]}`]);
    const column = { name: `c${this.#model.names++}`, ladder, step: 0, notNull: rest.includes('not null') };
    table.columns.push(column);
    return `alter table ${table.name} add column ${column.name} ${LADDERS[ladder]![0]}${rest}`;
  }

  /** A column whose values no event tells. */
  #addPassing(table: Table): string {
    const random = this.#random;
    const name = `c${this.#model.names++}`;
    const drawn = random.pick(['default', 'default', 'identity', 'generated']);
    // Published tables with generated columns in their identity have updates refused by Postgres itself.
    const kind = drawn === 'generated' && table.full === true ? 'default' : drawn;
    // Partitioned tables have identities since PostgreSQL 17.
    const isIdentity = kind === 'identity' && table.parts === undefined;
    const ladder = kind === 'generated' || isIdentity ? 0 : random.between(0, LADDERS.length - 1);
    const column: Column = { name, ladder, step: 1, notNull: isIdentity };
    table.columns.push(column);
    let sql = `alter table ${table.name} add column ${name} ${LADDERS[ladder]![1]} `;
    if (kind === 'generated') {
      Object.assign(column, { generated: true, passing: 'drop expression' });
      sql += 'generated always as (id * 2) stored';
    } else if (isIdentity) {
      column.passing = 'drop identity';
      sql += 'generated by default as identity';
    } else {
      column.notNull = random.between(0, 1) === 1;
      column.passing = 'drop default';
      sql += `${column.notNull ? 'not null ' : ''}default (${VALUES[ladder]})`;
    }
    // By the time that somebody looks it is gone, or not.
    return random.between(0, 1) === 0 ? sql : `${sql}; ${this.#settle(table, column)}`;
  }

  #settle(table: Table, column: Column): string {
    const { name, passing } = column;
    column.passing = undefined;
    column.generated = false;
    return `alter table ${table.name} alter ${name} ${passing}`;
  }

  #dropColumn(table: Table, column: Column): string {
    table.columns = table.columns.filter((each) => each !== column);
    return `alter table ${table.name} drop column ${column.name}`;
  }

  #renameColumn(table: Table, column: Column): string {
    const name = `c${this.#model.names++}`;
    table.columns = table.columns.map((each) => (each === column ? { ...column, name } : each));
    if (table.key === column.name) table.key = name;
    return `alter table ${table.name} rename column ${column.name} to ${name}`;
  }

  #widen(table: Table, column: Column): string {
    const ladder = LADDERS[column.ladder]!;
    column.step = Math.min(ladder.length - 1, column.step + 1);
    return `alter table ${table.name} alter ${column.name} type ${ladder[column.step]}`;
  }

  #convert(table: Table, { name, ladder, step, passing }: Column): string {
    if (passing !== undefined) return this.#rows(table);
    const type = LADDERS[ladder]![step]!;
    return `alter table ${table.name} alter ${name} type ${type} using (${CHANGED[ladder]!(name)})::${type}`;
  }

  #preset(table: Table, { name, ladder, passing }: Column): string {
    if (passing !== undefined) return this.#rows(table);
    return `alter table ${table.name} alter ${name} ${this.#random.pick([`set default ${CONSTANTS[ladder]}`, 'drop default'])}`;
  }

  #nulls(table: Table, column: Column): string {
    const { name, ladder, passing } = column;
    // An identity is never NULL.
    if (passing !== undefined) return this.#rows(table);
    column.notNull = this.#random.between(0, 1) === 1;
    if (!column.notNull) return `alter table ${table.name} alter ${name} drop not null`;
    return `update ${table.name} set ${name} = ${CONSTANTS[ladder]} where ${name} is null; alter table ${table.name} alter ${name} set not null`;
  }

  #many(table: Table): string {
    return this.#upsert(table, 1, MANY);
  }

  #rows(table: Table): string {
    const random = this.#random;
    const from = random.between(1, 200);
    const to = from + random.pick([0, 0, 3, 30]);
    if (random.between(0, 2) === 0) return `delete from ${table.name} where id between ${from} and ${to}`;
    return this.#upsert(table, from, to);
  }

  #upsert(table: Table, from: number, to: number): string {
    const columns = table.columns.filter(({ generated }) => generated !== true);
    const names = columns.map((column) => column.name);
    const values = columns.map(({ ladder, notNull }) =>
      notNull ? VALUES[ladder]! : `case when random() < 0.8 then ${VALUES[ladder]!} end`,
    );
    const sets = names.map((name) => `${name} = excluded.${name}`).join(', ');
    const key = ['id', ...(table.key === undefined ? [] : [table.key])].join(', ');
    return (
      `insert into ${table.name} (${['id', ...names].join(', ')}) select ${['n', ...values].join(', ')} from generate_series(${from}, ${to}) n` +
      ` on conflict (${key}) do ${sets === '' ? 'nothing' : `update set ${sets}`}`
    );
  }
}
