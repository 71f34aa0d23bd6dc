/** A snapshot of a filled table by a running installation, against `COPY … TO STDOUT` piped into `COPY … FROM STDIN`. */
import { readFile } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { readProgress, requestSnapshot } from '../../capture/snapshot-request.ts';
import { cdcStreamName, readTail } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { median, Program, scalar, sql, until, untilTrue, withClient, writeConfig } from './contenders.ts';
import {
  copyRows,
  DIGEST,
  dropWaybill,
  lines,
  nats,
  option,
  prepare,
  rounds,
  say,
  scale,
  target,
  type Prepared,
} from './setting.ts';

const ROWS = Math.round(2_000_000 * scale);
/** The rows are spread over so many tables in the comparison of many with one. */
const MANY = option('--tables', 1000);
/** Between two looks at the progress: it is long where there are many tables. */
const LOOK_MS = 25;
/** Between two changes of a table beside the one that is read. */
const TICK_MS = 20;
/** All rows of all tables of the target. */
const ROWS_THERE = `
select coalesce(sum((xpath('/row/n/text()', query_to_xml(format('select count(*) as n from replica.%I', tablename), true, true, '')))[1]::text::bigint), 0)
  from pg_tables where schemaname = 'replica'`;
const TABLE = 'items (id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz)';

interface Load {
  readonly seconds: number;
  readonly cpu: number;
  readonly rss: string;
  readonly storeUrl: string;
}

/** One table against `COPY | COPY`, what it does to the others meanwhile, then the same rows in many tables against one. */
export async function benchSnapshot(): Promise<void> {
  const natives: number[] = [];
  const ours: number[] = [];
  const ratios: number[] = [];
  let last: Load | undefined;
  for (let round = 0; round < rounds; round++) {
    const prepared = await prepare('update', ROWS);
    const { name, url } = prepared;
    const wanted = await scalar(url, `${DIGEST} items t`);
    await sql(url, 'vacuum analyze items');
    const nativeUrl = await target.createDatabase(`${name}_native`);
    const native = async (): Promise<number> => {
      await sql(nativeUrl, `create table ${TABLE}`);
      const began = performance.now();
      await copyRows(url, nativeUrl, 'items');
      return (performance.now() - began) / 1000;
    };
    let copied = 0;
    if (round % 2 === 0) copied = await native();
    const loaded = await load(prepared, ROWS);
    if ((await scalar(loaded.storeUrl, `${DIGEST} replica.items t`)) !== wanted)
      throw new Error(`snapshot ${name}: the target differs from the source`);
    if (round % 2 === 1) copied = await native();
    say(`snapshot ${name}: COPY | COPY ${copied.toFixed(2)} s, waybill ${loaded.seconds.toFixed(2)} s`);
    natives.push(copied);
    ours.push(loaded.seconds);
    ratios.push(copied / loaded.seconds);
    last = loaded;
  }
  lines.push(
    {
      what: `snapshot of ${ROWS} rows, against COPY | COPY`,
      native: `${median(natives).toFixed(2)} s`,
      waybill: `${median(ours).toFixed(2)} s`,
      ratio: median(ratios).toFixed(2),
    },
    {
      what: '  CPU s per million rows, peak RSS (capture + apply)',
      native: '',
      waybill: `${last!.cpu.toFixed(1)} s, ${last!.rss}`,
      ratio: '',
    },
  );
  await benchOtherTables();
}

/** The same rows in one table and in many: how much longer the many take, here and where COPY is piped into COPY. */
export async function benchManyTables(): Promise<void> {
  const one: number[] = [];
  const many: number[] = [];
  const native: Record<'one' | 'many', number[]> = { one: [], many: [] };
  let last: Load | undefined;
  for (let round = 0; round < rounds; round++)
    for (const tables of round % 2 === 0 ? [1, MANY] : [MANY, 1]) {
      const prepared = await prepare('insert');
      const { name, url } = prepared;
      await sql(
        url,
        `do $$ begin for i in 1..${tables} loop
           execute format('create table t%s (like items including all)', i);
           execute format('insert into t%s select g, ''SKU-'' || g, g %% 100, repeat(''n'', 60), now() from generate_series(1, ${Math.floor(ROWS / tables)}) g', i);
         end loop; end $$`,
        'drop table items',
        'vacuum analyze',
      );
      const copied = await copyTables(prepared, tables);
      const loaded = await load(prepared, Math.floor(ROWS / tables) * tables);
      say(
        `snapshot ${name}: ${tables} tables, COPY | COPY ${copied.toFixed(2)} s, waybill ${loaded.seconds.toFixed(2)} s`,
      );
      native[tables === 1 ? 'one' : 'many'].push(copied);
      (tables === 1 ? one : many).push(loaded.seconds);
      if (tables !== 1) last = loaded;
    }
  lines.push(
    {
      what: `snapshot of ${ROWS} rows: one table against ${MANY} tables, by COPY | COPY`,
      native: `${median(native.one).toFixed(2)} s`,
      waybill: `${median(native.many).toFixed(2)} s`,
      ratio: (median(native.one) / median(native.many)).toFixed(2),
    },
    {
      what: `snapshot of ${ROWS} rows: one table against ${MANY} tables, by Waybill`,
      native: `${median(one).toFixed(2)} s`,
      waybill: `${median(many).toFixed(2)} s`,
      ratio: (median(one) / median(many)).toFixed(2),
    },
    {
      what: '  CPU s per million rows, peak RSS (capture + apply)',
      native: '',
      waybill: `${last!.cpu.toFixed(1)} s, ${last!.rss}`,
      ratio: '',
    },
  );
}

/** Makes the tables in a database of their own and pipes the rows of one after the other into them. Gives the seconds. */
async function copyTables({ name, url }: Prepared, tables: number): Promise<number> {
  const nativeUrl = await target.createDatabase(`${name}_native`);
  const seconds = await withClient(url, (reader) =>
    withClient(nativeUrl, async (writer) => {
      const began = performance.now();
      for (let i = 1; i <= tables; i++) {
        await writer.query(`create table ${TABLE.replace('items', `t${i}`)}`);
        await pipeline(reader.query(copyTo(`copy t${i} to stdout`)), writer.query(copyFrom(`copy t${i} from stdin`)));
      }
      return (performance.now() - began) / 1000;
    }),
  );
  await sql(target.urlFor('postgres'), `drop database ${name}_native with (force)`);
  return seconds;
}

/** An installation that runs, and has nothing to read. */
interface Running {
  readonly storeUrl: string;
  readonly programs: readonly Program[];
  /** Has tables read (all when none is named), until the stream holds the last row. Gives where it stands then. */
  readonly read: (tables: string[]) => Promise<number>;
}

async function whileRunning<T>(prepared: Prepared, work: (running: Running) => Promise<T>): Promise<T> {
  const { name, url, prefix } = prepared;
  const storeUrl = await target.createDatabase(`${name}_store`);
  const config = await writeConfig({
    natsUrl: nats.url,
    prefix,
    sourceUrl: url,
    targetUrl: storeUrl,
    schema: 'replica',
    tables: 'public.*',
  });
  const settings = parseConfig(await readFile(config, 'utf8'), {}).nats;
  const programs = ['capture:bench', 'apply:replica'].map((only) => Program.start(config, only));
  const connection = await connectNats(settings, 'bench');
  try {
    const bucket = await openBucket(connection, settings);
    await until('the slot', performance.now(), () =>
      isTrue(url, `select exists (select from pg_replication_slots where slot_name = '${prefix}_bench' and active)`),
    );
    await until('the position', performance.now(), () =>
      isTrue(storeUrl, `select to_regclass('waybill.position') is not null`),
    );
    const read = async (tables: string[]): Promise<number> => {
      const id = await requestSnapshot(settings, 'bench', { tables });
      await until('the tables to be read', performance.now(), async () => {
        await delay(LOOK_MS);
        const progress = await readProgress(bucket, 'bench');
        return progress?.id === id && progress.tables.every(({ state }) => state === 'done');
      });
      return (await readTail(connection, cdcStreamName(prefix, 'bench'))).seq;
    };
    return await work({ storeUrl, programs, read });
  } finally {
    await connection.close();
    await Promise.all(programs.map((program) => program.stop()));
    await dropWaybill(prepared);
  }
}

/**
 * Has everything read into an empty target, by processes that run: from the request until the target stands behind the
 * last row.
 */
async function load(prepared: Prepared, rows: number): Promise<Load> {
  return await whileRunning(prepared, async ({ storeUrl, programs, read }) => {
    const cpuBefore = cpuSeconds(programs);
    const began = performance.now();
    const seq = await read([]);
    const seconds = await untilTrue('the rows', began, storeUrl, behind(seq));
    const there = await scalar(storeUrl, ROWS_THERE);
    if (there !== String(rows)) throw new Error(`snapshot ${prepared.name}: the target has ${there} rows of ${rows}`);
    const rss = programs.map((program) => program.usage().peakRssMb.toFixed(0)).join(' + ');
    return { seconds, cpu: (cpuSeconds(programs) - cpuBefore) / (rows / 1e6), rss: `${rss} MB`, storeUrl };
  });
}

/** Commit to visible of single rows of one table, while another table is being read. */
async function benchOtherTables(): Promise<void> {
  const prepared = await prepare('update', ROWS);
  await sql(prepared.url, 'create table ticks (id int primary key, n int not null)', 'insert into ticks values (1, 0)');
  const latencies = await whileRunning(prepared, async ({ storeUrl, read }) => {
    await read(['public.ticks']);
    const reading = read(['public.items']).then((seq) => isTrue(storeUrl, behind(seq)));
    // Met below, unless a mark fails before.
    reading.catch(() => {});
    return await markUntil(reading, prepared.url, storeUrl);
  });
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): string => `${sorted[Math.floor((sorted.length - 1) * share)]!.toFixed(0)} ms`;
  lines.push({
    what: `latency of another table while ${ROWS} rows are read: p50, p99, longest (asked for: under 1,000 ms)`,
    native: '',
    waybill: `${at(0.5)}, ${at(0.99)}, ${at(1)}`,
    ratio: '',
  });
}

/** Changes one row again and again, until `done`; how long each change took from its commit until the target showed it. */
async function markUntil(done: Promise<unknown>, url: string, storeUrl: string): Promise<number[]> {
  return await withClient(url, (writer) =>
    withClient(storeUrl, async (reader) => {
      const latencies: number[] = [];
      let isDone = false;
      const ended = done.then(() => (isDone = true));
      for (let n = 1; !isDone; n++) {
        await writer.query('update ticks set n = $1', [n]);
        const committed = performance.now();
        await until('a mark', committed, async () => {
          const { rows } = await reader.query<{ n: number }>('select n from replica.ticks');
          return rows[0]?.n === n;
        });
        latencies.push(performance.now() - committed);
        await delay(TICK_MS);
      }
      await ended;
      return latencies;
    }),
  );
}

/** Whether the target has taken a message of the stream, as a statement. */
function behind(seq: number): string {
  return `select max(stream_seq) >= ${seq} from waybill.position`;
}

async function isTrue(url: string, statement: string): Promise<boolean> {
  return (await scalar(url, statement)) === 'true';
}

function cpuSeconds(programs: readonly Program[]): number {
  return programs.reduce((sum, program) => sum + program.usage().cpuSeconds, 0);
}
