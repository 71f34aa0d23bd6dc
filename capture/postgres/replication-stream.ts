/** The replication connection: pg-logical-replication owns it, this file feeds the decoder and answers the walsender. */
import { LogicalReplicationService } from 'pg-logical-replication';
import type pg from 'pg';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { formatLsn } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { clientConfig } from './connection.ts';
import { PgOutputDecoder, type PgOutputHandler } from './pgoutput.ts';
import { NO_SLOT, sourceError } from './source-error.ts';
import { TransactionSpool, type SpoolOptions } from './transaction-spool.ts';

const XLOG_DATA = 0x77;
const KEEPALIVE = 0x6b;
const XLOG_HEADER_BYTES = 25;
const PG_EPOCH_MS = 946_684_800_000;
/** A server that is gone without a word never closes its side. */
const CLOSE_DEADLINE_MS = 2000;

/** The parts of pg's connection that replication needs; pg does not type them. */
interface WireConnection {
  readonly stream: { pause(): void; resume(): void };
  on(event: 'copyData', listener: (message: { chunk: Buffer }) => void): void;
  removeAllListeners(event: 'copyData'): void;
  sendCopyFromChunk(chunk: Buffer): void;
}

/** Whatever reads the log and feeds the assembler: the session holds it back through this. */
export interface LogReader {
  /** Stops decoding (inside a handler call) until `work` is done. */
  holdUntil(work: Promise<void>): void;
  /** Back-pressure: little more is delivered after this, until `resume`. */
  pause(): void;
  resume(): void;
}

export interface ReplicationOptions {
  readonly settings: PostgresSourceConfig;
  readonly applicationName: string;
  readonly slot: string;
  readonly publication: string;
  readonly startLsn: bigint;
  readonly handler: PgOutputHandler;
  /** Called once for a run of messages that arrived together. */
  readonly onActivity: () => void;
  /** A keepalive: all the log before `walEnd` has been sent. */
  readonly onKeepalive: (walEnd: bigint) => void;
  /** Where transactions in progress are kept; undefined: each is received at its commit. */
  readonly spool?: SpoolOptions;
}

interface PluginOptions {
  readonly publication: string;
  readonly onClient: (client: pg.Client) => void;
  /** Whether transactions are sent while they are in progress, once they are large. */
  readonly streaming: boolean;
}

/** An output plugin of pg-logical-replication (its AbstractPlugin, which it does not export) that decodes nothing. */
class RawPgOutputPlugin {
  readonly options: PluginOptions;

  constructor(options: PluginOptions) {
    this.options = options;
  }

  get name(): string {
    return 'pgoutput';
  }

  start(client: pg.Client, slotName: string, lastLsn: string): Promise<unknown> {
    this.options.onClient(client);
    const publication = `"${this.options.publication.replaceAll('"', '""')}"`.replaceAll("'", "''");
    const protocol = this.options.streaming ? "proto_version '2', streaming 'on'" : "proto_version '1'";
    return client.query(
      `START_REPLICATION SLOT "${slotName}" LOGICAL ${lastLsn} (${protocol}, publication_names '${publication}', messages 'true')`,
    );
  }

  parse(): undefined {
    return undefined;
  }
}

export class ReplicationStream implements LogReader {
  readonly #options: ReplicationOptions;
  readonly #service: LogicalReplicationService;
  readonly #decoder: PgOutputDecoder;
  readonly #spool: TransactionSpool | undefined;
  #connection: WireConnection | undefined;
  #paused = false;
  #held: Buffer[] | undefined;
  /** What must be done before decoding goes on: one message may ask for several look-ups. */
  #holds = 0;
  #activityDue = false;
  #failure: unknown;
  #receivedLsn: bigint;
  #confirmedLsn: bigint;
  #stopping = false;
  #mayLeave: (() => boolean) | undefined;
  #markStopped = (): void => {};
  readonly #stopped = new Promise<void>((resolve) => (this.#markStopped = resolve));

  constructor(options: ReplicationOptions) {
    this.#options = options;
    this.#receivedLsn = options.startLsn;
    this.#confirmedLsn = 0n;
    const { handler, onActivity, spool } = options;
    this.#spool = spool && new TransactionSpool({ ...spool, handler, onActivity, hold: (work) => this.#hold(work) });
    this.#decoder = new PgOutputDecoder(handler, this.#spool);
    this.#service = new LogicalReplicationService(clientConfig(options.settings, options.applicationName), {
      // Its timer would acknowledge what was merely received; standby status is sent here.
      acknowledge: { auto: false, timeoutSeconds: 0 },
    });
  }

  /** What is kept of transactions in progress; undefined where they are received at their commit. */
  get kept(): TransactionSpool['kept'] | undefined {
    return this.#spool?.kept;
  }

  /** Streams until `stop` or an error. Throws `source_*` and `spool_*` errors, and whatever the handler threw. */
  async run(): Promise<void> {
    try {
      await this.#run();
    } finally {
      await this.#spool?.close();
    }
  }

  async #run(): Promise<void> {
    const { slot, publication, startLsn } = this.#options;
    const plugin = new RawPgOutputPlugin({
      publication,
      onClient: (client) => this.#attach(client),
      streaming: this.#spool !== undefined,
    });
    this.#service.on('error', () => {});
    if (this.#stopping) return;
    const subscribed = this.#service.subscribe(plugin, slot, formatLsn(startLsn));
    subscribed.catch(() => {});
    try {
      // A client that is ended while it connects never settles its promise; then `stop` alone ends this.
      await Promise.race([subscribed, this.#stopped]);
    } catch (thrown) {
      if (this.#failure !== undefined) throw this.#failure;
      throw sourceError(thrown, `replication from slot ${slot}`, {
        ...NO_SLOT,
        '55006': 'source_slot_in_use',
      });
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const late = new AbortController();
    const closed = this.#service.stop().catch(() => {});
    await Promise.race([closed, abortableDelay(CLOSE_DEADLINE_MS, late.signal)]);
    late.abort();
    this.#markStopped();
  }

  /** Takes the delivery of messages over from the service, which formats an LSN and emits an event for each. */
  #attach(client: pg.Client): void {
    const connection = (client as unknown as { connection: WireConnection }).connection;
    connection.removeAllListeners('copyData');
    connection.on('copyData', ({ chunk }) => {
      if (this.#failure !== undefined || this.#stopping) return;
      try {
        this.#receive(chunk);
      } catch (thrown) {
        this.#failure = thrown;
        void this.stop();
      }
    });
    this.#connection = connection;
    // Invariant 6: whoever paused it earlier expects little, and does not ask again.
    if (this.#paused) connection.stream.pause();
  }

  #receive(chunk: Buffer): void {
    if (chunk[0] === XLOG_DATA) {
      if (this.#held !== undefined) this.#held.push(Buffer.from(chunk));
      else this.#decode(chunk);
    } else if (chunk[0] === KEEPALIVE) {
      const walEnd = chunk.readBigUInt64BE(1);
      if (this.#held === undefined) {
        if (walEnd > this.#receivedLsn) this.#receivedLsn = walEnd;
        this.#options.onKeepalive(walEnd);
      }
      if (chunk[17] === 1) this.sendStatus();
    } else {
      throw new ReplicationError('source_protocol', `unknown replication message 0x${chunk[0]?.toString(16)}`);
    }
    if (this.#activityDue) return;
    this.#activityDue = true;
    setImmediate(() => {
      this.#activityDue = false;
      this.#options.onActivity();
    });
  }

  #decode(chunk: Buffer): void {
    if (this.#spool?.take(chunk, XLOG_HEADER_BYTES) !== true) this.#decoder.decode(chunk, XLOG_HEADER_BYTES);
    if (this.#mayLeave?.() === true) void this.stop();
  }

  /** Ends the stream as `stop` does, once `may` says so: it is asked now, and behind each message. */
  leave(may: () => boolean): void {
    this.#mayLeave = may;
    if (may()) void this.stop();
  }

  /** Stops decoding (inside a handler call) until `work` is done; what arrives meanwhile is kept, and reading pauses. */
  holdUntil(work: Promise<void>): void {
    const replay = this.#spool?.replay;
    if (replay === undefined) this.#hold(work);
    else replay.holdUntil(work);
  }

  #hold(work: Promise<void>): void {
    this.#held ??= [];
    this.#holds += 1;
    this.#connection?.stream.pause();
    if (this.#paused) this.#spool?.replay?.pause();
    work.then(
      () => {
        this.#holds -= 1;
        if (this.#holds === 0) this.#release();
      },
      (thrown: unknown) => {
        if (this.#stopping) return;
        this.#failure = thrown;
        void this.stop();
      },
    );
  }

  #release(): void {
    // What comes next must not follow on a transaction that was handed on by half.
    if (this.#stopping) return;
    const held = this.#held ?? [];
    this.#held = undefined;
    try {
      while (held.length > 0 && this.#held === undefined && !this.#stopping) this.#decode(held.shift()!);
    } catch (thrown) {
      this.#failure = thrown;
      void this.stop();
      return;
    }
    // Decoding may have met another table that has to be looked up: what is left waits for that one.
    if (this.#held !== undefined) (this.#held as Buffer[]).push(...held);
    else if (!this.#paused) this.#connection?.stream.resume();
    this.#options.onActivity();
  }

  /** Back-pressure: at most what one socket read brought more is delivered after this. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#spool?.replay?.pause();
    this.#connection?.stream.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#spool?.replay?.resume();
    if (this.#held === undefined) this.#connection?.stream.resume();
  }

  /** Everything before `lsn` may be forgotten by the source. Sent with the next status. */
  confirm(lsn: bigint): void {
    if (lsn > this.#confirmedLsn) this.#confirmedLsn = lsn;
  }

  get confirmedLsn(): bigint {
    return this.#confirmedLsn;
  }

  /**
   * Sends a standby status update (Streaming Replication Protocol, "Standby status update"). Works while reading is
   * paused, so that the walsender does not time out under back-pressure.
   */
  sendStatus(): void {
    if (this.#connection === undefined) return;
    const message = Buffer.alloc(34);
    message[0] = 0x72;
    const received = this.#receivedLsn > this.#confirmedLsn ? this.#receivedLsn : this.#confirmedLsn;
    message.writeBigUInt64BE(received, 1);
    message.writeBigUInt64BE(this.#confirmedLsn, 9);
    message.writeBigUInt64BE(this.#confirmedLsn, 17);
    message.writeBigInt64BE(BigInt(Date.now() - PG_EPOCH_MS) * 1000n, 25);
    this.#connection.sendCopyFromChunk(message);
  }
}
