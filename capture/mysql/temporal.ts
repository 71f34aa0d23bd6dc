/**
 * Dates and times (mysql-server `my_time.cc`, MariaDB `compat56.cc`): stored packed, printed as the server prints them.
 * Zero and partial dates are printed as they are stored. Each writer gives the place behind what it wrote; at most 27
 * bytes.
 */
import { writePadded, writeTwo, writeUint } from './digits.ts';

const COLON = 0x3a;
const DASH = 0x2d;
const SPACE = 0x20;
const DOT = 0x2e;
const SECONDS_A_DAY = 86_400;
/** 10^n, for fractions of n digits. */
const POWERS = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000] as const;

/** Bytes in which a fraction of `precision` digits is stored. */
export function fractionBytes(precision: number): number {
  return (precision + 1) >> 1;
}

/** DATE: three bytes, little-endian, 15 bits of year, 4 of month, 5 of day. */
export function writeDate(out: Buffer, at: number, source: Buffer, from: number): number {
  const packed = source[from]! | (source[from + 1]! << 8) | (source[from + 2]! << 16);
  return writeYmd(out, at, packed >> 9, (packed >> 5) & 15, packed & 31);
}

/** YEAR: years since 1900, zero for the zero year. */
export function writeYear(out: Buffer, at: number, stored: number): number {
  return writePadded(out, at, stored === 0 ? 0 : 1900 + stored, 4);
}

/** DATETIME2: five bytes big-endian (sign, 17 bits year * 13 + month, day, hour, minute, second) and the fraction. */
export function writeDatetime2(out: Buffer, at: number, source: Buffer, from: number, precision: number): number {
  const high = ((source[from]! & 0x7f) << 8) | source[from + 1]!;
  const low = (source[from + 2]! << 16) | (source[from + 3]! << 8) | source[from + 4]!;
  // 39 bits: the year and month lie in bits 22 to 38, of which `low` has the lowest two.
  const yearMonth = (high << 2) | (low >> 22);
  const year = (yearMonth / 13) | 0;
  let next = writeYmd(out, at, year, yearMonth - year * 13, (low >> 17) & 31);
  out[next++] = SPACE;
  next = writeHms(out, next, (low >> 12) & 31, (low >> 6) & 63, low & 63);
  return precision === 0
    ? next
    : writeFraction(out, next, readFraction(source, from + 5, fractionBytes(precision)), precision);
}

/** TIMESTAMP2: four bytes big-endian, seconds since 1970, and the fraction; printed in UTC, zero as zero date. */
export function writeTimestamp2(out: Buffer, at: number, source: Buffer, from: number, precision: number): number {
  const seconds =
    source[from]! * 0x100_0000 + ((source[from + 1]! << 16) | (source[from + 2]! << 8) | source[from + 3]!);
  const fraction = precision === 0 ? 0 : readFraction(source, from + 4, fractionBytes(precision));
  const next = writeUnixSeconds(out, at, seconds, seconds === 0 && fraction === 0);
  return precision === 0 ? next : writeFraction(out, next, fraction, precision);
}

/**
 * TIME2: three bytes big-endian and the fraction, as one signed number with an offset; ten bits of hours, six of
 * minutes, six of seconds.
 */
export function writeTime2(out: Buffer, at: number, source: Buffer, from: number, precision: number): number {
  const bytes = fractionBytes(precision);
  const scale = 256 ** bytes;
  let packed = ((source[from]! << 16) | (source[from + 1]! << 8) | source[from + 2]!) - 0x80_0000;
  packed = packed * scale + (bytes === 0 ? 0 : readFraction(source, from + 3, bytes));
  let next = at;
  if (packed < 0) {
    out[next++] = DASH;
    packed = -packed;
  }
  const whole = Math.floor(packed / scale);
  next = writeHours(out, next, (whole >> 12) & 0x3ff);
  out[next++] = COLON;
  next = writeTwo(out, next, (whole >> 6) & 63);
  out[next++] = COLON;
  next = writeTwo(out, next, whole & 63);
  return precision === 0 ? next : writeFraction(out, next, packed - whole * scale, precision);
}

/** TIME of servers and tables from before MySQL 5.6: three bytes little-endian, hhmmss as a signed decimal number. */
export function writeOldTime(out: Buffer, at: number, source: Buffer, from: number): number {
  let value = ((source[from]! | (source[from + 1]! << 8) | (source[from + 2]! << 16)) << 8) >> 8;
  let next = at;
  if (value < 0) {
    out[next++] = DASH;
    value = -value;
  }
  next = writeHours(out, next, (value / 10_000) | 0);
  out[next++] = COLON;
  next = writeTwo(out, next, ((value / 100) | 0) % 100);
  out[next++] = COLON;
  return writeTwo(out, next, value % 100);
}

/** DATETIME of the same age: eight bytes little-endian, YYYYMMDDhhmmss as a decimal number. */
export function writeOldDatetime(out: Buffer, at: number, source: Buffer, from: number): number {
  const value = source.readUInt32LE(from) + source.readUInt32LE(from + 4) * 0x1_0000_0000;
  const date = Math.floor(value / 1_000_000);
  const time = value - date * 1_000_000;
  let next = writeYmd(out, at, (date / 10_000) | 0, ((date / 100) | 0) % 100, date % 100);
  out[next++] = SPACE;
  next = writeHms(out, next, (time / 10_000) | 0, ((time / 100) | 0) % 100, time % 100);
  return next;
}

/** TIMESTAMP of the same age: four bytes little-endian. */
export function writeOldTimestamp(out: Buffer, at: number, source: Buffer, from: number): number {
  const seconds = source.readUInt32LE(from);
  return writeUnixSeconds(out, at, seconds, seconds === 0);
}

function writeUnixSeconds(out: Buffer, at: number, seconds: number, zero: boolean): number {
  let next: number;
  let rest = 0;
  if (zero) next = writeYmd(out, at, 0, 0, 0);
  else {
    const days = Math.floor(seconds / SECONDS_A_DAY);
    rest = seconds - days * SECONDS_A_DAY;
    // Days since 0000-03-01, so that the leap day is the last of a year; eras of 400 years are not needed up to 2106.
    const shifted = days + 719_468;
    const century = ((4 * shifted + 3) / 146_097) | 0;
    const inCentury = shifted - ((146_097 * century) >> 2);
    const yearOfCentury = ((4 * inCentury + 3) / 1461) | 0;
    const dayOfYear = inCentury - ((1461 * yearOfCentury) >> 2);
    const month = ((5 * dayOfYear + 2) / 153) | 0;
    const day = dayOfYear - (((153 * month + 2) / 5) | 0) + 1;
    const january = month >= 10;
    next = writeYmd(out, at, century * 100 + yearOfCentury + (january ? 1 : 0), january ? month - 9 : month + 3, day);
  }
  out[next++] = SPACE;
  const hours = (rest / 3600) | 0;
  const minutes = ((rest - hours * 3600) / 60) | 0;
  return writeHms(out, next, hours, minutes, rest - hours * 3600 - minutes * 60);
}

/** A fraction's bytes, big-endian. */
function readFraction(source: Buffer, from: number, bytes: number): number {
  let value = 0;
  for (let i = 0; i < bytes; i++) value = value * 256 + source[from + i]!;
  return value;
}

/** `stored` counts hundredths, ten-thousandths or millionths, as its bytes go; an odd precision leaves the last digit out. */
function writeFraction(out: Buffer, at: number, stored: number, precision: number): number {
  out[at] = DOT;
  return writePadded(out, at + 1, (precision & 1) === 1 ? (stored / 10) | 0 : stored, precision);
}

/** A fraction of `precision` digits from microseconds; nothing for precision 0. */
export function writeMicros(out: Buffer, at: number, micros: number, precision: number): number {
  if (precision === 0) return at;
  out[at] = DOT;
  return writePadded(out, at + 1, (micros / POWERS[6 - precision]!) | 0, precision);
}

export function writeYmd(out: Buffer, at: number, year: number, month: number, day: number): number {
  let next = writePadded(out, at, year, 4);
  out[next++] = DASH;
  next = writeTwo(out, next, month);
  out[next++] = DASH;
  return writeTwo(out, next, day);
}

export function writeHms(out: Buffer, at: number, hours: number, minutes: number, seconds: number): number {
  let next = writeTwo(out, at, hours);
  out[next++] = COLON;
  next = writeTwo(out, next, minutes);
  out[next++] = COLON;
  return writeTwo(out, next, seconds);
}

/** Two digits at least, three where they are needed. */
export function writeHours(out: Buffer, at: number, hours: number): number {
  return hours < 100 ? writeTwo(out, at, hours) : writeUint(out, at, hours);
}
