/** Random changes of rows and definitions at a source of MySQL or MariaDB, with stages that are killed in between. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { parseConfig, type Config } from '../../core/config.ts';
import { plainMysqlType } from '../../core/mysql-type-widening.ts';
import type { Random } from '../../sandbox/demo/random.ts';
import type { MysqlServer } from '../../sandbox/mysql.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import { AnyClient } from './cross-pipeline.ts';
import { killAtRandom } from './random-kill.ts';
import { Stage } from './stage.ts';
import { waitFor } from './wait.ts';

/** Types by their index: a column only ever moves along one of these. */
const LADDERS: readonly (readonly string[])[] = [
  ['smallint', 'int', 'bigint'],
  ['varchar(10)', 'varchar(30)', 'text'],
  ['decimal(8,2)', 'decimal(12,2)', 'decimal(16,4)'],
  ['date', 'datetime'],
];
const CONSTANTS = ['7', "'new'", '1.25', "'2026-05-05'"];
/** Rows that come at once now and then. */
const MANY = 310;
const SEQUENCE = Array.from({ length: MANY }, (_, i) => `select ${i} as n`).join(' union all ');
const STAGES = ['capture', 'apply'] as const;
const POINTS = {
  capture: [
    undefined,
    'capture.published-before-ack',
    'capture.acked',
    'capture.mid-snapshot',
    'capture.mid-transaction',
    'capture.before-reread',
  ],
  apply: [undefined, 'apply.table-changed', 'apply.before-commit', 'apply.committed'],
} as const;
/** Of each side, in what is said of a difference. */
const MOST_LINES = 20;
/** Rows of a chunk: tables take several. */
const CHUNK_ROWS = 40;

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

export class MysqlSchemaFuzz {
  readonly #random: Random;
  readonly #config: Config;
  readonly #folder: string;
  readonly #stages: Readonly<Record<(typeof STAGES)[number], Stage>>;
  readonly #source: AnyClient;
  readonly #target: AnyClient;
  readonly #databases: readonly [string, string];
  readonly log: string[] = [];
  kills = 0;
  #tables: Table[] = [{ name: 't0', columns: [{ name: 'a', ladder: 1, step: 1, notNull: false }] }];
  #names = 1;

  private constructor(
    random: Random,
    config: Config,
    folder: string,
    clients: readonly [AnyClient, AnyClient],
    databases: readonly [string, string],
  ) {
    this.#random = random;
    this.#config = config;
    this.#folder = folder;
    [this.#source, this.#target] = clients;
    this.#databases = databases;
    const stage = (only: string): Stage =>
      new Stage({ configFile: join(folder, 'waybill.json'), only, logFile: join(folder, 'log'), leaseTtlMs: 1000 });
    this.#stages = { capture: stage('capture:one'), apply: stage('apply:mirror') };
  }

  static async open(server: MysqlServer, nats: NatsServer, random: Random): Promise<MysqlSchemaFuzz> {
    const id = `f${randomUUID().slice(0, 8)}`;
    const databases = [`${id}_source`, `${id}_target`] as const;
    const urls = [await server.createDatabase(databases[0]), await server.createDatabase(databases[1])] as const;
    const text = JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], prefix: id, stream: { sync_interval: '1s', max_bytes: '256MB' } },
      sources: {
        one: {
          kind: server.flavour,
          url: urls[0],
          tables: [`${databases[0]}.*`],
          heartbeat: '200ms',
          snapshot_chunk_rows: CHUNK_ROWS,
        },
      },
      targets: { two: { kind: server.flavour, url: urls[1] } },
      flows: {
        mirror: { mirror: 'one', to: 'two', schema: databases[1], dropped_columns: 'drop', dropped_tables: 'drop' },
      },
    });
    const folder = await mkdtemp(join(tmpdir(), 'waybill-fuzz-'));
    await writeFile(join(folder, 'waybill.json'), text);
    const clients = [
      await AnyClient.open(server.flavour, urls[0]),
      await AnyClient.open(server.flavour, urls[1]),
    ] as const;
    const fuzz = new MysqlSchemaFuzz(random, parseConfig(text, {}), folder, clients, databases);
    await fuzz.#source.run('create table t0 (id int primary key, a varchar(30))');
    for (const stage of STAGES) fuzz.#stages[stage].start();
    await fuzz.equal();
    return fuzz;
  }

  async close(): Promise<void> {
    for (const stage of STAGES) await this.#stages[stage].end('SIGKILL');
    await this.#source.close();
    await this.#target.close();
    await rm(this.#folder, { recursive: true });
  }

  /** A dozen steps; a stage may be killed at any of them, at once or at a point where it is in the middle of something. */
  async sequence(): Promise<void> {
    const random = this.#random;
    for (let step = random.between(4, 12); step > 0; step--) {
      await this.#run(random.between(0, 3) === 0 ? this.#transaction() : this.#statement());
      if (random.between(0, 11) === 0) await this.#reread();
      if (random.between(0, 7) === 0) await this.#kill();
    }
  }

  async #run(sql: string): Promise<void> {
    this.log.push(sql);
    await this.#source.run(sql);
  }

  async #kill(): Promise<void> {
    const name = this.#random.pick(STAGES);
    const chosen = await killAtRandom(this.#random, this.#stages[name], POINTS[name]);
    this.log.push(`-- kill ${name} ${chosen}`);
    this.kills += 1;
  }

  async #reread(): Promise<void> {
    const { name } = this.#random.pick(this.#tables);
    this.log.push(`-- read ${name} again`);
    await requestSnapshot(this.#config.nats, 'one', { tables: [`${this.#databases[0]}.${name}`] });
  }

  #statement(): string {
    const random = this.#random;
    const kind = random.between(0, 19);
    if (kind === 0 && this.#tables.length < 4) return this.#create();
    if (kind === 1 && this.#tables.length > 1) return this.#dropTable();
    const table = random.pick(this.#tables);
    if (kind < 4) return this.#addColumn(table);
    if (table.columns.length > 0) {
      if (kind === 4 && table.columns.length > 1) return this.#dropColumn(table);
      if (kind === 5) return this.#renameColumn(table);
      if (kind === 6) return this.#widen(table);
      if (kind === 7) return this.#preset(table);
      if (kind === 8) return this.#nulls(table);
    }
    if (kind === 9) return `truncate ${table.name}`;
    return this.#rows(table);
  }

  #create(): string {
    const name = `t${this.#names++}`;
    this.#tables.push({ name, columns: [] });
    return `create table ${name} (id int primary key); insert into ${name} values ${Array.from({ length: this.#random.between(1, 20) }, (_, i) => `(${i})`).join(', ')}`;
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
    return `alter table ${table.name} modify ${column.name} ${ladder[column.step]}${column.notNull ? ' not null' : ''}`;
  }

  #preset(table: Table): string {
    const { name, ladder, step } = this.#random.pick(table.columns);
    const text = LADDERS[ladder]![step] === 'text';
    const action = text ? 'drop default' : this.#random.pick([`set default ${CONSTANTS[ladder]}`, 'drop default']);
    return `alter table ${table.name} alter ${name} ${action}`;
  }

  #nulls(table: Table): string {
    const column = this.#random.pick(table.columns);
    const { name, ladder, step } = column;
    column.notNull = this.#random.between(0, 1) === 1;
    const modify = `alter table ${table.name} modify ${name} ${LADDERS[ladder]![step]}${column.notNull ? ' not null' : ' null'}`;
    return column.notNull
      ? `update ${table.name} set ${name} = ${CONSTANTS[ladder]} where ${name} is null; ${modify}`
      : modify;
  }

  #value({ ladder, notNull }: Column): string {
    const n = this.#random.between(0, 99);
    if (!notNull && n % 5 === 0) return 'null';
    return [`${n}`, `'v${n}'`, `${n}.${n % 10}5`, `date '2026-01-01' + interval ${n} day`][ladder]!;
  }

  /** Changes of rows that come together, some of which are undone, or all. */
  #transaction(): string {
    const random = this.#random;
    const statements = Array.from({ length: random.between(1, 4) }, () => this.#rows(random.pick(this.#tables)));
    if (random.between(0, 2) === 0)
      statements.push('savepoint s', this.#rows(random.pick(this.#tables)), 'rollback to s');
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
    const columns = table.columns.map((column) => column.name);
    const values = table.columns.map((column) => this.#value(column));
    const sets = (columns.length === 0 ? ['id'] : columns).map((name) => `${name} = values(${name})`).join(', ');
    return (
      `insert into ${table.name} (${['id', ...columns].join(', ')}) select ${[`${from} + n`, ...values].join(', ')}` +
      ` from (${SEQUENCE}) s where n < ${count} on duplicate key update ${sets}`
    );
  }

  /** Waits until all tables of the source are in the target, with the same definitions and rows. */
  async equal(): Promise<void> {
    const read = async (client: AnyClient, database: string): Promise<string[]> => {
      const columns = await client.run(
        `select table_name, column_name, column_type, is_nullable, column_key = 'PRI' from information_schema.columns
          where table_schema = '${database}' order by 1, 2`,
      );
      const lines = columns.map(([table, name, type, ...rest]) =>
        // Texts of whatever length are long ones in a target.
        [table, name, plainMysqlType(String(type)).replace(/^longtext$/, 'text'), ...rest].join(' '),
      );
      for (const table of new Set(columns.map(([name]) => String(name)))) {
        const names = columns.filter(([name]) => name === table).map(([, name]) => `\`${String(name)}\``);
        const rows = await client.run(`select ${names.join(', ')} from ${database}.${table} order by id`);
        lines.push(...rows.map((row) => `${table}: ${row.map(String).join(' | ')}`));
      }
      return lines;
    };
    let last: readonly string[][] = [];
    try {
      await waitFor(
        'both sides to be equal',
        async () => {
          for (const stage of STAGES)
            // One that killed itself where it was told to.
            if (!this.#stages[stage].running) this.#stages[stage].start();
          const source = await read(this.#source, this.#databases[0]);
          const target = await read(this.#target, this.#databases[1]);
          last = [source, target];
          return JSON.stringify(last[0]) === JSON.stringify(last[1]);
        },
        60_000,
      );
    } catch (thrown) {
      const [source = [], target = []] = last;
      const output = await readFile(join(this.#folder, 'log'), 'utf8');
      const lines = [
        ...source
          .filter((line) => !target.includes(line))
          .map((line) => `- ${line}`)
          .slice(0, MOST_LINES),
        ...target
          .filter((line) => !source.includes(line))
          .map((line) => `+ ${line}`)
          .slice(0, MOST_LINES),
        ...(
          await this.#target.run("select table_name, state, reason from waybill.tables where state <> 'follows'")
        ).map((row) => `! ${row.join(' ')}`),
        ...output.split('\n').slice(-40),
      ];
      throw new Error(`not equal:\n${lines.join('\n')}`, { cause: thrown });
    }
  }
}
