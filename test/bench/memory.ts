/**
 * What the stages keep in memory: for transactions of any size, and while what they write to is away. Peaks are those of
 * the operating system (VmHWM), one process for each stage, fresh for each measurement.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Program, scalar, sql, until, writeConfig } from './contenders.ts';
import {
  backlog,
  copyTable,
  dropWaybill,
  LARGE,
  lines,
  nats,
  prepare,
  primeWaybill,
  say,
  scale,
  target,
} from './setting.ts';

const FEW_ROWS = 1000;
const VERY_LARGE = Math.round(10_000_000 * scale);
const OUTAGE_TRANSACTIONS = Math.round(500_000 * scale);
const NATS_OUTAGE_MS = 30_000;
/** So long the rows may take. */
const MOST_MS = 30 * 60_000;

interface Peaks {
  readonly capture: number;
  readonly apply: number;
  /** From the commit at the source to the last row in the target. */
  readonly seconds: number;
  readonly captureCpuSeconds: number;
}

interface PeakOptions {
  readonly kind: 'insert' | 'update';
  readonly rows: number;
  readonly when: 'live' | 'backlog';
  readonly streaming?: 'on' | 'off';
}

/** One very large transaction, received at its commit and while it is in progress. */
export async function benchVeryLarge(): Promise<void> {
  for (const streaming of ['off', 'on'] as const) {
    const few = await peaksOf({ kind: 'insert', rows: FEW_ROWS, when: 'live', streaming });
    const many = await peaksOf({ kind: 'insert', rows: VERY_LARGE, when: 'live', streaming });
    for (const stage of ['capture', 'apply'] as const)
      lines.push({
        what: `peak RSS of ${stage}: one transaction, streaming ${streaming}, ${FEW_ROWS} rows, then ${VERY_LARGE}`,
        native: '',
        waybill: `${few[stage].toFixed(0)}, ${many[stage].toFixed(0)} MB`,
        ratio: (many[stage] / few[stage]).toFixed(2),
      });
    lines.push({
      what: `commit to visible, ${VERY_LARGE} rows, streaming ${streaming}; CPU of capture`,
      native: '',
      waybill: `${many.seconds.toFixed(1)} s, ${many.captureCpuSeconds.toFixed(1)} s`,
      ratio: '',
    });
  }
}

export async function benchMemory(): Promise<void> {
  for (const when of ['live', 'backlog'] as const)
    for (const kind of ['insert', 'update'] as const) {
      const few = await peaksOf({ kind, rows: FEW_ROWS, when });
      const many = await peaksOf({ kind, rows: LARGE, when });
      for (const stage of ['capture', 'apply'] as const) {
        lines.push({
          what: `peak RSS of ${stage}: ${kind} in one transaction (${when}), ${FEW_ROWS} rows, then ${LARGE}`,
          native: '',
          waybill: `${few[stage].toFixed(0)}, ${many[stage].toFixed(0)} MB`,
          ratio: (many[stage] / few[stage]).toFixed(2),
        });
      }
    }
  await captureDuring(`target is away, ${OUTAGE_TRANSACTIONS} small transactions`, async (url) => {
    await sql(url, `call small(${OUTAGE_TRANSACTIONS})`);
  });
  await captureDuring(`NATS is away for ${NATS_OUTAGE_MS / 1000} s under load`, async (url) => {
    await nats.stop();
    const until = performance.now() + NATS_OUTAGE_MS;
    while (performance.now() < until) {
      await sql(url, 'call small(2000)');
      await delay(50);
    }
    await nats.start();
  });
}

/** Both stages at one transaction of `rows` rows, from before it until it is in the target, in MB. */
async function peaksOf({ kind, rows, when, streaming = 'off' }: PeakOptions): Promise<Peaks> {
  const prepared = await prepare(kind, rows);
  const { name, url, prefix } = prepared;
  const storeUrl = await target.createDatabase(`${name}_store`);
  await copyTable(url, storeUrl, 'replica');
  const config = await writeConfig({
    natsUrl: nats.url,
    prefix,
    sourceUrl: url,
    targetUrl: storeUrl,
    schema: 'replica',
    streaming,
    streamBytes: '8GB',
  });
  await primeWaybill(config, url, prefix, storeUrl);
  if (when === 'backlog') await backlog(url, kind, rows);
  const [capture, apply] = ['capture:bench', 'apply:replica'].map((only) => Program.start(config, only)) as [
    Program,
    Program,
  ];
  if (when === 'live') {
    await slotActive(url, `${prefix}_bench`);
    await backlog(url, kind, rows);
  }
  const startedMs = performance.now();
  // Of an insert the last key tells, without reading rows over and over that are not committed yet.
  const [probe, wanted] =
    kind === 'insert'
      ? [`count(*) from replica.items where id = ${rows}`, 1]
      : [`sum(id) filter (where qty = id % 100 + 1) from replica.items`, (rows * (rows + 1)) / 2];
  await until(
    'the rows',
    startedMs,
    async () => (await scalar(storeUrl, `select ${probe}`)) === String(wanted),
    MOST_MS,
  );
  const { peakRssMb, cpuSeconds } = capture.usage();
  const peaks = {
    capture: peakRssMb,
    apply: apply.usage().peakRssMb,
    seconds: (performance.now() - startedMs) / 1000,
    captureCpuSeconds: cpuSeconds,
  };
  const count = await scalar(storeUrl, 'select count(*) from replica.items');
  if (count !== String(rows)) throw new Error(`the target has ${count} rows of ${rows}`);
  await apply.stop();
  await capture.stop();
  await dropWaybill(prepared);
  say(
    `memory ${when} ${kind} of ${rows} rows, streaming ${streaming}: capture ${peaks.capture.toFixed(0)} MB, apply ${peaks.apply.toFixed(0)} MB`,
  );
  return peaks;
}

/** Capture alone, warm, while `outage` runs and until it has caught up again. */
async function captureDuring(what: string, outage: (url: string) => Promise<void>): Promise<void> {
  const prepared = await prepare('small');
  const { url, prefix } = prepared;
  const config = await writeConfig({ natsUrl: nats.url, prefix, sourceUrl: url, targetUrl: url, schema: 'copy' });
  await primeWaybill(config, url, prefix, undefined);
  const capture = Program.start(config, 'capture:bench');
  await slotActive(url, `${prefix}_bench`);
  await sql(url, `call small(${Math.round(50_000 * scale)})`);
  await delay(2000);
  const before = capture.usage();
  await outage(url);
  const end = await scalar(url, 'select pg_current_wal_insert_lsn()');
  await until(
    'the slot to be confirmed',
    performance.now(),
    async () =>
      (await scalar(
        url,
        `select confirmed_flush_lsn >= '${end}' from pg_replication_slots where slot_name = '${prefix}_bench'`,
      )) === 'true',
  );
  const after = capture.usage();
  await capture.stop();
  await dropWaybill(prepared);
  say(
    `memory while the ${what}: peak ${before.peakRssMb.toFixed(0)} MB before, ${after.peakRssMb.toFixed(0)} MB at its end`,
  );
  lines.push({
    what: `peak RSS of capture, before and after: the ${what}`,
    native: '',
    waybill: `${before.peakRssMb.toFixed(0)}, ${after.peakRssMb.toFixed(0)} MB`,
    ratio: (after.peakRssMb / before.peakRssMb).toFixed(2),
  });
}

async function slotActive(url: string, slot: string): Promise<void> {
  await until(
    'the slot to be read',
    performance.now(),
    async () => (await scalar(url, `select active from pg_replication_slots where slot_name = '${slot}'`)) === 'true',
  );
}
