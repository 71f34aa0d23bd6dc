/** A source of any kind, its capture, a mirror flow and a target of any kind, all in this process. */
import { randomUUID } from 'node:crypto';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import pg from 'pg';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { runMysqlCapture } from '../../capture/mysql/capture.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { parseConfig, type Config } from '../../core/config.ts';
import type { Dialect } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { closeSides, flowTables, openSides, placeOf } from '../../monitoring/drift/open-sides.ts';
import type { FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { verifyFlow, type Repairer } from '../../monitoring/drift/verify-flow.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import { waitFor } from './wait.ts';

const log = createLogger('silent');

/** A server that gives databases. */
export interface DatabaseServer {
  createDatabase(name: string): Promise<string>;
}

/** A connection of either kind that runs scripts and gives rows. */
export class AnyClient {
  readonly dialect: Dialect;
  readonly #pg: pg.Client | undefined;
  readonly #mysql: Connection | undefined;

  private constructor(dialect: Dialect, postgres: pg.Client | undefined, mysql: Connection | undefined) {
    this.dialect = dialect;
    this.#pg = postgres;
    this.#mysql = mysql;
  }

  static async open(dialect: Dialect, url: string): Promise<AnyClient> {
    if (dialect === 'postgres') {
      const client = new pg.Client({ connectionString: url });
      client.on('error', () => undefined);
      await client.connect();
      return new AnyClient(dialect, client, undefined);
    }
    const connection = await createConnection({ uri: url, multipleStatements: true, timezone: 'Z' });
    connection.on('error', () => undefined);
    return new AnyClient(dialect, undefined, connection);
  }

  /** Runs statements; gives the rows of the only one. */
  async run(sql: string): Promise<readonly (readonly unknown[])[]> {
    if (this.#pg !== undefined)
      return ((await this.#pg.query({ text: sql, rowMode: 'array' })) as { rows?: unknown[][] }).rows ?? [];
    const [rows] = await this.#mysql!.query<RowDataPacket[][]>({ sql, rowsAsArray: true });
    return Array.isArray(rows) ? (rows as unknown as unknown[][]) : [];
  }

  async close(): Promise<void> {
    await this.#pg?.end();
    this.#mysql?.destroy();
  }
}

export interface CrossOptions {
  readonly from: { readonly dialect: Dialect; readonly server: DatabaseServer };
  readonly to: { readonly dialect: Dialect; readonly server: DatabaseServer };
  readonly nats: NatsServer;
  readonly flow?: Record<string, unknown>;
}

/** The tables of the source go to schema (MySQL: database) `place` of the target. */
export class CrossPipeline {
  readonly config: Config;
  /** The configuration as a file holds it. */
  readonly yaml: string;
  readonly source: AnyClient;
  readonly target: AnyClient;
  readonly nats: Nats;
  /** Schema of the tables in the source, and in the target. */
  readonly schema: string;
  readonly place: string;
  readonly #stages = new Map<'capture' | 'apply', { readonly stop: AbortController; readonly done: Promise<void> }>();
  failure: unknown;

  private constructor(
    yaml: string,
    nats: Nats,
    clients: { source: AnyClient; target: AnyClient },
    names: { schema: string; place: string },
  ) {
    this.yaml = yaml;
    this.config = parseConfig(yaml, {});
    this.nats = nats;
    this.source = clients.source;
    this.target = clients.target;
    this.schema = names.schema;
    this.place = names.place;
  }

  static async open({ from, to, nats, flow = {} }: CrossOptions): Promise<CrossPipeline> {
    const id = `c${randomUUID().slice(0, 8)}`;
    const [sourceUrl, targetUrl] = [
      await from.server.createDatabase(`${id}_source`),
      await to.server.createDatabase(`${id}_target`),
    ];
    const schema = from.dialect === 'postgres' ? 'public' : `${id}_source`;
    const place = to.dialect === 'postgres' ? 'mirrored' : `${id}_target`;
    const yaml = JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], prefix: id, stream: { sync_interval: '1s', max_bytes: '256MB' } },
      sources: { one: { kind: from.dialect, url: sourceUrl, tables: [`${schema}.*`], heartbeat: '200ms' } },
      targets: { two: { kind: to.dialect, url: targetUrl } },
      flows: { [`f_${id}`]: { mirror: 'one', to: 'two', schema: place, ...flow } },
    });
    return new CrossPipeline(
      yaml,
      await connectNats(parseConfig(yaml, {}).nats, 'test'),
      { source: await AnyClient.open(from.dialect, sourceUrl), target: await AnyClient.open(to.dialect, targetUrl) },
      { schema, place },
    );
  }

  get flow(): string {
    return Object.keys(this.config.flows)[0]!;
  }

  async start(stages: readonly ('capture' | 'apply')[] = ['capture', 'apply']): Promise<void> {
    const settings = this.config.sources['one']!;
    const { store } = await targetOf(this.config.targets['two']!);
    for (const stage of stages) {
      const stop = new AbortController();
      const shared = { nats: this.config.nats, holder: 'test', leaseTtlMs: 10_000, log, signal: stop.signal };
      const running =
        stage === 'apply'
          ? runMirrorFlow({ name: this.flow, settings: this.config.flows[this.flow]!, store, ...shared })
          : settings.kind === 'postgres'
            ? runPostgresCapture({ name: 'one', settings, ...shared })
            : runMysqlCapture({ name: 'one', settings, ...shared });
      this.#stages.set(stage, { stop, done: running.catch((thrown: unknown) => void (this.failure ??= thrown)) });
    }
  }

  /** Stops a stage, or both; they can be started again. */
  async stop(...stages: ('capture' | 'apply')[]): Promise<void> {
    const stopping = stages.map((stage) => this.#stages.get(stage));
    for (const stage of stopping) stage?.stop.abort();
    await Promise.all(stopping.map(async (stage) => await stage?.done));
  }

  /** Waits until the target has as many rows as the source in each of the tables. */
  async settled(tables: readonly string[]): Promise<void> {
    const count = async (client: AnyClient, schema: string): Promise<string> => {
      const counts: string[] = [];
      for (const table of tables)
        counts.push(String((await client.run(`select count(*) from ${schema}.${table}`))[0]![0]));
      return counts.join();
    };
    await waitFor(`${tables.join()} in the target`, async () => {
      if (this.failure !== undefined) return true;
      const [here, there] = [await count(this.source, this.schema), await count(this.target, this.place)];
      if (here === there) return true;
      const refused = await this.target.run('select distinct table_name, message from waybill.quarantine');
      throw new Error(`${here} rows, of which the target has ${there}; quarantined: ${JSON.stringify(refused)}`);
    });
    if (this.failure !== undefined) throw this.failure;
  }

  async verify(repairer?: Repairer): Promise<FlowOutcome> {
    const { flow } = this;
    const sides = await openSides(this.config, flow);
    try {
      return await verifyFlow({
        flow,
        sides,
        nats: this.nats,
        stream: cdcStreamName(this.config.nats.prefix, 'one'),
        includes: flowTables(this.config, flow),
        placeOf: placeOf(this.config, flow),
        zeroDates: this.config.flows[flow]!.zero_dates,
        hides: () => false,
        ignoreExtra: false,
        marksDeleted: this.config.flows[flow]!.deletes === 'soft',
        deleteExtra: true,
        maxLoad: 1,
        graceMs: 300,
        resume: false,
        signal: AbortSignal.timeout(120_000),
        ...(repairer === undefined ? {} : { repairer }),
      });
    } finally {
      await closeSides(sides);
    }
  }

  /** What the target knows of earlier comparisons. */
  async provenAt(): Promise<Date | undefined> {
    const sides = await openSides(this.config, this.flow);
    try {
      return await sides.store.provenAt();
    } finally {
      await closeSides(sides);
    }
  }

  async close(): Promise<void> {
    await this.stop('capture', 'apply');
    await this.source.close();
    await this.target.close();
    await this.nats.close();
  }
}
