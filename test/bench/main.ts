/**
 * Benchmarks against what Postgres itself offers, side by side in one run: the same log, equal servers, the order of
 * the contenders alternating, medians of paired ratios. `npm run bench -- [capture] [drain] [latency] [--scale 0.1]`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { readTail } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { asPgPosition, parseLsn } from '../../core/position.ts';
import { startNats } from '../../sandbox/nats.ts';
import { findPostgresTool, startPostgres } from '../../sandbox/postgres.ts';
import { median, Program, scalar, sql, until, withClient, writeConfig } from './contenders.ts';

const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '4GB',
  synchronous_commit: 'off',
  autovacuum: 'off',
  checkpoint_timeout: '30min',
  logical_decoding_work_mem: '64MB',
};
const args = process.argv.slice(2);
const scale = Number(args[args.indexOf('--scale') + 1] || 1) || 1;
const chosen = args.filter((arg) => /^[a-z]+$/.test(arg));
const wanted = (name: string): boolean => chosen.length === 0 || chosen.includes(name);
const repeats = 3;
const SMALL = Math.round(200_000 * scale);
const LARGE = Math.round(1_000_000 * scale);
const KEYS = 50_000;

interface Line {
  readonly what: string;
  readonly native: string;
  readonly waybill: string;
  readonly ratio: string;
}
const lines: Line[] = [];
const say = (text: string): void => console.log(text);

const source = await startPostgres({ version: 15, settings: SETTINGS });
const target = await startPostgres({ version: 15, settings: SETTINGS });
const nats = await startNats();
let serial = 0;

type Kind = 'small' | 'insert' | 'update';
const NAMES: Readonly<Record<Kind, string>> = {
  small: `${SMALL} one-row update transactions`,
  insert: `one transaction inserting ${LARGE} rows`,
  update: `one transaction updating ${LARGE} rows`,
};

/** A source database with a table, its rows before the backlog, and the slots that the contenders read. */
async function prepare(kind: Kind): Promise<{ name: string; url: string }> {
  const name = `bench${++serial}`;
  const url = await source.createDatabase(name);
  await sql(
    url,
    'create table items (id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz)',
    'create publication native for table items',
    `create procedure small(n int) language plpgsql as $$ begin for i in 1..n loop update items set qty = i, updated_at = now() where id = 1 + (i::bigint * 7919) % ${KEYS}; commit; end loop; end $$`,
  );
  const rows = kind === 'small' ? KEYS : kind === 'update' ? LARGE : 0;
  await sql(
    url,
    `insert into items select g, 'SKU-' || g, g % 100, repeat('n', 60), now() from generate_series(1, ${rows}) g`,
  );
  return { name, url };
}

/** Writes the backlog, and a last small transaction behind it. Gives the position between the two. */
async function backlog(url: string, kind: Kind): Promise<string> {
  if (kind === 'small') await sql(url, `call small(${SMALL})`);
  else if (kind === 'insert')
    await sql(
      url,
      `insert into items select g, 'SKU-' || g, g % 100, repeat('n', 60), now() from generate_series(1, ${LARGE}) g`,
    );
  else await sql(url, 'update items set qty = qty + 1, updated_at = now()');
  const end = await scalar(url, 'select pg_current_wal_insert_lsn()');
  await sql(url, 'update items set note = note where id = 1');
  return end;
}

/** Starts the stages once, so that slot, stream and position exist before the backlog, and stops them again. */
async function primeWaybill(config: string, url: string, prefix: string, targetUrl: string | undefined): Promise<void> {
  const capture = Program.start(config, 'capture:bench');
  await until(
    'the slot',
    performance.now(),
    async () =>
      (await scalar(
        url,
        `select count(*) from pg_replication_slots where slot_name = '${prefix}_bench' and active`,
      )) === '1',
  );
  if (targetUrl !== undefined) {
    const apply = Program.start(config, 'apply:replica');
    await until(
      'the position',
      performance.now(),
      async () => (await scalar(targetUrl, `select to_regclass('waybill.position') is not null`)) === 'true',
    );
    await apply.stop();
  }
  await capture.stop();
}

async function benchCapture(kind: 'small' | 'insert'): Promise<void> {
  const tool = await findPostgresTool('pg_recvlogical', 15);
  if (tool === undefined)
    throw new Error('pg_recvlogical is needed: apt-get install postgresql-client-15 postgresql-15');
  const ratios: number[] = [];
  const natives: number[] = [];
  const ours: number[] = [];
  const cpu: number[] = [];
  let rss = 0;
  for (let round = 0; round < repeats; round++) {
    const { name, url } = await prepare(kind);
    const prefix = `p${serial}`;
    const config = await writeConfig({ natsUrl: nats.url, prefix, sourceUrl: url, targetUrl: url, schema: 'copy' });
    await primeWaybill(config, url, prefix, undefined);
    for (const slot of ['warm', 'native'])
      await sql(url, `select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    const end = await backlog(url, kind);
    const receive = async (slot: string): Promise<number> => {
      const began = performance.now();
      const child = spawn(
        tool,
        [
          '-d',
          url,
          '-S',
          slot,
          '--start',
          '-f',
          '/dev/null',
          '-o',
          'proto_version=1',
          '-o',
          'publication_names=native',
          '--endpos',
          end,
          '--no-loop',
        ],
        { stdio: 'ignore' },
      );
      await once(child, 'exit');
      return (performance.now() - began) / 1000;
    };
    // The first to read a log pays for its pages: a third slot does, before both contenders.
    await receive('warm');
    const native = (): Promise<number> => receive('native');
    const waybill = async (): Promise<number> => {
      const connection = await connectNats(
        parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats,
        'bench',
      );
      const goal = parseLsn(end)!;
      const began = performance.now();
      const capture = Program.start(config, 'capture:bench');
      const seconds = await until(
        'capture',
        began,
        async () => asPgPosition((await readTail(connection, `${prefix}_cdc_bench`)).end).lsn >= goal,
      );
      const usage = capture.usage();
      cpu.push((usage.cpuSeconds / (kind === 'small' ? SMALL : LARGE)) * 1e6);
      rss = Math.max(rss, usage.peakRssMb);
      await capture.stop();
      await connection.close();
      return seconds;
    };
    let n: number;
    let w: number;
    if (round % 2 === 0) {
      n = await native();
      w = await waybill();
    } else {
      w = await waybill();
      n = await native();
    }
    say(`capture ${kind} ${name}: pg_recvlogical ${n.toFixed(2)} s, waybill ${w.toFixed(2)} s`);
    ratios.push(n / w);
    natives.push(n);
    ours.push(w);
    await sql(
      url,
      ...['warm', 'native'].map((slot) => `select pg_drop_replication_slot('${slot}')`),
      `select pg_drop_replication_slot('${prefix}_bench')`,
    );
  }
  lines.push({
    what: `capture: ${NAMES[kind]}`,
    native: `${median(natives).toFixed(2)} s`,
    waybill: `${median(ours).toFixed(2)} s`,
    ratio: median(ratios).toFixed(2),
  });
  lines.push({
    what: `  capture CPU s per million changes, peak RSS`,
    native: '',
    waybill: `${median(cpu).toFixed(1)} s, ${rss.toFixed(0)} MB`,
    ratio: '',
  });
}

const DIGEST = "select count(*) || ' ' || coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0) from";

async function benchDrain(kind: Kind): Promise<void> {
  const ratios: number[] = [];
  const natives: number[] = [];
  const ours: number[] = [];
  const cpu: number[] = [];
  let rss: string = '';
  for (let round = 0; round < repeats; round++) {
    const { name, url } = await prepare(kind);
    const prefix = `p${serial}`;
    const nativeUrl = await target.createDatabase(`${name}_native`);
    const storeUrl = await target.createDatabase(`${name}_store`);
    for (const [where, schema] of [
      [nativeUrl, 'public'],
      [storeUrl, 'replica'],
    ] as const) {
      await sql(
        where,
        `create schema if not exists ${schema}`,
        `create table ${schema}.items (id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz)`,
      );
      await copyRows(url, where, `${schema}.items`);
    }
    const config = await writeConfig({
      natsUrl: nats.url,
      prefix,
      sourceUrl: url,
      targetUrl: storeUrl,
      schema: 'replica',
    });
    await primeWaybill(config, url, prefix, storeUrl);
    await sql(url, `select pg_create_logical_replication_slot('native_${serial}', 'pgoutput')`);
    await sql(
      nativeUrl,
      `create subscription s${serial} connection '${url}' publication native with (create_slot = false, enabled = false, copy_data = false, slot_name = 'native_${serial}')`,
    );
    const end = await backlog(url, kind);
    const wantedDigest = await scalar(url, `${DIGEST} items t`);
    const native = async (): Promise<number> => {
      await sql(nativeUrl, `alter subscription s${serial} enable`);
      const began = await slotActive(url, `native_${serial}`);
      const seconds = await until(
        'native',
        began,
        async () =>
          (await scalar(
            url,
            `select confirmed_flush_lsn >= '${end}' from pg_replication_slots where slot_name = 'native_${serial}'`,
          )) === 'true' || (await lastApplied(nativeUrl)),
      );
      await sql(
        nativeUrl,
        `alter subscription s${serial} disable`,
        `alter subscription s${serial} set (slot_name = none)`,
        `drop subscription s${serial}`,
      );
      return seconds;
    };
    /** The worker confirms lazily: the content tells sooner. */
    const lastApplied = async (where: string, schema = 'public'): Promise<boolean> =>
      (await scalar(where, lastRow(kind, schema))) === 'true';
    const waybill = async (): Promise<number> => {
      const apply = Program.start(config, 'apply:replica');
      await until(
        'the apply to connect',
        performance.now(),
        async () =>
          (await scalar(
            storeUrl,
            "select count(*) from pg_stat_activity where application_name like 'waybill apply%'",
          )) !== '0',
      );
      const capture = Program.start(config, 'capture:bench');
      const began = await slotActive(url, `${prefix}_bench`);
      const seconds = await until('waybill', began, () => lastApplied(storeUrl, 'replica'));
      const [c, a] = [capture.usage(), apply.usage()];
      cpu.push(((c.cpuSeconds + a.cpuSeconds) / (kind === 'small' ? SMALL : LARGE)) * 1e6);
      rss = `${c.peakRssMb.toFixed(0)} + ${a.peakRssMb.toFixed(0)} MB`;
      await apply.stop();
      await capture.stop();
      return seconds;
    };
    let n: number;
    let w: number;
    if (round % 2 === 0) {
      n = await native();
      w = await waybill();
    } else {
      w = await waybill();
      n = await native();
    }
    for (const [where, table] of [
      [nativeUrl, 'items'],
      [storeUrl, 'replica.items'],
    ] as const) {
      const digest = await scalar(where, `${DIGEST} ${table} t`);
      if (digest !== wantedDigest) throw new Error(`${table} differs from the source: ${digest}, not ${wantedDigest}`);
    }
    say(`drain ${kind} ${name}: native ${n.toFixed(2)} s, waybill ${w.toFixed(2)} s`);
    ratios.push(n / w);
    natives.push(n);
    ours.push(w);
    await sql(
      url,
      `select pg_drop_replication_slot('native_${serial}')`,
      `select pg_drop_replication_slot('${prefix}_bench')`,
    );
  }
  lines.push({
    what: `drain: ${NAMES[kind]}`,
    native: `${median(natives).toFixed(2)} s`,
    waybill: `${median(ours).toFixed(2)} s`,
    ratio: median(ratios).toFixed(2),
  });
  lines.push({
    what: '  CPU s per million changes, peak RSS (capture + apply)',
    native: '',
    waybill: `${median(cpu).toFixed(1)} s, ${rss}`,
    ratio: '',
  });
}

/** Both contenders are timed from the moment their walsender reads the slot. */
async function slotActive(url: string, slot: string): Promise<number> {
  await until(
    'the slot to be read',
    performance.now(),
    async () => (await scalar(url, `select active from pg_replication_slots where slot_name = '${slot}'`)) === 'true',
  );
  return performance.now();
}

/** True once the last change of the backlog is visible. */
function lastRow(kind: Kind, schema: string): string {
  if (kind === 'small')
    return `select coalesce((select qty = ${SMALL} from ${schema}.items where id = 1 + (${SMALL}::bigint * 7919) % ${KEYS}), false)`;
  if (kind === 'insert') return `select exists (select 1 from ${schema}.items where id = ${LARGE})`;
  return `select coalesce((select qty = ${LARGE} % 100 + 1 from ${schema}.items where id = ${LARGE}), false)`;
}

async function copyRows(from: string, to: string, table: string): Promise<void> {
  const { to: copyTo, from: copyFrom } = await import('pg-copy-streams');
  const { pipeline } = await import('node:stream/promises');
  await withClient(from, (reader) =>
    withClient(to, (writer) =>
      pipeline(reader.query(copyTo('copy items to stdout')), writer.query(copyFrom(`copy ${table} from stdin`))),
    ),
  );
}

/** Commit to visible at a steady 1,000 transactions a second, for each contender alone. */
async function benchLatency(): Promise<void> {
  const results: Record<string, { p50: number; p99: number }> = {};
  for (const contender of ['native', 'waybill'] as const) {
    const { url } = await prepare('small');
    const prefix = `p${serial}`;
    const storeUrl = await target.createDatabase(`latency_${contender}`);
    const schema = contender === 'native' ? 'public' : 'replica';
    await sql(
      storeUrl,
      `create schema if not exists ${schema}`,
      `create table ${schema}.items (id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz)`,
    );
    await copyRows(url, storeUrl, `${schema}.items`);
    const config = await writeConfig({
      natsUrl: nats.url,
      prefix,
      sourceUrl: url,
      targetUrl: storeUrl,
      schema: 'replica',
    });
    const programs: Program[] = [];
    if (contender === 'native') {
      await sql(url, `select pg_create_logical_replication_slot('native_${serial}', 'pgoutput')`);
      await sql(
        storeUrl,
        `create subscription s${serial} connection '${url}' publication native with (create_slot = false, copy_data = false, slot_name = 'native_${serial}')`,
      );
    } else programs.push(Program.start(config, 'capture:bench'), Program.start(config, 'apply:replica'));
    const latencies = await measureLatency(url, storeUrl, schema);
    for (const program of programs.toReversed()) await program.stop();
    if (contender === 'native')
      await sql(
        storeUrl,
        `alter subscription s${serial} disable`,
        `alter subscription s${serial} set (slot_name = none)`,
        `drop subscription s${serial}`,
      );
    const sorted = latencies.toSorted((a, b) => a - b);
    results[contender] = {
      p50: sorted[Math.floor(sorted.length * 0.5)]!,
      p99: sorted[Math.floor(sorted.length * 0.99)]!,
    };
    say(`latency ${contender}: ${latencies.length} marks`);
  }
  for (const p of ['p50', 'p99'] as const)
    lines.push({
      what: `latency at 1,000 tx/s, ${p} (lower ratio is better)`,
      native: `${results['native']![p].toFixed(2)} ms`,
      waybill: `${results['waybill']![p].toFixed(2)} ms`,
      ratio: (results['waybill']![p] / results['native']![p]).toFixed(1),
    });
}

async function measureLatency(url: string, storeUrl: string, schema: string): Promise<number[]> {
  const writer = new Client({ connectionString: url });
  const reader = new Client({ connectionString: storeUrl });
  await Promise.all([writer.connect(), reader.connect()]);
  const mark = async (value: number): Promise<number> => {
    await writer.query('update items set qty = $1 where id = 1', [value]);
    return performance.now();
  };
  const seen = async (): Promise<number> =>
    Number((await reader.query(`select qty from ${schema}.items where id = 1`)).rows[0]?.qty);
  await mark(-1);
  await until('the first mark', performance.now(), async () => (await seen()) === -1);
  const load = new Client({ connectionString: url });
  await load.connect();
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

try {
  if (wanted('capture')) {
    await benchCapture('small');
    await benchCapture('insert');
  }
  for (const kind of ['small', 'insert', 'update'] as const)
    if (wanted('drain') || chosen.includes(kind)) await benchDrain(kind);
  if (wanted('latency')) await benchLatency();
} finally {
  await Promise.all([source.dispose(), target.dispose(), nats.dispose()]);
}
say(
  `\nservers: ${source.origin}, ${nats.origin}; fsync off and synchronous_commit off for all; ${repeats} rounds, medians of paired ratios`,
);
const width = Math.max(...lines.map((line) => line.what.length));
say(`${'measure'.padEnd(width)}  ${'Postgres'.padStart(10)}  ${'Waybill'.padStart(18)}  ratio`);
for (const line of lines)
  say(`${line.what.padEnd(width)}  ${line.native.padStart(10)}  ${line.waybill.padStart(18)}  ${line.ratio}`);
