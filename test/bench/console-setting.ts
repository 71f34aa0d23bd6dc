/** An installation of several flows with a console, for the benchmark of the console: one process works, one shows it. */
import { readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { Stage } from '../support/stage.ts';
import { scalar, sql, until } from './contenders.ts';

export const TOKEN = 'a-token-for-the-console-of-this-benchmark';
const SOURCES = ['wms', 'oms', 'tms'];
const TARGETS = ['visibility', 'planning'];
/** What the target takes at most: the rows of the backlog have more. */
const PLAUSIBLE = 100_000;
const LEASE_TTL_MS = 5000;
const WRITE_EVERY_MS = 250;
/** To count what waits costs the target as much as some refused rows. */
const LOOK_EVERY_MS = 100;

const DDL = `
create table orders (id int primary key, customer text not null, state text not null, total numeric(10, 2) not null,
  note text, placed_at timestamptz not null default now());
create table stock (sku text primary key, location text not null, on_hand int not null, allocated int not null default 0);
insert into orders select i, 'Customer ' || i, (array['placed', 'picked', 'shipped'])[1 + i % 3], i * 7.25
  from generate_series(1, 2000) i;
insert into stock select 'SKU-' || lpad(i::text, 4, '0'), 'A' || i % 12, i * 3, i % 5 from generate_series(1, 500) i`;

export interface ConsoleBench {
  readonly url: string;
  /** The flow whose target refuses rows. */
  readonly flow: string;
  /** Waits until so many changes are refused and lie in quarantine; gives the seconds that took. */
  refuse(rows: number): Promise<number>;
  waiting(): Promise<number>;
  /** One more change is refused. */
  refuseOne(): Promise<void>;
  /** Takes the constraint of the target away. */
  allow(): Promise<void>;
  /** Memory of the process that serves the console, in megabytes. */
  memory(): { readonly nowMb: number; readonly peakMb: number };
  close(): Promise<void>;
}

/** Starts the servers and both processes, waits for the first load, and keeps rows moving in all sources. */
export async function openConsoleBench(): Promise<ConsoleBench> {
  const [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  const urls = new Map<string, string>();
  for (const name of [...SOURCES, ...TARGETS]) urls.set(name, await postgres.createDatabase(name));
  const of = (name: string): string => urls.get(name)!;
  for (const name of SOURCES) await sql(of(name), DDL);
  const flows = SOURCES.flatMap((source) => TARGETS.map((target) => ({ name: `${source}_${target}`, source, target })));
  const folder = await mkdtemp(join(tmpdir(), 'waybill-bench-'));
  const configFile = join(folder, 'waybill.yaml');
  const database = (name: string): object => ({ kind: 'postgres', url: of(name) });
  await writeFile(
    configFile,
    JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], prefix: 'bench', stream: { sync_interval: '1s', max_bytes: '256MB' } },
      sources: Object.fromEntries(SOURCES.map((name) => [name, database(name)])),
      targets: Object.fromEntries(TARGETS.map((name) => [name, database(name)])),
      flows: Object.fromEntries(
        flows.map(({ name, source, target }) => [name, { mirror: source, to: target, schema: source }]),
      ),
      monitoring: { heartbeat: '2s', token: TOKEN, verify: { every: '30s', grace: '200ms' } },
    }),
  );
  const stages: Stage[] = [];
  const start = async (name: string, only: string): Promise<{ stage: Stage; url: string }> => {
    const logFile = join(folder, `${name}.log`);
    await writeFile(logFile, '');
    const stage = new Stage({ configFile, only, logFile, leaseTtlMs: LEASE_TTL_MS });
    stages.push(stage);
    stage.start();
    const listens = async (): Promise<boolean> => /"monitoring":"[^"]+"/.test(readFileSync(logFile, 'utf8'));
    await until(`the address of ${name}`, performance.now(), listens);
    return { stage, url: stage.url() };
  };
  const each = (kind: string): string[] => flows.map(({ name }) => `${kind}:${name}`);
  const work = [...SOURCES.map((name) => `capture:${name}`), ...each('apply'), ...each('verify'), ...each('heartbeat')];
  await start('worker', work.join());
  for (const { source, target } of flows)
    await until(`the first load of ${source} in ${target}`, performance.now(), async () => {
      const there = await scalar(of(target), `select to_regclass('${source}.stock') is not null`);
      return there === 'true' && (await scalar(of(target), `select count(*) from ${source}.stock`)) === '500';
    });
  const shown = await start('console', 'console');
  const { source, target, name: flow } = flows[0]!;
  await sql(
    of(target),
    `alter table ${source}.stock add constraint on_hand_is_plausible check (on_hand < ${PLAUSIBLE})`,
  );

  // Connections that stay: new ones for every look and every write would take a good part of the machine.
  const clients = new Map<string, Client>();
  for (const name of [...SOURCES, target]) {
    const client = new Client({ connectionString: of(name) });
    await client.connect();
    clients.set(name, client);
  }
  const at = (name: string): Client => clients.get(name)!;
  let round = 0;
  let writing: Promise<unknown> = Promise.resolve();
  const timer = setInterval(() => {
    round += 1;
    writing = Promise.all(
      SOURCES.map((name) =>
        at(name).query(`update orders set total = total + 1, note = 'round ${round}' where id <= 40`),
      ),
    );
  }, WRITE_EVERY_MS);
  let serial = 0;
  const waiting = async (): Promise<number> => {
    await delay(LOOK_EVERY_MS);
    const { rows } = await at(target).query<{ n: string }>('select count(*) as n from waybill.quarantine');
    return Number(rows[0]!.n);
  };
  const add = async (rows: number): Promise<void> => {
    const from = serial + 1;
    serial += rows;
    await at(source).query(
      `insert into stock select 'SKU-' || 100000 + i, 'B' || i % 9, ${PLAUSIBLE} + i, 0 from generate_series(${from}, ${serial}) i`,
    );
  };
  return {
    url: shown.url,
    flow,
    waiting,
    async refuse(rows) {
      const atMs = performance.now();
      const wanted = (await waiting()) + rows;
      await add(rows);
      return await until('refused rows', atMs, async () => (await waiting()) >= wanted);
    },
    refuseOne: () => add(1),
    allow: async () =>
      void (await at(target).query(`alter table ${source}.stock drop constraint on_hand_is_plausible`)),
    memory() {
      const status = readFileSync(`/proc/${shown.stage.pid}/status`, 'utf8');
      const size = (what: string): number => Number(new RegExp(`${what}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024;
      return { nowMb: size('VmRSS'), peakMb: size('VmHWM') };
    },
    async close() {
      clearInterval(timer);
      await writing;
      await Promise.all([...clients.values()].map((client) => client.end()));
      await Promise.all(stages.map((stage) => stage.end('SIGKILL')));
      await Promise.all([postgres.dispose(), nats.dispose()]);
    },
  };
}
