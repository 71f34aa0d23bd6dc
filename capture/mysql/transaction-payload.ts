/** TRANSACTION_PAYLOAD events (mysql-server `Transaction_payload_event`): a transaction compressed with zstd. */
import { setImmediate } from 'node:timers/promises';
import { ReplicationError } from '../../core/errors.ts';
import { ByteReader } from './byte-reader.ts';
import { unzstd } from './compression.ts';
import { EVENT, HEADER_BYTES } from './event-types.ts';

const FIELD_END = 0;
const FIELD_SIZE = 1;
const FIELD_COMPRESSION = 2;
const COMPRESSION_ZSTD = 0;
const COMPRESSION_NONE = 255;
/** Where an event's type and size stand in its header. */
const TYPE_AT = 4;
const SIZE_AT = 9;
/** Events that are gone through before others have their turn. */
const EVENTS_A_TURN = 200;

/** The events of one compressed transaction, one at a time; they have no checksum. */
export class TransactionPayload {
  readonly #bytes: Buffer;
  readonly #isCompressed: boolean;
  readonly #pieces: Iterator<Buffer, void>;
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;

  private constructor(bytes: Buffer, isCompressed: boolean) {
    this.#bytes = bytes;
    this.#isCompressed = isCompressed;
    this.#pieces = isCompressed ? unzstd(bytes) : [bytes].values();
  }

  /**
   * Reads the fields in `buffer[start, end)`, which must stay as it is until the last event was taken. mysql2 uses its packets
   * again, but never the memory that they lie in: a copy would double what a large transaction takes.
   */
  static read(buffer: Buffer, start: number, end: number): TransactionPayload {
    const reader = new ByteReader(buffer, start, end, 'a TRANSACTION_PAYLOAD event');
    let compression = COMPRESSION_NONE;
    let size: number | undefined;
    for (;;) {
      const field = reader.lengthEncoded();
      if (field === FIELD_END) break;
      const length = reader.lengthEncoded();
      const value = new ByteReader(buffer, reader.at, reader.at + length, 'a field of a TRANSACTION_PAYLOAD event');
      reader.skip(length);
      if (field === FIELD_COMPRESSION) compression = value.lengthEncoded();
      else if (field === FIELD_SIZE) size = value.lengthEncoded();
    }
    const bytes = reader.bytes(size ?? reader.left);
    if (compression !== COMPRESSION_ZSTD && compression !== COMPRESSION_NONE)
      throw new ReplicationError('source_protocol', `a transaction is compressed in the unknown way ${compression}`);
    return new TransactionPayload(bytes, compression === COMPRESSION_ZSTD);
  }

  /** Whether the last event is the commit. Goes through all of them, whatever `next` has given. Throws `source_protocol`. */
  async endsInXid(): Promise<boolean> {
    const all = new TransactionPayload(this.#bytes, this.#isCompressed);
    let last: number | undefined;
    for (let n = 1, event = all.next(); event !== undefined; event = all.next(), n++) {
      last = event[TYPE_AT];
      if (n % EVENTS_A_TURN === 0) await setImmediate();
    }
    return last === EVENT.xid;
  }

  /** The next event, valid until the next call; undefined behind the last. Throws `source_protocol`. */
  next(): Buffer | undefined {
    if (!this.#fill(HEADER_BYTES)) {
      if (this.#at < this.#buffer.length) throw truncated();
      return undefined;
    }
    const size = this.#buffer.readUInt32LE(this.#at + SIZE_AT);
    if (size < HEADER_BYTES || !this.#fill(size)) throw truncated();
    const event = this.#buffer.subarray(this.#at, this.#at + size);
    this.#at += size;
    return event;
  }

  /** Makes `bytes` available from `#at` on; false when the transaction has no more. */
  #fill(bytes: number): boolean {
    if (this.#at + bytes <= this.#buffer.length) return true;
    const pieces = [this.#buffer.subarray(this.#at)];
    let available = this.#buffer.length - this.#at;
    while (available < bytes) {
      const { done, value } = this.#pieces.next();
      if (done === true) break;
      pieces.push(value);
      available += value.length;
    }
    this.#buffer = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
    this.#at = 0;
    return available >= bytes;
  }
}

function truncated(): ReplicationError {
  return new ReplicationError('source_protocol', 'a compressed transaction ends in the middle of an event');
}
