/** Builds binlog events for tests: header, body, checksum. */
import { crc32 } from 'node:zlib';
import { HEADER_BYTES } from '../../capture/mysql/event-types.ts';
import { Charsets } from '../../capture/mysql/charset.ts';

/** The character sets that the tests need, without asking a server. */
export function testCharsets(): Charsets {
  const collations = new Map([
    [8, 'latin1'],
    [33, 'utf8mb3'],
    [45, 'utf8mb4'],
    [46, 'utf8mb4'],
    [63, 'binary'],
    [95, 'cp932'],
    [255, 'utf8mb4'],
  ]);
  const latin1 = new Map(Array.from({ length: 256 }, (_, byte) => [byte, String.fromCharCode(byte)] as const));
  return new Charsets(collations, new Map([['latin1', () => latin1]]));
}

export interface EventOptions {
  readonly flags?: number;
  readonly checksum?: boolean;
  readonly endPosition?: number;
}

/** An event of a type with a body. */
export function event(type: number, body: Buffer, options: EventOptions = {}): Buffer {
  const { flags = 0, checksum = true, endPosition = 1000 } = options;
  const bytes = Buffer.alloc(HEADER_BYTES + body.length + (checksum ? 4 : 0));
  bytes.writeUInt32LE(1_700_000_000, 0);
  bytes[4] = type;
  bytes.writeUInt32LE(7, 5);
  bytes.writeUInt32LE(bytes.length, 9);
  bytes.writeUInt32LE(endPosition, 13);
  bytes.writeUInt16LE(flags, 17);
  body.copy(bytes, HEADER_BYTES);
  return checksum ? sealed(bytes) : bytes;
}

/** The event with its checksum made right. */
export function sealed(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4);
  return bytes;
}

/** The event with only the first `length` bytes of its body, size and checksum made right. */
export function truncated(bytes: Buffer, length: number): Buffer {
  const cut = Buffer.concat([bytes.subarray(0, HEADER_BYTES + length), Buffer.alloc(4)]);
  cut.writeUInt32LE(cut.length, 9);
  return sealed(cut);
}
