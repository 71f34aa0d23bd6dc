/** Canonical times as systems store them that keep none of the zone. */
const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone);
  if (format === undefined) {
    const two = '2-digit';
    format = new Intl.DateTimeFormat('en-CA', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: two,
      day: two,
      hour: two,
      minute: two,
      second: two,
    });
    formats.set(zone, format);
  }
  return format;
}

/** `2026-03-01T12:00:00.250000Z` in a zone: `2026-03-01 13:00:00.250000`. Microseconds are kept. */
export function localTime(utc: string, zone: string): string {
  if (zone === 'UTC') return utc.replace('T', ' ').replace(/Z$/, '');
  const parts = new Map(
    formatOf(zone)
      .formatToParts(new Date(utc))
      .map(({ type, value }) => [type, value]),
  );
  const part = (type: Intl.DateTimeFormatPartTypes): string => parts.get(type)!;
  const day = `${part('year').padStart(4, '0')}-${part('month')}-${part('day')}`;
  return `${day} ${part('hour')}:${part('minute')}:${part('second')}${/\.\d+/.exec(utc)?.[0] ?? ''}`;
}
