/**
 * Timestamps: RFC 3339 in UTC with six digits of a second, always of one width, so that they sort as text. No JS `Date`
 * touches the fraction. Local times without an offset need the zone by which they are read.
 */

const FORM =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?)?$/i;
const CANONICAL = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$/;
const DATE = /^(\d{4})-(\d{2})-(\d{2})$/;
const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const MINUTE_MS = 60_000;

/** Why a text is not a timestamp: a closed set, fit for errors and metrics. */
export type TimestampFault =
  'not a timestamp' | 'no such day or time' | 'zero date' | 'infinite or outside years 1 to 9999' | 'no time zone';

export type TimestampResult = { readonly text: string } | { readonly fault: TimestampFault };

/** Whether a text is a canonical timestamp that exists. */
export function isCanonicalTimestamp(text: string): boolean {
  if (!CANONICAL.test(text)) return false;
  return validDay(Number(text.slice(0, 4)), Number(text.slice(5, 7)), Number(text.slice(8, 10))) && validTime(text);
}

/** Whether a text is a day (YYYY-MM-DD) that exists. */
export function isCanonicalDate(text: string): boolean {
  const match = DATE.exec(text);
  return match !== null && validDay(Number(match[1]), Number(match[2]), Number(match[3]));
}

/**
 * A database's timestamp as canonical text. `zone` (an IANA name) reads texts without an offset; where a local time
 * occurs twice (clocks set back) the first is taken, where it does not occur (set forward) it moves on by the gap.
 * Digits of a second beyond the sixth are cut off.
 */
export function canonicalTimestamp(text: string, zone: string | undefined): TimestampResult {
  const match = FORM.exec(text);
  if (match === null) {
    if (/infinity|BC$|^[+-]?\d{5,}-/i.test(text)) return { fault: 'infinite or outside years 1 to 9999' };
    return { fault: 'not a timestamp' };
  }
  const [, year, month, day, hour = '00', minute = '00', second = '00', fraction = '', offset] = match;
  if (month === '00' || day === '00') return { fault: 'zero date' };
  if (year === '0000') return { fault: 'infinite or outside years 1 to 9999' };
  if (!validDay(Number(year), Number(month), Number(day))) return { fault: 'no such day or time' };
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return { fault: 'no such day or time' };
  const micros = fraction.slice(0, 6).padEnd(6, '0');
  if (offset === undefined && zone === undefined) return { fault: 'no time zone' };
  const isUtc = offset === undefined ? zone === 'UTC' : /^(?:Z|[+-]00(?::?00)?)$/i.test(offset);
  if (isUtc) return { text: `${year}-${month}-${day}T${hour}:${minute}:${second}.${micros}Z` };
  const localMs = utcMs(Number(year), Number(month), Number(day), Number(hour), Number(minute), Number(second));
  const utc = offset === undefined ? localToUtcMs(localMs, zone!) : localMs - offsetMs(offset);
  const moved = new Date(utc);
  if (moved.getUTCFullYear() < 1 || moved.getUTCFullYear() > 9999)
    return { fault: 'infinite or outside years 1 to 9999' };
  return { text: `${moved.toISOString().slice(0, 19)}.${micros}Z` };
}

/** Microseconds since 1970 as canonical text. */
export function timestampOfMicros(us: number): string {
  const ms = Math.floor(us / 1000);
  return `${new Date(ms).toISOString().slice(0, 23)}${String(us - ms * 1000).padStart(3, '0')}Z`;
}

/** Canonical text as microseconds since 1970. */
export function microsOfTimestamp(text: string): number {
  return Date.parse(`${text.slice(0, 19)}Z`) * 1000 + Number(text.slice(20, 26));
}

/** Whether this process knows an IANA time zone. */
export function isTimeZone(zone: string): boolean {
  try {
    return formatterOf(zone) !== undefined;
  } catch (thrown) {
    if (thrown instanceof RangeError) return false;
    throw thrown;
  }
}

function validDay(year: number, month: number, day: number): boolean {
  if (year < 1 || month < 1 || month > 12 || day < 1) return false;
  const leap = month === 2 && year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return day <= DAYS[month - 1]! + (leap ? 1 : 0);
}

function validTime(text: string): boolean {
  return Number(text.slice(11, 13)) < 24 && Number(text.slice(14, 16)) < 60 && Number(text.slice(17, 19)) < 60;
}

function utcMs(year: number, month: number, day: number, hour = 0, minute = 0, second = 0): number {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  return date.getTime() + ((hour * 60 + minute) * 60 + second) * 1000;
}

function offsetMs(offset: string): number {
  const digits = offset.slice(1).replaceAll(':', '');
  const seconds =
    Number(digits.slice(0, 2)) * 3600 + Number(digits.slice(2, 4) || 0) * 60 + Number(digits.slice(4, 6) || 0);
  return (offset.startsWith('-') ? -1 : 1) * seconds * 1000;
}

/** Offsets east of UTC by zone and quarter of an hour: rules change only on such a boundary, and rows cluster in time. */
const offsets = new Map<string, Map<number, number>>();
const formatters = new Map<string, Intl.DateTimeFormat>();
const QUARTER_MS = 15 * MINUTE_MS;
const MAX_CACHED_OFFSETS = 100_000;

function formatterOf(zone: string): Intl.DateTimeFormat {
  let formatter = formatters.get(zone);
  if (formatter === undefined) {
    formatter = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      era: 'short',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formatters.set(zone, formatter);
  }
  return formatter;
}

function offsetAt(ms: number, zone: string): number {
  const quarter = Math.floor(ms / QUARTER_MS);
  let known = offsets.get(zone);
  if (known === undefined || known.size > MAX_CACHED_OFFSETS) offsets.set(zone, (known = new Map()));
  let offset = known.get(quarter);
  if (offset === undefined) {
    const at = quarter * QUARTER_MS;
    const part: Record<string, string> = {};
    for (const { type, value } of formatterOf(zone).formatToParts(at)) part[type] = value;
    const year = part['era'] === 'BC' ? 1 - Number(part['year']) : Number(part['year']);
    offset =
      utcMs(
        year,
        Number(part['month']),
        Number(part['day']),
        Number(part['hour']),
        Number(part['minute']),
        Number(part['second']),
      ) - at;
    known.set(quarter, offset);
  }
  return offset;
}

function localToUtcMs(localMs: number, zone: string): number {
  // The offsets of a day before and after frame every change of rules that could concern this local time.
  const before = offsetAt(localMs - 86_400_000, zone);
  const after = offsetAt(localMs + 86_400_000, zone);
  for (const offset of before === after ? [before] : [before, after])
    if (offsetAt(localMs - offset, zone) === offset) return localMs - offset;
  // In a gap, or between two changes: with the offset before it the clock has moved on by the gap.
  return localMs - before;
}
