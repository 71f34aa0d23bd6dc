/** Commit to visible at a steady 1,000 transactions a second, for each contender alone. */
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { median, Program, scalar, sql, until, writeConfig } from './contenders.ts';
import { copyTable, lines, nats, prepare, primeWaybill, rounds, say, scale, target } from './setting.ts';

type Contender = 'native' | 'waybill';

interface Latency {
  readonly p50: number;
  readonly p99: number;
}

export async function benchLatency(): Promise<void> {
  const results: Record<Contender, Latency[]> = { native: [], waybill: [] };
  for (let round = 0; round < rounds; round++) {
    const order: Contender[] = round % 2 === 0 ? ['native', 'waybill'] : ['waybill', 'native'];
    for (const contender of order) results[contender].push(await measure(contender));
  }
  for (const p of ['p50', 'p99'] as const) {
    const native = results.native.map((latency) => latency[p]);
    const waybill = results.waybill.map((latency) => latency[p]);
    lines.push({
      what: `latency at 1,000 tx/s, ${p} (a lower ratio is better)`,
      native: `${median(native).toFixed(2)} ms`,
      waybill: `${median(waybill).toFixed(2)} ms`,
      ratio: median(waybill.map((value, round) => value / native[round]!)).toFixed(2),
    });
  }
}

async function measure(contender: Contender): Promise<Latency> {
  const { serial, name, url, prefix } = await prepare('small');
  const storeUrl = await target.createDatabase(`${name}_${contender}`);
  const schema = contender === 'native' ? 'public' : 'replica';
  await copyTable(url, storeUrl, schema);
  const programs: Program[] = [];
  if (contender === 'native') {
    await sql(url, `select pg_create_logical_replication_slot('native_${serial}', 'pgoutput')`);
    await sql(
      storeUrl,
      `create subscription s${serial} connection '${url}' publication native with (create_slot = false, copy_data = false, slot_name = 'native_${serial}')`,
    );
  } else {
    const config = await writeConfig({ natsUrl: nats.url, prefix, sourceUrl: url, targetUrl: storeUrl, schema });
    // The slot must be there before the first mark.
    await primeWaybill(config, url, prefix, storeUrl);
    programs.push(Program.start(config, 'capture:bench'), Program.start(config, 'apply:replica'));
  }
  const sorted = (await measureMarks(url, storeUrl, schema)).toSorted((a, b) => a - b);
  for (const program of programs.toReversed()) await program.stop();
  if (contender === 'native')
    await sql(
      storeUrl,
      `alter subscription s${serial} disable`,
      `alter subscription s${serial} set (slot_name = none)`,
      `drop subscription s${serial}`,
    );
  const slot = contender === 'native' ? `native_${serial}` : `${prefix}_bench`;
  await until('the slot to be free', performance.now(), async () => {
    await sql(url, `select pg_drop_replication_slot('${slot}')`).catch((thrown: unknown) => {
      if ((thrown as { code?: string }).code !== '55006') throw thrown;
    });
    return (await scalar(url, `select count(*) from pg_replication_slots where slot_name = '${slot}'`)) === '0';
  });
  const latency = { p50: sorted[Math.floor(sorted.length * 0.5)]!, p99: sorted[Math.floor(sorted.length * 0.99)]! };
  say(
    `latency ${contender}: ${sorted.length} marks, p50 ${latency.p50.toFixed(2)} ms, p99 ${latency.p99.toFixed(2)} ms`,
  );
  return latency;
}

/** Marks one row at a time under the load, and waits for each in the target. Milliseconds. */
async function measureMarks(url: string, storeUrl: string, schema: string): Promise<number[]> {
  const writer = new Client({ connectionString: url });
  const reader = new Client({ connectionString: storeUrl });
  const load = new Client({ connectionString: url });
  await Promise.all([writer, reader, load].map((client) => client.connect()));
  // Otherwise a commit enters the log up to three turns of the source's log writer later, whoever reads it.
  for (const client of [writer, load]) await client.query('set synchronous_commit = on');
  const mark = async (value: number): Promise<number> => {
    await writer.query('update items set qty = $1 where id = 1', [value]);
    return performance.now();
  };
  const seen = async (): Promise<number> =>
    Number((await reader.query(`select qty from ${schema}.items where id = 1`)).rows[0]?.qty);
  await mark(-1);
  await until('the first mark', performance.now(), async () => (await seen()) === -1);
  const stop = new AbortController();
  const loading = (async () => {
    let sent = 0;
    const began = performance.now();
    while (!stop.signal.aborted) {
      const due = performance.now() - began;
      while (sent < due) {
        await load.query({
          name: 'load',
          text: 'update items set qty = $1 where id = $2',
          values: [sent, 2 + (sent % 40_000)],
        });
        sent += 1;
      }
      await delay(1);
    }
    await load.end();
  })();
  const latencies: number[] = [];
  const until15 = performance.now() + 15_000 * Math.max(scale, 0.2);
  for (let i = 1; performance.now() < until15; i++) {
    const committed = await mark(i);
    while ((await seen()) !== i);
    latencies.push(performance.now() - committed);
    await delay(5);
  }
  stop.abort();
  await loading;
  await Promise.all([writer.end(), reader.end()]);
  return latencies;
}
