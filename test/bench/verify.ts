/**
 * What proving costs: rows/s compared, the share of a core that it takes from the source, and the time until one
 * different row among many is confirmed; at rest, and while the source is written to. After `npm run build`:
 * `node dist/test/bench/verify.js [ROWS]`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { verifyOnce } from '../../cli/verification.ts';
import { loadConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { Program, scalar, sql, until } from './contenders.ts';

const SETTINGS = { shared_buffers: '512MB', max_wal_size: '4GB', synchronous_commit: 'off', autovacuum: 'off' };
const CLOCK_TICKS = 100;
const rows = Number(process.argv[2] ?? 2_000_000);
const say = (text: string): void => console.log(text);

const [source, target, nats] = await Promise.all([
  startPostgres({ settings: SETTINGS }),
  startPostgres({ settings: SETTINGS }),
  startNats(),
]);

/** CPU seconds of a server and its backends, those that ended included. */
function cpuSeconds(pid: number): number {
  const ticks = (of: string): [parent: number, own: number, ended: number] => {
    const stat = readFileSync(`/proc/${of}/stat`, 'utf8').split(') ')[1]!.split(' ').map(Number);
    return [stat[1]!, stat[11]! + stat[12]!, stat[13]! + stat[14]!];
  };
  let [, own, ended] = ticks(String(pid));
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
    try {
      const [parent, alive] = ticks(entry);
      if (parent === pid) own += alive;
    } catch {
      // It ended while we looked, and is in its parent's count.
    }
  return (own + ended) / CLOCK_TICKS;
}

const [sourceUrl, targetUrl] = [await source.createDatabase('bench'), await target.createDatabase('bench')];
const config = await (async () => {
  const file = join(await mkdtemp(join(tmpdir(), 'waybill-bench-')), 'waybill.yaml');
  await writeFile(
    file,
    `version: 1
nats: { servers: ["${nats.url}"], prefix: bench, stream: { sync_interval: 0s } }
sources: { wms: { kind: postgres, url: "${sourceUrl}" } }
targets: { store: { kind: postgres, url: "${targetUrl}" } }
flows: { replica: { mirror: wms, to: store, extra_rows: delete } }
`,
  );
  return { file, parsed: loadConfig(file, {}) };
})();

const COLUMNS = `id, sku, warehouse, on_hand, allocated, price, note, counted_at, active, batch`;
await sql(
  sourceUrl,
  `create table stock (id bigint primary key, sku text not null, warehouse int not null, on_hand numeric(12,3) not null,
     allocated numeric not null, price numeric(12,2), note text, counted_at timestamptz not null, active boolean, batch uuid)`,
  `insert into stock (${COLUMNS}) select i, 'SKU-' || i % 50000, i % 40, i % 977, i % 13, i % 9999 / 100.0,
     case when i % 3 > 0 then 'counted by hand, shelf ' || i % 311 end, '2026-01-01'::timestamptz + i * interval '1 second',
     i % 2 = 0, md5(i::text)::uuid from generate_series(1, ${rows}) i`,
  'vacuum analyze stock',
);
const program = Program.start(config.file, 'capture:wms,apply:replica');
const connection = await connectNats(config.parsed.nats, 'bench');
try {
  say(`loading ${rows} rows`);
  const startedMs = performance.now();
  await until('the load', startedMs, async () => {
    await delay(500);
    program.usage();
    const loaded = `case when to_regclass('stock') is null then 0 else (select reltuples from pg_class where relname = 'stock') end`;
    await sql(targetUrl, `do $$ begin if to_regclass('stock') is not null then analyze stock; end if; end $$`);
    if (Number(await scalar(targetUrl, `select ${loaded}`)) < rows * 0.99) return false;
    return Number(await scalar(targetUrl, 'select count(*) from stock')) === rows;
  });
  await sql(targetUrl, 'vacuum analyze stock');

  const measure = async (what: string, maxLoad: number, expected: number): Promise<void> => {
    const cpu = cpuSeconds(source.pid!);
    const atMs = performance.now();
    const outcome: FlowOutcome = await verifyOnce(config.parsed, 'replica', {
      nats: connection,
      repair: false,
      resume: false,
      maxLoad,
      signal: new AbortController().signal,
    });
    const seconds = (performance.now() - atMs) / 1000;
    const spent = cpuSeconds(source.pid!) - cpu;
    const [table] = outcome.tables;
    const found = openFindings(table!).length;
    say(
      `${what}: ${seconds.toFixed(1)} s, ${Math.round(table!.progress.rows / seconds)} rows/s, source CPU ${spent.toFixed(1)} s ` +
        `(${((100 * spent) / seconds).toFixed(0)} % of a core), found ${found} (planted ${expected}), in flight ${table!.progress.inFlightBuckets}, unresolved ${table!.progress.unresolved}`,
    );
    if (found !== expected || (expected === 0 && !isProven(outcome)))
      throw new Error(`${what}: found ${found}, planted ${expected}`);
  };
  await measure('equal, at rest, max_load 1', 1, 0);
  await measure('equal, at rest, max_load 0.5', 0.5, 0);
  await sql(targetUrl, `update stock set allocated = allocated + 0.000000001 where id = ${Math.round(rows * 0.61)}`);
  await measure('one different row, at rest, max_load 1', 1, 1);

  let writing = true;
  let written = 0;
  const writer = (async () => {
    const client = new Client({ connectionString: sourceUrl });
    await client.connect();
    while (writing) {
      const id = 1 + ((written * 7919) % (rows / 2));
      await client.query(`update stock set on_hand = on_hand + 1 where id = ${id}`);
      written += 1;
      await delay(2);
    }
    await client.end();
  })();
  const cpu = cpuSeconds(source.pid!);
  const writtenBefore = written;
  await delay(5000);
  say(
    `live writes alone: ${Math.round((written - writtenBefore) / 5)} tx/s, source CPU ${(((cpuSeconds(source.pid!) - cpu) / 5) * 100).toFixed(0)} % of a core (its capture included)`,
  );
  await measure('one different row, live writes, max_load 1', 1, 1);
  await measure('one different row, live writes, max_load 0.2', 0.2, 1);
  writing = false;
  await writer;
} finally {
  await program.stop();
  await connection.close();
  await Promise.all([source.dispose(), target.dispose(), nats.dispose()]);
}
