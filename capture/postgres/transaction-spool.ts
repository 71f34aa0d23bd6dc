/**
 * Transactions in progress, as protocol 2 and up streams them (PostgreSQL documentation, "Logical Streaming Replication
 * Protocol"): blocks of messages of one transaction each between Stream Start and Stream Stop, in the end Stream Commit or
 * Stream Abort. They are kept in files (Invariant 6) until they are committed, and handed on then as protocol 1 brings a
 * transaction, so that nothing behind this knows of them (Invariants 2 and 3).
 */
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import { ORIGIN_MESSAGE } from '../../core/origin.ts';
import { checksum } from '../checksum.ts';
import { PgOutputDecoder, readUint32, type PgOutputHandler, type StreamHandler } from './pgoutput.ts';
import { ReadGate } from './read-gate.ts';
import { SpoolFile } from './spool-file.ts';

/** Bytes gathered before they are written, and read at a time. */
const BUFFER_BYTES = 256 * 1024;
/** In front of each message: its length, and the checksum of its bytes. */
const LENGTH_BYTES = 4;
const HEAD_BYTES = LENGTH_BYTES + 4;
const XID_BYTES = 4;
/** Stands between type and prefix of a message, behind the xid: flags and LSN. */
const MESSAGE_HEAD_BYTES = 9;
/** Where each subtransaction begins is kept in memory. */
const MOST_SUBTRANSACTIONS = 100_000;
/** So often a transaction may go back to a savepoint. */
const MOST_SEGMENTS = 10_000;
/** Types of messages that carry an xid inside of a block: I U D T R Y M. */
const WITH_XID = new Set(Buffer.from('IUDTRYM'));
const ORIGIN = 0x4f;
const MESSAGE = 0x4d;
const STREAM_STOP = 0x45;

export interface SpoolOptions {
  readonly folder: string;
  readonly mostBytes: number;
  /** Prefix of the logical messages that are ours: alone in their transactions. */
  readonly markPrefix: string;
  readonly mostSubtransactions?: number;
}

export interface SpoolUse {
  readonly handler: PgOutputHandler;
  /** Called after every piece of a transaction that is handed on. */
  readonly onActivity: () => void;
  /** Nothing more is given to the spool until `work` is done. */
  readonly hold: (work: Promise<void>) => void;
}

interface Streamed {
  readonly xid: number;
  readonly file: SpoolFile;
  /** Bytes of its messages, also of those that wait to be written. */
  bytes: number;
  /** Where each of its subtransactions begins, and all of them in the order of their places. */
  readonly places: Map<number, number>;
  readonly subtransactions: number[];
  /** Transaction or subtransaction of the last message. */
  lastXid: number;
}

export class TransactionSpool implements StreamHandler {
  readonly #o: SpoolOptions & SpoolUse;
  readonly #decoder: PgOutputDecoder;
  readonly #streamed = new Map<number, Streamed>();
  readonly #prefixes: readonly Buffer[];
  readonly #stop = new AbortController();
  /** Set while a transaction is handed on. */
  #replay: ReadGate | undefined;
  #block: Streamed | undefined;
  #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #spare = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #used = 0;
  #bytes = 0;
  #subtransactions = 0;

  constructor(options: SpoolOptions & SpoolUse) {
    this.#o = options;
    this.#decoder = new PgOutputDecoder(options.handler);
    this.#prefixes = [options.markPrefix, ORIGIN_MESSAGE].map((prefix) => Buffer.from(`${prefix}\0`));
  }

  /** Set while a transaction is handed on: then it is this that reads the log. */
  get replay(): ReadGate | undefined {
    return this.#replay;
  }

  /** What is kept now. */
  get kept(): { readonly bytes: number; readonly transactions: number } {
    return { bytes: this.#bytes, transactions: this.#streamed.size };
  }

  /**
   * Keeps the message in `data[start, …)` when it stands inside of a block; false when it does not. Throws `spool_full`
   * and `spool_unsuited` when transactions must be received at their commit instead, and `source_protocol`.
   */
  take(data: Buffer, start: number): boolean {
    const block = this.#block;
    if (block === undefined || data[start] === STREAM_STOP) return false;
    const type = data[start] ?? 0;
    const hasXid = WITH_XID.has(type);
    // Invariant 7: nothing unreadable is skipped, also where it might be dropped later.
    if ((!hasXid && type !== ORIGIN) || data.length < start + 1 + (hasXid ? XID_BYTES : 0))
      throw new ReplicationError(
        'source_protocol',
        `message 0x${type.toString(16)} of ${data.length - start} bytes inside of a stream block`,
      );
    if (hasXid) this.#note(block, readUint32(data, start + 1));
    if (type === MESSAGE) this.#requireOurs(data, start + 1 + XID_BYTES + MESSAGE_HEAD_BYTES);
    this.#append(block, type, data, start + 1 + (hasXid ? XID_BYTES : 0));
    return true;
  }

  streamStart(xid: number, first: boolean): void {
    const known = this.#streamed.get(xid);
    // Without its beginning, or inside of another block, it would be handed on with a hole.
    if (this.#block !== undefined || first !== (known === undefined))
      throw new ReplicationError(
        'source_protocol',
        `a stream block of transaction ${xid} begins ${first ? 'as its first' : 'behind others'}, ` +
          (this.#block === undefined ? 'which it is not' : `inside of one of transaction ${this.#block.xid}`),
      );
    this.#block = known ?? {
      xid,
      file: new SpoolFile(this.#o.folder),
      bytes: 0,
      places: new Map(),
      subtransactions: [],
      lastXid: xid,
    };
    this.#streamed.set(xid, this.#block);
  }

  streamStop(): void {
    const block = this.#block;
    if (block === undefined) throw new ReplicationError('source_protocol', 'a stream block ends that did not begin');
    this.#block = undefined;
    this.#write(block);
    failpoint('capture.block-spooled');
  }

  /** Hands the transaction on. Invariant 3: nothing of what follows in the log is read before that is done. */
  streamCommit(xid: number, commitLsn: bigint, endLsn: bigint, commitTimeUs: number): void {
    const streamed = this.#streamed.get(xid);
    if (streamed === undefined)
      throw new ReplicationError('source_protocol', `transaction ${xid} is committed, of which nothing was streamed`);
    const gate = new ReadGate();
    this.#replay = gate;
    this.#o.hold(
      this.#handOn(streamed, gate, { commitLsn, endLsn, commitTimeUs }).finally(() => (this.#replay = undefined)),
    );
  }

  /** Invariant 2: what is rolled back is dropped. */
  streamAbort(xid: number, subXid: number): void {
    const streamed = this.#streamed.get(xid);
    if (streamed === undefined) return;
    if (xid === subXid) {
      this.#o.hold(this.#drop(streamed));
      return;
    }
    const from = streamed.places.get(subXid);
    if (from === undefined) return;
    // Between its first message and its end all was written by it and those inside of it, which end with it. Relations
    // that were described there are described again.
    const { subtransactions, places } = streamed;
    while (subtransactions.length > 0 && places.get(subtransactions.at(-1)!)! >= from) {
      places.delete(subtransactions.pop()!);
      this.#subtransactions -= 1;
    }
    this.#bytes -= streamed.bytes - from;
    streamed.bytes = from;
    streamed.lastXid = xid;
    if (streamed.file.segments >= MOST_SEGMENTS)
      throw new ReplicationError('spool_unsuited', `of transaction ${xid} parts were rolled back very often`);
    this.#o.hold(streamed.file.cut(from));
  }

  /** Ends a transaction that is being handed on where it is, and forgets all. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#streamed.values()].map(({ file }) => file.close()));
    this.#streamed.clear();
    this.#bytes = 0;
  }

  /** Notes where a subtransaction begins. */
  #note(block: Streamed, xid: number): void {
    if (xid === block.lastXid) return;
    block.lastXid = xid;
    if (xid === block.xid || block.places.has(xid)) return;
    const { mostSubtransactions = MOST_SUBTRANSACTIONS } = this.#o;
    if (this.#subtransactions >= mostSubtransactions)
      throw new ReplicationError(
        'spool_unsuited',
        `transaction ${block.xid} brings the subtransactions of those in progress to more than ${mostSubtransactions}`,
      );
    block.places.set(xid, block.bytes);
    block.subtransactions.push(xid);
    this.#subtransactions += 1;
  }

  /**
   * The server gives messages the id of the whole transaction, also those that a subtransaction wrote: whether one was
   * rolled back cannot be told, nor its place among changes (the server sorts by LSN, and a message has that of what comes
   * behind it). Marks of ours are alone in their transactions, and of an origin the place does not matter.
   */
  #requireOurs(data: Buffer, at: number): void {
    if (this.#prefixes.some((prefix) => data.subarray(at, at + prefix.length).equals(prefix))) return;
    throw new ReplicationError('spool_unsuited', `transaction ${this.#block!.xid} holds logical messages`);
  }

  /** Without the xid a message is as protocol 1 has it. */
  #append(block: Streamed, type: number, data: Buffer, from: number): void {
    const length = 1 + data.length - from;
    const bytes = HEAD_BYTES + length;
    if (this.#bytes + bytes > this.#o.mostBytes)
      throw new ReplicationError(
        'spool_full',
        `${this.#streamed.size} transactions in progress have more than ${this.#o.mostBytes} bytes`,
      );
    if (this.#used + bytes > this.#buffer.length) this.#write(block);
    // A message that is larger than the buffer gets one of its own.
    if (bytes > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(bytes);
    const at = this.#used;
    this.#buffer.writeUInt32BE(length, at);
    this.#buffer[at + HEAD_BYTES] = type;
    data.copy(this.#buffer, at + HEAD_BYTES + 1, from);
    this.#buffer.writeUInt32BE(checksum(this.#buffer, at + HEAD_BYTES, at + bytes), at + LENGTH_BYTES);
    this.#used += bytes;
    block.bytes += bytes;
    this.#bytes += bytes;
  }

  #write({ file }: Streamed): void {
    if (this.#used === 0) return;
    const written = this.#buffer;
    const bytes = written.subarray(0, this.#used);
    this.#buffer = this.#spare;
    this.#used = 0;
    this.#spare = written.length === BUFFER_BYTES ? written : Buffer.allocUnsafeSlow(BUFFER_BYTES);
    this.#o.hold(file.write(bytes));
  }

  async #handOn(
    streamed: Streamed,
    gate: ReadGate,
    commit: { commitLsn: bigint; endLsn: bigint; commitTimeUs: number },
  ): Promise<void> {
    const { handler, onActivity } = this.#o;
    const { signal } = this.#stop;
    const { xid, file, bytes } = streamed;
    handler.begin(commit.commitLsn, commit.commitTimeUs, xid);
    if (gate.held !== undefined) await gate.held;
    let buffer = this.#buffer;
    let kept = 0;
    for (let left = bytes; left > 0;) {
      const read = await file.read(buffer, kept);
      if (read === 0) throw new ReplicationError('spool_failed', `of ${bytes} bytes that were kept ${left} are gone`);
      const filled = kept + read;
      let start = 0;
      while (start + HEAD_BYTES <= filled) {
        const from = start + HEAD_BYTES;
        const end = from + readUint32(buffer, start);
        if (end > filled) break;
        // Invariant 2: what a disk made of it is no row of the source.
        if (checksum(buffer, from, end) !== readUint32(buffer, start + LENGTH_BYTES))
          throw new ReplicationError('spool_failed', `a message of transaction ${xid} is not what was kept of it`);
        this.#decoder.decode(buffer, from, end);
        if (gate.held !== undefined) await gate.held;
        start = end;
      }
      left -= start;
      const rest = buffer.subarray(start, filled);
      kept = rest.length;
      // A message that is larger than the buffer gets one of its own.
      buffer = kept >= LENGTH_BYTES ? this.#roomFor(HEAD_BYTES + readUint32(rest, 0), left) : this.#buffer;
      rest.copy(buffer);
      failpoint('capture.mid-replay');
      onActivity();
      await gate.passed(signal);
      signal.throwIfAborted();
    }
    handler.commit(commit.commitLsn, commit.endLsn, commit.commitTimeUs);
    onActivity();
    await this.#drop(streamed);
  }

  /** A buffer for a message of `bytes` bytes, of `left` that are there. */
  #roomFor(bytes: number, left: number): Buffer<ArrayBuffer> {
    if (bytes > left) throw new ReplicationError('spool_failed', `a message of ${bytes} bytes is kept in ${left}`);
    return bytes <= this.#buffer.length ? this.#buffer : Buffer.allocUnsafeSlow(bytes);
  }

  async #drop(streamed: Streamed): Promise<void> {
    this.#streamed.delete(streamed.xid);
    this.#bytes -= streamed.bytes;
    this.#subtransactions -= streamed.subtransactions.length;
    await streamed.file.close();
  }
}
