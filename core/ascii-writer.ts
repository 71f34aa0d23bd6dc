/** Digits written as bytes, without strings in between. */

const ZERO = 0x30;
/** Numbers are split here, so that both halves are small integers to the machine. */
const SPLIT = 100_000_000;
const HEX = Buffer.from('0123456789ABCDEF', 'latin1');
const scratch = new DataView(new ArrayBuffer(8));

/** Writes a non-negative integer (up to 2^53) in decimal at `at`; gives the offset behind it. */
export function writeDecimal(buffer: Buffer, at: number, value: number): number {
  if (value < SPLIT) return writeDigits(buffer, at, value, countDigits(value));
  const high = Math.floor(value / SPLIT);
  return writeDigits(buffer, writeDigits(buffer, at, high, countDigits(high)), value - high * SPLIT, 8);
}

/** Writes 16 upper-case hexadecimal digits, as frames carry LSNs; gives the offset behind them. */
export function writeHex64(buffer: Buffer, at: number, value: bigint): number {
  scratch.setBigUint64(0, value);
  for (let i = 0; i < 8; i++) {
    const byte = scratch.getUint8(i);
    buffer[at + 2 * i] = HEX[byte >> 4]!;
    buffer[at + 2 * i + 1] = HEX[byte & 15]!;
  }
  return at + 16;
}

function countDigits(value: number): number {
  let digits = 1;
  for (let power = 10; power <= value; power *= 10) digits += 1;
  return digits;
}

/** Of a number below 2^31. */
function writeDigits(buffer: Buffer, at: number, value: number, digits: number): number {
  let left = value;
  for (let to = at + digits - 1; to >= at; to--) {
    const tenth = (left / 10) | 0;
    buffer[to] = ZERO + left - tenth * 10;
    left = tenth;
  }
  return at + digits;
}
