/** One run of a MySQL or MariaDB capture on open connections: the log, the catalog, snapshots, lag. */
import { once } from 'node:events';
import { hearProgressAsked } from '../../core/asked-progress.ts';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { FramePublisher } from '../../core/frame-publisher.ts';
import type { GtidPosition } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { sessionName } from '../../core/stale-sessions.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { HeldCapture } from '../capture-loop.ts';
import { PublishLoop } from '../publish-loop.ts';
import { runParts } from '../session-parts.ts';
import { SnapshotLoop, type SnapshotStatus, type SnapshotTask } from '../snapshot-loop.ts';
import { hearAsked, type ProgressStore, type TableProgress } from '../snapshot-request.ts';
import { StreamLead } from '../stream-lead.ts';
import { BinlogStream } from './binlog-stream.ts';
import type { CapturedTable } from './catalog.ts';
import { endsInCommit } from './commit-lookup.ts';
import { connectionOptions, connectSource, type SqlClient } from './connection.ts';
import { GroupAssembler } from './group-assembler.ts';
import { LiveCatalog } from './live-catalog.ts';
import { LogBoundary, type LogPort } from './log-boundary.ts';
import { publishRead } from './published-table.ts';
import { BinlogBudget, readExpiry, readLogFiles } from './retained-log.ts';
import { readerIdentity } from './reader-identity.ts';
import { cancelContent } from './reading-marks.ts';
import { SnapshotReader } from './snapshot.ts';
import type { ToldTables } from './told-tables.ts';

export interface SessionOptions {
  readonly held: HeldCapture<MysqlSourceConfig>;
  readonly progress: ProgressStore;
  /** A connection for catalog look-ups. */
  readonly client: SqlClient;
  readonly publisher: FramePublisher;
  readonly resume: GtidPosition;
  /** Where the log is read from; before `resume` while XA transactions are in doubt. */
  readonly start: GtidSet;
  readonly tables: readonly CapturedTable[];
  /** What the source had executed when they were read, or more. */
  readonly executed: GtidSet;
  readonly told: ToldTables;
  readonly rules: ColumnRules;
  readonly foldsNames: boolean;
  /** An idle stream gets a frame this often, so that its last one does not expire. */
  readonly keepaliveMs: number;
}

const LOOK_EVERY_MS = 500;
const STATUS_EVERY_MS = 1000;
const RETAINED_EVERY_MS = 10_000;
const MOST_HEARTBEAT_MS = 10_000;

export class CaptureSession {
  readonly #o: SessionOptions;
  readonly #rules: ColumnRules;
  readonly #catalog: LiveCatalog;
  readonly #assembler: GroupAssembler;
  readonly #stream: BinlogStream;
  readonly #boundary: LogBoundary;
  readonly #publishing: PublishLoop<GtidPosition>;
  readonly #snapshots: SnapshotLoop;
  #reconnect = false;

  constructor(options: SessionOptions) {
    const { held, client, publisher, resume, start, progress, tables } = options;
    const { settings, log } = held;
    this.#o = options;
    this.#rules = options.rules;
    this.#catalog = new LiveCatalog({
      client,
      flavour: settings.kind,
      patterns: settings.tables,
      foldsNames: options.foldsNames,
      rules: this.#rules,
      tables,
      executed: options.executed,
      told: options.told,
      log,
      hold: (work) => this.#assembler.hold(work),
      onNewTable: (schema, name) =>
        this.#snapshots.plan(schema, name, settings.snapshot === 'initial' ? 'pending' : 'done'),
      onChanged: ({ schema, name }, why, narrower) => this.#readAgain([{ schema, name }], why, narrower),
      onShown: (map) => this.#assembler.forget(map),
      onRowsMoved: (moved) => this.#readAgain(moved, 'rows of tables came or went without being logged'),
    });
    this.#assembler = new GroupAssembler({
      frameBytes: held.frameBytes,
      resume,
      start,
      tableOf: (map) => this.#catalog.tableOf(map),
      onTableMap: (map) => this.#catalog.onTableMap(map),
      truncatedTable: (schema, name) => this.#catalog.tableByName(schema, name),
      onStatement: (statement, gtid) => this.#catalog.onStatement(statement, gtid),
      endsInCommit: (info) => endsInCommit(client, info),
      hold: (work) => this.#stream.holdUntil(work),
      room: () => this.#publishing.room(),
      // Its rows are in no log that can be read.
      onUnknownXa: (xid) => this.#readAllAgain(`XA transaction ${xid} was prepared before this capture began`),
      onFrame: (frame) => this.#publishing.enqueue(frame),
      onBoundary: () => this.#onBoundary(),
    });
    this.#stream = new BinlogStream({
      flavour: settings.kind,
      connection: connectionOptions(settings),
      ...readerIdentity(held.name, {
        prefix: held.natsConfig.prefix,
        installation: held.installation,
        configured: settings.server_id,
      }),
      sessionName: sessionName('stream', held.name, held.installation),
      start,
      heartbeatMs: Math.min(settings.heartbeat, MOST_HEARTBEAT_MS),
      handler: this.#assembler,
      onActivity: () => this.#publishing.wake(),
    });
    this.#publishing = new PublishLoop({
      publisher,
      source: this.#assembler,
      resume,
      report: held.report,
      progressed: held.run.progressed,
      pause: () => this.#stream.pause(),
      goOn: () => {
        if (!this.#reconnect) this.#stream.resume();
      },
      onIdle: () => {
        if (this.#reconnect)
          throw new ReplicationError('source_unreachable', 'transactions were passed over, and are read again now');
      },
    });
    this.#boundary = new LogBoundary(this.#assembler, () => this.#publishing.wake());
    this.#snapshots = new SnapshotLoop({
      source: held.name,
      bucket: held.bucket,
      hearAsked: (hear) => hearAsked(held.nats, held.natsConfig.prefix, held.name, hear),
      progress,
      log,
      read: (task, signal) => this.#readSnapshot(task, signal),
      giveUp: (tables, signal) => this.#giveUp(tables, signal),
      tables: (isRead) => this.#catalog.current(isRead),
    });
  }

  /** Runs until the signal aborts (then drains) or one of its parts fails. */
  async run(): Promise<void> {
    const { run, nats, natsConfig, name } = this.#o.held;
    const asked = hearProgressAsked(nats, natsConfig.prefix, 'capture', name, () => {
      this.#assembler.requestProgress();
      this.#publishing.wake();
    });
    try {
      await runParts(run.signal, nats, () => this.#publishing.wake(), [
        (signal) => this.#readLog(signal),
        (signal) => this.#publishing.run(signal),
        (signal) => this.#statusLoop(signal),
        (signal) => this.#heartbeatLoop(signal),
        (signal) => this.#schemaLoop(signal),
        (signal) => this.#snapshots.run(signal),
        (signal) => this.#letGo(signal),
      ]);
    } finally {
      asked.unsubscribe();
    }
  }

  /** When the run ends nobody waits for the source's answers any more: one that hangs gives none. */
  async #letGo(signal: AbortSignal): Promise<void> {
    if (!signal.aborted) await once(signal, 'abort');
    this.#o.client.end(signal.reason);
  }

  async #readLog(signal: AbortSignal): Promise<void> {
    const onStop = (): void => void this.#stream.stop();
    signal.addEventListener('abort', onStop, { once: true });
    try {
      await this.#stream.run();
    } finally {
      signal.removeEventListener('abort', onStop);
    }
  }

  #onBoundary(): void {
    if (!this.#assembler.inGroup && this.#stream.file !== '')
      this.#assembler.noteLogPlace(this.#stream.file, this.#stream.offset);
    if (this.#assembler.mustReconnect && !this.#reconnect) {
      this.#reconnect = true;
      this.#stream.pause();
    }
    this.#boundary.serve();
    this.#publishing.wake();
  }

  /** The request is stored before the GTID of what asks for it counts as taken. */
  async #readAgain(tables: readonly { schema: string; name: string }[], why: string, narrower = false): Promise<void> {
    const names = tables.map(({ schema, name }) => `${schema}.${name}`);
    this.#o.held.log.warn({ tables: names }, `${why}; they are read again`);
    failpoint('capture.before-reread');
    await this.#snapshots.readAgain(tables, narrower ? 'narrower' : undefined);
  }

  async #readAllAgain(why: string): Promise<void> {
    await this.#readAgain(await this.#catalog.current(), why);
  }

  async #statusLoop(signal: AbortSignal): Promise<void> {
    let retainedMs = -Infinity;
    const budget = new BinlogBudget();
    while (!signal.aborted) {
      this.#publishing.reportStatus(this.#status());
      if (performance.now() - retainedMs > RETAINED_EVERY_MS) {
        retainedMs = performance.now();
        await this.#reportLog(budget);
      }
      await abortableDelay(STATUS_EVERY_MS, signal);
    }
  }

  /** Also what is not captured though the configuration chooses it. */
  #status(): SnapshotStatus {
    const { status } = this.#snapshots;
    const hidden = [...this.#catalog.hidden];
    if (hidden.length === 0) return status;
    const why = `left out, since this user may not read it: ${hidden.join(', ')}`;
    return { ...status, detail: status.detail === undefined ? why : `${status.detail}; ${why}` };
  }

  async #reportLog(budget: BinlogBudget): Promise<void> {
    const { client, held } = this.#o;
    const files = await readLogFiles(client);
    if (files === undefined) return;
    held.report.retainedLogBytes(files.reduce((sum, { bytes }) => sum + bytes, 0));
    const reader = { readingFile: this.#stream.file, lagSeconds: this.#publishing.lagSeconds };
    held.report.logBudgetSeconds(budget.observe(performance.now(), files, await readExpiry(client), reader));
  }

  /** Brings the position forward over transactions that concern no table of ours, and keeps the last frame young. */
  async #heartbeatLoop(signal: AbortSignal): Promise<void> {
    const { keepaliveMs, held } = this.#o;
    while (!signal.aborted) {
      await abortableDelay(held.settings.heartbeat, signal);
      if (signal.aborted) return;
      if (!this.#assembler.outstanding && this.#publishing.quietMs < keepaliveMs) continue;
      this.#assembler.requestProgress();
      this.#publishing.wake();
    }
  }

  /** Tells the stream what DDL changed, also where no rows follow. */
  async #schemaLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await abortableDelay(LOOK_EVERY_MS, signal);
      if (signal.aborted) return;
      await this.#catalog.look(async (ready, work) => {
        await this.#boundary.do(
          (port) => ready(port.taken),
          (port) => {
            for (const { table, what, mark } of work())
              port.publish(publishRead(table, this.#rules).table, 's', [Buffer.from(JSON.stringify([what, mark]))]);
          },
          signal,
        );
        await this.#whenStored(signal);
      });
    }
  }

  async #readSnapshot(task: SnapshotTask, signal: AbortSignal): Promise<void> {
    const { settings, name, installation, log, nats, natsConfig } = this.#o.held;
    const client = await connectSource(settings, { name: sessionName('load', name, installation), signal });
    const lead = StreamLead.open(nats, natsConfig.prefix, this.#o.publisher);
    this.#publishing.lead = lead;
    try {
      const ports = {
        client,
        lookups: this.#o.client,
        flavour: settings.kind,
        readTable: (schema: string, name: string) => this.#catalog.read(schema, name),
        begins: (table: { schema: string; name: string }) => this.#catalog.begins(table),
        changes: () => this.#catalog.changes,
        rules: this.#rules,
        progress: this.#o.progress,
        maxChunkRows: settings.snapshot_chunk_rows,
        maxRowsPerSecond: settings.snapshot_max_rows_per_second,
        log,
        lead,
        signal,
        atBoundary: <T>(ready: (port: LogPort) => boolean, work: (port: LogPort) => T) =>
          this.#boundary.do(ready, work, signal),
        stored: () => this.#whenStored(signal),
      };
      await new SnapshotReader(ports, task).run();
    } finally {
      this.#assembler.window = undefined;
      this.#publishing.lead = undefined;
      lead.close();
      client.end();
    }
  }

  async #giveUp(tables: readonly TableProgress[], signal: AbortSignal): Promise<void> {
    const progress = await this.#snapshots.progress();
    for (const table of tables) {
      const captured = await this.#catalog.read(table.schema, table.name);
      // Of one that is gone the stream says so.
      if (captured === 'absent' || captured === undefined) continue;
      const content = cancelContent(progress, table);
      await this.#boundary.do(
        () => true,
        (port) => port.publish(publishRead(captured, this.#rules).table, 's', [content]),
        signal,
      );
    }
    await this.#whenStored(signal);
  }

  /** Resolves when the reads published so far are stored; rejects when the signal aborts first. */
  async #whenStored(signal: AbortSignal): Promise<void> {
    const { reads } = this.#assembler;
    await this.#publishing.stored((acked) => acked.reads >= reads, signal);
  }
}
