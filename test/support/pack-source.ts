/** A mapping pack on a real database: its tables are captured, their frames decoded and mapped, as in a flow. */
import { resolve } from 'node:path';
import { randomUUID } from 'node:crypto';
import { createConnection } from 'mysql2/promise';
import pg from 'pg';
import { runMysqlCapture } from '../../capture/mysql/capture.ts';
import { matchingTables as mysqlTables } from '../../capture/mysql/catalog.ts';
import { connectSource as connectMysql } from '../../capture/mysql/connection.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { matchingTables as postgresTables } from '../../capture/postgres/publication.ts';
import { cdcStreamName, readFrames } from '../../core/cdc-stream.ts';
import { parseConfig, type SourceConfig } from '../../core/config.ts';
import { decodeFrame, type TableSchema } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { ORIGIN } from '../../core/position.ts';
import type { MysqlServer } from '../../sandbox/mysql.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { compileMapping } from '../../transform/mapping/block-plan.ts';
import type { ContributionChange } from '../../transform/mapping/contribution-change.ts';
import { checkMapping } from '../../transform/mapping/check.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import { loadMapping } from '../../transform/mapping/mapping-file.ts';
import { loadFunctions } from '../../transform/mapping/mapping-functions.ts';
import { shown, summary } from './mapped-tables.ts';
import { waitFor } from './wait.ts';

export interface PackOptions {
  readonly pack: string;
  readonly server: PostgresServer | MysqlServer;
  readonly nats: NatsServer;
  /** Makes the tables and the first rows. */
  readonly ddl: string;
  readonly zone?: string;
  /** Entities to map; left out: all of the pack. */
  readonly entity?: string;
  /** Entities that are only told beside it. */
  readonly evidence?: readonly string[];
}

const MARKER = 'waybill_marker';

export class PackSource {
  readonly #run: (sql: string) => Promise<void>;
  readonly #end: () => Promise<void>;
  readonly #nats: Nats;
  readonly #engine: MappingEngine;
  readonly #stop = new AbortController();
  readonly #stages: Promise<void>[] = [];
  readonly #contributions = new Map<string, ContributionChange>();
  /** What the mapping says of the source's real tables: empty when all is well. */
  readonly problems: readonly string[];
  #changes: ContributionChange[] = [];
  #marks = 0;
  #seen = 0;
  /** Tables of the source, and how many of them have been read whole. */
  #tables = 0;
  #loaded = 0;
  #failure: unknown;
  /** The time that expiries are compared with, in microseconds since 1970. */
  nowUs = Date.now() * 1000;

  private constructor(parts: {
    run: (sql: string) => Promise<void>;
    end: () => Promise<void>;
    nats: Nats;
    engine: MappingEngine;
    problems: readonly string[];
  }) {
    this.#run = parts.run;
    this.#end = parts.end;
    this.#nats = parts.nats;
    this.#engine = parts.engine;
    this.problems = parts.problems;
  }

  /** Resolves when the tables have been read whole and mapped. */
  static async open(options: PackOptions): Promise<PackSource> {
    const { pack, server, nats: natsServer, ddl, zone, entity, evidence = [] } = options;
    const id = `p${randomUUID().slice(0, 8)}`;
    const url = await server.createDatabase(id);
    const kind = 'flavour' in server ? server.flavour : 'postgres';
    const config = parseConfig(
      JSON.stringify({
        version: 1,
        nats: { servers: [natsServer.url], prefix: id, stream: { sync_interval: '0s', max_bytes: '64MB' } },
        sources: { system: { kind, url, heartbeat: '1s', ...(kind === 'postgres' ? {} : { tables: [`${id}.*`] }) } },
      }),
      {},
    );
    const settings = config.sources['system']!;
    const { run, end } = await connect(settings);
    await run(`create table ${MARKER} (id int primary key); ${ddl}`);
    const mapping = loadMapping(resolve(import.meta.dirname, `../../transform/packs/${pack}/mapping.yaml`), { zone });
    const functions = await loadFunctions(mapping);
    const plan = compileMapping(mapping, functions, entity, evidence);
    const tables = await catalog(settings);
    const problems = checkMapping(compileMapping(mapping, functions, entity, evidence), tables, functions).map(
      ({ path, message }) => `${path.join('.')}: ${message}`,
    );
    const nats = await connectNats(config.nats, 'test');
    const source = new PackSource({ run, end, nats, engine: new MappingEngine({ source: pack, plan }), problems });
    source.#tables = tables.length;
    const shared = {
      name: 'system',
      nats: config.nats,
      holder: 'test',
      leaseTtlMs: 5000,
      log: createLogger('silent'),
      signal: source.#stop.signal,
    };
    source.#keep(
      settings.kind === 'postgres'
        ? runPostgresCapture({ ...shared, settings })
        : runMysqlCapture({ ...shared, settings }),
    );
    const stream = cdcStreamName(id, 'system');
    await source.#wait('the stream', async () => (await nats.manager.streams.info(stream)).state.messages > 0);
    source.#keep(source.#read(stream));
    await source.settle();
    return source;
  }

  #keep(stage: Promise<void>): void {
    this.#stages.push(
      stage.catch((thrown: unknown) => {
        if (!this.#stop.signal.aborted) this.#failure ??= thrown;
      }),
    );
  }

  async #wait(what: string, probe: () => Promise<boolean>): Promise<void> {
    await waitFor(what, async () => this.#failure !== undefined || (await probe()));
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #read(stream: string): Promise<void> {
    const { signal } = this.#stop;
    const loaded = new Set<string>();
    for await (const frame of readFrames(this.#nats, stream, { startSeq: 1, position: ORIGIN, signal })) {
      const { rows, tx, tables } = decodeFrame(frame.payload, frame.place);
      let at = 0;
      for (const entry of tx) {
        for (const end = at + entry[4]; at < end; at++) {
          const row = rows[at]!;
          const table = tables[row[1]];
          this.#engine.apply(row, tables, { position: entry[1], timeUs: entry[3] });
          if (row[0] === 's' && (row[2] as string[])[1] === 'end') loaded.add(table!.name);
          if (table?.name === MARKER && (row[0] === 'i' || row[0] === 'r'))
            this.#seen = Number((row[2] as string[])[0]);
        }
        if (entry[5] === 'whole' || entry[5] === 'last') this.#flush();
      }
      this.#loaded = loaded.size;
    }
  }

  #flush(): void {
    for (const change of this.#engine.flush(this.nowUs)) {
      this.#changes.push(change);
      const id = `${change.index}\u0000${change.key}`;
      if (change.values === undefined && change.held.size === 0) this.#contributions.delete(id);
      else this.#contributions.set(id, change);
    }
  }

  /** Runs statements in the source and waits until their changes are mapped; gives what the flow would see. */
  async execute(...statements: string[]): Promise<unknown[]> {
    this.#changes = [];
    for (const statement of statements) await this.#run(statement);
    await this.settle();
    return summary(this.#changes);
  }

  /** Waits until all that the source has written is mapped. */
  async settle(): Promise<void> {
    const mark = (this.#marks += 1);
    await this.#run(`insert into ${MARKER} values (${mark})`);
    await this.#wait(`mark ${mark}`, () => Promise.resolve(this.#seen >= mark));
    if (mark > 1) return;
    // The tables are read beside the log.
    await this.#wait(`${this.#tables} tables`, () => Promise.resolve(this.#loaded >= this.#tables));
  }

  /** Lets time pass: what has expired by `nowUs` is taken out. */
  advance(nowUs: number): unknown[] {
    this.#changes = [];
    this.nowUs = nowUs;
    this.#engine.advance(nowUs);
    this.#flush();
    return summary(this.#changes);
  }

  /** Records of an entity as their fields that hold something; what several blocks say of one is put together. */
  records(entity: string): Record<string, string>[] {
    const records = new Map<string, Record<string, string>>();
    for (const { block, key, values } of this.#contributions.values())
      if (block.block.entity.name === entity && values !== undefined)
        records.set(key, { ...records.get(key), ...shown(block, values) });
    return [...records].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, record]) => record);
  }

  /** The one record that has these values. */
  record(entity: string, having: Readonly<Record<string, string>>): Record<string, string> | undefined {
    const found = this.records(entity).filter((each) =>
      Object.entries(having).every(([field, value]) => each[field] === value),
    );
    if (found.length > 1) throw new Error(`${found.length} records of ${entity} have ${JSON.stringify(having)}`);
    return found[0];
  }

  /** What is held because it breaks a rule, as `entity field rule`. */
  held(): string[] {
    return [...this.#contributions.values()].flatMap(({ block, held }) =>
      [...held.values()].flat().map(({ field, rule }) => `${block.block.entity.name} ${field} ${rule}`),
    );
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#stages);
    await this.#end();
    await this.#nats.close();
  }
}

async function connect(
  settings: SourceConfig,
): Promise<{ run: (sql: string) => Promise<void>; end: () => Promise<void> }> {
  if (settings.kind === 'postgres') {
    const client = new pg.Client({ connectionString: settings.url });
    client.on('error', () => undefined);
    await client.connect();
    return { run: async (sql) => void (await client.query(sql)), end: () => client.end() };
  }
  const connection = await createConnection({ uri: settings.url, multipleStatements: true });
  // As these systems do: zero dates are values to them.
  await connection.query(`set session sql_mode = '', time_zone = '+00:00'`);
  return { run: async (sql) => void (await connection.query(sql)), end: () => connection.end() };
}

async function catalog(settings: SourceConfig): Promise<TableSchema[]> {
  if (settings.kind === 'postgres') {
    const client = new pg.Client({ connectionString: settings.url });
    await client.connect();
    try {
      return (await postgresTables(client, settings.tables)).map(({ schema }) => schema);
    } finally {
      await client.end();
    }
  }
  const client = await connectMysql(settings);
  try {
    return (await mysqlTables(client, settings.kind, settings.tables)).map(({ schema }) => schema);
  } finally {
    client.end();
  }
}
