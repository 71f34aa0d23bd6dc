/** MariaDB's zlib compression of events and columns, and the zstd of MySQL's TRANSACTION_PAYLOAD events. */
import { inflateRawSync, inflateSync } from 'node:zlib';
import { ZSTDDecoder } from 'zstddec/stream';
import { ReplicationError } from '../../core/errors.ts';

const ALGORITHM_ZLIB = 0;
/** Events and columns are never larger than a packet may be. */
const MAX_BYTES = 0x4000_0000;

/**
 * A compressed part of a MariaDB event (`binlog_buf_uncompress`): a byte with 1 in its highest bit, the algorithm in
 * the next three and the number of length bytes in the lowest three; the length, big-endian; a zlib stream.
 */
export function inflateEvent(bytes: Buffer): Buffer {
  const head = bytes[0] ?? 0;
  const lengthBytes = head & 0x07;
  if ((head & 0x80) === 0 || ((head >> 4) & 0x07) !== ALGORITHM_ZLIB || lengthBytes < 1 || lengthBytes > 4)
    throw new ReplicationError('source_protocol', `a compressed event starts with the unknown byte ${head}`);
  return inflate(bytes, 1, lengthBytes, true, 'a compressed event');
}

/**
 * A value of a MariaDB column with the attribute COMPRESSED (`Field_longstr::uncompress`): a zero byte and the plain
 * value, or the method in the highest four bits (8 = zlib), 8 for a bare stream without zlib's header, the number of length
 * bytes in the lowest three; the length, big-endian; the deflated value. A value of no bytes is empty.
 */
export function inflateColumn(bytes: Buffer): Buffer {
  if (bytes.length === 0) return bytes;
  const head = bytes[0]!;
  if (head === 0) return bytes.subarray(1);
  const lengthBytes = head & 0x07;
  if (head >> 4 !== 8 || lengthBytes < 1 || lengthBytes > 4)
    throw new ReplicationError('source_protocol', `a compressed value starts with the unknown byte ${head}`);
  return inflate(bytes, 1, lengthBytes, (head & 0x08) === 0, 'a compressed value');
}

function inflate(bytes: Buffer, at: number, lengthBytes: number, zlibHeader: boolean, what: string): Buffer {
  try {
    const length = bytes.readUIntBE(at, lengthBytes);
    if (length > MAX_BYTES) throw new RangeError(`length ${length}`);
    const stream = bytes.subarray(at + lengthBytes);
    const options = { maxOutputLength: Math.max(length, 1) };
    const value = zlibHeader ? inflateSync(stream, options) : inflateRawSync(stream, options);
    if (value.length !== length) throw new RangeError(`${value.length} bytes instead of ${length}`);
    return value;
  } catch (cause) {
    throw new ReplicationError('source_protocol', `${what} of ${bytes.length} bytes cannot be inflated`, { cause });
  }
}

const zstd = new ZSTDDecoder();
/** Calls without output after which a stream counts as damaged; a sound one gives output for every block of input. */
const MAX_EMPTY = 64;

/** The library's memory holds what it is given, and never gets smaller. */
const SLICE_BYTES = 128 << 10;

function* slices(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += SLICE_BYTES) yield bytes.subarray(at, at + SLICE_BYTES);
}

/** To be awaited before the first `unzstd`. */
export async function prepareZstd(): Promise<void> {
  await zstd.init();
}

/** Decompresses piece by piece (128 KB at most each), so that memory does not grow with the transaction. */
export function* unzstd(bytes: Uint8Array): Generator<Buffer, void> {
  let empty = 0;
  try {
    for (const piece of zstd.decodeStreaming(slices(bytes))) {
      // The library does not look at the decoder's errors: it would ask for ever.
      empty = piece.length === 0 ? empty + 1 : 0;
      if (empty > MAX_EMPTY) throw new RangeError('no progress');
      yield Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    }
  } catch (cause) {
    if (cause instanceof ReplicationError) throw cause;
    throw new ReplicationError(
      'source_protocol',
      `a compressed transaction of ${bytes.length} bytes cannot be decompressed`,
      { cause },
    );
  }
}
