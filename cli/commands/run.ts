/** `waybill run`: composes the stages, and stops them. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Config } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import { armFailpoint } from '../../core/failpoint.ts';
import { createLogger, type Logger, type LogLevel } from '../../core/logger.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { startMonitoring } from '../../monitoring/server.ts';
import { EXIT, readConfig, unknownName, type GlobalOptions } from '../context.ts';

export interface RunOptions extends GlobalOptions {
  readonly only?: string;
  readonly listen?: string;
  readonly logLevel: LogLevel;
}

interface Stage {
  readonly id: string;
  run(signal: AbortSignal): Promise<void>;
  blocked(detail: string): void;
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
  const metrics = new Metrics();
  const stages = chooseStages(createStages(config, metrics, log), options.only);
  const server = await startMonitoring(options.listen ?? config.monitoring.listen, metrics);
  log.info({ stages: stages.map((stage) => stage.id), monitoring: `http://127.0.0.1:${server.port}` }, 'waybill runs');

  const stop = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stop.signal.aborted) process.exit(130);
    log.info({ signal }, 'draining; a second signal leaves at once');
    stop.abort();
    setTimeout(() => {
      log.error('draining took too long; leaving');
      process.exit(EXIT.no);
    }, DRAIN_DEADLINE_MS).unref();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  const failed = await Promise.all(stages.map((stage) => supervise(stage, stop.signal, log)));
  await server.close();
  return failed.every((value) => value) ? EXIT.no : EXIT.good;
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

function createStages(config: Config, metrics: Metrics, log: Logger): (() => Stage)[] & { ids: string[] } {
  const holder = `${hostname()}:${process.pid}:${randomBytes(4).toString('hex')}`;
  const ttl = Number(process.env['WAYBILL_LEASE_TTL_MS'] ?? 10_000);
  const makers: (() => Stage)[] = [];
  const ids: string[] = [];
  for (const [name, settings] of Object.entries(config.sources)) {
    const id = `capture:${name}`;
    ids.push(id);
    makers.push(() => {
      const report = metrics.captureReport(name);
      const stageLog = log.child({ stage: id });
      return {
        id,
        run: (signal) =>
          runPostgresCapture({
            name,
            settings,
            nats: config.nats,
            holder,
            leaseTtlMs: ttl,
            log: stageLog,
            signal,
            report,
          }),
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
        run: (signal) =>
          runMirrorFlow({
            name,
            settings,
            store: createPostgresStore(target),
            nats: config.nats,
            holder,
            leaseTtlMs: ttl,
            log: stageLog,
            signal,
            report,
          }),
        blocked: (detail) => report.state('blocked', detail),
      };
    });
  }
  return Object.assign(makers, { ids });
}

function chooseStages(makers: ReturnType<typeof createStages>, only: string | undefined): Stage[] {
  const wanted = only?.split(',').map((id) => id.trim());
  for (const id of wanted ?? []) if (!makers.ids.includes(id)) unknownName('stage', id, makers.ids);
  if (makers.length === 0)
    throw new ReplicationError(
      'config_invalid',
      'the configuration has neither sources nor flows: there is nothing to run',
    );
  return makers.filter((_, index) => wanted === undefined || wanted.includes(makers.ids[index]!)).map((make) => make());
}
