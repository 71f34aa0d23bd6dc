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
import { narrow, settle } from './fuzzed-mysql-layouts.ts';
import { firstModel, type Model, type Table } from './fuzzed-mysql-model.ts';
import { FuzzedMysqlTables, SEQUENCE } from './fuzzed-mysql-tables.ts';
import { killAtRandom } from './random-kill.ts';
import { Stage } from './stage.ts';
import { waitFor } from './wait.ts';

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

export class MysqlSchemaFuzz {
  readonly #random: Random;
  readonly #config: Config;
  readonly #folder: string;
  readonly #stages: Readonly<Record<(typeof STAGES)[number], Stage>>;
  readonly #source: AnyClient;
  readonly #target: AnyClient;
  readonly #databases: readonly [string, string];
  readonly #model: Model;
  readonly #tables: FuzzedMysqlTables;
  readonly log: string[] = [];
  kills = 0;

  private constructor(
    random: Random,
    config: Config,
    folder: string,
    clients: readonly [AnyClient, AnyClient],
    databases: readonly [string, string],
    model: Model,
  ) {
    this.#random = random;
    this.#config = config;
    this.#folder = folder;
    [this.#source, this.#target] = clients;
    this.#databases = databases;
    this.#model = model;
    this.#tables = new FuzzedMysqlTables(random, model);
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
    const elsewhere = `${id}_elsewhere`;
    await server.createDatabase(elsewhere);
    const model = firstModel(server.flavour, elsewhere);
    const fuzz = new MysqlSchemaFuzz(random, parseConfig(text, {}), folder, clients, databases, model);
    await fuzz.#source.run(FuzzedMysqlTables.ddl);
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
      await this.#run(random.between(0, 3) === 0 ? this.#tables.transaction() : this.#tables.statement());
      if (random.between(0, 11) === 0) await this.#reread(random.pick(this.#model.tables));
      const narrowed = random.between(0, 19) === 0 ? narrow(random.pick(this.#model.tables)) : undefined;
      if (narrowed !== undefined) await this.#run(narrowed);
      if (random.between(0, 7) === 0) await this.#kill();
    }
    for (const table of this.#model.tables) {
      for (const column of table.columns) if (column.generated === true) await this.#run(settle(table, column));
    }
  }

  async #run(sql: string): Promise<void> {
    this.log.push(sql.replaceAll(SEQUENCE, '…'));
    await this.#source.run(sql);
  }

  async #kill(): Promise<void> {
    const name = this.#random.pick(STAGES);
    const chosen = await killAtRandom(this.#random, this.#stages[name], POINTS[name]);
    this.log.push(`-- kill ${name} ${chosen}`);
    this.kills += 1;
  }

  /** Who sees that a table is stopped asks for it, where there is a reason. */
  async #rereadStopped(): Promise<void> {
    const rows = await this.#target.run("select table_name, reason from waybill.tables where state = 'stopped'");
    for (const [name, reason] of rows) {
      const table = this.#model.tables.find((each) => each.name === name);
      if (table?.stopped !== true || table.asked === reason) continue;
      await this.#reread(table);
      table.asked = String(reason);
    }
  }

  async #reread({ name }: Table): Promise<void> {
    this.log.push(`-- read ${name} again`);
    await requestSnapshot(this.#config.nats, 'one', { tables: [`${this.#databases[0]}.${name}`] });
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
          await this.#rereadStopped();
          const source = await read(this.#source, this.#databases[0]);
          const names = new Set(source.map(tableOf));
          const target = (await read(this.#target, this.#databases[1])).filter(
            (line) => names.has(tableOf(line)) || !this.#model.left.includes(tableOf(line)),
          );
          last = [source, target];
          return JSON.stringify(last[0]) === JSON.stringify(last[1]);
        },
        60_000,
      );
      for (const table of this.#model.tables) Object.assign(table, { stopped: false, asked: undefined });
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

/** The table of a line of its definition, or of a row. */
function tableOf(line: string): string {
  return /^[^ :]+/.exec(line)?.[0] ?? '';
}
