/** A mirror flow: the tables of one source, replicated one to one into a target. */
import { AppliedTeller } from '../core/applied.ts';
import { cdcStreamName, readReset } from '../core/cdc-stream.ts';
import type { FlowConfig, NatsConfig } from '../core/config.ts';
import { asReplicationError, policyFor, type ReplicationError } from '../core/errors.ts';
import { acquireLease, openBucket } from '../core/lease.ts';
import type { Logger } from '../core/logger.ts';
import { NO_FLOW_REPORT, type FlowReport } from '../core/metrics.ts';
import { KeptNats, type Nats } from '../core/nats.ts';
import { describePosition, formatPosition } from '../core/position.ts';
import { abortableDelay, runService, type Run } from '../core/run-service.ts';
import { installationId, sessionName } from '../core/stale-sessions.ts';
import { runFlow, type StreamTail } from './flow-run.ts';
import { REBUILDING } from './rebuilding.ts';
import { unlessSilent } from './silent-target.ts';
import type { PartChecks, TargetStore } from './target-store.ts';

export interface MirrorFlowOptions {
  readonly name: string;
  readonly settings: FlowConfig;
  readonly store: TargetStore;
  readonly nats: NatsConfig;
  /** The stream to read; left out: that of the flow's source. */
  readonly stream?: string;
  /** Tells this process from every other one that may run the same flow. */
  readonly holder: string;
  readonly leaseTtlMs?: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly report?: FlowReport;
}

/**
 * Runs a flow until the signal aborts; then the batch in hand is finished and the lease released. Errors that pass are
 * tried again from the position in the target; one that needs a snapshot from scratch waits for it; others are thrown as
 * `ReplicationError`.
 */
export async function runMirrorFlow(options: MirrorFlowOptions): Promise<void> {
  const { name, log, signal } = options;
  const report = noted(options.report ?? NO_FLOW_REPORT, options.settings.mirror, log);
  const stream = streamOf(options);
  const kept = new KeptNats(options.nats, `waybill apply ${name}`);
  /** The newest reset of the stream when the flow last looked for its place. */
  let knownReset = 0;
  /** The place of a gap behind which everything was read again: the flow goes there, once. */
  let passedGap = 0;
  const tail: StreamTail = { seq: undefined };
  const checks: PartChecks = { upTo: undefined };
  try {
    report.state('starting');
    while (!signal.aborted) {
      try {
        await runService(
          async (run) => {
            const nats = await kept.get();
            knownReset = await readReset(nats, stream);
            await runOnce(options, nats, report, { ...run, tail, checks });
          },
          {
            name: `apply ${name}`,
            signal,
            log,
            onError: (error, willRetry) => report.state(willRetry ? 'waiting' : 'blocked', describe(error)),
          },
        );
      } catch (thrown) {
        const error = asReplicationError(thrown);
        if (policyFor(error.code).action !== 'resnapshot') throw error;
        const { seq } = error.context;
        if (error.code === 'stream_gap' && typeof seq === 'number' && seq > passedGap && knownReset >= seq) {
          passedGap = seq;
          log.warn({ code: error.code, context: error.context, reset: knownReset }, error.message);
          continue;
        }
        log.error({ code: error.code, remedy: error.remedy, context: error.context }, error.message);
        await waitForReset(kept, stream, knownReset, options);
      }
    }
    report.state('stopped');
  } finally {
    await kept.close();
  }
}

/** Waits until somebody had every table read again: then there is a frame from which the flow can go on. */
async function waitForReset(
  kept: KeptNats,
  stream: string,
  knownReset: number,
  { name, log, signal }: MirrorFlowOptions,
): Promise<void> {
  await runService(
    async () => {
      while (!signal.aborted && (await readReset(await kept.get(), stream)) === knownReset)
        await abortableDelay(1000, signal);
    },
    { name: `apply ${name}: blocked`, signal, log },
  );
}

/** A table that is not followed any more is a line in the log, once. */
function noted(report: FlowReport, source: string, log: Logger): FlowReport {
  const known = new Set<string>();
  return {
    ...report,
    tables: (notices) => {
      for (const { schema, name, state, reason } of notices) {
        const line = `table ${schema}.${name} is ${state}: ${reason}`;
        const remedy =
          state === 'stopped' && reason !== REBUILDING
            ? `mend the table, then run: waybill snapshot ${source} ${schema}.${name}`
            : undefined;
        if (!known.has(line)) log.warn({ table: `${schema}.${name}`, state, remedy }, line);
        known.add(line);
      }
      report.tables(notices);
    },
  };
}

function streamOf({ stream, nats, settings }: MirrorFlowOptions): string {
  return stream ?? cdcStreamName(nats.prefix, settings.mirror);
}

function describe(error: ReplicationError): string {
  return `${error.code}: ${error.message}`;
}

/** One of the runs of a flow. */
interface FlowRun extends Run {
  readonly tail: StreamTail;
  readonly checks: PartChecks;
}

async function runOnce(options: MirrorFlowOptions, nats: Nats, report: FlowReport, run: FlowRun): Promise<void> {
  const { name, settings, log, holder } = options;
  const stream = streamOf(options);
  const bucket = await openBucket(nats, options.nats);
  const lease = await acquireLease(bucket, `lease.apply.${name}`, {
    holder,
    ttlMs: options.leaseTtlMs ?? 10_000,
    signal: run.signal,
    onWaiting: (other) => {
      report.state('standby', `the lease is held by ${other}`);
      log.info({ holder: other }, 'standing by: another process applies this flow');
    },
  });
  if (lease === undefined) return;
  try {
    const installation = await installationId(bucket);
    const session = await options.store.open(sessionName('apply', name, installation));
    try {
      const { store } = options;
      const unlessGone = <T>(asked: Promise<T>): Promise<T> =>
        unlessSilent(asked, store, sessionName('probe', name, installation));
      const sink = await unlessGone(
        session.openSink({ flow: name, settings, stream, installation, report, checks: run.checks }),
      );
      report.position(formatPosition(sink.position));
      // Also where the frame behind it is gone, so that the run ends at once.
      report.reached(sink.seq);
      log.info({ flow: name, position: describePosition(sink.position), epoch: lease.epoch }, 'flow started');
      await runFlow({
        nats,
        stream,
        sink,
        batchBytes: settings.batch_bytes,
        tail: run.tail,
        report,
        // Who fills a stream of records does not read tables.
        ...(options.stream === undefined ? { teller: new AppliedTeller(nats, options.nats.prefix, stream, name) } : {}),
        log,
        signal: lease.signal,
        lost: session.lost,
        progressed: run.progressed,
        unlessSilent: unlessGone,
      });
    } finally {
      await session.close();
    }
    if (lease.signal.aborted && !run.signal.aborted) throw asReplicationError(lease.signal.reason);
  } finally {
    await lease.release();
  }
}
