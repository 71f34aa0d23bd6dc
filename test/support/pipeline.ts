/** A source, its capture, a flow and a target, all in this process: for tests of what watches them. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { rereadRows } from '../../capture/reread.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { parseConfig, type Config, type PostgresSourceConfig } from '../../core/config.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT, NO_FLOW_REPORT, type TableNotice } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { closeSides, flowTables, openSides, placeOf } from '../../monitoring/drift/open-sides.ts';
import type { FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { verifyFlow, type FlowVerificationOptions } from '../../monitoring/drift/verify-flow.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from './wait.ts';

const log = createLogger(process.env['DEBUG_PIPELINE'] === undefined ? 'silent' : 'debug');

export class Pipeline {
  readonly config: Config;
  readonly source: pg.Client;
  readonly target: pg.Client;
  readonly nats: Nats;
  readonly #running = new Map<string, { stop: AbortController; done: Promise<void> }>();
  failure: unknown;
  /** Tables that the flow does not follow, as it reported them last. */
  notices: readonly TableNotice[] = [];
  /** Tables that the capture leaves out, as it reported them last. */
  leftOut: readonly { schema: string; name: string; reason: string }[] = [];

  /** The configuration as a file holds it. */
  readonly yaml: string;

  private constructor(yaml: string, source: pg.Client, target: pg.Client, nats: Nats) {
    this.yaml = yaml;
    this.config = parseConfig(yaml, {});
    this.source = source;
    this.target = target;
    this.nats = nats;
  }

  /** Makes both databases (on one server unless another is named), runs `ddl` in the source, and starts nothing yet. */
  static async open(
    postgres: PostgresServer,
    natsServer: NatsServer,
    ddl: string,
    flow: Record<string, unknown> = {},
    targetServer = postgres,
    source: Record<string, unknown> = {},
  ): Promise<Pipeline> {
    const id = `p${randomUUID().slice(0, 8)}`;
    const [sourceUrl, targetUrl] = [
      await postgres.createDatabase(`${id}_source`),
      await targetServer.createDatabase(`${id}_target`),
    ];
    const yaml = JSON.stringify({
      version: 1,
      nats: { servers: [natsServer.url], prefix: id, stream: { sync_interval: '1s', max_bytes: '256MB' } },
      sources: { wms: { kind: 'postgres', url: sourceUrl, ...source } },
      targets: { vis: { kind: 'postgres', url: targetUrl } },
      flows: { mirror: { mirror: 'wms', to: 'vis', ...flow } },
    });
    const clients = [sourceUrl, targetUrl].map((url) => new pg.Client({ connectionString: url }));
    for (const client of clients) {
      client.on('error', () => undefined);
      await client.connect();
    }
    await clients[0]!.query(ddl);
    return new Pipeline(yaml, clients[0]!, clients[1]!, await connectNats(parseConfig(yaml, {}).nats, 'test'));
  }

  start(stages: readonly ('capture' | 'apply')[] = ['capture', 'apply']): void {
    for (const stage of stages) {
      const stop = new AbortController();
      const shared = { nats: this.config.nats, holder: 'test', leaseTtlMs: 10_000, log, signal: stop.signal };
      const done =
        stage === 'capture'
          ? runPostgresCapture({
              name: 'wms',
              settings: this.config.sources['wms'] as PostgresSourceConfig,
              ...shared,
              report: { ...NO_CAPTURE_REPORT, tables: (leftOut) => void (this.leftOut = leftOut) },
            })
          : runMirrorFlow({
              name: 'mirror',
              settings: this.config.flows['mirror']!,
              store: createPostgresStore(this.config.targets['vis']!),
              ...shared,
              report: { ...NO_FLOW_REPORT, tables: (notices) => void (this.notices = notices) },
            });
      this.#running.set(stage, { stop, done: done.catch((thrown: unknown) => void (this.failure ??= thrown)) });
    }
  }

  /** Stops one stage, or both; they can be started again. */
  async stop(stages: readonly ('capture' | 'apply')[] = ['capture', 'apply']): Promise<void> {
    for (const stage of stages) {
      const running = this.#running.get(stage);
      running?.stop.abort();
      await running?.done;
      this.#running.delete(stage);
    }
  }

  /** Waits until the target has as many rows as the source in each of the tables. */
  async settled(tables: readonly string[], deadlineMs = 120_000): Promise<void> {
    const count = async (client: pg.Client): Promise<string> => {
      const counts = [];
      for (const table of tables)
        counts.push(
          (
            await client.query<{ n: string }>(
              `select case when to_regclass($1) is null then -1 else (xpath('/row/n/text()',
                 query_to_xml(format('select count(*) as n from %s', $1::text), false, true, '')))[1]::text::bigint end::text as n`,
              [table],
            )
          ).rows[0]!.n,
        );
      return counts.join();
    };
    await waitFor(
      `${tables.join()} in the target`,
      async () => {
        if (this.failure !== undefined) throw this.failure;
        return (await count(this.source)) === (await count(this.target)) ? true : undefined;
      },
      deadlineMs,
    );
  }

  async verify(options: Partial<FlowVerificationOptions> & { repair?: boolean } = {}): Promise<FlowOutcome> {
    const { repair = false, ...rest } = options;
    const sides = await openSides(this.config, 'mirror');
    try {
      return await verifyFlow({
        flow: 'mirror',
        sides,
        nats: this.nats,
        stream: cdcStreamName(this.config.nats.prefix, 'wms'),
        includes: flowTables(this.config, 'mirror'),
        placeOf: placeOf(this.config, 'mirror'),
        rules: ColumnRules.compile(this.config.sources['wms']!.columns),
        hides: () => false,
        ignoreExtra: false,
        deleteExtra: true,
        maxLoad: 1,
        graceMs: 500,
        resume: false,
        signal: AbortSignal.timeout(600_000),
        ...(repair
          ? {
              repairer: {
                reread: (schema, table, keys, signal) =>
                  rereadRows({
                    nats: this.nats,
                    config: this.config.nats,
                    source: 'wms',
                    schema,
                    table,
                    keys,
                    signal,
                  }),
              },
            }
          : {}),
        ...rest,
      });
    } finally {
      await closeSides(sides);
    }
  }

  async close(): Promise<void> {
    await this.stop();
    // Servers have room for a few slots only. On a connection of its own: a test may have restarted the server.
    const last = new pg.Client({ connectionString: this.config.sources['wms']!.url });
    await last.connect();
    await last.query(
      'select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active',
    );
    await last.end();
    await this.source.end();
    await this.target.end();
    await this.nats.close();
  }
}
