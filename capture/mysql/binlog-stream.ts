/** The connection that a binlog comes over: session variables, dump request, back-pressure, liveness, errors. */
import { createConnection, type Connection, type ConnectionOptions } from 'mysql2';
import { dropConnection } from '../../core/drop-connection.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { endSession, takeSessionName } from '../../core/session-lock.ts';
import { BinlogDecoder } from './binlog-decoder.ts';
import type { BinlogHandler, Flavour } from './binlog-handler.ts';
import { loadCharsets } from './charset-tables.ts';
import { prepareZstd } from './compression.ts';
import { TAKEOVER_SECONDS } from './connection.ts';
import { dumpRequest, sessionStatements } from './dump-request.ts';
import { sourceError } from './source-error.ts';

const HEARTBEATS_MISSED = 3;
/** How long a source may take for each answer before it sends its log: also as long as it takes to end a session. */
const ANSWER_MS = 15_000;
const ERROR_PACKET = 0xff;
const EOF_PACKET = 0xfe;
/** An EOF packet is shorter than this; a longer one that starts alike would be something else. */
const EOF_BYTES = 9;
/** Packet header, and the byte that says what the packet holds. */
const EVENT_AT = 5;

export interface BinlogStreamOptions {
  readonly flavour: Flavour;
  /** Host, port, user, password, ssl: what mysql2 takes. */
  readonly connection: ConnectionOptions;
  /** Id under which this reader appears to the source: unlike every server's and other reader's. */
  readonly serverId: number;
  /** MySQL: stable for each Waybill installation and source; the source ends an older reader with the same one. */
  readonly replicaUuid: string;
  /** Tells a successor of this process which session this is. */
  readonly sessionName?: string;
  /** What has been taken already: everything else is sent. */
  readonly start: GtidSet;
  /** How often an idle source says that it lives; after three times that without a sign the stream fails. */
  readonly heartbeatMs: number;
  /** Ends (run() resolves) where the log ends, instead of waiting for more. */
  readonly stopAtEnd?: boolean;
  readonly handler: BinlogHandler;
  /** Called once for a run of events that arrived together. */
  readonly onActivity: () => void;
}

/** The packet of mysql2: reused between calls. */
interface Packet {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  asError(encoding: string): Error;
}

/** What mysql2 asks of a command, and gives it; not in its types. */
interface WireConnection {
  addCommand(command: WireCommand): void;
  writePacket(packet: { buffer: Buffer; length(): number; writeHeader(sequenceId: number): void }): void;
  _resetSequenceId(): void;
}

interface WireCommand {
  execute(packet: Packet | undefined, connection: WireConnection): boolean;
}

/** One run over a source's log. A failed or ended stream is not used again. */
export class BinlogStream {
  readonly #options: BinlogStreamOptions;
  #connection: Connection | undefined;
  #decoder: BinlogDecoder | undefined;
  #settle: ((failure: unknown) => void) | undefined;
  #done = false;
  #paused = false;
  #holds = 0;
  /** Whether delivery stands still; true from the first reason to stop until it has really gone on. */
  #stalled = false;
  #resumeDue = false;
  #activityDue = false;
  #lastSignMs = 0;
  /** When it was looked last whether the source is silent. */
  #checkedMs = 0;
  /** Why the connection broke, while there still is something to deliver. */
  #broken: ReplicationError | undefined;

  constructor(options: BinlogStreamOptions) {
    this.#options = options;
  }

  /**
   * Streams until `stop` (resolves) or an error: `source_unreachable` (connection lost, server stopped, no
   * heartbeat), `source_auth`, `source_privilege`, `source_log_purged`, `source_diverged`,
   * `source_server_id_clash`, `source_binlog_settings`, `source_protocol`, and whatever the handler threw.
   */
  async run(): Promise<void> {
    let watchdog: NodeJS.Timeout | undefined;
    try {
      const ended = new Promise<void>((resolve, reject) => {
        this.#settle = (failure) => {
          if (this.#done) return;
          this.#done = true;
          if (failure === undefined) resolve();
          else reject(failure as Error);
        };
      });
      // It may fail while nobody waits for it yet.
      ended.catch(() => {});
      this.#lastSignMs = this.#checkedMs = Date.now();
      watchdog = setInterval(() => this.#checkLiveness(), this.#options.heartbeatMs);
      await this.#connect();
      if (!this.#done) this.#dump();
      await ended;
    } finally {
      clearInterval(watchdog);
      this.#done = true;
      this.#disconnect();
    }
  }

  /** Ends `run`, which resolves; nothing is delivered after this. */
  async stop(): Promise<void> {
    this.#finish(undefined);
    await Promise.resolve();
  }

  #finish(failure: unknown): void {
    if (this.#settle === undefined) this.#done = true;
    this.#settle?.(failure);
    this.#disconnect();
  }

  #disconnect(): void {
    if (this.#connection !== undefined) dropConnection(this.#connection);
  }

  async #connect(): Promise<void> {
    const { flavour, handler, start } = this.#options;
    try {
      await prepareZstd();
      const connection = createConnection({
        enableKeepAlive: true,
        ...this.#options.connection,
        charset: 'utf8mb4_general_ci',
      });
      this.#connection = connection;
      connection.on('error', (thrown: unknown) => {
        // What came before the connection broke is delivered first.
        this.#broken ??= this.#lost(thrown);
        if (!this.#stalled) this.#finish(this.#broken);
      });
      const query = async (sql: string): Promise<(string | null)[][]> => {
        const rows = await queryTexts(connection, sql);
        this.#lastSignMs = Date.now();
        return rows;
      };
      const { sessionName } = this.#options;
      if (sessionName !== undefined) {
        await endSession(query, sessionName);
        await takeSessionName(query, sessionName, TAKEOVER_SECONDS);
      }
      const request = { ...this.#options, stopAtEnd: this.#options.stopAtEnd ?? false };
      for (const sql of sessionStatements(request)) await query(sql);
      const charsets = await loadCharsets(query, flavour);
      const [[checksum] = []] = await query('SELECT @@global.binlog_checksum');
      if (flavour === 'mysql') {
        const [[executed] = []] = await query('SELECT @@global.gtid_executed');
        requireContained(start as MysqlGtidSet, MysqlGtidSet.parse(executed ?? '') ?? MysqlGtidSet.EMPTY);
      }
      this.#decoder = new BinlogDecoder({ flavour, charsets, checksum: checksum !== 'NONE', handler });
    } catch (thrown) {
      if (this.#done) return;
      throw sourceError(thrown, 'connecting to the source');
    }
  }

  get #mostSilentMs(): number {
    const heartbeatsMs = HEARTBEATS_MISSED * this.#options.heartbeatMs;
    return this.#decoder === undefined ? Math.max(heartbeatsMs, ANSWER_MS) : heartbeatsMs;
  }

  #dump(): void {
    const payload = dumpRequest({ ...this.#options, stopAtEnd: this.#options.stopAtEnd ?? false });
    this.#lastSignMs = Date.now();
    const wire = this.#connection as unknown as WireConnection;
    wire.addCommand({
      execute: (packet, connection) => {
        if (packet === undefined) {
          connection._resetSequenceId();
          connection.writePacket(framed(payload));
        } else if (!this.#done) this.#receive(packet);
        return false;
      },
    });
  }

  #lost(thrown: unknown): ReplicationError {
    return sourceError(thrown, 'reading the log of the source');
  }

  #receive(packet: Packet): void {
    const kind = packet.buffer[packet.start + EVENT_AT - 1];
    if (kind === ERROR_PACKET) return this.#finish(this.#lost(packet.asError('utf8')));
    if (kind === EOF_PACKET && packet.end - packet.start - EVENT_AT + 1 < EOF_BYTES) {
      if (this.#options.stopAtEnd === true) return this.#finish(undefined);
      return this.#finish(new ReplicationError('source_unreachable', 'the source ended the stream: it is stopping'));
    }
    try {
      this.#decoder!.decode(packet.buffer, packet.start + EVENT_AT, packet.end);
    } catch (thrown) {
      return this.#finish(thrown);
    }
    this.#announce();
  }

  #announce(): void {
    if (this.#activityDue) return;
    this.#activityDue = true;
    this.#lastSignMs = Date.now();
    setImmediate(() => {
      this.#activityDue = false;
      if (this.#done) return;
      try {
        this.#options.onActivity();
      } catch (thrown) {
        this.#finish(thrown);
      }
    });
  }

  #checkLiveness(): void {
    const nowMs = Date.now();
    // While this process stood still it heard nothing: what has come meanwhile is read behind this.
    this.#lastSignMs += Math.max(0, nowMs - this.#checkedMs - this.#options.heartbeatMs);
    this.#checkedMs = nowMs;
    const silentMs = nowMs - this.#lastSignMs;
    // While nothing is read, nothing can be heard.
    if (this.#stalled) this.#lastSignMs = nowMs;
    else if (silentMs > this.#mostSilentMs)
      this.#finish(new ReplicationError('source_unreachable', `the source has been silent for ${silentMs} ms`));
  }

  /** Back-pressure: nothing more is delivered until `resume`; the source waits. */
  pause(): void {
    this.#paused = true;
    this.#stall();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#goOn();
  }

  /** Delivers nothing more until `work` is done; a rejection of it fails the stream. For use inside handler calls. */
  holdUntil(work: Promise<void>): void {
    this.#holds += 1;
    this.#stall();
    work.then(
      () => {
        this.#holds -= 1;
        this.#goOn();
      },
      (thrown: unknown) => this.#finish(thrown),
    );
  }

  #stall(): void {
    if (this.#stalled) return;
    this.#stalled = true;
    this.#decoder?.suspend();
    this.#connection?.pause();
  }

  /** Not at once, since this may be called by the handler that is being served. */
  #goOn(): void {
    if (this.#resumeDue) return;
    this.#resumeDue = true;
    queueMicrotask(() => {
      this.#resumeDue = false;
      if (this.#paused || this.#holds > 0 || !this.#stalled || this.#done) return;
      this.#stalled = false;
      this.#lastSignMs = Date.now();
      try {
        // First what is left of a compressed transaction, during which the handler may stop the delivery again.
        if (this.#decoder?.proceed() === false) return;
        // What mysql2 kept, and then the socket.
        this.#connection?.resume();
      } catch (thrown) {
        return this.#finish(thrown);
      }
      // The handler may have stopped the delivery again while mysql2 went through what it kept.
      if (this.#broken !== undefined && !(this.#stalled as boolean)) return this.#finish(this.#broken);
      this.#announce();
    });
  }

  /** File of the source's log, and the place in it, up to which events have been delivered. */
  get file(): string {
    return this.#decoder?.file ?? '';
  }

  get offset(): number {
    return this.#decoder?.offset ?? 0;
  }
}

/**
 * The source sends what the reader lacks, and says nothing of what the reader has and it has not, unless that is its
 * own. Such a source lags behind or went another way (invariant 1).
 */
function requireContained(start: MysqlGtidSet, executed: MysqlGtidSet): void {
  const foreign = start.subtract(executed);
  if (!foreign.empty)
    throw new ReplicationError('source_diverged', `the source has not executed ${foreign.toString()}`);
}

async function queryTexts(connection: Connection, sql: string): Promise<(string | null)[][]> {
  return await new Promise((resolve, reject) => {
    connection.query({ sql, rowsAsArray: true, typeCast: (field) => field.string() }, (error, rows) => {
      if (error !== null) reject(error);
      else resolve(Array.isArray(rows) ? (rows as unknown as (string | null)[][]) : []);
    });
  });
}

/** A payload as the packet that mysql2 writes: four bytes of header in front. */
function framed(payload: Buffer): { buffer: Buffer; length(): number; writeHeader(sequenceId: number): void } {
  const buffer = Buffer.concat([Buffer.alloc(4), payload]);
  return {
    buffer,
    length: () => buffer.length,
    writeHeader(sequenceId) {
      buffer.writeUIntLE(payload.length, 0, 3);
      buffer[3] = sequenceId;
    },
  };
}
