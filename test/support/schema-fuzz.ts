/** Random changes of rows and definitions at a Postgres source, with reads of tables and restarts in between. */
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import type { Random } from '../../sandbox/demo/random.ts';
import type { SchemaCase } from './schema-case.ts';

/** Types by their index: a column only ever moves along one of these. */
const LADDERS: readonly (readonly string[])[] = [
  ['smallint', 'int', 'bigint', 'numeric'],
  ['varchar(10)', 'varchar(30)', 'text'],
  ['numeric(8,2)', 'numeric(12,2)', 'numeric(16,4)'],
  ['date', 'timestamp'],
];
const VALUES = [
  'floor(random() * 100)',
  "'v' || floor(random() * 1000)",
  'round((random() * 100)::numeric, 2)',
  "date '2026-01-01' + floor(random() * 300)::int",
];
const CONSTANTS = ['7', "'new'", '1.25', "'2026-05-05'"];

interface Column {
  readonly name: string;
  readonly ladder: number;
  step: number;
  notNull: boolean;
}

interface Table {
  readonly name: string;
  columns: Column[];
}

export class SchemaFuzz {
  readonly #it: SchemaCase;
  readonly #random: Random;
  readonly log: string[] = [];
  restarts = 0;
  #tables: Table[] = [{ name: 't0', columns: [{ name: 'a', ladder: 1, step: 2, notNull: false }] }];
  #names = 1;

  constructor(it: SchemaCase, random: Random) {
    this.#it = it;
    this.#random = random;
  }

  /** A dozen steps, some of them together in a transaction, some while a stage is away. */
  async sequence(): Promise<void> {
    const random = this.#random;
    const away = random.pick(['', '', '', 'capture', 'apply']) as '' | 'capture' | 'apply';
    if (away !== '') await this.#restart(away, false);
    for (let step = random.between(4, 12); step > 0; step--) {
      const together = random.between(0, 3) === 0;
      await this.#run(together ? this.#transaction() : this.#statement());
      if (random.between(0, 9) === 0) await this.#reread();
    }
    if (away !== '') await this.#restart(away, true);
    else if (random.between(0, 3) === 0) {
      const stage = random.pick(['capture', 'apply'] as const);
      await this.#restart(stage, false);
      await this.#restart(stage, true);
    }
  }

  /** Some statements, a few of them rolled back to a savepoint, or all. */
  #transaction(): string {
    const random = this.#random;
    const some = (): string => Array.from({ length: random.between(1, 3) }, () => this.#statement()).join('; ');
    const before = structuredClone(this.#tables);
    const first = some();
    const kept = structuredClone(this.#tables);
    const undone = random.between(0, 2) === 0 ? `savepoint s; ${some()}; rollback to s; ` : '';
    this.#tables = kept;
    const sql = `begin; ${first}; ${undone}${some()}; `;
    if (random.between(0, 9) > 0) return `${sql}commit`;
    this.#tables = before;
    return `${sql}rollback`;
  }

  async #run(sql: string): Promise<void> {
    this.log.push(sql);
    await this.#it.run(sql);
  }

  async #restart(stage: 'capture' | 'apply', start: boolean): Promise<void> {
    this.log.push(`-- ${start ? 'start' : 'stop'} ${stage}`);
    if (start) this.#it.pipe.start([stage]);
    else await this.#it.pipe.stop([stage]);
    this.restarts += start ? 1 : 0;
  }

  async #reread(): Promise<void> {
    const { name } = this.#random.pick(this.#tables);
    this.log.push(`-- read ${name} again`);
    await requestSnapshot(this.#it.pipe.config.nats, 'wms', { tables: [`public.${name}`] });
  }

  #statement(): string {
    const random = this.#random;
    const kind = random.between(0, 19);
    if (kind === 0 && this.#tables.length < 4) return this.#create();
    if (kind === 1 && this.#tables.length > 1) return this.#dropTable();
    const table = random.pick(this.#tables);
    if (kind < 4) return this.#addColumn(table);
    if (kind === 4 && table.columns.length > 1) return this.#dropColumn(table);
    if (kind === 5 && table.columns.length > 0) return this.#renameColumn(table);
    if (kind === 6 && table.columns.length > 0) return this.#widen(table);
    if (kind === 7 && table.columns.length > 0) return this.#preset(table);
    if (kind === 8 && table.columns.length > 0) return this.#nulls(table);
    if (kind === 9) return `truncate ${table.name}`;
    return this.#rows(table);
  }

  #create(): string {
    const name = `t${this.#names++}`;
    this.#tables.push({ name, columns: [] });
    return `create table ${name} (id int primary key); insert into ${name} select generate_series(1, ${this.#random.between(0, 20)})`;
  }

  #dropTable(): string {
    const table = this.#random.pick(this.#tables);
    this.#tables = this.#tables.filter((each) => each !== table);
    return `drop table ${table.name}`;
  }

  #addColumn(table: Table): string {
    const ladder = this.#random.between(0, LADDERS.length - 1);
    const rest = this.#random.pick(['', '', ` default ${CONSTANTS[ladder]}`, ` not null default ${CONSTANTS[ladder]}`]);
    const column = { name: `c${this.#names++}`, ladder, step: 0, notNull: rest.includes('not null') };
    table.columns.push(column);
    return `alter table ${table.name} add column ${column.name} ${LADDERS[ladder]![0]}${rest}`;
  }

  #dropColumn(table: Table): string {
    const column = this.#random.pick(table.columns);
    table.columns = table.columns.filter((each) => each !== column);
    return `alter table ${table.name} drop column ${column.name}`;
  }

  #renameColumn(table: Table): string {
    const column = this.#random.pick(table.columns);
    const name = `c${this.#names++}`;
    table.columns = table.columns.map((each) => (each === column ? { ...column, name } : each));
    return `alter table ${table.name} rename column ${column.name} to ${name}`;
  }

  #widen(table: Table): string {
    const column = this.#random.pick(table.columns);
    const ladder = LADDERS[column.ladder]!;
    column.step = Math.min(ladder.length - 1, column.step + 1);
    return `alter table ${table.name} alter ${column.name} type ${ladder[column.step]}`;
  }

  #preset(table: Table): string {
    const { name, ladder } = this.#random.pick(table.columns);
    return `alter table ${table.name} alter ${name} ${this.#random.pick([`set default ${CONSTANTS[ladder]}`, 'drop default'])}`;
  }

  #nulls(table: Table): string {
    const column = this.#random.pick(table.columns);
    const { name, ladder } = column;
    column.notNull = this.#random.between(0, 1) === 1;
    if (!column.notNull) return `alter table ${table.name} alter ${name} drop not null`;
    return `update ${table.name} set ${name} = ${CONSTANTS[ladder]} where ${name} is null; alter table ${table.name} alter ${name} set not null`;
  }

  #rows(table: Table): string {
    const random = this.#random;
    const from = random.between(1, 200);
    const to = from + random.pick([0, 0, 3, 30]);
    if (random.between(0, 2) === 0) return `delete from ${table.name} where id between ${from} and ${to}`;
    const columns = table.columns.map((column) => column.name);
    const values = table.columns.map(({ ladder, notNull }) =>
      notNull ? VALUES[ladder]! : `case when random() < 0.8 then ${VALUES[ladder]!} end`,
    );
    const sets = columns.map((name) => `${name} = excluded.${name}`).join(', ');
    return (
      `insert into ${table.name} (${['id', ...columns].join(', ')}) select ${['n', ...values].join(', ')} from generate_series(${from}, ${to}) n` +
      ` on conflict (id) do ${sets === '' ? 'nothing' : `update set ${sets}`}`
    );
  }
}
