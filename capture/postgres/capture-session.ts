/** One run of a capture on open connections: the replication stream, the publish loop, marks, snapshots, confirmation. */
import type { KV } from '@nats-io/kv';
import type pg from 'pg';
import type { StreamTail } from '../../core/cdc-stream.ts';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { isAbort, ReplicationError } from '../../core/errors.ts';
import type { FramePublisher } from '../../core/frame-publisher.ts';
import type { Logger } from '../../core/logger.ts';
import type { CaptureReport } from '../../core/metrics.ts';
import type { Nats } from '../../core/nats.ts';
import { asPgPosition, comparePositions, formatPosition, pgPosition, type PgPosition } from '../../core/position.ts';
import { abortableDelay, untilAborted, type Run } from '../../core/run-service.ts';
import { sessionName } from '../../core/stale-sessions.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import { CatchUpReader } from './catch-up.ts';
import { readTable, reconcile, type CapturedTable } from './catalog.ts';
import { connectSource } from './connection.ts';
import { LogBudget } from './log-budget.ts';
import type { RelationMessage } from './pgoutput.ts';
import { ensurePublication, matchingTables } from './publication.ts';
import { hasGuardedKey, publishTable, type PublishedTable } from './published-table.ts';
import { ReplicationStream, type LogReader } from './replication-stream.ts';
import { advanceSlot, logDistanceBytes, readSlot } from './slot.ts';
import { emitMark, SnapshotReader } from './snapshot.ts';
import { clearRequest, readRequest, type ProgressStore, type SnapshotProgress } from '../snapshot-request.ts';
import { TransactionAssembler, type PendingFrame } from './transaction-assembler.ts';

export interface SessionOptions {
  readonly name: string;
  readonly settings: PostgresSourceConfig;
  readonly nats: Nats;
  readonly bucket: KV;
  readonly progress: ProgressStore;
  /** A connection for catalog look-ups and heartbeats. */
  readonly client: pg.Client;
  readonly publisher: FramePublisher;
  readonly tail: StreamTail;
  readonly tables: readonly CapturedTable[];
  readonly slot: string;
  readonly publication: string;
  /** Id of this installation, for the names of sessions. */
  readonly installation: string;
  readonly frameBytes: number;
  readonly report: CaptureReport;
  readonly log: Logger;
  readonly run: Run;
  /** How long an acknowledged frame may be lost with the broker's power. */
  readonly syncMs: number;
}

const STATUS_EVERY_MS = 1000;
const SLOT_CHECK_EVERY_MS = 5000;
const REQUEST_POLL_MS = 1000;
/** From this much unread log on it is read in slices; a walsender is quicker to bring what is new. */
const FAR_BEHIND_BYTES = 16 << 20;
/** While slices are read, the slot is brought forward this often. */
const ADVANCE_SLOT_EVERY_MS = 30_000;

export class CaptureSession {
  readonly #o: SessionOptions;
  readonly #markPrefix: string;
  readonly #rules: ColumnRules;
  readonly #byOid = new Map<number, PublishedTable>();
  readonly #refreshed = new Set<string>();
  readonly #assembler: TransactionAssembler;
  /** What reads the log now: slices of it, or the replication stream. */
  #reader: LogReader | undefined;
  #stream: ReplicationStream | undefined;
  readonly #included: (schema: string, name: string) => boolean;
  readonly #ready: PendingFrame[] = [];
  /** Ends of stored frames that the slot may be confirmed at, once they are old enough to be on disk. */
  readonly #stored: { lsn: bigint; atMs: number }[] = [];
  #acked: PgPosition;
  /** The source may forget what lies before. */
  #safeLsn = 0n;
  #wake: (() => void) | undefined;
  #woken = false;
  #storedWaiters: { upTo: PgPosition; resolve: () => void }[] = [];
  #snapshot: SnapshotReader | undefined;
  #cancelSnapshot = false;
  #lastCommitUs = 0;
  #lastActivityMs = performance.now();

  constructor(options: SessionOptions) {
    this.#o = options;
    this.#markPrefix = `waybill:${options.name}`;
    this.#included = compileTablePatterns(options.settings.tables);
    this.#acked = asPgPosition(options.tail.end);
    this.#rules = ColumnRules.compile(options.settings.columns);
    for (const table of options.tables) this.#byOid.set(table.oid, publishTable(table, this.#rules));
    for (const rule of this.#rules.unmatched(options.tables.map(({ schema }) => schema)))
      options.log.warn({ rule }, 'a rule of `columns` names no column of the captured tables');
    this.#assembler = new TransactionAssembler({
      frameBytes: options.frameBytes,
      resume: this.#acked,
      markPrefix: this.#markPrefix,
      resolve: (relation) => this.#resolve(relation),
      tableByOid: (oid) => this.#byOid.get(oid),
      takeChunk: (id) => this.#snapshot?.takeChunk(id),
      chunkDone: (id, kept) => this.#snapshot?.chunkDone(id, kept),
      onFrame: (frame) => this.#enqueue(frame),
    });
  }

  /** Runs until the signal aborts (then drains) or one of its parts fails. */
  async run(): Promise<void> {
    const { run } = this.#o;
    const stop = new AbortController();
    const signal = AbortSignal.any([run.signal, stop.signal]);
    // A signal that aborted while this session was prepared tells nobody any more.
    if (signal.aborted) return;
    let failure: unknown;
    const part = async (work: Promise<void>): Promise<void> => {
      try {
        await work;
        if (!signal.aborted) throw new ReplicationError('source_unreachable', 'the replication connection was closed');
      } catch (thrown) {
        if (isAbort(thrown, signal)) return;
        failure ??= thrown;
      } finally {
        if (!stop.signal.aborted) stop.abort();
        this.#signal();
      }
    };
    const onDisconnect = this.#o.nats.connection.closed().then((error) => {
      if (error instanceof Error)
        throw new ReplicationError('nats_unreachable', `the connection to NATS was closed: ${error.message}`, {
          cause: error,
        });
    });
    const parts = [
      this.#readLog(signal),
      this.#publishLoop(signal),
      this.#statusLoop(signal),
      this.#heartbeatLoop(signal),
      this.#snapshotLoop(signal),
    ].map(part);
    onDisconnect.catch((thrown: unknown) => {
      failure ??= thrown;
      stop.abort();
    });
    await Promise.all(parts);
    if (failure !== undefined) throw failure;
  }

  /** Slices while far behind, then the stream. */
  async #readLog(signal: AbortSignal): Promise<void> {
    await this.#catchUp(signal);
    if (signal.aborted) return;
    const { settings, name, slot, publication, installation } = this.#o;
    const stream = new ReplicationStream({
      settings,
      applicationName: sessionName('stream', name, installation),
      slot,
      publication,
      startLsn: this.#assembler.boundary.lsn,
      handler: this.#assembler,
      onActivity: () => this.#signal(),
      onKeepalive: (walEnd) => this.#assembler.advance(walEnd),
    });
    this.#reader = stream;
    this.#stream = stream;
    if (this.#ready.length > 0) stream.pause();
    const onStop = (): void => void stream.stop();
    signal.addEventListener('abort', onStop, { once: true });
    try {
      await stream.run();
    } finally {
      signal.removeEventListener('abort', onStop);
    }
  }

  async #catchUp(signal: AbortSignal): Promise<void> {
    const { settings, name, slot, publication, log, client, installation } = this.#o;
    if ((await logDistanceBytes(client, this.#acked.lsn)) < FAR_BEHIND_BYTES) return;
    const own = await connectSource(settings, sessionName('slices', name, installation));
    const onStop = (): void => void own.end().catch(() => {});
    signal.addEventListener('abort', onStop, { once: true });
    try {
      const reader = new CatchUpReader({
        client: own,
        slot,
        publication,
        from: this.#acked,
        handler: this.#assembler,
        onActivity: () => this.#signal(),
      });
      if (!(await reader.open())) {
        log.info({ slot }, 'far behind, and the source has no slot to spare for reading in slices: streaming');
        return;
      }
      log.info({ position: formatPosition(this.#acked) }, 'far behind: reading the log in slices');
      this.#reader = reader;
      while (!signal.aborted) {
        const more = await reader.readSlice(signal);
        if (!more && (await logDistanceBytes(client, this.#assembler.boundary.lsn)) < FAR_BEHIND_BYTES) break;
      }
      log.info({ position: formatPosition(this.#assembler.boundary) }, 'caught up: streaming');
    } catch (thrown) {
      if (!signal.aborted) throw thrown;
    } finally {
      signal.removeEventListener('abort', onStop);
      await own.end().catch(() => {});
    }
  }

  #resolve(relation: RelationMessage): PublishedTable | undefined {
    if (!this.#included(relation.schema, relation.name)) return undefined;
    const known = this.#byOid.get(relation.oid);
    const fingerprint = JSON.stringify([relation.oid, relation.identity, relation.columns]);
    const table = reconcile(relation, known);
    const complete = known !== undefined && known.schema.version === table.schema.version;
    if (!complete && !this.#refreshed.has(fingerprint)) {
      this.#refreshed.add(fingerprint);
      this.#reader!.holdUntil(this.#refresh(relation));
      return undefined;
    }
    const published = publishTable(table, this.#rules);
    this.#byOid.set(relation.oid, published);
    return published;
  }

  /** Looks a changed table up and describes it to the assembler again, before any of its rows is decoded. */
  async #refresh(relation: RelationMessage): Promise<void> {
    const table = await readTable(this.#o.client, relation.oid);
    if (table === undefined) this.#byOid.delete(relation.oid);
    else this.#byOid.set(relation.oid, publishTable(table, this.#rules));
    this.#assembler.relation(relation);
  }

  #enqueue(frame: PendingFrame): void {
    this.#ready.push(frame);
    // Invariant 6: with one frame in flight and one waiting, reading stops.
    this.#reader?.pause();
    this.#signal();
  }

  #signal(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** Publishes one frame at a time; while one is in flight the next is filled (group commit). */
  async #publishLoop(signal: AbortSignal): Promise<void> {
    const { publisher, report, run } = this.#o;
    for (;;) {
      const frame = this.#ready.shift() ?? this.#assembler.sealAtBoundary();
      if (frame === undefined) {
        if (signal.aborted) return;
        if (!this.#woken) await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        this.#woken = false;
        continue;
      }
      const startedMs = performance.now();
      await publisher.publish(frame);
      this.#acked = frame.end;
      this.#stored.push({ lsn: frame.end.lsn, atMs: performance.now() });
      this.#lastCommitUs = frame.timeUs;
      this.#lastActivityMs = performance.now();
      report.published({
        rows: frame.rows,
        transactions: frame.transactions,
        bytes: frame.bytes,
        seconds: (performance.now() - startedMs) / 1000,
        commitTimeUs: frame.timeUs,
      });
      this.#assembler.recycle(frame.writer);
      run.progressed();
      if (this.#ready.length === 0) this.#reader?.resume();
      if (this.#o.syncMs === 0) this.#confirm();
      const waiters = this.#storedWaiters;
      this.#storedWaiters = waiters.filter(({ upTo }) => comparePositions(upTo, this.#acked) > 0);
      for (const waiter of waiters) if (comparePositions(waiter.upTo, this.#acked) <= 0) waiter.resolve();
    }
  }

  /** Lets the source forget what has been stored for longer than the broker may take to sync it. */
  #confirm(): void {
    const dueMs = performance.now() - this.#o.syncMs;
    while (this.#stored.length > 0 && this.#stored[0]!.atMs <= dueMs) this.#safeLsn = this.#stored.shift()!.lsn;
    this.#stream?.confirm(this.#safeLsn);
    // Keep one entry a second: a fast stream would otherwise fill this list during a long sync interval.
    if (this.#stored.length > 4096)
      this.#stored.splice(0, this.#stored.length, ...this.#stored.filter((_, index) => index % 2 === 1));
  }

  async #statusLoop(signal: AbortSignal): Promise<void> {
    const { report, client, slot } = this.#o;
    let slotCheckedMs = -Infinity;
    let slotAdvancedMs = performance.now();
    const budget = new LogBudget();
    while (!signal.aborted) {
      this.#confirm();
      this.#stream?.sendStatus();
      if (this.#stream === undefined && performance.now() - slotAdvancedMs > ADVANCE_SLOT_EVERY_MS) {
        slotAdvancedMs = performance.now();
        if (this.#safeLsn > 0n) await advanceSlot(client, slot, this.#safeLsn);
      }
      for (const { table, op, count } of this.#assembler.takeCounts())
        report.rows(table.schema.schema, table.schema.name, op, count);
      const outstanding =
        comparePositions(this.#assembler.boundary, this.#acked) > 0 ||
        this.#assembler.inTransaction ||
        this.#ready.length > 0;
      const idle = !outstanding && performance.now() - this.#lastActivityMs > 2 * STATUS_EVERY_MS;
      report.state(this.#snapshot === undefined ? (idle ? 'idle' : 'streaming') : 'snapshot');
      report.position(formatPosition(this.#acked));
      const newestUs = this.#assembler.newestTimeUs;
      report.lagSeconds(
        !outstanding || newestUs <= this.#lastCommitUs ? 0 : Math.max(0, Date.now() / 1000 - newestUs / 1e6),
      );
      if (performance.now() - slotCheckedMs > SLOT_CHECK_EVERY_MS) {
        slotCheckedMs = performance.now();
        const info = await readSlot(client, slot);
        if (info !== undefined) {
          report.retainedLogBytes(info.retainedBytes);
          report.logBudgetSeconds(budget.observe(slotCheckedMs, info.logEnd, info.safeBytes));
        }
        if (info === undefined || info.walStatus === 'lost')
          throw new ReplicationError(
            info === undefined ? 'source_slot_missing' : 'source_slot_lost',
            `replication slot ${slot} went away while it was read`,
          );
      }
      await abortableDelay(STATUS_EVERY_MS, signal);
    }
  }

  async #heartbeatLoop(signal: AbortSignal): Promise<void> {
    const { client, settings } = this.#o;
    const standby =
      (await client.query<{ standby: boolean }>('select pg_is_in_recovery() as standby')).rows[0]?.standby === true;
    while (!signal.aborted) {
      await abortableDelay(settings.heartbeat, signal);
      if (signal.aborted) return;
      // A standby's log cannot be written to: there, keepalives alone bring an idle slot forward.
      if (standby) this.#assembler.requestProgress();
      else await emitMark(client, this.#markPrefix, { k: 'heartbeat' });
      this.#signal();
    }
  }

  /** Reads what the stored progress asks for, then waits for requests. */
  async #snapshotLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const progress = await this.#o.progress.read();
      if (progress?.tables.some((table) => table.state !== 'done') === true) await this.#runSnapshot(progress, signal);
      await this.#takeRequest();
      await abortableDelay(REQUEST_POLL_MS, signal);
    }
  }

  async #runSnapshot(progress: SnapshotProgress, signal: AbortSignal): Promise<void> {
    const { settings, name, installation, log } = this.#o;
    const client = await connectSource(settings, sessionName('load', name, installation));
    this.#cancelSnapshot = false;
    const poll = setInterval(() => void this.#pollCancel(), REQUEST_POLL_MS);
    try {
      this.#snapshot = new SnapshotReader({
        client,
        progress: this.#o.progress,
        markPrefix: this.#markPrefix,
        rules: this.#rules,
        maxChunkRows: settings.snapshot_chunk_rows,
        log,
        signal,
        tableByName: (schema, table) =>
          [...this.#byOid.values()].find((t) => t.schema.schema === schema && t.schema.name === table),
        trackTransactions: (on) => this.#assembler.trackTransactions(on),
        forgetTransactionsBefore: (xid) => this.#assembler.forgetTransactionsBefore(xid),
        stored: () => this.#whenStored(client, signal),
        cancelled: () => this.#cancelSnapshot,
      });
      await this.#snapshot.run(progress);
      if (this.#cancelSnapshot) {
        for (const table of progress.tables) table.state = 'done';
        await this.#o.progress.write(progress);
        log.info('snapshot cancelled');
      }
    } finally {
      clearInterval(poll);
      this.#snapshot = undefined;
      await client.end().catch(() => {});
    }
  }

  /** Resolves when the stream holds the source's log up to where it ends now; rejects when the signal aborts first. */
  async #whenStored(client: pg.Client, signal: AbortSignal): Promise<void> {
    const result = await client.query<{ lsn: string }>("select (pg_current_wal_insert_lsn() - '0/0')::text as lsn");
    const upTo = pgPosition(BigInt(result.rows[0]!.lsn));
    const stored = new Promise<void>((resolve) => this.#storedWaiters.push({ upTo, resolve }));
    // The heartbeat commits behind that point, so that the stream passes it even when nothing else happens.
    await emitMark(client, this.#markPrefix, { k: 'heartbeat' });
    await untilAborted(stored, signal);
  }

  async #pollCancel(): Promise<void> {
    try {
      if ((await readRequest(this.#o.bucket, this.#o.name))?.cancel === true) {
        this.#cancelSnapshot = true;
        await clearRequest(this.#o.bucket, this.#o.name);
      }
    } catch (thrown) {
      this.#o.log.debug({ err: String(thrown) }, 'looking for a cancel request failed; looking again');
    }
  }

  async #takeRequest(): Promise<void> {
    const { bucket, name, client, settings, publication, log } = this.#o;
    const request = await readRequest(bucket, name);
    if (request === undefined) return;
    // A reset needs a new slot: the next run makes it.
    if (request.reset === true)
      throw new ReplicationError('stream_conflict', `a snapshot from scratch was asked for (${request.id})`);
    if (request.cancel === true) return clearRequest(bucket, name);
    const tables = await matchingTables(client, settings.tables);
    await ensurePublication(client, publication, tables);
    for (const table of tables)
      if (!this.#byOid.has(table.oid)) this.#byOid.set(table.oid, publishTable(table, this.#rules));
    const wanted = tables.filter(
      (table) => request.tables === undefined || request.tables.includes(`${table.schema.schema}.${table.schema.name}`),
    );
    const names = new Set(wanted.map((table) => `${table.schema.schema}.${table.schema.name}`));
    const others =
      (await this.#o.progress.read())?.tables.filter((table) =>
        request.keys === undefined
          ? !names.has(`${table.schema}.${table.name}`)
          : table.keys === undefined || table.state !== 'done',
      ) ?? [];
    log.info({ tables: [...names], keys: request.keys?.length }, 'snapshot requested');
    await this.#o.progress.write({
      v: 1,
      id: request.id,
      tables: [
        ...others,
        ...wanted.map(
          (table) =>
            ({
              schema: table.schema.schema,
              name: table.schema.name,
              state: 'pending',
              cursor: null,
              rows: 0,
              request: request.id,
              // Keys that the stream shows as hashes name no row here: the whole table is read.
              ...(request.keys === undefined || hasGuardedKey(publishTable(table, this.#rules))
                ? {}
                : { keys: request.keys }),
            }) as const,
        ),
      ],
    });
    // Only now: a crash before this line finds the request again, and taking it up twice does no harm.
    await clearRequest(bucket, name);
  }
}
