/**
 * The outer loop of every capture: it waits for the lease, runs the source's part with it, tries again what may pass,
 * and waits for a snapshot from scratch where nothing else helps.
 */
import type { KV } from '@nats-io/kv';
import { ensureCdcStream } from '../core/cdc-stream.ts';
import type { NatsConfig } from '../core/config.ts';
import { asReplicationError, policyFor, type ReplicationError } from '../core/errors.ts';
import { maxFrameBytes } from '../core/frame-publisher.ts';
import { acquireLease, openBucket } from '../core/lease.ts';
import type { Logger } from '../core/logger.ts';
import { NO_CAPTURE_REPORT, type CaptureReport, type CaptureState } from '../core/metrics.ts';
import { connectNats, type Nats } from '../core/nats.ts';
import { abortableDelay, runService, type Run } from '../core/run-service.ts';
import { installationId } from '../core/stale-sessions.ts';
import { readRequests } from './request-queue.ts';

/** The settings that all kinds of sources have. */
interface SourceSettings {
  readonly frame_bytes: number;
}

export interface CaptureOptions<S extends SourceSettings> {
  readonly name: string;
  readonly settings: S;
  readonly nats: NatsConfig;
  /** Names this process among those that may hold the lease. */
  readonly holder: string;
  readonly leaseTtlMs?: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly report?: CaptureReport;
}

/** What a run of a capture has to work with while it holds the lease. */
export interface HeldCapture<S extends SourceSettings> {
  readonly name: string;
  readonly settings: S;
  readonly natsConfig: NatsConfig;
  readonly nats: Nats;
  readonly bucket: KV;
  /** Rises with every change of holder. */
  readonly epoch: number;
  /** Id of this installation, for the names of sessions. */
  readonly installation: string;
  /** The largest payload of a frame. */
  readonly frameBytes: number;
  readonly report: CaptureReport;
  readonly log: Logger;
  readonly run: Run;
}

/** What differs between kinds of sources. */
export interface SourceKind<S extends SourceSettings> {
  /** Captures until the signal of `run` aborts. Throws classified errors. */
  capture(held: HeldCapture<S>): Promise<void>;
  /** The state that an error leaves the source in which is not tried again. */
  stateAfter(error: ReplicationError): CaptureState;
  /** Whether a snapshot from scratch gets over an error, besides those whose policy says so. */
  resetHelps?(error: ReplicationError): boolean;
}

const DEFAULT_LEASE_TTL_MS = 10_000;
const REQUEST_POLL_MS = 1000;

/**
 * Captures until the signal aborts. Errors that may pass are retried; one that needs a snapshot from scratch waits for
 * `waybill snapshot SOURCE --reset`; any other is thrown.
 */
export async function runCapture<S extends SourceSettings>(
  kind: SourceKind<S>,
  options: CaptureOptions<S>,
): Promise<void> {
  const { name, signal, log } = options;
  const report = options.report ?? NO_CAPTURE_REPORT;
  report.state('starting');
  while (!signal.aborted) {
    try {
      await runService((run) => captureOnce(kind, options, report, run), {
        name: `capture:${name}`,
        signal,
        log,
        onError: (error, willRetry) => {
          // What waited goes on to wait, and grows older.
          if (willRetry) report.state('starting', `${error.code}: ${error.message}`);
        },
      });
    } catch (thrown) {
      const error = asReplicationError(thrown);
      report.state(kind.stateAfter(error), `${error.code}: ${error.message}`);
      const waits = policyFor(error.code).action === 'resnapshot' || kind.resetHelps?.(error) === true;
      if (!waits) throw error;
      log.error({ code: error.code, remedy: error.remedy, context: error.context }, error.message);
      await waitForReset(name, options.nats, log, signal);
    }
  }
  report.lagSeconds(undefined);
  report.state('stopped');
}

/** Waits until somebody asks for a snapshot from scratch. */
async function waitForReset(name: string, config: NatsConfig, log: Logger, signal: AbortSignal): Promise<void> {
  await runService(
    async () => {
      const nats = await connectNats(config, `waybill capture ${name}`);
      try {
        const bucket = await openBucket(nats, config);
        while (!signal.aborted && !(await readRequests(bucket, name)).some(({ reset }) => reset === true))
          await abortableDelay(REQUEST_POLL_MS, signal);
      } finally {
        await nats.close();
      }
    },
    { name: `capture:${name}:blocked`, signal, log },
  );
}

async function captureOnce<S extends SourceSettings>(
  kind: SourceKind<S>,
  options: CaptureOptions<S>,
  report: CaptureReport,
  run: Run,
): Promise<void> {
  const { name, settings, log, nats: natsConfig } = options;
  const nats = await connectNats(natsConfig, `waybill capture ${name}`);
  try {
    const bucket = await openBucket(nats, natsConfig);
    const lease = await acquireLease(bucket, `lease.capture.${name}`, {
      holder: options.holder,
      ttlMs: options.leaseTtlMs ?? DEFAULT_LEASE_TTL_MS,
      signal: run.signal,
      onWaiting: (holder) => {
        report.lagSeconds(undefined);
        report.state('standby', `held by ${holder}`);
        log.info({ holder }, 'standing by: another capture holds the lease');
      },
    });
    if (lease === undefined) return;
    try {
      report.state('starting');
      const frameBytes = maxFrameBytes(nats, settings.frame_bytes);
      await ensureCdcStream(nats, natsConfig, name);
      await kind.capture({
        name,
        settings,
        natsConfig,
        nats,
        bucket,
        epoch: lease.epoch,
        installation: await installationId(bucket),
        frameBytes,
        report,
        log,
        run: { ...run, signal: lease.signal },
      });
      if (!run.signal.aborted && lease.signal.aborted) throw lease.signal.reason;
    } finally {
      await lease.release();
    }
  } finally {
    await nats.close();
  }
}
