/** Numbers and times as people read them at a glance, in little room. */
import type { Lag } from './report.ts';

export function bytesText(value: number | undefined): string {
  if (value === undefined) return '-';
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? scaled : scaled.toFixed(1)} ${units[unit]}`;
}

/** `85 ms`, `12 s`, `3m 20s`, `2h 05m`, `4d 03h`. */
export function durationText(seconds: number): string {
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  const whole = Math.round(seconds);
  if (whole < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${whole} s`;
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d ${two(Math.floor((whole % 86_400) / 3600))}h`;
}

/** The three states of a lag; `≤` where nobody has looked since. */
export function lagText(lag: Lag): string {
  if (lag.kind !== 'lagging') return lag.kind;
  return `${lag.atMost === true ? '≤ ' : ''}${durationText(lag.seconds)}`;
}

/** `1,234`; above a million `1.2M`. */
export function countText(value: number | undefined): string {
  if (value === undefined) return '-';
  return value >= 1_000_000 ? `${(value / 1_000_000).toFixed(1)}M` : value.toLocaleString('en-US');
}

/** Levels of a lag in seconds: the same for every line, so that lines can be compared. */
const LEVELS = [0, 0.1, 1, 5, 15, 60, 600];
const BARS = '▁▂▃▄▅▆▇█';

/** The newest `width` lags as bars, the newest last; a dot where the lag was not known. */
export function sparkline(lags: readonly Lag[], width: number): string {
  return lags
    .slice(-width)
    .map((lag) => {
      if (lag.kind === 'unknown') return '·';
      const seconds = lag.kind === 'idle' ? 0 : lag.seconds;
      const level = LEVELS.findIndex((limit) => seconds <= limit);
      return BARS[level === -1 ? LEVELS.length : level]!;
    })
    .join('')
    .padStart(width);
}

/** At most `width` characters; what is left out is left out of the middle, where GTID sets say least. */
export function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  if (width < 5) return text.slice(0, width);
  const head = Math.ceil((width - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (width - 1 - head))}`;
}

/** Breaks a text at spaces into lines of at most `width` characters; a longer word is cut. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (let word of text.split(/\s+/)) {
    while (word.length > width) {
      if (line !== '') lines.push(line);
      line = '';
      lines.push(word.slice(0, width));
      word = word.slice(width);
    }
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  if (line !== '') lines.push(line);
  return lines;
}
