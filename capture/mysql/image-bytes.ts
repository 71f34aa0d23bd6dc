/** What images of rows are made of (mysql-server `Rows_event`): bitmaps, and lengths in front of values. */

/** Longer than any value: the length of one whose length bytes lie beyond the buffer. */
const TWO_32 = 0x1_0000_0000;

/** The length in front of a value; `size` is minus the number of its bytes. Beyond the buffer it is more than any. */
export function readLength(source: Buffer, at: number, size: number): number {
  if (at - size > source.length) return TWO_32;
  let length = 0;
  for (let i = -size - 1; i >= 0; i--) length = length * 256 + source[at + i]!;
  return length;
}

/** Bit `n` of the bitmap at `at`. */
export function bit(buffer: Buffer, at: number, n: number): boolean {
  return ((buffer[at + (n >> 3)]! >> (n & 7)) & 1) === 1;
}

/** How many of the first `width` bits of the bitmap at `at` are set. */
export function countBits(buffer: Buffer, at: number, width: number): number {
  let count = 0;
  for (let n = 0; n < width; n++) if (bit(buffer, at, n)) count += 1;
  return count;
}
