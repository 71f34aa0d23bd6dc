/** Figures for people, written as the templates of Prometheus write them. */

/** `1m 1s`, `1d 0h 7m 0s`; below a second `250ms`. */
export function humanDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return String(seconds);
  if (seconds !== 0 && Math.abs(seconds) < 1) return `${significant(seconds * 1000)}ms`;
  const sign = seconds < 0 ? '-' : '';
  const whole = Math.trunc(Math.abs(seconds));
  const parts = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  const [days, hours, minutes, rest] = parts as [number, number, number, number];
  if (days > 0) return `${sign}${days}d ${hours}h ${minutes}m ${rest}s`;
  if (hours > 0) return `${sign}${hours}h ${minutes}m ${rest}s`;
  if (minutes > 0) return `${sign}${minutes}m ${rest}s`;
  return `${sign}${significant(Math.abs(seconds))}s`;
}

/** `2GiB`. */
export function humanBytes(bytes: number): string {
  let scaled = bytes;
  let unit = 0;
  const units = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
  while (Math.abs(scaled) >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${significant(scaled)}${units[unit]}B`;
}

function significant(value: number): string {
  return String(Number(value.toPrecision(4)));
}
