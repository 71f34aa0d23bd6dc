/**
 * Decoder of the pgoutput plugin's messages, protocol versions 1 to 4 (PostgreSQL documentation, "Logical Replication
 * Message Formats"). It calls a handler, one method a message, and leaves tuples as ranges of the buffer, so that the
 * hot path decides what to copy.
 */
import { ReplicationError } from '../../core/errors.ts';

/** Microseconds between the epochs of Unix (1970) and Postgres (2000). */
const PG_EPOCH_US = 946_684_800_000_000;
const scratch = new DataView(new ArrayBuffer(8));

/** A row image in a buffer: `count` columns from `offset` on (just behind the column count). Reused between calls. */
export interface TupleRange {
  offset: number;
  count: number;
}

export interface RelationMessage {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** d default, n nothing, f full, i index. */
  readonly identity: string;
  readonly columns: readonly {
    readonly name: string;
    readonly key: boolean;
    readonly typeOid: number;
    readonly typmod: number;
  }[];
}

/** What the decoder found. `xid` is given inside streamed transactions only (protocol 2 and up). */
export interface PgOutputHandler {
  begin(finalLsn: bigint, commitTimeUs: number, xid: number): void;
  commit(commitLsn: bigint, endLsn: bigint, commitTimeUs: number): void;
  origin(originLsn: bigint, name: string): void;
  relation(relation: RelationMessage, xid?: number): void;
  type(oid: number, schema: string, name: string, xid?: number): void;
  insert(oid: number, buffer: Buffer, after: TupleRange, xid?: number): void;
  /** `kind` is K (key columns), O (whole old row) or undefined when the old row was not sent. */
  update(
    oid: number,
    buffer: Buffer,
    kind: 'K' | 'O' | undefined,
    before: TupleRange,
    after: TupleRange,
    xid?: number,
  ): void;
  delete(oid: number, buffer: Buffer, kind: 'K' | 'O', before: TupleRange, xid?: number): void;
  truncate(oids: readonly number[], cascade: boolean, restartIdentity: boolean, xid?: number): void;
  message(transactional: boolean, lsn: bigint, prefix: string, content: Buffer, xid?: number): void;
  /** Two-phase commit: `step` is b begin prepare, P prepare, K commit prepared, r rollback prepared, p stream prepare. */
  twoPhase(step: 'b' | 'P' | 'K' | 'r' | 'p', lsn: bigint, endLsn: bigint, xid: number, gid: string): void;
}

/** Takes what frames transactions in progress, where a connection asks for them (protocol 2 and up). */
export interface StreamHandler {
  streamStart(xid: number, first: boolean): void;
  streamStop(): void;
  streamCommit(xid: number, commitLsn: bigint, endLsn: bigint, commitTimeUs: number): void;
  /** Of the whole transaction where both ids are the same. */
  streamAbort(xid: number, subXid: number): void;
}

const NOT_ASKED: StreamHandler = {
  streamStart: refuseStream,
  streamStop: refuseStream,
  streamCommit: refuseStream,
  // PostgreSQL 18 was seen to tell of a rollback where nobody asked for transactions in progress. Nothing of what was rolled
  // back was sent, or its begin would have been refused, and nothing will be.
  streamAbort: () => {},
};

function refuseStream(): never {
  throw new ReplicationError(
    'source_protocol',
    'the source sent a streamed transaction, which this connection did not ask for',
  );
}

/** Decodes messages one at a time. One instance per replication connection: it knows whether a stream block is open. */
export class PgOutputDecoder {
  readonly #handler: PgOutputHandler;
  readonly #streams: StreamHandler;
  readonly #before: TupleRange = { offset: 0, count: 0 };
  readonly #after: TupleRange = { offset: 0, count: 0 };
  #buffer: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  #at = 0;
  #inStream = false;

  constructor(handler: PgOutputHandler, streams: StreamHandler = NOT_ASKED) {
    this.#handler = handler;
    this.#streams = streams;
  }

  /**
   * Decodes the message that `buffer[start, end)` holds. Throws `source_protocol` on a truncated or unknown one, with its
   * bytes' length and type.
   */
  decode(buffer: Buffer, start = 0, end = buffer.length): void {
    this.#buffer = buffer;
    this.#start = start;
    this.#end = end;
    this.#at = start + 1;
    try {
      this.#dispatch(start < end ? buffer[start]! : 0);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new ReplicationError(
        'source_protocol',
        `pgoutput message ${printable(buffer[start])} of ${end - start} bytes is truncated at ${this.#at - start}`,
        { cause },
      );
    }
    if (this.#at > end)
      throw new ReplicationError(
        'source_protocol',
        `pgoutput message ${printable(buffer[start])} of ${end - start} bytes is truncated at ${end - start}`,
      );
    if (this.#at < end)
      throw new ReplicationError(
        'source_protocol',
        `pgoutput message ${printable(buffer[start])} has ${end - this.#at} bytes more than known`,
      );
  }

  #dispatch(type: number): void {
    const handler = this.#handler;
    switch (type) {
      case 0x49: {
        // I
        const xid = this.#xid();
        const oid = this.#uint32();
        this.#expect(0x4e);
        this.#tuple(this.#after);
        return handler.insert(oid, this.#buffer, this.#after, xid);
      }
      case 0x55: {
        // U
        const xid = this.#xid();
        const oid = this.#uint32();
        let next = this.#uint8();
        let kind: 'K' | 'O' | undefined;
        if (next === 0x4b || next === 0x4f) {
          kind = next === 0x4b ? 'K' : 'O';
          this.#tuple(this.#before);
          next = this.#uint8();
        }
        if (next !== 0x4e) this.#unknownByte(next);
        this.#tuple(this.#after);
        return handler.update(oid, this.#buffer, kind, this.#before, this.#after, xid);
      }
      case 0x44: {
        // D
        const xid = this.#xid();
        const oid = this.#uint32();
        const kind = this.#uint8();
        if (kind !== 0x4b && kind !== 0x4f) this.#unknownByte(kind);
        this.#tuple(this.#before);
        return handler.delete(oid, this.#buffer, kind === 0x4b ? 'K' : 'O', this.#before, xid);
      }
      case 0x42: // B
        return handler.begin(this.#uint64(), this.#time(), this.#uint32());
      case 0x43: // C
        this.#uint8();
        return handler.commit(this.#uint64(), this.#uint64(), this.#time());
      case 0x52: {
        // R
        const xid = this.#xid();
        return handler.relation(this.#relation(), xid);
      }
      case 0x59: {
        // Y
        const xid = this.#xid();
        return handler.type(this.#uint32(), this.#string(), this.#string(), xid);
      }
      case 0x4f: // O
        return handler.origin(this.#uint64(), this.#string());
      case 0x54: {
        // T
        const xid = this.#xid();
        const count = this.#uint32();
        const options = this.#uint8();
        const oids: number[] = [];
        for (let i = 0; i < count; i++) oids.push(this.#uint32());
        return handler.truncate(oids, (options & 1) !== 0, (options & 2) !== 0, xid);
      }
      case 0x4d: {
        // M
        const xid = this.#xid();
        const transactional = this.#uint8() === 1;
        const lsn = this.#uint64();
        const prefix = this.#string();
        const length = this.#uint32();
        const content = this.#take(length);
        return handler.message(transactional, lsn, prefix, content, xid);
      }
      case 0x53: // S
        this.#inStream = true;
        return this.#streams.streamStart(this.#uint32(), this.#uint8() === 1);
      case 0x45: // E
        this.#inStream = false;
        return this.#streams.streamStop();
      case 0x63: {
        // c
        const xid = this.#uint32();
        this.#uint8();
        return this.#streams.streamCommit(xid, this.#uint64(), this.#uint64(), this.#time());
      }
      case 0x41: {
        // A: protocol 4 with parallel streaming adds the abort's LSN and time
        const xid = this.#uint32();
        const subXid = this.#uint32();
        if (this.#at < this.#end) {
          this.#uint64();
          this.#uint64();
        }
        return this.#streams.streamAbort(xid, subXid);
      }
      case 0x62: {
        // b
        const lsn = this.#uint64();
        const endLsn = this.#uint64();
        this.#uint64();
        return handler.twoPhase('b', lsn, endLsn, this.#uint32(), this.#string());
      }
      case 0x50: // P
      case 0x4b: // K
      case 0x70: {
        // p
        this.#uint8();
        const lsn = this.#uint64();
        const endLsn = this.#uint64();
        this.#uint64();
        return handler.twoPhase(
          type === 0x50 ? 'P' : type === 0x4b ? 'K' : 'p',
          lsn,
          endLsn,
          this.#uint32(),
          this.#string(),
        );
      }
      case 0x72: {
        // r
        this.#uint8();
        const prepareEnd = this.#uint64();
        const rollbackEnd = this.#uint64();
        this.#uint64();
        this.#uint64();
        return handler.twoPhase('r', prepareEnd, rollbackEnd, this.#uint32(), this.#string());
      }
      default:
        // Invariant 7: nothing unreadable is skipped.
        throw new ReplicationError(
          'source_protocol',
          `unknown pgoutput message ${printable(type)} of ${this.#end - this.#start} bytes`,
        );
    }
  }

  #relation(): RelationMessage {
    const oid = this.#uint32();
    const schema = this.#string() || 'pg_catalog';
    const name = this.#string();
    const identity = String.fromCodePoint(this.#uint8());
    const count = this.#uint16();
    const columns = [];
    for (let i = 0; i < count; i++)
      columns.push({
        key: (this.#uint8() & 1) !== 0,
        name: this.#string(),
        typeOid: this.#uint32(),
        typmod: this.#uint32() | 0,
      });
    return { oid, schema, name, identity, columns };
  }

  /** Steps over a tuple and checks its shape; the values stay in the buffer. */
  #tuple(range: TupleRange): void {
    const buffer = this.#buffer;
    range.count = this.#uint16();
    range.offset = this.#at;
    let at = this.#at;
    for (let i = 0; i < range.count; i++) {
      const kind = buffer[at++];
      if (kind === 0x74) at += 4 + readUint32(buffer, at);
      else if (kind !== 0x6e && kind !== 0x75) {
        this.#at = at;
        if (kind === undefined) throw new RangeError('tuple');
        this.#unknownByte(kind);
      }
    }
    this.#at = at;
    if (at > this.#end) throw new RangeError('tuple');
  }

  #xid(): number | undefined {
    return this.#inStream ? this.#uint32() : undefined;
  }

  #expect(byte: number): void {
    const found = this.#uint8();
    if (found !== byte) this.#unknownByte(found);
  }

  #unknownByte(byte: number): never {
    throw new ReplicationError(
      'source_protocol',
      `pgoutput message ${printable(this.#buffer[this.#start])} has unknown byte ${printable(byte)} at ${this.#at - 1 - this.#start}`,
    );
  }

  #uint8(): number {
    const value = this.#buffer[this.#at];
    if (value === undefined) throw new RangeError('uint8');
    this.#at += 1;
    return value;
  }

  #uint16(): number {
    const value = this.#buffer.readUInt16BE(this.#at);
    this.#at += 2;
    return value;
  }

  #uint32(): number {
    const value = this.#buffer.readUInt32BE(this.#at);
    this.#at += 4;
    return value;
  }

  #uint64(): bigint {
    // Buffer's own method makes three more bigints on the way.
    scratch.setUint32(0, this.#uint32());
    scratch.setUint32(4, this.#uint32());
    return scratch.getBigUint64(0);
  }

  #time(): number {
    const high = this.#uint32() | 0;
    return high * 0x1_0000_0000 + this.#uint32() + PG_EPOCH_US;
  }

  #string(): string {
    const end = this.#buffer.indexOf(0, this.#at);
    if (end < 0) throw new RangeError('string');
    const value = this.#buffer.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return value;
  }

  #take(length: number): Buffer {
    if (this.#at + length > this.#end) throw new RangeError('bytes');
    const value = this.#buffer.subarray(this.#at, this.#at + length);
    this.#at += length;
    return value;
  }
}

/** A big-endian uint32 without the checks of Buffer's method: the caller checks the range once at the end. */
export function readUint32(buffer: Buffer, at: number): number {
  return (buffer[at]! * 0x1000000 + ((buffer[at + 1]! << 16) | (buffer[at + 2]! << 8) | buffer[at + 3]!)) >>> 0;
}

function printable(byte: number | undefined): string {
  if (byte === undefined) return '(empty)';
  const text = byte > 0x20 && byte < 0x7f ? `"${String.fromCodePoint(byte)}" ` : '';
  return `${text}0x${byte.toString(16).padStart(2, '0')}`;
}
