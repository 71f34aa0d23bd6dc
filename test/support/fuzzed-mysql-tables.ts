/** Random statements about the tables of a MySQL or MariaDB source, with what the tables are after them. */
import type { Random } from '../../sandbox/demo/random.ts';
import { layoutStatement } from './fuzzed-mysql-layouts.ts';
import { CONSTANTS, LADDERS, typeOf, valueOf, type Column, type Model, type Table } from './fuzzed-mysql-model.ts';

/** Rows that come at once now and then, and their numbers as a query. */
const MANY = 310;
export const SEQUENCE = Array.from({ length: MANY }, (_, i) => `select ${i} as n`).join(' union all ');

export class FuzzedMysqlTables {
  readonly #random: Random;
  readonly #model: Model;

  constructor(random: Random, model: Model) {
    this.#random = random;
    this.#model = model;
  }

  /** What is there when it begins: the first model. */
  static readonly ddl = 'create table t0 (id int primary key, a varchar(30))';

  /** One statement, or some that belong together. */
  statement(): string {
    const random = this.#random;
    const layout = random.between(0, 2) === 0 ? layoutStatement(this.#model, random) : undefined;
    if (layout !== undefined) return layout;
    const kind = random.between(0, 19);
    if (kind === 0 && this.#model.tables.length < 4) return this.#create();
    if (kind === 1 && this.#model.tables.length > 1) return this.#dropTable();
    const table = random.pick(this.#model.tables);
    if (kind < 4) return this.#addColumn(table);
    const columns = table.columns.filter(({ name, generated }) => name !== table.key && generated !== true);
    if (columns.length > 0) {
      const column = random.pick(columns);
      if (kind === 4) return this.#dropColumn(table, column);
      if (kind === 5) return this.#renameColumn(table, column);
      if (kind === 6) return this.#widen(table, column);
      if (kind === 7) return this.#preset(table, column);
      if (kind === 8) return this.#nulls(table, column);
    }
    if (kind === 9) return `truncate ${table.name}`;
    return this.#rows(table);
  }

  #create(): string {
    const name = `t${this.#model.names++}`;
    this.#model.tables.push({ name, columns: [] });
    return `create table ${name} (id int primary key); insert into ${name} values ${Array.from({ length: this.#random.between(1, 20) }, (_, i) => `(${i})`).join(', ')}`;
  }

  #dropTable(): string {
    const table = this.#random.pick(this.#model.tables);
    this.#model.tables = this.#model.tables.filter((each) => each !== table);
    return `drop table ${table.name}`;
  }

  #addColumn(table: Table): string {
    const ladder = this.#random.between(0, LADDERS.length - 1);
    const rest = this.#random.pick(['', '', ` default ${CONSTANTS[ladder]}`, ` not null default ${CONSTANTS[ladder]}`]);
    const column = { name: `c${this.#model.names++}`, ladder, step: 0, notNull: rest.includes('not null') };
    table.columns.push(column);
    return `alter table ${table.name} add column ${column.name} ${LADDERS[ladder]![0]}${rest}`;
  }

  #dropColumn(table: Table, column: Column): string {
    table.columns = table.columns.filter((each) => each !== column);
    return `alter table ${table.name} drop column ${column.name}`;
  }

  #renameColumn(table: Table, column: Column): string {
    const name = `c${this.#model.names++}`;
    table.columns = table.columns.map((each) => (each === column ? { ...column, name } : each));
    return `alter table ${table.name} rename column ${column.name} to ${name}`;
  }

  #widen(table: Table, column: Column): string {
    const ladder = LADDERS[column.ladder]!;
    column.step = Math.min(ladder.length - 1, column.step + 1);
    return `alter table ${table.name} modify ${column.name} ${typeOf(column)}`;
  }

  #preset(table: Table, { name, ladder, step }: Column): string {
    const text = LADDERS[ladder]![step] === 'text';
    const action = text ? 'drop default' : this.#random.pick([`set default ${CONSTANTS[ladder]}`, 'drop default']);
    return `alter table ${table.name} alter ${name} ${action}`;
  }

  #nulls(table: Table, column: Column): string {
    const { name, ladder, step } = column;
    column.notNull = this.#random.between(0, 1) === 1;
    const modify = `alter table ${table.name} modify ${name} ${LADDERS[ladder]![step]}${column.notNull ? ' not null' : ' null'}`;
    return column.notNull
      ? `update ${table.name} set ${name} = ${CONSTANTS[ladder]} where ${name} is null; ${modify}`
      : modify;
  }

  /** Changes of rows that come together, some of which are undone, or all. */
  transaction(): string {
    const random = this.#random;
    const statements = Array.from({ length: random.between(1, 4) }, () => this.#rows(random.pick(this.#model.tables)));
    if (random.between(0, 2) === 0)
      statements.push('savepoint s', this.#rows(random.pick(this.#model.tables)), 'rollback to s');
    return ['begin', ...statements, random.between(0, 5) === 0 ? 'rollback' : 'commit'].join('; ');
  }

  #rows(table: Table): string {
    const random = this.#random;
    const from = random.between(1, 200);
    // Rows get other keys.
    if (random.between(0, 7) === 0)
      return `update ignore ${table.name} set id = id + ${random.pick([1000, 2000, 4000])} where id between ${from} and ${from + 9}`;
    const count = random.pick([1, 1, 4, 31, MANY]);
    if (random.between(0, 2) === 0) return `delete from ${table.name} where id between ${from} and ${from + count - 1}`;
    const stored = table.columns.filter(({ generated }) => generated !== true);
    const columns = stored.map((column) => column.name);
    const values = stored.map((column) => valueOf(column, random));
    const sets = (columns.length === 0 ? ['id'] : columns).map((name) => `${name} = values(${name})`).join(', ');
    return (
      `insert into ${table.name} (${['id', ...columns].join(', ')}) select ${[`${from} + n`, ...values].join(', ')}` +
      ` from (${SEQUENCE}) s where n < ${count} on duplicate key update ${sets}`
    );
  }
}
