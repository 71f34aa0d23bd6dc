/** A replicated table of many rows under comparison, shared by the benchmarks of drift. */
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { verifyOnce } from '../../cli/verification.ts';
import { loadConfig, type Config } from '../../core/config.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import type { FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Program, scalar, sql, until } from './contenders.ts';

const SETTINGS = { shared_buffers: '512MB', max_wal_size: '4GB', synchronous_commit: 'off', autovacuum: 'off' };
const CLOCK_TICKS = 100;

export const say = (text: string): void => console.log(text);

export interface DriftBench {
  readonly source: PostgresServer;
  readonly sourceUrl: string;
  readonly targetUrl: string;
  readonly config: Config;
  verify(options: { readonly maxLoad?: number; readonly repair?: boolean }): Promise<FlowOutcome>;
  close(): Promise<void>;
}

/** CPU seconds of a server and its backends, those that ended included. */
export function cpuSeconds(pid: number): number {
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

/** Starts the servers and both stages, and loads `rows` rows of `stock` and 2,000 of `journal`, which has no key. */
export async function openDriftBench(rows: number): Promise<DriftBench> {
  const [source, target, nats] = await Promise.all([
    startPostgres({ settings: SETTINGS }),
    startPostgres({ settings: SETTINGS }),
    startNats(),
  ]);
  const [sourceUrl, targetUrl] = [await source.createDatabase('bench'), await target.createDatabase('bench')];
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
  const config = loadConfig(file, {});
  const columns = `id, sku, warehouse, on_hand, allocated, price, note, counted_at, active, batch`;
  await sql(
    sourceUrl,
    `create table stock (id bigint primary key, sku text not null, warehouse int not null, on_hand numeric(12,3) not null,
       allocated numeric not null, price numeric(12,2), note text, counted_at timestamptz not null, active boolean, batch uuid)`,
    `insert into stock (${columns}) select i, 'SKU-' || i % 50000, i % 40, i % 977, i % 13, i % 9999 / 100.0,
       case when i % 3 > 0 then 'counted by hand, shelf é ' || i % 311 end, '2026-01-01'::timestamptz + i * interval '1 second',
       i % 2 = 0, md5(i::text)::uuid from generate_series(1, ${rows}) i`,
    'create table journal (at timestamptz, line text)',
    'alter table journal replica identity full',
    `insert into journal select '2026-01-01'::timestamptz + i * interval '1 second', 'line ' || i from generate_series(1, 2000) i`,
    'vacuum analyze',
  );
  const program = Program.start(file, 'capture:wms,apply:replica');
  const connection: Nats = await connectNats(config.nats, 'bench');
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
  await sql(targetUrl, 'vacuum analyze');
  return {
    source,
    sourceUrl,
    targetUrl,
    config,
    verify: async ({ maxLoad, repair = false }) =>
      await verifyOnce(config, 'replica', {
        nats: connection,
        repair,
        resume: false,
        turn: { as: 'the benchmark' },
        maxLoad,
        signal: new AbortController().signal,
      }),
    close: async () => {
      await program.stop();
      await connection.close();
      await Promise.all([source.dispose(), target.dispose(), nats.dispose()]);
    },
  };
}

/** Writes into the first half of `stock` until it is stopped. */
export class Writer {
  readonly #done: Promise<void>;
  #running = true;
  written = 0;

  constructor(url: string, rows: number, pauseMs: number) {
    this.#done = (async () => {
      const client = new Client({ connectionString: url });
      await client.connect();
      while (this.#running) {
        const id = 1 + ((this.written * 7919) % Math.floor(rows / 2));
        await client.query(`update stock set on_hand = on_hand + 1 where id = ${id}`);
        this.written += 1;
        await delay(pauseMs);
      }
      await client.end();
    })();
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#done;
  }
}
