/** NEWDECIMAL values (mysql-server strings/decimal.cc, `bin2decimal`): groups of nine digits, big-endian. */
import { writePadded, writeUint } from './digits.ts';

const DIGITS = 9;
/** Bytes that hold a group of fewer than nine digits. */
const GROUP_BYTES = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4] as const;

/** Bytes of a stored decimal. */
export function decimalBytes(precision: number, scale: number): number {
  const whole = precision - scale;
  return (
    Math.floor(whole / DIGITS) * 4 +
    GROUP_BYTES[whole % DIGITS]! +
    Math.floor(scale / DIGITS) * 4 +
    GROUP_BYTES[scale % DIGITS]!
  );
}

/**
 * Writes the decimal that is stored from `from` on: all digits of its scale, no leading zeros. At most 68 bytes. Gives
 * the place behind it in `out`.
 */
export function writeDecimal(
  out: Buffer,
  at: number,
  source: Buffer,
  from: number,
  precision: number,
  scale: number,
): number {
  const whole = precision - scale;
  // The sign bit is inverted, and all bits of a negative number are.
  const mask = (source[from]! & 0x80) === 0 ? 0xff : 0;
  let next = at;
  let read = from;
  if (mask !== 0) out[next++] = 0x2d;
  let first = 0x80;
  let started = false;
  const headBytes = GROUP_BYTES[whole % DIGITS]!;
  if (headBytes > 0) {
    let group = 0;
    for (let i = 0; i < headBytes; i++) {
      group = group * 256 + ((source[read++]! ^ mask ^ first) & 0xff);
      first = 0;
    }
    if (group > 0) {
      next = writeUint(out, next, group);
      started = true;
    }
  }
  for (let n = (whole / DIGITS) | 0; n > 0; n--) {
    const group = readGroup(source, read, mask, first);
    first = 0;
    read += 4;
    if (started) next = writePadded(out, next, group, DIGITS);
    else if (group > 0) {
      next = writeUint(out, next, group);
      started = true;
    }
  }
  if (!started) out[next++] = 0x30;
  if (scale === 0) return next;
  out[next++] = 0x2e;
  for (let n = (scale / DIGITS) | 0; n > 0; n--) {
    next = writePadded(out, next, readGroup(source, read, mask, first), DIGITS);
    first = 0;
    read += 4;
  }
  const tailDigits = scale % DIGITS;
  if (tailDigits > 0) {
    let group = 0;
    for (let i = GROUP_BYTES[tailDigits]!; i > 0; i--) {
      group = group * 256 + ((source[read++]! ^ mask ^ first) & 0xff);
      first = 0;
    }
    next = writePadded(out, next, group, tailDigits);
  }
  return next;
}

function readGroup(source: Buffer, from: number, mask: number, first: number): number {
  return (
    ((source[from]! ^ mask ^ first) & 0xff) * 0x100_0000 +
    (((source[from + 1]! ^ mask) << 16) | ((source[from + 2]! ^ mask) << 8) | (source[from + 3]! ^ mask))
  );
}
