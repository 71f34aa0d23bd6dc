/** Exits with 0 when /readyz answers 200: the position moves, or there is nothing to move it. */
const url = process.env.WAYBILL_READYZ_URL ?? 'http://127.0.0.1:9464/readyz';
try {
  const response = await fetch(url, { signal: AbortSignal.timeout(4000) });
  process.exitCode = response.ok ? 0 : 1;
} catch {
  process.exitCode = 1;
}
