/** A canonical flow as a service: its lease, its stream, and what is tried again. */
import { ensureFrameStream, noteReset, readReset, readTail } from '../core/cdc-stream.ts';
import type { CanonicalFlowConfig } from '../core/canonical-config.ts';
import { canonicalStreamName, canonicalSubject } from '../core/canonical-stream.ts';
import { cdcStreamName } from '../core/cdc-stream.ts';
import type { NatsConfig } from '../core/config.ts';
import { asReplicationError, policyFor, ReplicationError } from '../core/errors.ts';
import { FramePublisher, maxFrameBytes } from '../core/frame-publisher.ts';
import { acquireLease, openBucket } from '../core/lease.ts';
import type { Logger } from '../core/logger.ts';
import { NO_TRANSFORM_REPORT, type TransformReport } from '../core/metrics.ts';
import { KeptNats, type Nats } from '../core/nats.ts';
import { abortableDelay, runService, type Run } from '../core/run-service.ts';
import { installationId } from '../core/stale-sessions.ts';
import { loadFlowPlan } from './flow-plan.ts';
import { runFlow } from './flow-run.ts';
import { answerAgain, answerRequest, readAgain, readRequest } from './request.ts';
import { StateStore } from './state-store.ts';

export interface CanonicalFlowOptions {
  readonly name: string;
  readonly settings: CanonicalFlowConfig;
  readonly nats: NatsConfig;
  /** Tells this process from every other one that may run the same flow. */
  readonly holder: string;
  readonly leaseTtlMs?: number;
  /** How often the state is saved, in milliseconds; left out: every five minutes. */
  readonly saveMs?: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly report?: TransformReport;
}

/**
 * Runs the transform of a flow until the signal aborts. Errors that pass are tried again from what the stream holds; when
 * a source must be read from scratch it waits for that; others are thrown as `ReplicationError`.
 */
export async function runCanonicalFlow(options: CanonicalFlowOptions): Promise<void> {
  const { name, log, signal, report = NO_TRANSFORM_REPORT } = options;
  const kept = new KeptNats(options.nats, `waybill transform ${name}`);
  /** When the flow last looked for where its sources begin. */
  let knownResets = '';
  try {
    report.state('starting');
    while (!signal.aborted) {
      try {
        await runService(
          async (run) => {
            const nats = await kept.get();
            knownResets = await resetsOf(nats, options);
            await runOnce(options, nats, report, run);
          },
          {
            name: `transform ${name}`,
            signal,
            log,
            onError: (error, willRetry) =>
              report.state(willRetry ? 'waiting' : 'blocked', `${error.code}: ${error.message}`),
          },
        );
      } catch (thrown) {
        const error = asReplicationError(thrown);
        if (policyFor(error.code).action !== 'resnapshot') throw error;
        log.error({ code: error.code, remedy: error.remedy, context: error.context }, error.message);
        await waitForReset(kept, knownResets, options);
      }
    }
    report.state('stopped');
  } finally {
    await kept.close();
  }
}

/** The newest resets of the sources' streams. Throws `stream_missing` while one of them is not there. */
async function resetsOf(nats: Nats, { settings, nats: config }: CanonicalFlowOptions): Promise<string> {
  const seqs: number[] = [];
  for (const source of Object.keys(settings.from))
    seqs.push(await readReset(nats, cdcStreamName(config.prefix, source)));
  return seqs.join();
}

/** Waits until all tables of one of the sources are read again. */
async function waitForReset(kept: KeptNats, known: string, options: CanonicalFlowOptions): Promise<void> {
  const { name, log, signal } = options;
  await runService(
    async () => {
      while (!signal.aborted && (await resetsOf(await kept.get(), options)) === known)
        await abortableDelay(1000, signal);
    },
    { name: `transform ${name}: blocked`, signal, log },
  );
}

async function runOnce(options: CanonicalFlowOptions, nats: Nats, report: TransformReport, run: Run): Promise<void> {
  const { name, settings, log, holder } = options;
  const { prefix } = options.nats;
  const bucket = await openBucket(nats, options.nats);
  const installation = await installationId(bucket);
  const lease = await acquireLease(bucket, `lease.transform.${name}`, {
    holder,
    ttlMs: options.leaseTtlMs ?? 10_000,
    signal: run.signal,
    onWaiting: (other) => {
      report.state('standby', `the lease is held by ${other}`);
      log.info({ holder: other }, 'standing by: another process transforms this flow');
    },
  });
  if (lease === undefined) return;
  try {
    while (!lease.signal.aborted) {
      report.state('starting');
      // The mapping is read again each time: it may have been mended.
      const plan = await loadFlowPlan(name, settings);
      const stream = {
        name: canonicalStreamName(prefix, plan.entity.name),
        subject: canonicalSubject(prefix, plan.entity.name),
      };
      await ensureFrameStream(nats, options.nats, {
        ...stream,
        description: `Waybill: canonical records of ${plan.entity.name}`,
      });
      const store = await StateStore.open(nats, options.nats, name);
      const request = await readRequest(bucket, name);
      // Records that have expired, down to the last one, are written anew.
      const tail = await readTail(nats, stream.name, { anew: true });
      if (tail.end.kind !== 'origin' && tail.checkpoint === undefined)
        throw new ReplicationError('stream_foreign', `stream ${stream.name} holds frames that no transform wrote`);
      const frameBytes = maxFrameBytes(nats, settings.frame_bytes);
      const publisher = new FramePublisher(nats, options.nats, {
        source: plan.entity.name,
        origin: `canonical/${name}`,
        epoch: lease.epoch,
        tail,
        stream,
      });
      await runFlow({
        plan: { ...plan, settings: { ...settings, frame_bytes: frameBytes } },
        nats,
        prefix,
        installation,
        store,
        ...(options.saveMs === undefined ? {} : { saveMs: options.saveMs }),
        publisher,
        tail,
        anew: request !== undefined,
        runId: request?.id ?? `${Date.now().toString(36)}${lease.epoch}`,
        report,
        log,
        signal: lease.signal,
        progressed: run.progressed,
        onAnew: async (seq) => {
          await noteReset(nats, stream.name, seq);
          if (request !== undefined) await answerRequest(bucket, name, request);
        },
        wantsAnew: async () => (await readRequest(bucket, name)) !== undefined,
        wantedAgain: () => readAgain(bucket, name),
        onAgain: (wanted) => answerAgain(bucket, name, wanted),
      });
    }
    if (lease.signal.aborted && !run.signal.aborted) throw asReplicationError(lease.signal.reason);
  } finally {
    await lease.release();
  }
}
