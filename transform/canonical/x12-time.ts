/** Times of X12 transactions: a date, a time, and a time code that may be missing (data elements 373, 337, 623). */
import { canonicalTimestamp, type TimestampResult } from './timestamp.ts';

/** Standard and daylight time of a region have one offset each; its plain code leaves the choice to the calendar. */
const CODES: Readonly<Record<string, string>> = {
  UT: '+00:00',
  GM: '+00:00',
  AS: '-09:00',
  AD: '-08:00',
  AT: 'America/Anchorage',
  CS: '-06:00',
  CD: '-05:00',
  CT: 'America/Chicago',
  ES: '-05:00',
  ED: '-04:00',
  ET: 'America/New_York',
  HS: '-10:00',
  HD: '-09:00',
  HT: 'Pacific/Honolulu',
  MS: '-07:00',
  MD: '-06:00',
  MT: 'America/Denver',
  NS: '-03:30',
  ND: '-02:30',
  NT: 'America/St_Johns',
  PS: '-08:00',
  PD: '-07:00',
  PT: 'America/Los_Angeles',
  TS: '-04:00',
  TD: '-03:00',
  TT: 'America/Halifax',
};

/**
 * A date (CCYYMMDD) and a time (HHMM, HHMMSS or with decimals of a second) as canonical text. Without a code, or with LT,
 * the time is that of the place where it happened (`local`, an IANA zone), and not UTC; where that place is not known it
 * is refused.
 */
export function x12Timestamp(
  date: string,
  time: string,
  code: string | undefined,
  local: string | undefined,
): TimestampResult {
  const day = /^(\d{4})(\d\d)(\d\d)$/.exec(date);
  const clock = /^(\d\d)(\d\d)(?:(\d\d)(\d{0,2}))?$/.exec(time);
  if (day === null || clock === null) return { fault: 'not a timestamp' };
  const [, hour, minute, second = '00', fraction = ''] = clock;
  const text = `${day[1]}-${day[2]}-${day[3]} ${hour}:${minute}:${second}${fraction === '' ? '' : `.${fraction}`}`;
  if (code === undefined || code === '' || code === 'LT') return canonicalTimestamp(text, local);
  // 01 to 12 are hours east of Greenwich, 13 (twelve hours) to 24 (one hour) are west of it.
  const hours = /^(0[1-9]|1\d|2[0-4])$/.test(code) ? Number(code) : undefined;
  if (hours !== undefined) {
    const sign = hours <= 12 ? '+' : '-';
    return canonicalTimestamp(
      `${text}${sign}${String(hours <= 12 ? hours : 25 - hours).padStart(2, '0')}:00`,
      undefined,
    );
  }
  const known = CODES[code];
  if (known === undefined) return { fault: 'no time zone' };
  return known.includes('/') ? canonicalTimestamp(text, known) : canonicalTimestamp(text + known, undefined);
}
