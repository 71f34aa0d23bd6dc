/**
 * Exact decimal arithmetic on text. Quantities and money are decimal text everywhere: a canonical decimal is plain
 * notation without exponent, leading or trailing zeros, or negative zero, so equal numbers are equal texts.
 */
import Big from 'big.js';

/** Digits after the point that a division keeps (rounded half to even). Everything else is exact. */
export const DIVISION_PLACES = 20;

const CANONICAL = /^-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?$/;
const PLAIN = /^([+-]?)(\d*)(?:\.(\d*))?$/;
const SCIENTIFIC = /^[+-]?(?:\d+\.?\d*|\.\d+)[eE]([+-]?\d+)$/;
/** Integers of at most this many digits are added as numbers: a hundred of them stay below 2^53. */
const SMALL_DIGITS = 13;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
/** Beyond what a double holds an exponent is not a quantity but an attack on memory. */
const MAX_EXPONENT = 400;

/** Exact, and strict: big.js refuses to be fed with numbers. */
const Exact = Big();
Exact.DP = DIVISION_PLACES;
Exact.RM = 2;
Exact.strict = true;
Exact.PE = 1_000_000;
Exact.NE = -1_000_000;

/** Whether a text is a canonical decimal. */
export function isCanonicalDecimal(text: string): boolean {
  return CANONICAL.test(text) && text !== '-0';
}

/** The canonical form of a decimal in plain or scientific notation; undefined for anything else (NaN, Infinity, ''). */
export function canonicalDecimal(text: string): string | undefined {
  const short = shortDecimal(text);
  if (short !== undefined) return short;
  if (CANONICAL.test(text)) return text === '-0' ? '0' : text;
  const match = PLAIN.exec(text);
  if (match !== null) {
    const [, sign, rawWhole = '', rawFraction = ''] = match;
    if (rawWhole === '' && rawFraction === '') return undefined;
    const whole = rawWhole.replace(/^0+(?=\d)/, '') || '0';
    const fraction = stripTrailingZeros(rawFraction);
    const digits = fraction === '' ? whole : `${whole}.${fraction}`;
    return sign === '-' && digits !== '0' ? `-${digits}` : digits;
  }
  const exponent = SCIENTIFIC.exec(text)?.[1];
  if (exponent === undefined || Math.abs(Number(exponent)) > MAX_EXPONENT) return undefined;
  return format(new Exact(text.replace(/^\+/, '')));
}

/** Σ of canonical decimals. */
export function addDecimals(values: readonly string[]): string {
  if (values.length === 1) return values[0]!;
  if (values.length <= 100) {
    let sum = 0;
    for (const value of values) sum += smallInteger(value);
    if (!Number.isNaN(sum)) return String(sum);
  }
  return format(values.reduce((sum, value) => sum.plus(value), new Exact('0')));
}

/** a − b. */
export function subtractDecimals(a: string, b: string): string {
  const rest = smallInteger(a) - smallInteger(b);
  if (!Number.isNaN(rest)) return String(rest);
  return format(new Exact(a).minus(b));
}

/** Π of canonical decimals. */
export function multiplyDecimals(values: readonly string[]): string {
  return format(values.reduce((product, value) => product.times(value), new Exact('1')));
}

/** a ÷ b to `DIVISION_PLACES` places; undefined when b is zero. */
export function divideDecimals(a: string, b: string): string | undefined {
  if (b === '0') return undefined;
  return format(new Exact(a).div(b));
}

/** −a. */
export function negateDecimal(a: string): string {
  if (a === '0') return a;
  return a.startsWith('-') ? a.slice(1) : `-${a}`;
}

/** -1, 0 or 1 as a is below, equal to or above b. */
export function compareDecimals(a: string, b: string): -1 | 0 | 1 {
  if (a === b) return 0;
  const rest = smallInteger(a) - smallInteger(b);
  if (!Number.isNaN(rest)) return rest < 0 ? -1 : 1;
  return new Exact(a).cmp(b) as -1 | 0 | 1;
}

/** Whether a canonical decimal is below zero. */
export function isNegative(text: string): boolean {
  return text.startsWith('-');
}

function format(value: Big): string {
  const text = value.toFixed();
  return text === '-0' ? '0' : text;
}

/** A canonical integer of few digits; NaN for any other decimal. */
function smallInteger(text: string): number {
  const { length } = text;
  const first = text.charCodeAt(0) === MINUS ? 1 : 0;
  if (length === first || length - first > SMALL_DIGITS) return Number.NaN;
  let value = 0;
  for (let at = first; at < length; at++) {
    const code = text.charCodeAt(at);
    if (!isDigit(code)) return Number.NaN;
    value = value * 10 + code - ZERO;
  }
  return first === 1 ? -value : value;
}

/** `canonicalDecimal` of what most figures of a database look like: `12`, `-3.5`, `7.000`; undefined for all others. */
function shortDecimal(text: string): string | undefined {
  const { length } = text;
  let at = text.charCodeAt(0) === MINUS ? 1 : 0;
  const first = at;
  while (at < length && isDigit(text.charCodeAt(at))) at += 1;
  // No digit, or a zero in front of others.
  if (at === first || (at > first + 1 && text.charCodeAt(first) === ZERO)) return undefined;
  let end = at;
  if (at < length) {
    if (text.charCodeAt(at) !== POINT || at + 1 === length) return undefined;
    for (at += 1; at < length; at++) {
      const digit = text.charCodeAt(at);
      if (!isDigit(digit)) return undefined;
      if (digit !== ZERO) end = at + 1;
    }
  }
  if (first === 1 && end === 2 && text.charCodeAt(1) === ZERO) return '0';
  return end === length ? text : text.slice(0, end);
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= ZERO + 9;
}

/** A loop, since a pattern for it takes quadratic time on a long run of zeros. */
function stripTrailingZeros(digits: string): string {
  let end = digits.length;
  while (end > 0 && digits.charCodeAt(end - 1) === 0x30) end -= 1;
  return digits.slice(0, end);
}
