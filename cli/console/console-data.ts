/** Composes what the console shows: observations of processes, NATS, and the databases themselves. */
import { flowNames, flowSettings, type Config } from '../../core/config.ts';
import type { Logger } from '../../core/logger.ts';
import { fanOutName } from '../../core/record-messages.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { AlertEvaluator } from '../../monitoring/alerts/evaluator.ts';
import { SampleSet } from '../../monitoring/alerts/sample-set.ts';
import type { ConsoleData, MetaView, TrendView } from '../../monitoring/console/views.ts';
import type { StageFacts } from '../../monitoring/health.ts';
import type { Observation, Observatory } from '../../monitoring/observation.ts';
import { checkAuditLog, describeConfiguration } from '../audit.ts';
import { createActions } from './actions.ts';
import { auditLine } from './audit-lines.ts';
import { explainRecord } from './explain.ts';
import { Connections } from './connections.ts';
import { readDrift, readRecordPair, readRowPair } from './drift.ts';
import { factsOf, lagOf } from './facts.ts';
import { readOverview } from './overview.ts';
import { readDetail, readPage } from './quarantine.ts';

const EVERY_MS = 5000;
const POINTS = 120;

/** Keeps the last ten minutes, and which alerts stand. */
class Watcher {
  readonly #config: Config;
  readonly #observatory: Observatory;
  readonly #evaluator: AlertEvaluator;
  readonly #trends = new Map<string, { lag: (number | null)[]; rows: (number | null)[] }>();

  constructor(config: Config, observatory: Observatory, alertPace: number) {
    this.#config = config;
    this.#observatory = observatory;
    this.#evaluator = new AlertEvaluator({ patience: alertPace });
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const observations = await this.#observatory.current();
      for (const name of Object.keys(this.#config.sources))
        this.#point(`source:${name}`, observations, 'capture', name);
      for (const name of flowNames(this.#config)) this.#point(`flow:${name}`, observations, 'apply', name);
      for (const [name, { fan_out: fansOut }] of Object.entries(this.#config.canonicalFlows)) {
        this.#point(`source:flow:${name}`, observations, 'transform', name);
        if (fansOut) this.#point(`flow:${fanOutName(name)}`, observations, 'apply', fanOutName(name));
      }
      this.#evaluator.evaluate(Date.now(), SampleSet.of(observations));
      await abortableDelay(EVERY_MS, signal);
    }
  }

  #point(id: string, observations: readonly Observation[], kind: StageFacts['kind'], name: string): void {
    const trend = this.#trends.get(id) ?? { lag: [], rows: [] };
    this.#trends.set(id, trend);
    const facts = factsOf(observations, kind, name);
    trend.lag.push(lagOf(facts));
    trend.rows.push(facts?.rowsPerSecond ?? null);
    if (trend.lag.length > POINTS) trend.lag.shift();
    if (trend.rows.length > POINTS) trend.rows.shift();
  }

  trends(): Record<string, TrendView> {
    return Object.fromEntries(this.#trends);
  }

  alerts(): ReturnType<AlertEvaluator['firing']> {
    return this.#evaluator.firing();
  }
}

export interface ConsoleStage {
  readonly data: ConsoleData;
  /** Watches until the signal aborts, and closes what was opened. */
  run(signal: AbortSignal): Promise<void>;
}

export function createConsoleStage(
  config: Config,
  options: { readonly observatory: Observatory; readonly alertPace: number; readonly log: Logger },
): ConsoleStage {
  const { observatory, alertPace, log } = options;
  const connections = new Connections(config);
  const watcher = new Watcher(config, observatory, alertPace);
  const stop = new AbortController();
  const meta = metaView(config);
  const { configuration } = describeConfiguration(config);
  const target = (flow: string): string => flowSettings(config, flow)!.to;
  const data: ConsoleData = {
    meta: () => meta,
    configuration: () => configuration,
    overview: async () =>
      await readOverview({
        config,
        connections,
        observations: await observatory.current(),
        alerts: watcher.alerts(),
        trends: watcher.trends(),
      }),
    drift: async (flow, offset, limit) =>
      await connections.target(target(flow)).use((reader) => readDrift(config, reader, flow, { offset, limit })),
    rowPair: async (flow, finding) => {
      if (config.canonicalFlows[flow] !== undefined)
        return await connections.target(target(flow)).use((reader) => readRecordPair(config, flow, finding, reader));
      if (config.flows[flow] === undefined) return undefined;
      // A source is asked only where the comparison did not keep what it had.
      const source = connections.source(config.flows[flow].mirror);
      return await connections
        .target(target(flow))
        .use((reader) => readRowPair(config, flow, finding, reader, (work) => source.use(work)));
    },
    quarantine: async (flow, slice) =>
      await connections.desk(target(flow)).use((desk) => readPage(config, desk, flow, slice)),
    quarantined: async (flow, id) =>
      await connections.desk(target(flow)).use((desk) => readDetail(config, desk, flow, id)),
    explain: async (entity, key) => await explainRecord(config, entity, key),
    audit: async (name, before, limit) =>
      await connections.audit(name).use(async (audits) => ({
        target: name,
        lines: (await audits.latest(before, limit)).map(auditLine),
      })),
    checkAudit: async (name) => {
      const { entries, problems } = await checkAuditLog(config, name);
      return { target: name, entries, problems };
    },
    ...createActions(config, log, stop.signal),
  };
  return {
    data,
    async run(signal) {
      try {
        await watcher.run(signal);
      } finally {
        stop.abort();
        await connections.close();
      }
    },
  };
}

function metaView(config: Config): MetaView {
  return {
    installation: config.nats.prefix,
    actions: config.monitoring.token !== undefined,
    flows: flowNames(config).map((name) => ({
      name,
      target: flowSettings(config, name)!.to,
      compared: config.outboundFlows[name] === undefined,
    })),
    entities: [...new Set(Object.values(config.canonicalFlows).map(({ canonical }) => canonical))],
    sources: Object.keys(config.sources),
    targets: Object.keys(config.targets),
  };
}
