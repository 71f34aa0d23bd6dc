/** One run of a MySQL or MariaDB capture on open connections: log, publish loop, snapshots, catalog, lag. */
import { createHash } from 'node:crypto';
import type { KV } from '@nats-io/kv';
import type { StreamTail } from '../../core/cdc-stream.ts';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { asReplicationError, isAbort, ReplicationError } from '../../core/errors.ts';
import type { FramePublisher } from '../../core/frame-publisher.ts';
import type { GtidPosition } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { Logger } from '../../core/logger.ts';
import type { CaptureReport } from '../../core/metrics.ts';
import type { Nats } from '../../core/nats.ts';
import { formatPosition } from '../../core/position.ts';
import { abortableDelay, untilAborted, type Run } from '../../core/run-service.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import {
  clearRequest,
  newSnapshotId,
  readRequest,
  type ProgressStore,
  type SnapshotProgress,
} from '../snapshot-request.ts';
import type { GroupInfo, LoggedStatement, Xid } from './binlog-handler.ts';
import { BinlogStream } from './binlog-stream.ts';
import { matchingTables, readTable, reconcile, tableName, type CapturedTable, type LoggedTable } from './catalog.ts';
import { connectionOptions, connectSource, quoteLiteral, type SqlClient } from './connection.ts';
import { GroupAssembler, type PendingFrame } from './group-assembler.ts';
import { publishLogged, publishRead } from './published-table.ts';
import { readRetainedBytes } from './retained-log.ts';
import { SnapshotReader, type LogPort } from './snapshot.ts';
import type { TableMap } from './table-map.ts';

export interface SessionOptions {
  readonly name: string;
  readonly prefix: string;
  readonly settings: MysqlSourceConfig;
  readonly nats: Nats;
  readonly bucket: KV;
  readonly progress: ProgressStore;
  /** A connection for catalog look-ups. */
  readonly client: SqlClient;
  readonly publisher: FramePublisher;
  readonly tail: StreamTail;
  readonly resume: GtidPosition;
  /** Where the log is read from; before `resume` while XA transactions are in doubt. */
  readonly start: GtidSet;
  readonly tables: readonly CapturedTable[];
  readonly serverId: number;
  readonly frameBytes: number;
  readonly report: CaptureReport;
  readonly log: Logger;
  readonly run: Run;
  /** An idle stream gets a frame this often, so that its last one does not expire. */
  readonly keepaliveMs: number;
}

const STATUS_EVERY_MS = 1000;
const RETAINED_EVERY_MS = 10_000;
const REQUEST_POLL_MS = 1000;
/** Bytes of an XID event with and without its checksum. */
const XID_EVENT_BYTES = [31, 27] as const;

interface BoundaryWaiter {
  readonly ready: (port: LogPort) => boolean;
  readonly run: (port: LogPort) => void;
}

export class CaptureSession {
  readonly #o: SessionOptions;
  readonly #assembler: GroupAssembler;
  readonly #stream: BinlogStream;
  readonly #port: LogPort;
  readonly #included: (schema: string, name: string) => boolean;
  readonly #rules: ColumnRules;
  readonly #catalog = new Map<string, CapturedTable | undefined>();
  /** Tables that the stored progress of snapshots knows. */
  readonly #planned = new Set<string>();
  /** Set by DDL: what the catalog said before may be out of date. */
  #catalogEpoch = 0;
  readonly #checkedAt = new Map<string, number>();
  readonly #ready: PendingFrame[] = [];
  #boundaryWaiters: BoundaryWaiter[] = [];
  #roomWaiters: (() => void)[] = [];
  #storedWaiters: { reads: number; resolve: () => void }[] = [];
  #acked: GtidPosition;
  #wake: (() => void) | undefined;
  #woken = false;
  #loadedProgress: Promise<SnapshotProgress | undefined> | undefined;
  #ownProgress: SnapshotProgress | undefined;
  #snapshotRunning = false;
  #cancelSnapshot = false;
  #reconnect = false;
  #lastCommitUs = 0;
  #lastActivityMs = performance.now();

  constructor(options: SessionOptions) {
    this.#o = options;
    this.#acked = options.resume;
    this.#included = compileTablePatterns(options.settings.tables);
    this.#rules = ColumnRules.compile(options.settings.columns);
    for (const rule of this.#rules.unmatched(options.tables.map(({ schema }) => schema)))
      options.log.warn({ rule }, 'a rule of `columns` names no column of the captured tables');
    for (const table of options.tables) {
      this.#rules.publish(table.schema);
      this.#catalog.set(tableName(table.schema), table);
    }
    this.#assembler = new GroupAssembler({
      frameBytes: options.frameBytes,
      resume: options.resume,
      start: options.start,
      tableOf: (map) => this.#tableOf(map),
      onTableMap: (map) => this.#onTableMap(map),
      truncatedTable: (schema, name) => this.#tableByName(schema, name),
      onStatement: (statement) => this.#onStatement(statement),
      endsInCommit: (info) => this.#endsInCommit(info),
      hold: (work) => this.#stream.holdUntil(work),
      room: () => this.#room(),
      onUnknownXa: (xid) => this.#stream.holdUntil(this.#readEverything(xid)),
      onFrame: (frame) => this.#enqueue(frame),
      onBoundary: () => this.#onBoundary(),
    });
    this.#stream = new BinlogStream({
      flavour: options.settings.kind,
      connection: connectionOptions(options.settings),
      serverId: options.serverId,
      replicaUuid: stableUuid(`${options.prefix}/${options.name}`),
      start: options.start,
      heartbeatMs: Math.min(options.settings.heartbeat, 10_000),
      handler: this.#assembler,
      onActivity: () => this.#signal(),
    });
    const assembler = this.#assembler;
    this.#port = {
      get taken() {
        return assembler.taken;
      },
      get place() {
        return assembler.logPlace;
      },
      get window() {
        return assembler.window;
      },
      set window(window) {
        assembler.window = window;
      },
      publish: (table, op, rows) => {
        assembler.publishRead(table, op, rows, Date.now() * 1000);
        this.#signal();
      },
    };
  }

  /** Runs until the signal aborts (then drains) or one of its parts fails. */
  async run(): Promise<void> {
    const { run } = this.#o;
    const stop = new AbortController();
    const signal = AbortSignal.any([run.signal, stop.signal]);
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
    this.#o.nats.connection.closed().then(
      (error) => {
        if (!(error instanceof Error)) return;
        failure ??= new ReplicationError('nats_unreachable', `the connection to NATS was closed: ${error.message}`, {
          cause: error,
        });
        stop.abort();
      },
      () => {},
    );
    const onStop = (): void => void this.#stream.stop();
    signal.addEventListener('abort', onStop, { once: true });
    const parts = [
      this.#stream.run(),
      this.#publishLoop(signal),
      this.#statusLoop(signal),
      this.#heartbeatLoop(signal),
      this.#snapshotLoop(signal),
    ].map(part);
    await Promise.all(parts);
    signal.removeEventListener('abort', onStop);
    if (failure !== undefined) throw failure;
  }

  // The catalog.

  #onTableMap(map: TableMap): void {
    if (!this.#included(map.schema, map.name)) return;
    const id = tableName(map);
    const known = this.#catalog.get(id);
    const current = this.#checkedAt.get(id) === this.#catalogEpoch || (this.#catalogEpoch === 0 && known !== undefined);
    if (current && reconcile(map, known, this.#o.settings.kind).exact) return;
    // Asked once for each map and DDL; when they still differ the log lags behind the catalog, and the map decides.
    this.#stream.holdUntil(this.#refresh(map, id));
  }

  async #refresh(map: TableMap, id: string): Promise<void> {
    const { client, settings, log } = this.#o;
    const table = await readTable(client, settings.kind, map.schema, map.name);
    this.#checkedAt.set(id, this.#catalogEpoch);
    if (table === undefined) this.#catalog.set(id, undefined);
    else if (table === 'absent') this.#catalog.delete(id);
    else this.#catalog.set(id, table);
    this.#notATable.delete(id);
    if (table === undefined) this.#notATable.add(id);
    else if (!this.#planned.has(id)) {
      log.info({ table: id }, 'a table that was not known before');
      if (table !== 'absent') await this.#plan(map.schema, map.name);
    }
  }

  /** Sequences and the like, whose rows are nobody's. */
  readonly #notATable = new Set<string>();

  #tableOf(map: TableMap): LoggedTable | undefined {
    if (!this.#included(map.schema, map.name)) return undefined;
    const id = tableName(map);
    if (this.#notATable.has(id)) return undefined;
    const known = this.#catalog.get(id);
    return publishLogged(reconcile(map, known, this.#o.settings.kind).table, map, this.#rules);
  }

  #tableByName(schema: string, name: string): LoggedTable | undefined {
    const known = this.#included(schema, name) ? this.#catalog.get(`${schema}.${name}`) : undefined;
    return known === undefined ? undefined : publishRead(known, this.#rules).table;
  }

  #onStatement(_statement: LoggedStatement): void {
    this.#catalogEpoch += 1;
  }

  /** A table that appears may hold rows from before (it was renamed, or the patterns name it now): it is read. */
  async #plan(schema: string, name: string): Promise<void> {
    const { settings } = this.#o;
    this.#planned.add(`${schema}.${name}`);
    const progress = await this.#progress();
    if (progress.tables.some((t) => t.schema === schema && t.name === name)) return;
    const state = settings.snapshot === 'initial' ? 'pending' : 'done';
    progress.tables.push({ schema, name, state, cursor: null, rows: 0 });
    await this.#o.progress.write(progress);
  }

  /**
   * The second phase of an XA transaction that was prepared before this capture's log begins: its rows are in no log
   * that can be read, so all tables are read again. The request is stored before its GTID counts as taken.
   */
  async #readEverything(xid: Xid): Promise<void> {
    const { log, tables } = this.#o;
    log.warn({ xid }, 'an XA transaction was prepared before this capture began; all tables are read again');
    const progress = await this.#progress();
    // New entries: a snapshot that is running goes on with the old ones, whose progress nobody stores any more.
    progress.tables = tables.map(({ schema }) => ({
      schema: schema.schema,
      name: schema.name,
      state: 'pending',
      cursor: null,
      rows: 0,
    }));
    await this.#o.progress.write(progress);
  }

  /** Looks ahead in the log: the group's last event is an XID event, and so its end a commit. */
  async #endsInCommit(info: GroupInfo): Promise<boolean> {
    if (info.transactional) return true;
    if (info.transactionBytes === undefined) return false;
    const end = info.offset + info.transactionBytes;
    for (const bytes of XID_EVENT_BYTES) {
      try {
        const [row] = await this.#o.client.query(
          `SHOW BINLOG EVENTS IN ${quoteFile(info.file)} FROM ${end - bytes} LIMIT 1`,
          'looking for the end of a transaction',
        );
        if (row?.[2] === 'Xid' && Number(row[1]) === end - bytes && Number(row[4]) === end) return true;
      } catch (thrown) {
        // No event begins there, or the user may not ask: the rows are held to their end then.
        const { code } = asReplicationError(thrown);
        if (code !== 'source_query' && code !== 'source_privilege') throw thrown;
      }
    }
    return false;
  }

  // The log.

  #onBoundary(): void {
    if (!this.#assembler.inGroup && this.#stream.file !== '')
      this.#assembler.noteLogPlace(this.#stream.file, this.#stream.offset);
    if (this.#assembler.mustReconnect && !this.#reconnect) {
      this.#reconnect = true;
      this.#stream.pause();
    }
    this.#serveBoundaryWaiters();
    this.#signal();
  }

  #serveBoundaryWaiters(): void {
    if (this.#boundaryWaiters.length === 0 || this.#assembler.inGroup) return;
    const waiting = this.#boundaryWaiters;
    this.#boundaryWaiters = [];
    for (const waiter of waiting) {
      if (waiter.ready(this.#port)) waiter.run(this.#port);
      else this.#boundaryWaiters.push(waiter);
    }
  }

  async #atBoundary<T>(ready: (port: LogPort) => boolean, work: (port: LogPort) => T, signal: AbortSignal): Promise<T> {
    const done = new Promise<T>((resolve, reject) => {
      this.#boundaryWaiters.push({
        ready,
        run: (port) => {
          try {
            resolve(work(port));
          } catch (thrown) {
            reject(thrown as Error);
          }
        },
      });
    });
    this.#serveBoundaryWaiters();
    // The source may have nothing more to say: what it has said is enough to look again.
    return await untilAborted(done, signal);
  }

  // Publishing.

  #enqueue(frame: PendingFrame): void {
    this.#ready.push(frame);
    // Invariant 6: with one frame in flight and one waiting, reading stops.
    this.#stream.pause();
    this.#signal();
  }

  #signal(): void {
    this.#woken = true;
    this.#wake?.();
  }

  async #room(): Promise<void> {
    if (this.#ready.length === 0) return;
    await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
  }

  /** Publishes one frame at a time; while one is in flight the next is filled (group commit). */
  async #publishLoop(signal: AbortSignal): Promise<void> {
    const { publisher, report, run } = this.#o;
    for (;;) {
      const frame = this.#ready.shift() ?? this.#assembler.sealAtBoundary();
      if (frame === undefined) {
        if (signal.aborted) return;
        if (this.#reconnect)
          throw new ReplicationError('source_unreachable', 'transactions were passed over, and are read again now');
        if (!this.#woken) await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        this.#woken = false;
        continue;
      }
      const startedMs = performance.now();
      await publisher.publish(frame);
      this.#acked = frame.end;
      if (frame.timeUs > 0) this.#lastCommitUs = frame.timeUs;
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
      if (this.#ready.length === 0) {
        const waiting = this.#roomWaiters;
        this.#roomWaiters = [];
        for (const resolve of waiting) resolve();
        if (!this.#reconnect) this.#stream.resume();
      }
      const waiters = this.#storedWaiters;
      this.#storedWaiters = waiters.filter(({ reads }) => reads > this.#acked.reads);
      for (const waiter of waiters) if (waiter.reads <= this.#acked.reads) waiter.resolve();
    }
  }

  async #statusLoop(signal: AbortSignal): Promise<void> {
    const { report, client, settings } = this.#o;
    let retainedMs = -Infinity;
    while (!signal.aborted) {
      for (const { table, op, count } of this.#assembler.takeCounts())
        report.rows(table.schema.schema, table.schema.name, op, count);
      const outstanding = this.#assembler.outstanding || this.#ready.length > 0;
      const idle = !outstanding && performance.now() - this.#lastActivityMs > 2 * STATUS_EVERY_MS;
      report.state(this.#snapshotRunning ? 'snapshot' : idle ? 'idle' : 'streaming');
      report.position(formatPosition(this.#acked));
      const newestUs = this.#assembler.newestTimeUs;
      report.lagSeconds(
        !outstanding || newestUs <= this.#lastCommitUs ? 0 : Math.max(0, Date.now() / 1000 - newestUs / 1e6),
      );
      if (performance.now() - retainedMs > RETAINED_EVERY_MS) {
        retainedMs = performance.now();
        const bytes = await readRetainedBytes(client, settings.kind);
        if (bytes !== undefined) report.retainedLogBytes(bytes);
      }
      await abortableDelay(STATUS_EVERY_MS, signal);
    }
  }

  /** Brings the position forward over transactions that concern no table of ours, and keeps the last frame young. */
  async #heartbeatLoop(signal: AbortSignal): Promise<void> {
    const { settings, keepaliveMs } = this.#o;
    while (!signal.aborted) {
      await abortableDelay(settings.heartbeat, signal);
      if (signal.aborted) return;
      const idleMs = performance.now() - this.#lastActivityMs;
      if (!this.#assembler.outstanding && idleMs < keepaliveMs) continue;
      this.#assembler.requestProgress();
      this.#signal();
    }
  }

  // Snapshots.

  /** The one copy of the progress: read once, since nobody else writes it while the lease is held. */
  async #progress(): Promise<SnapshotProgress> {
    this.#loadedProgress ??= this.#o.progress.read();
    this.#ownProgress ??= (await this.#loadedProgress) ?? { v: 1, id: newSnapshotId(), tables: [] };
    return this.#ownProgress;
  }

  async #snapshotLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const progress = await this.#progress();
      for (const table of progress.tables) this.#planned.add(tableName(table));
      if (progress.tables.some((table) => table.state !== 'done')) await this.#runSnapshot(progress, signal);
      await this.#takeRequest();
      await abortableDelay(REQUEST_POLL_MS, signal);
    }
  }

  async #runSnapshot(progress: SnapshotProgress, signal: AbortSignal): Promise<void> {
    const { settings, log } = this.#o;
    const client = await connectSource(settings);
    this.#cancelSnapshot = false;
    this.#snapshotRunning = true;
    const poll = setInterval(() => void this.#pollCancel(), REQUEST_POLL_MS);
    try {
      await new SnapshotReader({
        client,
        flavour: settings.kind,
        rules: this.#rules,
        progress: this.#o.progress,
        maxChunkRows: settings.snapshot_chunk_rows,
        log,
        signal,
        atBoundary: (ready, work) => this.#atBoundary(ready, work, signal),
        stored: () => this.#whenStored(signal),
        cancelled: () => this.#cancelSnapshot,
      }).run(progress);
      if (this.#cancelSnapshot) {
        for (const table of progress.tables) table.state = 'done';
        await this.#o.progress.write(progress);
        log.info('snapshot cancelled');
      }
    } finally {
      clearInterval(poll);
      this.#snapshotRunning = false;
      this.#assembler.window = undefined;
      client.end();
    }
  }

  /** Resolves when the reads published so far are stored; rejects when the signal aborts first. */
  async #whenStored(signal: AbortSignal): Promise<void> {
    const { reads } = this.#assembler;
    if (this.#acked.reads >= reads) return;
    const stored = new Promise<void>((resolve) => this.#storedWaiters.push({ reads, resolve }));
    this.#signal();
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
    const { bucket, name, client, settings, log } = this.#o;
    const request = await readRequest(bucket, name);
    if (request === undefined) return;
    // A reset begins at another place of the log: the next run does that.
    if (request.reset === true)
      throw new ReplicationError('stream_conflict', `a snapshot from scratch was asked for (${request.id})`);
    await clearRequest(bucket, name);
    if (request.cancel === true) return;
    const tables = await matchingTables(client, settings.kind, settings.tables);
    const wanted = tables.filter(
      ({ schema }) => request.tables === undefined || request.tables.includes(tableName(schema)),
    );
    const names = new Set(wanted.map(({ schema }) => tableName(schema)));
    const before = await this.#progress();
    const others = before.tables.filter((table) => !names.has(tableName(table)));
    log.info({ tables: [...names] }, 'snapshot requested');
    this.#ownProgress = {
      v: 1,
      id: request.id,
      tables: [
        ...others,
        ...wanted.map(
          ({ schema }) =>
            ({ schema: schema.schema, name: schema.name, state: 'pending', cursor: null, rows: 0 }) as const,
        ),
      ],
    };
    await this.#o.progress.write(this.#ownProgress);
  }
}

/** SHOW BINLOG EVENTS takes a plain literal only. */
function quoteFile(file: string): string {
  return /^[\w.-]+$/.test(file) ? `'${file}'` : quoteLiteral(file);
}

/** A UUID made from a text: the same for every process of an installation. */
function stableUuid(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
