/** Little-endian reader over an event's bytes; the checked, unhurried one: rows have their own. */
import { ReplicationError } from '../../core/errors.ts';

const TWO_21 = 0x20_0000;
const TWO_32 = 0x1_0000_0000;

export class ByteReader {
  readonly buffer: Buffer;
  readonly end: number;
  readonly #what: string;
  at: number;

  /** Reads `buffer[start, end)`; `what` names the bytes in errors. */
  constructor(buffer: Buffer, start: number, end: number, what: string) {
    this.buffer = buffer;
    this.at = start;
    this.end = end;
    this.#what = what;
  }

  get left(): number {
    return this.end - this.at;
  }

  /** Steps over `bytes` and gives where they began. Throws `source_protocol` when there are not as many. */
  skip(bytes: number): number {
    const from = this.at;
    if (!(bytes >= 0) || from + bytes > this.end)
      throw new ReplicationError(
        'source_protocol',
        `${this.#what} is truncated: ${bytes} bytes wanted, ${this.end - from} left`,
      );
    this.at = from + bytes;
    return from;
  }

  uint8(): number {
    return this.buffer[this.skip(1)]!;
  }

  uint16(): number {
    return this.buffer.readUInt16LE(this.skip(2));
  }

  uint32(): number {
    return this.buffer.readUInt32LE(this.skip(4));
  }

  /** Unsigned, of 1 to 6 bytes. */
  uint(bytes: number): number {
    return this.buffer.readUIntLE(this.skip(bytes), bytes);
  }

  /** Unsigned, 64 bits. Throws `source_protocol` beyond 2^53 - 1. */
  uint64(): number {
    const at = this.skip(8);
    const high = this.buffer.readUInt32LE(at + 4);
    if (high >= TWO_21)
      throw new ReplicationError(
        'source_protocol',
        `${this.#what}: number ${this.buffer.readBigUInt64LE(at)} is beyond what this version counts`,
      );
    return high * TWO_32 + this.buffer.readUInt32LE(at);
  }

  /** A length-encoded integer of the client/server protocol. */
  lengthEncoded(): number {
    const first = this.uint8();
    if (first < 251) return first;
    if (first === 252) return this.uint16();
    if (first === 253) return this.uint(3);
    if (first === 254) return this.uint64();
    throw new ReplicationError('source_protocol', `${this.#what} has a length that starts with ${first}`);
  }

  /** A variable-length integer of mysql::serialization: as many more bytes as the first has trailing ones. */
  varint(): bigint {
    const first = this.uint8();
    let more = 0;
    while (more < 8 && ((first >> more) & 1) === 1) more += 1;
    let value = more >= 7 ? 0n : BigInt(first >> (more + 1));
    const shift = BigInt(more >= 7 ? 0 : 7 - more);
    for (let i = 0; i < more; i++) value |= BigInt(this.uint8()) << (shift + BigInt(8 * i));
    return value;
  }

  text(bytes: number, encoding: 'utf8' | 'latin1' = 'utf8'): string {
    const from = this.skip(bytes);
    return this.buffer.toString(encoding, from, from + bytes);
  }

  bytes(length: number): Buffer {
    const from = this.skip(length);
    return this.buffer.subarray(from, from + length);
  }
}
