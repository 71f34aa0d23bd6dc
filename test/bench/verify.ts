/**
 * What proving costs: rows/s compared, the share of a core that it takes from the source, and the time until one
 * different row among many is confirmed; at rest, and while the source is written to. After `npm run build`:
 * `node dist/test/bench/verify.js [ROWS]`.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { isProven, openFindings } from '../../monitoring/drift/outcome.ts';
import { sql } from './contenders.ts';
import { cpuSeconds, openDriftBench, say, Writer } from './drift-setting.ts';

const rows = Number(process.argv[2] ?? 2_000_000);
const bench = await openDriftBench(rows);
const { source, sourceUrl, targetUrl } = bench;
try {
  const measure = async (what: string, maxLoad: number, expected: number): Promise<void> => {
    const cpu = cpuSeconds(source.pid!);
    const atMs = performance.now();
    const outcome = await bench.verify({ maxLoad });
    const seconds = (performance.now() - atMs) / 1000;
    const spent = cpuSeconds(source.pid!) - cpu;
    const table = outcome.tables.find((each) => each.name === 'stock')!;
    const found = openFindings(table).length;
    say(
      `${what}: ${seconds.toFixed(1)} s, ${Math.round(table.progress.rows / seconds)} rows/s, source CPU ${spent.toFixed(1)} s ` +
        `(${((100 * spent) / seconds).toFixed(0)} % of a core), found ${found} (planted ${expected}), in flight ${table.progress.inFlightBuckets}, unresolved ${table.progress.unresolved}`,
    );
    if (found !== expected || (expected === 0 && !isProven(outcome)))
      throw new Error(`${what}: found ${found}, planted ${expected}`);
  };
  await measure('equal, at rest, max_load 1', 1, 0);
  await measure('equal, at rest, max_load 0.5', 0.5, 0);
  await sql(targetUrl, `update stock set allocated = allocated + 0.000000001 where id = ${Math.round(rows * 0.61)}`);
  await measure('one different row, at rest, max_load 1', 1, 1);

  const writer = new Writer(sourceUrl, rows, 2);
  const cpu = cpuSeconds(source.pid!);
  await delay(5000);
  say(
    `live writes alone: ${Math.round(writer.written / 5)} tx/s, source CPU ${(((cpuSeconds(source.pid!) - cpu) / 5) * 100).toFixed(0)} % of a core (its capture included)`,
  );
  await measure('one different row, live writes, max_load 1', 1, 1);
  await measure('one different row, live writes, max_load 0.2', 0.2, 1);
  await writer.stop();
} finally {
  await bench.close();
}
