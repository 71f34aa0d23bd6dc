/** Figures for people. */

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds === 0) return '0 s';
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  if (whole < 172_800) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86_400)} d`;
}

export function lag(seconds) {
  if (seconds === null || seconds === undefined) return 'unknown';
  return seconds === 0 ? 'none' : duration(seconds);
}

const whole = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export function count(value) {
  if (value === null || value === undefined) return '–';
  return Math.abs(value) < 100_000 ? whole.format(value) : short.format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 || scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${units[unit]}`;
}

export function ago(iso, now = Date.now()) {
  if (iso === null || iso === undefined) return 'never';
  const seconds = Math.max(0, (now - Date.parse(iso)) / 1000);
  return seconds < 2 ? 'now' : `${duration(Math.floor(seconds))} ago`;
}

const stamp = new Intl.DateTimeFormat('en-GB', {
  year: 'numeric',
  month: 'short',
  day: '2-digit',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
});

export function at(iso) {
  return stamp.format(new Date(iso));
}

/** Spaces at the ends and invisible characters, made visible. */
export function visible(text) {
  return text
    .replaceAll(/^ +| +$/g, (spaces) => '·'.repeat(spaces.length))
    .replaceAll('\t', '⇥')
    .replaceAll('\n', '↵\n')
    .replaceAll('\u00A0', '⍽');
}

/** The key of a row as people write it. */
export function keyText(key) {
  if (key === null || key === undefined) return 'no key';
  const values = typeof key === 'string' ? JSON.parse(key) : key;
  return values.map((value) => (value?.hidden ? 'hidden' : value)).join(' · ');
}
