/** The capture of one MySQL or MariaDB source: from its log into its stream, in a loop that survives what it can. */
import type { KV } from '@nats-io/kv';
import { cdcStreamName, ensureCdcStream, noteReset, readTail, type StreamTail } from '../../core/cdc-stream.ts';
import { serverId, type MysqlSourceConfig, type NatsConfig } from '../../core/config.ts';
import { asReplicationError, policyFor, ReplicationError } from '../../core/errors.ts';
import { FramePublisher, maxFrameBytes } from '../../core/frame-publisher.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { gtidPosition, parseGtidSet, withGtid, type GtidPosition } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { acquireLease, openBucket } from '../../core/lease.ts';
import type { Logger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT, type CaptureReport } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asGtidPosition, describePosition, ORIGIN } from '../../core/position.ts';
import { abortableDelay, runService, type Run } from '../../core/run-service.ts';
import { clearRequest, newSnapshotId, ProgressStore, readRequest, type SnapshotProgress } from '../snapshot-request.ts';
import { CaptureSession } from './capture-session.ts';
import { matchingTables, tableName, type CapturedTable } from './catalog.ts';
import { connectSource, type SqlClient } from './connection.ts';
import { readExecuted, requireLineage } from './executed.ts';
import { readFacts, requireSettings } from './inspect.ts';

export interface CaptureOptions {
  readonly name: string;
  readonly settings: MysqlSourceConfig;
  readonly nats: NatsConfig;
  /** Names this process among those that may hold the lease. */
  readonly holder: string;
  readonly leaseTtlMs?: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly report?: CaptureReport;
}

const DEFAULT_LEASE_TTL_MS = 10_000;
/** An idle stream is given a frame this many times within the age at which its frames expire. */
const KEEPALIVES_PER_AGE = 8;
const MAX_KEEPALIVE_MS = 3_600_000;

/**
 * Captures until the signal aborts. Errors that may pass are retried; one that needs a snapshot from scratch waits for
 * `waybill snapshot SOURCE --reset`; any other is thrown.
 */
export async function runMysqlCapture(options: CaptureOptions): Promise<void> {
  const { name, signal, log } = options;
  const report = options.report ?? NO_CAPTURE_REPORT;
  report.state('starting');
  while (!signal.aborted) {
    try {
      await runService((run) => captureOnce(options, report, run), {
        name: `capture:${name}`,
        signal,
        log,
        onError: (error, willRetry) => {
          report.lagSeconds(undefined);
          if (willRetry) report.state('starting', `${error.code}: ${error.message}`);
        },
      });
    } catch (thrown) {
      const error = asReplicationError(thrown);
      report.state(error.code === 'source_log_purged' ? 'slot_lost' : 'blocked', `${error.code}: ${error.message}`);
      // A source that went another way may be followed all the same, when somebody says so.
      if (policyFor(error.code).action !== 'resnapshot' && error.code !== 'source_diverged') throw error;
      log.error({ code: error.code, remedy: error.remedy, context: error.context }, error.message);
      await waitForReset(options);
    }
  }
  report.state('stopped');
}

/** Waits until somebody asks for a snapshot from scratch. */
async function waitForReset({ name, nats: config, signal, log }: CaptureOptions): Promise<void> {
  await runService(
    async () => {
      const nats = await connectNats(config, `waybill capture ${name}`);
      try {
        const bucket = await openBucket(nats, config);
        while (!signal.aborted && (await readRequest(bucket, name))?.reset !== true) await abortableDelay(1000, signal);
      } finally {
        await nats.close();
      }
    },
    { name: `capture:${name}:blocked`, signal, log },
  );
}

async function captureOnce(options: CaptureOptions, report: CaptureReport, run: Run): Promise<void> {
  const { name, log } = options;
  const nats = await connectNats(options.nats, `waybill capture ${name}`);
  try {
    const bucket = await openBucket(nats, options.nats);
    const lease = await acquireLease(bucket, `lease.capture.${name}`, {
      holder: options.holder,
      ttlMs: options.leaseTtlMs ?? DEFAULT_LEASE_TTL_MS,
      signal: run.signal,
      onWaiting: (holder) => {
        report.state('standby', `held by ${holder}`);
        log.info({ holder }, 'standing by: another capture holds the lease');
      },
    });
    if (lease === undefined) return;
    try {
      await captureWithLease(options, report, { ...run, signal: lease.signal }, nats, bucket, lease.epoch);
      if (!run.signal.aborted && lease.signal.aborted) throw lease.signal.reason;
    } finally {
      await lease.release();
    }
  } finally {
    await nats.close();
  }
}

async function captureWithLease(
  options: CaptureOptions,
  report: CaptureReport,
  run: Run,
  nats: Nats,
  bucket: KV,
  epoch: number,
): Promise<void> {
  const { name, settings, nats: natsConfig, log } = options;
  report.state('starting');
  const frameBytes = maxFrameBytes(nats, settings.frame_bytes);
  await ensureCdcStream(nats, natsConfig, name);
  const client = await connectSource(settings);
  try {
    const facts = await readFacts(client, settings.kind);
    requireSettings(facts, settings.kind);
    const tables = await matchingTables(client, settings.kind, settings.tables);
    const tail = await readTail(nats, cdcStreamName(natsConfig.prefix, name));
    const request = await readRequest(bucket, name);
    const reset = request?.reset === true;
    const held = asGtidPosition(tail.end);
    if (held !== undefined && held.kind !== settings.kind)
      throw new ReplicationError(
        'source_identity_mismatch',
        `source ${name} is ${settings.kind} now, but its stream was captured from ${held.kind}`,
      );
    // The origin names the first server of a lineage; a replica that takes over keeps it.
    const origin = reset || tail.origin === undefined || tail.origin === '' ? facts.origin : tail.origin;
    const publisher = new FramePublisher(nats, natsConfig, { source: name, origin, epoch, tail });
    const startAfresh = reset || held === undefined;
    let resume: GtidPosition;
    if (startAfresh) {
      resume = gtidPosition(await readExecuted(client, settings.kind), held?.reads ?? 0);
      await publisher.publish(emptyFrame(tail, resume));
      await noteReset(nats, publisher.streamName, publisher.lastSeq);
      log.info({ position: describePosition(resume) }, 'capture starts here');
    } else {
      resume = held;
      await requireLineage(client, settings.kind, takenOrOpen(resume), name);
    }
    const progress = new ProgressStore(bucket, name);
    await planSnapshot(progress, settings, tables, { startAfresh, reset });
    if (reset) await clearRequest(bucket, name);
    await new CaptureSession({
      name,
      prefix: natsConfig.prefix,
      settings,
      nats,
      bucket,
      progress,
      client,
      publisher,
      tail,
      resume,
      start: await replayFrom(client, settings.kind, startAfresh ? undefined : tail.replay, resume, log),
      tables,
      serverId: serverId(name, settings, natsConfig.prefix),
      frameBytes,
      report,
      log,
      run,
      keepaliveMs: Math.min(
        MAX_KEEPALIVE_MS,
        natsConfig.stream.max_age > 0 ? natsConfig.stream.max_age / KEEPALIVES_PER_AGE : MAX_KEEPALIVE_MS,
      ),
    }).run();
  } finally {
    client.end();
  }
}

/** What the source must have executed: also the transaction that the stream holds in part. */
function takenOrOpen({ gtids, open }: GtidPosition): GtidSet {
  return open === undefined ? gtids : withGtid(gtids, open.gtid);
}

/**
 * Where the log is read from: before the XA transactions in doubt, whose rows are held again. Where that part of the
 * log is gone it is read from `resume`, and their commit makes all tables be read again.
 */
async function replayFrom(
  client: SqlClient,
  kind: 'mysql' | 'mariadb',
  text: string | undefined,
  resume: GtidPosition,
  log: Logger,
): Promise<GtidSet> {
  const replay = text === undefined ? undefined : parseGtidSet(text, kind);
  if (replay === undefined) return resume.gtids;
  try {
    await requireLineage(client, kind, replay, 'of XA transactions in doubt');
    return replay;
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code !== 'source_log_purged') throw error;
    log.warn({ replay: text }, 'the log no longer holds the XA transactions in doubt');
    return resume.gtids;
  }
}

/** The frame that begins a stream, or begins it anew: no rows, only the place from which everything is captured. */
function emptyFrame(tail: StreamTail, end: GtidPosition): Parameters<FramePublisher['publish']>[0] {
  const start = tail.seq === 0 ? ORIGIN : tail.end;
  return { payload: new FrameWriter(64).finish(), start, end, rows: 0, transactions: 0, timeUs: 0, reset: true };
}

/** Adds to the stored progress what has to be read: everything at first, tables that are new later. */
async function planSnapshot(
  store: ProgressStore,
  settings: MysqlSourceConfig,
  tables: readonly CapturedTable[],
  how: { startAfresh: boolean; reset: boolean },
): Promise<void> {
  const before = await store.read();
  const stored = how.startAfresh || how.reset ? undefined : before;
  const known = new Set(stored?.tables.map(tableName));
  const added = tables.filter(({ schema }) => !known.has(tableName(schema)));
  if (stored !== undefined && added.length === 0) return;
  const state = settings.snapshot === 'initial' || how.reset ? 'pending' : 'done';
  const progress: SnapshotProgress = {
    v: 1,
    id: stored?.id ?? newSnapshotId(),
    tables: [
      ...(stored?.tables ?? []),
      ...added.map(
        ({ schema }) => ({ schema: schema.schema, name: schema.name, state, cursor: null, rows: 0 }) as const,
      ),
    ],
  };
  await store.write(progress);
}
