/** Sources, their captures, a flow of canonical records and its target, all in this process. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { createFanOutStore } from '../../apply/nats/fan-out-store.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { runMysqlCapture } from '../../capture/mysql/capture.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { parseConfig, recordFlowSettings, type Config } from '../../core/config.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_FLOW_REPORT, NO_TRANSFORM_REPORT, type FlowReport, type TransformReport } from '../../core/metrics.ts';
import { fanOutName } from '../../core/record-messages.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import { runCanonicalFlow } from '../../transform/canonical-flow.ts';
import { loadOutboundPlan } from '../../transform/outbound/outbound-file.ts';
import { waitFor } from './wait.ts';

const log = createLogger(process.env['DEBUG_CANONICAL'] === undefined ? 'silent' : 'debug');

interface RunningStage {
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

export class CanonicalPipeline {
  readonly config: Config;
  /** The configuration as a file holds it. */
  readonly yaml: string;
  readonly target: pg.Client;
  readonly report: Partial<TransformReport>;
  /** Gives whom fan-outs tell how they do: by their names and streams. */
  fanOutReport: ((name: string, stream: string) => FlowReport) | undefined;
  /** How often transforms save their state. */
  readonly #saveMs: number | undefined;
  readonly #stages = new Map<string, RunningStage>();
  failure: unknown;

  private constructor(yaml: string, target: pg.Client, report: Partial<TransformReport>, saveMs?: number) {
    this.#saveMs = saveMs;
    this.yaml = yaml;
    this.config = parseConfig(yaml, {});
    this.target = target;
    this.report = report;
  }

  /** `flows` by name; the target is called `vis`. Starts nothing yet. */
  static async open(options: {
    nats: NatsServer;
    sources: Record<string, Record<string, unknown>>;
    targetUrl: string;
    /** Beside `vis`. */
    targets?: Record<string, Record<string, unknown>>;
    flows: Record<string, Record<string, unknown>>;
    stream?: Record<string, unknown>;
    report?: Partial<TransformReport>;
    saveMs?: number;
  }): Promise<CanonicalPipeline> {
    const { nats, sources, targetUrl, targets, flows, stream = {}, report = {}, saveMs } = options;
    const yaml = JSON.stringify({
      version: 1,
      nats: {
        servers: [nats.url],
        prefix: `c${randomUUID().slice(0, 8)}`,
        stream: { sync_interval: '1s', max_bytes: '256MB', ...stream },
      },
      sources,
      targets: { vis: { kind: 'postgres', url: targetUrl }, ...targets },
      flows: Object.fromEntries(Object.entries(flows).map(([name, flow]) => [name, { to: 'vis', ...flow }])),
    });
    const target = new pg.Client({ connectionString: targetUrl });
    target.on('error', () => undefined);
    await target.connect();
    return new CanonicalPipeline(yaml, target, report, saveMs);
  }

  /** Starts stages by their names, e.g. `capture:wms`, `transform:stock`, `apply:stock`. */
  start(...ids: string[]): void {
    for (const id of ids) {
      const stop = new AbortController();
      const done = this.#run(id, stop.signal).catch((thrown: unknown) => void (this.failure ??= thrown));
      this.#stages.set(id, { stop, done });
    }
  }

  async #run(id: string, signal: AbortSignal): Promise<void> {
    const [kind, name] = id.split(':') as [string, string];
    const { config } = this;
    const common = { name, nats: config.nats, holder: randomUUID(), leaseTtlMs: 10_000, log, signal };
    if (kind === 'capture') {
      const settings = config.sources[name]!;
      if (settings.kind === 'postgres') await runPostgresCapture({ ...common, settings });
      else await runMysqlCapture({ ...common, settings });
      return;
    }
    const outbound = config.outboundFlows[name];
    if (outbound !== undefined) {
      const target = await targetOf(config.targets[outbound.to]!);
      const store = target.outboundStore(loadOutboundPlan(outbound.map, outbound.outbound));
      const stream = canonicalStreamName(config.nats.prefix, outbound.outbound);
      await runMirrorFlow({ ...common, settings: recordFlowSettings(outbound), store, stream });
      return;
    }
    if (kind === 'fanout') {
      const settings = config.canonicalFlows[name]!;
      const store = createFanOutStore(config.nats, settings.canonical);
      const stream = canonicalStreamName(config.nats.prefix, settings.canonical);
      const own = { ...common, name: fanOutName(name) };
      const report = this.fanOutReport?.(own.name, stream) ?? NO_FLOW_REPORT;
      await runMirrorFlow({ ...own, report, settings: recordFlowSettings(settings), store, stream });
      return;
    }
    const mirror = config.flows[name];
    if (kind === 'apply' && mirror !== undefined) {
      const { store } = await targetOf(config.targets[mirror.to]!);
      await runMirrorFlow({ ...common, settings: mirror, store });
      return;
    }
    const settings = config.canonicalFlows[name]!;
    if (kind === 'transform') {
      const report = { ...NO_TRANSFORM_REPORT, ...this.report };
      const saving = this.#saveMs === undefined ? {} : { saveMs: this.#saveMs };
      await runCanonicalFlow({ ...common, ...saving, settings, report });
      return;
    }
    const { store } = await targetOf(config.targets[settings.to]!);
    const stream = canonicalStreamName(config.nats.prefix, settings.canonical);
    await runMirrorFlow({ ...common, settings: recordFlowSettings(settings), store, stream });
  }

  /** Stops stages and waits until they have ended. */
  async stop(...ids: string[]): Promise<void> {
    for (const id of ids) this.#stages.get(id)?.stop.abort();
    for (const id of ids) await this.#stages.get(id)?.done;
    for (const id of ids) this.#stages.delete(id);
  }

  /** Waits until a query of the target gives these rows, each as one text. */
  async shows(sql: string, rows: readonly string[], deadlineMs = 120_000): Promise<void> {
    let seen: string[] = [];
    try {
      await waitFor(
        sql,
        async () => {
          if (this.failure !== undefined) throw this.failure;
          seen = await this.lines(sql);
          return JSON.stringify(seen) === JSON.stringify(rows) ? true : undefined;
        },
        deadlineMs,
      );
    } catch (thrown) {
      throw new Error(`the target shows ${JSON.stringify(seen)}, not ${JSON.stringify(rows)}`, { cause: thrown });
    }
  }

  /** The rows of a query of the target, each as one text; none while what it names is not there. */
  async lines(sql: string): Promise<string[]> {
    try {
      const { rows } = await this.target.query({ text: sql, rowMode: 'array' });
      return (rows as unknown[][]).map((row) =>
        row.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join('|'),
      );
    } catch (thrown) {
      if (['42P01', '3F000'].includes((thrown as { code?: string }).code ?? '')) return [];
      throw thrown;
    }
  }

  async close(): Promise<void> {
    await this.stop(...this.#stages.keys());
    await this.target.end();
  }
}
