/** CRC32 with the polynomial of zlib: what events of a binary log end with, and what files of ours are checked by. */
import { crc32 } from 'node:zlib';

/** Up to here a loop is faster than the call into zlib, which needs a view of the bytes: a small event in a quarter of the time. */
const MOST_LOOP_BYTES = 300;
const POLYNOMIAL = 0xedb8_8320;
const TABLES = makeTables();

/** Eight tables of 256 numbers, by which eight bytes are taken at a time ("slicing by 8"). */
function makeTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let at = 256; at < tables.length; at++) {
    const crc = tables[at - 256]!;
    tables[at] = (crc >>> 8) ^ tables[crc & 255]!;
  }
  return tables;
}

/** CRC32 of `bytes[start, end)`, unsigned. */
export function checksum(bytes: Buffer, start: number, end: number): number {
  if (end - start > MOST_LOOP_BYTES) return crc32(bytes.subarray(start, end));
  let crc = -1;
  let at = start;
  for (; end - at >= 8; at += 8) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      TABLES[1792 + (crc & 255)]! ^
      TABLES[1536 + ((crc >>> 8) & 255)]! ^
      TABLES[1280 + ((crc >>> 16) & 255)]! ^
      TABLES[1024 + (crc >>> 24)]! ^
      TABLES[768 + bytes[at + 4]!]! ^
      TABLES[512 + bytes[at + 5]!]! ^
      TABLES[256 + bytes[at + 6]!]! ^
      TABLES[bytes[at + 7]!]!;
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ TABLES[(crc ^ bytes[at]!) & 255]!;
  return ~crc >>> 0;
}
