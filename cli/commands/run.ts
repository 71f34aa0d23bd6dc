/**
 * `waybill run`: composes the stages, and stops them. What a stage needs is loaded when it runs: a process that captures
 * from Postgres holds no code of MySQL, and none of the comparison.
 */
import { setMaxListeners } from 'node:events';
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { targetOf } from '../../apply/target-kind.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { flowNames, flowSettings, recordFlowSettings, type Config } from '../../core/config.ts';
import { fanOutName } from '../../core/record-messages.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import { armFailpoint } from '../../core/failpoint.ts';
import { createLogger, type Logger, type LogLevel } from '../../core/logger.ts';
import { waybillVersion } from '../../core/version.ts';
import type { HeartbeatReport } from '../../monitoring/heartbeat.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { Observatory, observer, runObservation } from '../../monitoring/observation.ts';
import { startMonitoring, type Pages } from '../../monitoring/server.ts';
import { createProcessNotes } from '../process-notes.ts';
import { runRetention } from '../../monitoring/stream-retention.ts';
import { checkCanonicalFlows } from '../canonical-flows.ts';
import { alongside } from '../alongside.ts';
import { leaseTtlMs, readConfig, unknownName, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';
import { letHeapGrow } from '../let-heap-grow.ts';

export interface RunOptions extends GlobalOptions {
  readonly only?: string;
  readonly listen?: string;
  readonly logLevel: LogLevel;
}

interface Stage {
  readonly id: string;
  run(signal: AbortSignal): Promise<void>;
  blocked(detail: string): void;
  /** It looks at what all processes observe. */
  readonly watches?: boolean;
  /** What it serves over HTTP. */
  readonly pages?: Pages;
}

interface Surroundings {
  readonly holder: string;
  readonly metrics: Metrics;
  readonly observatory: Observatory;
  readonly log: Logger;
}

const DRAIN_DEADLINE_MS = 30_000;

export async function run(options: RunOptions): Promise<number> {
  const config = readConfig(options);
  const log = createLogger(options.logLevel);
  const failpoint = process.env['WAYBILL_FAILPOINT'];
  if (failpoint !== undefined && failpoint !== '') {
    const [name, nth] = failpoint.split(':');
    armFailpoint(name!, Number(nth ?? 1));
  }
  await checkCanonicalFlows(config);
  const stallMs = process.env['WAYBILL_STALL_MS'];
  const metrics = new Metrics(stallMs === undefined ? {} : { stallMs: Number(stallMs) });
  const holder = `${hostname()}:${process.pid}:${randomBytes(4).toString('hex')}`;
  const roles: string[] = [];
  const observe = observer(holder, metrics, () => roles);
  const observatory = new Observatory(observe);
  const makers = createStages(config, { holder, metrics, observatory, log });
  const stages = await chooseStages(makers, options.only);
  roles.push(...stages.map((stage) => stage.id));
  // Nobody misses a console.
  metrics.configured(
    makers.ids.filter((id) => id !== 'console'),
    roles,
  );
  const pages = stages.find((stage) => stage.pages !== undefined)?.pages;
  const server = await startMonitoring(options.listen ?? config.monitoring.listen, metrics, pages);
  const monitoring = `http://127.0.0.1:${server.port}`;
  log.info({ version: waybillVersion(), stages: stages.map((stage) => stage.id), monitoring }, 'waybill runs');

  const stop = new AbortController();
  // Each stage listens in a few places, some for each of its sources, and Node takes more than ten for a leak.
  setMaxListeners(10 * (stages.length + 1));
  setMaxListeners(10 * (stages.length + 1), stop.signal);
  let told = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (told) process.exit(EXIT.interrupted);
    told = true;
    log.info({ signal }, 'draining; a second signal leaves at once');
    stop.abort();
    setTimeout(() => {
      log.error('draining took too long; leaving');
      process.exit(EXIT.no);
    }, DRAIN_DEADLINE_MS).unref();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  const { nats } = config;
  const { consumers } = metrics;
  const beside = [
    ...(roles.some((role) => /^(?:apply|transform|fanout):/.test(role))
      ? [alongside('what streams keep', runRetention({ nats, consumers, log, signal: stop.signal }), log)]
      : []),
    alongside('telling others', runObservation({ nats, observe, log, signal: stop.signal }), log),
    ...(stages.some((stage) => stage.watches === true)
      ? [alongside('hearing of others', observatory.run({ nats, log, signal: stop.signal }), log)]
      : []),
  ];
  const notes = createProcessNotes(config, roles, log);
  const noted = notes.start(stop.signal);
  const failed = await Promise.all(stages.map((stage) => supervise(stage, stop.signal, log)));
  stop.abort();
  await noted;
  await Promise.all(beside);
  await notes.stop();
  await server.close();
  // What only looks on cannot fail in this way, and does not make it good.
  const work = failed.filter((_, index) => stages[index]!.pages === undefined && stages[index]!.watches !== true);
  return work.length > 0 && work.every((value) => value) ? EXIT.no : EXIT.good;
}

/** Runs a stage to its end. True when it ended because of an error; the other stages go on. */
async function supervise(stage: Stage, signal: AbortSignal, log: Logger): Promise<boolean> {
  try {
    await stage.run(signal);
    return false;
  } catch (thrown) {
    const error = asReplicationError(thrown);
    stage.blocked(`${error.code}: ${error.message}`);
    log.error(
      {
        stage: stage.id,
        code: error.code,
        remedy: error.remedy,
        context: error.context,
        ...(error.code === 'internal' ? { stack: error.stack } : {}),
      },
      error.message,
    );
    return true;
  }
}

/** Makes a stage; one that is not asked for is not made. */
type Maker = () => Stage | Promise<Stage>;

function createStages(config: Config, around: Surroundings): Maker[] & { ids: string[] } {
  const { holder, metrics, observatory, log } = around;
  const ttl = leaseTtlMs();
  const makers: Maker[] = [];
  const ids: string[] = [];
  for (const [name, settings] of Object.entries(config.sources)) {
    const id = `capture:${name}`;
    ids.push(id);
    makers.push(() => {
      const report = metrics.captureReport(name);
      const stageLog = log.child({ stage: id });
      return {
        id,
        run: async (signal) => {
          const common = { name, nats: config.nats, holder, leaseTtlMs: ttl, log: stageLog, signal, report };
          if (settings.kind === 'postgres') {
            const { runPostgresCapture } = await import('../../capture/postgres/capture.ts');
            return runPostgresCapture({ ...common, settings });
          }
          const { runMysqlCapture } = await import('../../capture/mysql/capture.ts');
          return runMysqlCapture({ ...common, settings });
        },
        blocked: (detail) => report.state('blocked', detail),
      };
    });
  }
  for (const [name, settings] of Object.entries(config.flows)) {
    const id = `apply:${name}`;
    ids.push(id);
    makers.push(() => {
      const report = metrics.flowReport(name, settings.to, cdcStreamName(config.nats.prefix, settings.mirror));
      const stageLog = log.child({ stage: id });
      const target = config.targets[settings.to]!;
      return {
        id,
        run: async (signal) => {
          const { store } = await targetOf(target);
          const { runMirrorFlow } = await import('../../apply/mirror-flow.ts');
          await runMirrorFlow({
            name,
            settings,
            store,
            nats: config.nats,
            holder,
            leaseTtlMs: ttl,
            log: stageLog,
            signal,
            report,
          });
        },
        blocked: (detail) => report.state('blocked', detail),
      };
    });
  }
  for (const [name, settings] of Object.entries(config.canonicalFlows)) {
    const { prefix } = config.nats;
    const transformId = `transform:${name}`;
    ids.push(transformId);
    makers.push(() => {
      const report = metrics.transformReport(name, settings.canonical, (source) => cdcStreamName(prefix, source));
      const stageLog = log.child({ stage: transformId });
      return {
        id: transformId,
        run: async (signal) => {
          const { runCanonicalFlow } = await import('../../transform/canonical-flow.ts');
          letHeapGrow();
          const common = { name, nats: config.nats, holder, leaseTtlMs: ttl, log: stageLog, signal, report };
          await runCanonicalFlow({ ...common, settings });
        },
        blocked: (detail) => report.state('blocked', detail),
      };
    });
    const applyId = `apply:${name}`;
    ids.push(applyId);
    makers.push(() => {
      const stream = canonicalStreamName(prefix, settings.canonical);
      const report = metrics.flowReport(name, settings.to, stream);
      const stageLog = log.child({ stage: applyId });
      return {
        id: applyId,
        run: async (signal) => {
          const target = config.targets[settings.to]!;
          const { store } = await targetOf(target);
          if (settings.views) {
            const { ensureVisibility } = await import('../visibility.ts');
            await ensureVisibility(target, settings.schema, { log: stageLog, signal });
          }
          const { runMirrorFlow } = await import('../../apply/mirror-flow.ts');
          const common = { name, nats: config.nats, holder, leaseTtlMs: ttl, log: stageLog, signal, report };
          await runMirrorFlow({ ...common, settings: recordFlowSettings(settings), store, stream });
        },
        blocked: (detail) => report.state('blocked', detail),
      };
    });
  }
  for (const [name, settings] of Object.entries(config.canonicalFlows)) {
    if (!settings.fan_out) continue;
    const id = `fanout:${name}`;
    ids.push(id);
    makers.push(() => {
      const stream = canonicalStreamName(config.nats.prefix, settings.canonical);
      const report = metrics.flowReport(fanOutName(name), 'nats', stream);
      const stageLog = log.child({ stage: id });
      return {
        id,
        run: async (signal) => {
          const { createFanOutStore } = await import('../../apply/nats/fan-out-store.ts');
          const store = createFanOutStore(config.nats, settings.canonical);
          const { runMirrorFlow } = await import('../../apply/mirror-flow.ts');
          const common = { nats: config.nats, holder, leaseTtlMs: ttl, log: stageLog, signal, report };
          await runMirrorFlow({
            ...common,
            name: fanOutName(name),
            settings: recordFlowSettings(settings),
            store,
            stream,
          });
        },
        blocked: (detail) => report.state('blocked', detail),
      };
    });
  }
  for (const [name, settings] of Object.entries(config.outboundFlows)) {
    const id = `apply:${name}`;
    ids.push(id);
    makers.push(() => {
      const stream = canonicalStreamName(config.nats.prefix, settings.outbound);
      const report = metrics.flowReport(name, settings.to, stream);
      const stageLog = log.child({ stage: id });
      return {
        id,
        run: async (signal) => {
          const { loadOutboundPlan } = await import('../../transform/outbound/outbound-file.ts');
          const target = await targetOf(config.targets[settings.to]!);
          const store = target.outboundStore(loadOutboundPlan(settings.map, settings.outbound));
          const { runMirrorFlow } = await import('../../apply/mirror-flow.ts');
          const common = { name, nats: config.nats, holder, leaseTtlMs: ttl, log: stageLog, signal, report };
          await runMirrorFlow({ ...common, settings: recordFlowSettings(settings), store, stream });
        },
        blocked: (detail) => report.state('blocked', detail),
      };
    });
  }
  const compared = [...Object.keys(config.flows), ...Object.keys(config.canonicalFlows)];
  for (const flow of config.monitoring.verify.every === undefined ? [] : compared) {
    const id = `verify:${flow}`;
    ids.push(id);
    makers.push(() => {
      const report = metrics.driftReport(flow);
      const stageLog = log.child({ stage: id });
      return {
        id,
        run: async (signal) => {
          const { runVerifyStage } = await import('../verification.ts');
          // What records are made of is kept in memory while they are compared.
          if (config.canonicalFlows[flow] !== undefined) letHeapGrow();
          await runVerifyStage(config, flow, { holder, leaseTtlMs: ttl, log: stageLog, report, signal });
        },
        blocked: () => metrics.stageEnded(id),
      };
    });
  }
  for (const flow of config.monitoring.heartbeat === undefined ? [] : flowNames(config)) {
    const id = `heartbeat:${flow}`;
    ids.push(id);
    makers.push(() => ({
      id,
      run: async (signal) => {
        const { runHeartbeats } = await import('../heartbeats.ts');
        const { to } = flowSettings(config, flow)!;
        const reportOf = (source: string): HeartbeatReport => metrics.heartbeatReport(source, to);
        await runHeartbeats(config, flow, { reportOf, log: log.child({ stage: id }), signal });
      },
      blocked: () => metrics.stageEnded(id),
    }));
  }
  const alertPace = Number(process.env['WAYBILL_ALERT_PACE'] ?? 1);
  ids.push('console');
  makers.push(async () => {
    const { createConsole } = await import('../watching.ts');
    const { run, pages } = createConsole(config, { observatory, alertPace, log: log.child({ stage: 'console' }) });
    return { id: 'console', watches: true, pages, run, blocked: () => {} };
  });
  if (Object.keys(config.monitoring.webhooks).length > 0) {
    ids.push('alerts');
    makers.push(async () => {
      const { runAlerts } = await import('../watching.ts');
      const watching = { observatory, holder, leaseTtlMs: ttl, alertPace, log: log.child({ stage: 'alerts' }) };
      return {
        id: 'alerts',
        watches: true,
        run: (signal) => runAlerts(config, watching, signal),
        blocked: () => metrics.stageEnded('alerts'),
      };
    });
  }
  return Object.assign(makers, { ids });
}

async function chooseStages(makers: ReturnType<typeof createStages>, only: string | undefined): Promise<Stage[]> {
  const wanted = only?.split(',').map((id) => id.trim());
  for (const id of wanted ?? []) if (!makers.ids.includes(id)) unknownName('stage', id, makers.ids);
  if (makers.ids.every((id) => id === 'console'))
    throw new ReplicationError(
      'config_invalid',
      'the configuration has neither sources nor flows: there is nothing to run',
    );
  const stages: Stage[] = [];
  for (const [index, make] of makers.entries())
    if (wanted === undefined || wanted.includes(makers.ids[index]!)) stages.push(await make());
  return stages;
}
