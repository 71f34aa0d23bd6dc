/** The capture of one Postgres source: from its log into its stream, in a loop that survives everything it can. */
import type { KV } from '@nats-io/kv';
import type pg from 'pg';
import { cdcStreamName, ensureCdcStream, noteReset, readTail, type StreamTail } from '../../core/cdc-stream.ts';
import { publicationName, slotName, type NatsConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { asReplicationError, policyFor, ReplicationError } from '../../core/errors.ts';
import { FramePublisher, maxFrameBytes } from '../../core/frame-publisher.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { acquireLease, openBucket } from '../../core/lease.ts';
import type { Logger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT, type CaptureReport } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { describePosition, ORIGIN, pgPosition } from '../../core/position.ts';
import { abortableDelay, runService, type Run } from '../../core/run-service.ts';
import { endStaleSessions, installationId, sessionName } from '../../core/stale-sessions.ts';
import { CaptureSession } from './capture-session.ts';
import { connectShared } from './connection.ts';
import { ensurePublication, matchingTables, requireIdentities } from './publication.ts';
import { createSlot, readSlot, requireUsableSlot, slotState } from './slot.ts';
import { clearRequest, newSnapshotId, ProgressStore, readRequest, type SnapshotProgress } from '../snapshot-request.ts';
import { sourceError } from './source-error.ts';
import type { CapturedTable } from './catalog.ts';

export interface CaptureOptions {
  readonly name: string;
  readonly settings: PostgresSourceConfig;
  readonly nats: NatsConfig;
  /** Names this process among those that may hold the lease. */
  readonly holder: string;
  readonly leaseTtlMs?: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly report?: CaptureReport;
}

const MIN_SERVER_VERSION = 140_000;
const DEFAULT_LEASE_TTL_MS = 10_000;

/**
 * Captures until the signal aborts. Errors that may pass are retried; one that needs a snapshot from scratch waits for
 * `waybill snapshot SOURCE --reset`; any other is thrown.
 */
export async function runPostgresCapture(options: CaptureOptions): Promise<void> {
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
      report.state(blockedState(error), `${error.code}: ${error.message}`);
      if (policyFor(error.code).action !== 'resnapshot') throw error;
      log.error({ code: error.code, remedy: error.remedy, context: error.context }, error.message);
      await waitForReset(options);
    }
  }
  report.state('stopped');
}

function blockedState(error: ReplicationError): 'slot_missing' | 'slot_lost' | 'blocked' {
  if (error.code === 'source_slot_missing') return 'slot_missing';
  return error.code === 'source_slot_lost' ? 'slot_lost' : 'blocked';
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
  const installation = await installationId(bucket);
  const client = await connectShared(settings, sessionName('capture', name, installation));
  try {
    await endOvertaken(client, name, installation, log);
    const source = await inspectSource(client);
    const slot = slotName(name, settings, natsConfig.prefix);
    const publication = publicationName(name, settings, natsConfig.prefix);
    const tables = await matchingTables(client, settings.tables);
    requireIdentities(tables);
    await ensurePublication(client, publication, tables);

    let tail = await readTail(nats, cdcStreamName(natsConfig.prefix, name));
    if (tail.origin !== undefined && tail.origin !== '' && tail.origin !== source.origin)
      throw new ReplicationError(
        'source_identity_mismatch',
        `source ${name} is now database ${source.origin}, but its stream was captured from ${tail.origin}`,
      );
    const publisher = new FramePublisher(nats, natsConfig, { source: name, origin: source.origin, epoch, tail });
    const request = await readRequest(bucket, name);
    const prepared = await prepareSlot(client, { slot, tail, source, reset: request?.reset === true });
    if (prepared.startAfresh) {
      await publisher.publish(emptyFrame(tail, prepared.lsn));
      await noteReset(nats, publisher.streamName, publisher.lastSeq);
      tail = { ...tail, seq: publisher.lastSeq, end: pgPosition(prepared.lsn) };
      log.info({ slot, position: describePosition(tail.end) }, 'capture starts here');
    }
    const progress = new ProgressStore(bucket, name);
    await planSnapshot(progress, settings, tables, {
      startAfresh: prepared.startAfresh,
      reset: request?.reset === true,
    });
    if (request?.reset === true) await clearRequest(bucket, name);

    const session = new CaptureSession({
      name,
      settings,
      nats,
      bucket,
      progress,
      client,
      publisher,
      tail,
      tables,
      slot,
      publication,
      installation,
      frameBytes,
      report,
      log,
      run,
      syncMs: syncDelayMs(natsConfig),
    });
    await session.run();
  } finally {
    await client.end().catch(() => {});
  }
}

/** A holder that hangs keeps the slot in use until the walsender gives it up, and a chunk's transaction for ever. */
async function endOvertaken(client: pg.Client, name: string, installation: string, log: Logger): Promise<void> {
  const names = (['capture', 'stream', 'slices', 'load'] as const).map((purpose) =>
    sessionName(purpose, name, installation),
  );
  try {
    const ended = await endStaleSessions(client, names);
    if (ended > 0) log.warn({ sessions: ended }, 'ended the sessions that an overtaken process left on the source');
  } catch (thrown) {
    throw sourceError(thrown, 'ending the sessions of an overtaken process');
  }
}

/** How long an acknowledged frame may still be lost: not at all where it is replicated. */
function syncDelayMs(config: NatsConfig): number {
  return config.replicas > 1 ? 0 : config.stream.sync_interval;
}

export interface SourceFacts {
  readonly version: number;
  readonly database: string;
  /** System identifier and database oid: tells this database from every other. */
  readonly origin: string;
}

/** Reads what must be true of a source before anything is made on it. Throws the error that says what is not. */
export async function inspectSource(client: pg.Client): Promise<SourceFacts> {
  try {
    const result = await client.query<{
      version: string;
      wal_level: string;
      encoding: string;
      database: string;
      system: string;
      oid: string;
    }>(
      `select current_setting('server_version_num') as version, current_setting('wal_level') as wal_level,
         pg_encoding_to_char(d.encoding) as encoding, current_database() as database,
         (select system_identifier::text from pg_control_system()) as system, d.oid::text as oid
       from pg_database d where d.datname = current_database()`,
    );
    const row = result.rows[0]!;
    const version = Number(row.version);
    if (version < MIN_SERVER_VERSION)
      throw new ReplicationError(
        'config_invalid',
        `the source is PostgreSQL ${Math.floor(version / 10_000)}; 14 is the oldest supported`,
      );
    if (row.wal_level !== 'logical')
      throw new ReplicationError('source_not_logical', `wal_level of the source is ${row.wal_level}, not logical`);
    if (row.encoding === 'SQL_ASCII')
      throw new ReplicationError('source_encoding', 'the source database has encoding SQL_ASCII');
    return { version, database: row.database, origin: `${row.system}/${row.oid}` };
  } catch (thrown) {
    throw sourceError(thrown, 'inspecting the source');
  }
}

async function prepareSlot(
  client: pg.Client,
  options: { slot: string; tail: StreamTail; source: SourceFacts; reset: boolean },
): Promise<{ startAfresh: boolean; lsn: bigint }> {
  const { slot, tail, source, reset } = options;
  const streamEnd = tail.seq === 0 ? undefined : tail.end;
  let info = await readSlot(client, slot);
  if (reset && info !== undefined) {
    try {
      await client.query('select pg_drop_replication_slot($1)', [slot]);
    } catch (thrown) {
      throw sourceError(thrown, `dropping replication slot ${slot}`);
    }
    info = undefined;
  }
  if (reset || (info === undefined && streamEnd === undefined))
    return { startAfresh: true, lsn: await createSlot(client, slot, source.version) };
  requireUsableSlot(slotState(info, source.database, streamEnd), slot, info, streamEnd);
  return { startAfresh: streamEnd === undefined, lsn: info!.confirmedLsn };
}

/** The frame that begins a stream, or begins it anew: no rows, only the place from which everything is captured. */
function emptyFrame(tail: StreamTail, lsn: bigint): Parameters<FramePublisher['publish']>[0] {
  const start = tail.seq === 0 ? ORIGIN : tail.end;
  return {
    payload: new FrameWriter(64).finish(),
    start,
    end: pgPosition(lsn),
    rows: 0,
    transactions: 0,
    timeUs: 0,
    reset: true,
  };
}

/** Adds to the stored progress what has to be read: everything at first, tables that are new later. */
async function planSnapshot(
  store: ProgressStore,
  settings: PostgresSourceConfig,
  tables: readonly CapturedTable[],
  how: { startAfresh: boolean; reset: boolean },
): Promise<void> {
  const before = await store.read();
  const stored = how.startAfresh || how.reset ? undefined : before;
  const known = new Set(stored?.tables.map((table) => `${table.schema}.${table.name}`));
  const added = tables.filter((table) => !known.has(`${table.schema.schema}.${table.schema.name}`));
  if (stored !== undefined && added.length === 0) return;
  const state = settings.snapshot === 'initial' || how.reset ? 'pending' : 'done';
  const progress: SnapshotProgress = {
    v: 1,
    id: stored?.id ?? newSnapshotId(),
    tables: [
      ...(stored?.tables ?? []),
      ...added.map(
        (table) => ({ schema: table.schema.schema, name: table.schema.name, state, cursor: null, rows: 0 }) as const,
      ),
    ],
  };
  await store.write(progress);
}
