/** Base64 (RFC 4648, padded) from bytes to bytes. */

const LETTERS = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', 'latin1');
const EQUALS = 0x3d;
/** Beyond these, Node's own encoding is faster, although it makes a string first. */
const NATIVE_BYTES = 192;
/** How many bytes become one string: a multiple of three. */
const PIECE_BYTES = 768 * 1024;

/** Writes `source[start, end)` to `out` from `at` on, which has room for it; gives the place behind it. */
export function encodeBase64(source: Buffer, start: number, end: number, out: Buffer, at: number): number {
  if (end - start <= NATIVE_BYTES) return encodeShort(source, start, end, out, at);
  let to = at;
  for (let from = start; from < end; from += PIECE_BYTES) {
    const text = source.toString('base64', from, Math.min(from + PIECE_BYTES, end));
    // Without its length nothing is written where more than 2^31 bytes are left.
    to += out.write(text, to, text.length, 'latin1');
  }
  return to;
}

function encodeShort(source: Buffer, start: number, end: number, out: Buffer, offset: number): number {
  let at = offset;
  let i = start;
  for (; i + 2 < end; i += 3) {
    const bits = (source[i]! << 16) | (source[i + 1]! << 8) | source[i + 2]!;
    out[at++] = LETTERS[bits >> 18]!;
    out[at++] = LETTERS[(bits >> 12) & 63]!;
    out[at++] = LETTERS[(bits >> 6) & 63]!;
    out[at++] = LETTERS[bits & 63]!;
  }
  if (i < end) {
    const two = i + 1 < end;
    const bits = (source[i]! << 16) | (two ? source[i + 1]! << 8 : 0);
    out[at++] = LETTERS[bits >> 18]!;
    out[at++] = LETTERS[(bits >> 12) & 63]!;
    out[at++] = two ? LETTERS[(bits >> 6) & 63]! : EQUALS;
    out[at++] = EQUALS;
  }
  return at;
}
