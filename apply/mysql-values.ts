/** Texts of Postgres values as MySQL and MariaDB read them. */
import { ValueMisfit } from './value-misfit.ts';

const MINUS = 0x2d;
const NINE = 0x39;
/** `2024-02-29 23:59:59.123456` */
const LONGEST_DATETIME = 26;

/** `t` and `f` as Postgres prints them, or, of records, `true` and `false`. */
export function boolText(text: string): string {
  return text === 't' || text === 'true' ? '1' : '0';
}

/** Numbers: NaN and the infinities have no form in MySQL. */
export function finiteText(text: string): string {
  if (text.charCodeAt(0) > NINE || text.charCodeAt(1) > NINE)
    if (/^-?[A-Z]/i.test(text)) throw new ValueMisfit('NaN and infinity do not exist in MySQL');
  return text;
}

/** Dates between the years 1 and 9999. */
export function dateText(text: string): string {
  if (text.length !== 10 || text.charCodeAt(4) !== MINUS)
    throw new ValueMisfit('the date is infinite, before the year 1 or after 9999');
  return text;
}

/** Timestamps between the years 1 and 9999. */
export function datetimeText(text: string): string {
  if (text.length > LONGEST_DATETIME || text.charCodeAt(4) !== MINUS || text.endsWith('C'))
    throw new ValueMisfit('the timestamp is infinite, before the year 1 or after 9999');
  return text;
}

/** Timestamps with time zone, which frames carry in UTC: as Postgres prints them, or, of records, as RFC 3339 does. */
export function utcText(text: string): string {
  if (text.endsWith('Z') && text.charCodeAt(4) === MINUS) return datetimeText(text.slice(0, -1).replace('T', ' '));
  if (text.charCodeAt(4) !== MINUS || !text.endsWith('+00'))
    throw new ValueMisfit('the timestamp is infinite, before the year 1 or after 9999, or not in UTC');
  return datetimeText(text.slice(0, -3));
}

/** character(n) without its padding. */
export function unpaddedText(text: string): string {
  return text.endsWith(' ') ? text.replace(/ +$/, '') : text;
}

/** A bit string as the number that MySQL stores. */
export function bitsAsNumber(text: string): string {
  return BigInt(`0b${text}`).toString();
}

/** Fifteen digits always survive a double. */
const MAY_BE_INEXACT = /\d[\d.]{15}|[eE][+-]?\d{3}/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON documents: MySQL stores numbers beyond 64-bit integers as doubles, which must not change their value. */
export function exactJson(text: string): string {
  if (!MAY_BE_INEXACT.test(text)) return text;
  for (const [token] of text.matchAll(STRING_OR_NUMBER)) if (!token.startsWith('"') && !isExact(token)) inexact();
  return text;
}

function inexact(): never {
  throw new ValueMisfit('the document has a number that a JSON column of MySQL would round');
}

function isExact(number: string): boolean {
  if (/^-?\d+$/.test(number)) {
    if (number.length < 19) return true;
    const value = BigInt(number);
    return value >= -(2n ** 63n) && value < 2n ** 64n;
  }
  return decimalParts(number) === decimalParts(String(Number(number)));
}

/** Digits and exponent of a number, the same for every way to write it. */
function decimalParts(number: string): string {
  const [mantissa = '', exponent = '0'] = number.toLowerCase().split('e');
  const [whole = '', fraction = ''] = mantissa.replace('-', '').split('.');
  const digits = `${whole}${fraction}`.replace(/^0+/, '');
  const kept = digits.replace(/0+$/, '');
  return kept === '' ? '0' : `${kept}e${Number(exponent) - fraction.length + digits.length - kept.length}`;
}
