/** One run of a Postgres capture on open connections: the log, marks, snapshots, confirmation. */
import type pg from 'pg';
import { hearProgressAsked } from '../../core/asked-progress.ts';
import type { StreamTail } from '../../core/cdc-stream.ts';
import { markPrefix, type PostgresSourceConfig } from '../../core/config.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { FramePublisher } from '../../core/frame-publisher.ts';
import { asPgPosition, comparePositions, formatLsn, pgPosition, type PgPosition } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { sessionName } from '../../core/stale-sessions.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import type { HeldCapture } from '../capture-loop.ts';
import { compileColumnRules } from '../column-findings.ts';
import type { PendingFrame } from '../frame-filler.ts';
import { PublishLoop } from '../publish-loop.ts';
import { runParts } from '../session-parts.ts';
import { SnapshotLoop, type SnapshotTask } from '../snapshot-loop.ts';
import { cancelMark, nameReading, type ProgressStore, type TableProgress, hearAsked } from '../snapshot-request.ts';
import { StreamLead } from '../stream-lead.ts';
import type { TableRegistry } from '../table-registry.ts';
import type { CapturedTable } from './catalog.ts';
import { askSource, connectSource, isStandby } from './connection.ts';
import { LogBudget } from '../log-budget.ts';
import { LogFollower } from './log-follower.ts';
import type { RelationMessage } from './pgoutput.ts';
import { publishMatching } from './followable-tables.ts';
import { publishTable, type PublishedTable } from './published-table.ts';
import { leavingInTime, SourceConnections, watchForSilence } from './silent-source.ts';
import { SchemaWatch } from './schema-watch.ts';
import { advanceSlot, readSlot } from './slot.ts';
import { emitMark, type MarkedVersion, type MarkPlace, type SchemaMark } from './log-marks.ts';
import { SnapshotReader } from './snapshot.ts';
import type { SpoolSwitch } from './spool-switch.ts';
import { TransactionAssembler } from './transaction-assembler.ts';
import { movedTo } from './tuple-writer.ts';

export interface SessionOptions {
  readonly held: HeldCapture<PostgresSourceConfig>;
  readonly progress: ProgressStore;
  /** A connection for catalog look-ups and heartbeats. */
  readonly client: pg.Client;
  readonly publisher: FramePublisher;
  readonly tail: StreamTail;
  /** A connection for watching the definitions of tables. */
  readonly watchClient: pg.Client;
  /** The tables as the stream carries them last. */
  readonly tables: ReadonlyMap<number, CapturedTable>;
  readonly registry: TableRegistry<number, CapturedTable>;
  readonly slot: string;
  readonly publication: string;
  readonly spooling: SpoolSwitch;
  /** How long an acknowledged frame may be lost with the broker's power. */
  readonly syncMs: number;
}

const STATUS_EVERY_MS = 1000;
const SLOT_CHECK_EVERY_MS = 5000;
/** While slices are read, the slot is brought forward this often. */
const ADVANCE_SLOT_EVERY_MS = 30_000;

export class CaptureSession {
  readonly #o: SessionOptions;
  readonly #markPrefix: string;
  readonly #rules: ColumnRules;
  readonly #schemas: SchemaWatch;
  readonly #published = new WeakMap<CapturedTable, PublishedTable>();
  readonly #assembler: TransactionAssembler;
  readonly #publishing: PublishLoop<PgPosition>;
  readonly #snapshots: SnapshotLoop;
  readonly #log: LogFollower;
  /** Ends of stored frames that the slot may be confirmed at, once they are old enough to be on disk. */
  readonly #stored: { lsn: bigint; atMs: number }[] = [];
  readonly #connections = new SourceConnections();
  /** When the source answered last. */
  #answeredMs = performance.now();
  /** When the broker last acknowledged a frame. */
  #ackedMs = -Infinity;
  /** The source may forget what lies before. */
  #safeLsn = 0n;
  #snapshot: SnapshotReader | undefined;

  constructor(options: SessionOptions) {
    const { held, tail, publisher, tables, progress, registry, publication, watchClient } = options;
    const resume = asPgPosition(tail.end);
    this.#o = options;
    this.#markPrefix = markPrefix(held.name, held.settings, held.natsConfig.prefix);
    this.#rules = compileColumnRules(held, [...tables.values()]);
    this.#schemas = new SchemaWatch({
      client: watchClient,
      publication,
      markPrefix: this.#markPrefix,
      included: compileTablePatterns(held.settings.tables),
      rules: this.#rules,
      registry,
      tables,
      log: held.log,
      read: ({ schema }, how) =>
        how !== 'new' || held.settings.snapshot === 'initial'
          ? this.#snapshots.readAgain([schema], how === 'unsure' ? how : undefined)
          : this.#snapshots.plan(schema.schema, schema.name, 'done'),
      readPart: ({ schema }, part) => this.#snapshots.readPart(schema, part),
      leftOut: (some) => held.report.tables(some),
    });
    this.#assembler = new TransactionAssembler({
      frameBytes: held.frameBytes,
      resume,
      markPrefix: this.#markPrefix,
      resolve: (relation, lsn, xid) => this.#resolve(relation, lsn, xid),
      takeMark: (mark, at, write) => this.#takeMark(mark, at, write),
      notAMark: (prefix, lsn) =>
        held.log.warn(
          { prefix, lsn: formatLsn(lsn) },
          'a message in the log has the prefix of Waybill and is none of it; passed over',
        ),
      tableByOid: (oid) => this.#publish(this.#schemas.byOid(oid)),
      readsChunk: (id) => this.#snapshot?.reads(id) === true,
      takeChunk: (id) => this.#snapshot?.takeChunk(id),
      chunkDone: (id, outcome) => this.#snapshot?.chunkDone(id, outcome),
      moved: (table, buffer, before, after) => {
        const key = movedTo(buffer, before, after, table.keyIndexes);
        const sealed = key && this.#rules.sealCursor(table.publication, key);
        const noted = sealed && this.#snapshots.rowMoved(table.schema, sealed);
        if (noted !== undefined) this.#log.reader!.holdUntil(noted);
      },
      onFrame: (frame) => this.#publishing.enqueue(frame),
    });
    this.#publishing = new PublishLoop({
      publisher,
      source: this.#assembler,
      resume,
      report: held.report,
      progressed: held.run.progressed,
      pause: () => this.#log.reader?.pause(),
      goOn: () => this.#log.reader?.resume(),
      onStored: (frame) => this.#onStored(frame),
    });
    const { client, slot } = options;
    for (const own of [client, watchClient]) this.#connections.add(own);
    this.#log = new LogFollower({
      held,
      client,
      slot,
      publication,
      markPrefix: this.#markPrefix,
      spooling: options.spooling,
      assembler: this.#assembler,
      publishing: this.#publishing,
    });
    this.#snapshots = new SnapshotLoop({
      source: held.name,
      bucket: held.bucket,
      hearAsked: (hear) => hearAsked(held.nats, held.natsConfig.prefix, held.name, hear),
      progress,
      log: held.log,
      read: (task, signal) => this.#readSnapshot(task, signal),
      giveUp: (tables, signal) => this.#giveUp(tables, signal),
      tables: () => this.#matchingTables(),
    });
  }

  /** Runs until the signal aborts (then drains) or one of its parts fails. */
  async run(): Promise<void> {
    const { run, nats, natsConfig, name } = this.#o.held;
    const asked = hearProgressAsked(nats, natsConfig.prefix, 'capture', name, () => {
      this.#assembler.requestProgress({ unmoved: true });
      this.#publishing.wake();
    });
    const parts = [
      (signal: AbortSignal) => this.#log.run(signal),
      (signal: AbortSignal) => this.#publishing.run(signal),
      (signal: AbortSignal) => this.#statusLoop(signal),
      (signal: AbortSignal) => this.#heartbeatLoop(signal),
      (signal: AbortSignal) => this.#snapshots.run(signal),
      (signal: AbortSignal) => this.#schemas.run(signal),
      (signal: AbortSignal) => this.#watchForSilence(signal),
    ];
    try {
      await leavingInTime(run.signal, this.#connections, () =>
        runParts(run.signal, nats, () => this.#publishing.wake(), parts),
      );
    } finally {
      asked.unsubscribe();
    }
  }

  #resolve(relation: RelationMessage, lsn: bigint, xid: number): PublishedTable | undefined {
    const table = this.#schemas.resolve(relation, lsn, xid);
    if (table !== 'look') return this.#publish(table);
    // Described to the assembler again, before any of its rows is decoded.
    const looked = this.#schemas.look(relation, lsn, xid).then(() => this.#assembler.relation(relation));
    this.#log.reader!.holdUntil(looked);
    return undefined;
  }

  #takeMark(mark: SchemaMark, at: MarkPlace, write: (versions: readonly MarkedVersion[]) => void): void {
    const taken = this.#schemas.takeMark(mark, at);
    this.#log.reader!.holdUntil(
      taken.then((versions) => write(versions.map((each) => ({ ...each, table: this.#publish(each.table) })))),
    );
  }

  /** The table as frames carry it: one object for each version. */
  #publish<T extends CapturedTable | undefined>(table: T): T extends undefined ? undefined : PublishedTable;
  #publish(table: CapturedTable | undefined): PublishedTable | undefined {
    if (table === undefined) return undefined;
    let published = this.#published.get(table);
    if (published === undefined) this.#published.set(table, (published = publishTable(table, this.#rules)));
    return published;
  }

  #onStored(frame: PendingFrame<PgPosition>): void {
    this.#ackedMs = performance.now();
    this.#stored.push({ lsn: frame.end.lsn, atMs: this.#ackedMs });
    if (this.#o.syncMs === 0) this.#confirm();
  }

  /**
   * Lets the source forget what has been stored for longer than the broker may take to sync it. A later frame shows that the
   * broker was there all that time, with all that it held: one that has lost its power syncs nothing any more.
   */
  #confirm(): void {
    const dueMs = this.#ackedMs - this.#o.syncMs;
    while (this.#stored.length > 0 && this.#stored[0]!.atMs <= dueMs) this.#safeLsn = this.#stored.shift()!.lsn;
    this.#log.stream?.confirm(this.#safeLsn);
    // Keep one entry a second: a fast stream would otherwise fill this list during a long sync interval.
    if (this.#stored.length > 4096)
      this.#stored.splice(0, this.#stored.length, ...this.#stored.filter((_, index) => index % 2 === 1));
  }

  async #watchForSilence(signal: AbortSignal): Promise<void> {
    const { settings, name, installation } = this.#o.held;
    const applicationName = sessionName('probe', name, installation);
    const answeredMs = (): number => this.#answeredMs;
    await watchForSilence({ settings, connections: this.#connections, applicationName, answeredMs }, signal);
  }

  async #statusLoop(signal: AbortSignal): Promise<void> {
    const { client, slot } = this.#o;
    const { report } = this.#o.held;
    let slotCheckedMs = -Infinity;
    let slotAdvancedMs = performance.now();
    const budget = new LogBudget();
    while (!signal.aborted) {
      this.#confirm();
      this.#log.stream?.sendStatus();
      if (this.#log.stream === undefined && performance.now() - slotAdvancedMs > ADVANCE_SLOT_EVERY_MS) {
        slotAdvancedMs = performance.now();
        if (this.#safeLsn > 0n) await advanceSlot(client, slot, this.#safeLsn);
      }
      report.spool(this.#log.stream?.kept?.bytes);
      this.#publishing.reportStatus(this.#snapshots.status);
      if (performance.now() - slotCheckedMs > SLOT_CHECK_EVERY_MS) {
        slotCheckedMs = performance.now();
        const info = await readSlot(client, slot);
        this.#answeredMs = performance.now();
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
    const { client } = this.#o;
    const { settings } = this.#o.held;
    const standby = await isStandby(client);
    while (!signal.aborted) {
      await abortableDelay(settings.heartbeat, signal);
      if (signal.aborted) return;
      // A standby's log cannot be written to: there, keepalives alone bring an idle slot forward.
      if (standby) this.#assembler.requestProgress();
      else await emitMark(client, this.#markPrefix, { k: 'heartbeat' });
      this.#publishing.wake();
    }
  }

  async #readSnapshot(task: SnapshotTask, signal: AbortSignal): Promise<void> {
    const { settings, name, installation, log, nats, natsConfig } = this.#o.held;
    const lead = StreamLead.open(nats, natsConfig.prefix, this.#o.publisher);
    this.#publishing.lead = lead;
    this.#snapshot = new SnapshotReader({
      connect: async () =>
        this.#connections.add(await connectSource(settings, sessionName('load', name, installation))),
      mostConnections: settings.snapshot_connections,
      progress: this.#o.progress,
      markPrefix: this.#markPrefix,
      rules: this.#rules,
      maxChunkRows: settings.snapshot_chunk_rows,
      maxRowsPerSecond: settings.snapshot_max_rows_per_second,
      log,
      lead,
      signal,
      tableByName: (schema, table) => this.#publish(this.#schemas.byName(schema, table)),
      isToCome: (schema, table) => this.#schemas.isToCome(schema, table),
      trackTransactions: (on) => this.#assembler.trackTransactions(on),
      forgetTransactions: (unseen) => this.#assembler.forgetTransactions(unseen),
      storedBehind: (lsn) => this.#publishing.stored((acked) => acked.lsn > lsn, signal),
      stored: (client) => this.#whenStored(client, signal),
      task,
    });
    try {
      await this.#snapshot.run();
    } finally {
      this.#snapshot = undefined;
      this.#publishing.lead = undefined;
      lead.close();
    }
  }

  async #giveUp(tables: readonly TableProgress[], signal: AbortSignal): Promise<void> {
    const { client } = this.#o;
    const progress = await this.#snapshots.progress();
    for (const table of tables) {
      const oid = this.#schemas.byName(table.schema, table.name)?.oid;
      // Of one that is gone the stream says so.
      if (oid === undefined) continue;
      const id = nameReading(progress, table, oid);
      await emitMark(client, this.#markPrefix, { k: cancelMark(table), id, oid });
    }
    await this.#whenStored(client, signal);
  }

  /** Resolves when the stream holds the source's log up to where it ends now; rejects when the signal aborts first. */
  async #whenStored(client: pg.Client, signal: AbortSignal): Promise<void> {
    const sql = "select (pg_current_wal_insert_lsn() - '0/0')::text as lsn";
    const [row] = await askSource<{ lsn: string }>(client, sql, 'asking where the log ends');
    const upTo = pgPosition(BigInt(row!.lsn));
    // The heartbeat commits behind that point, so that the stream passes it even when nothing else happens.
    await emitMark(client, this.#markPrefix, { k: 'heartbeat' });
    await this.#publishing.stored((acked) => comparePositions(upTo, acked) <= 0, signal);
  }

  async #matchingTables(): Promise<readonly { schema: string; name: string }[]> {
    const { client, publication, held } = this.#o;
    const tables = await publishMatching(client, publication, held.settings.tables, held.log);
    // A table that was made narrower, and is stopped for that, goes on where the reading begins: behind the mark that stops it.
    await this.#schemas.tell();
    return tables.map(({ schema }) => schema);
  }
}
