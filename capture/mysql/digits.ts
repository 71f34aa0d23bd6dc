/** Writers of decimal digits into a byte buffer: no strings in between. Each gives the place behind what it wrote. */

const ZERO = 0x30;
const MINUS = 0x2d;
const TWO_32 = 0x1_0000_0000;

/** An integer from 0 to 2^53 - 1. */
export function writeUint(out: Buffer, at: number, value: number): number {
  if (value < 10) {
    out[at] = ZERO + value;
    return at + 1;
  }
  let rest = value;
  let end = at + digitsOf(value);
  const next = end;
  // Integer arithmetic of 32 bits is several times faster: the high digits first come down to it.
  while (rest > 0x7fff_ffff) {
    const high = Math.floor(rest / 10);
    out[--end] = ZERO + (rest - high * 10);
    rest = high;
  }
  let small = rest | 0;
  while (small > 0) {
    const high = (small / 10) | 0;
    out[--end] = ZERO + (small - high * 10);
    small = high;
  }
  return next;
}

/** A safe integer, with its sign. */
export function writeInt(out: Buffer, at: number, value: number): number {
  if (value >= 0) return writeUint(out, at, value);
  out[at] = MINUS;
  return writeUint(out, at + 1, -value);
}

/** An integer below 100 as two digits. */
export function writeTwo(out: Buffer, at: number, value: number): number {
  const tens = (value / 10) | 0;
  out[at] = ZERO + tens;
  out[at + 1] = ZERO + (value - tens * 10);
  return at + 2;
}

/** An integer with exactly `width` digits, leading zeros included. `value` has at most nine digits. */
export function writePadded(out: Buffer, at: number, value: number, width: number): number {
  let rest = value | 0;
  for (let i = at + width - 1; i >= at; i--) {
    const high = (rest / 10) | 0;
    out[i] = ZERO + (rest - high * 10);
    rest = high;
  }
  return at + width;
}

/** An unsigned integer of 64 bits from its halves. */
export function writeUint64(out: Buffer, at: number, low: number, high: number): number {
  if (high < 0x20_0000) return writeUint(out, at, high * TWO_32 + low);
  return at + out.write(((BigInt(high) << 32n) | BigInt(low)).toString(), at, 'latin1');
}

/** A signed integer of 64 bits from its unsigned halves. */
export function writeInt64(out: Buffer, at: number, low: number, high: number): number {
  if (high < 0x8000_0000) return writeUint64(out, at, low, high);
  out[at] = MINUS;
  const negatedLow = low === 0 ? 0 : TWO_32 - low;
  const negatedHigh = TWO_32 - high - (low === 0 ? 0 : 1);
  return writeUint64(out, at + 1, negatedLow, negatedHigh);
}

function digitsOf(value: number): number {
  if (value < 100_000) return value < 100 ? 2 : value < 1000 ? 3 : value < 10_000 ? 4 : 5;
  let digits = 6;
  for (let limit = 1_000_000; value >= limit; limit *= 10) digits += 1;
  return digits;
}
