/**
 * What the stages keep in memory: for transactions of any size, and while what they write to is away. Peaks are those of
 * the operating system (VmHWM), one process for each stage, fresh for each measurement.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Program, scalar, sql, until, writeConfig } from './contenders.ts';
import { backlog, copyTable, LARGE, lines, nats, prepare, primeWaybill, say, scale, target } from './setting.ts';

const FEW_ROWS = 1000;
const OUTAGE_TRANSACTIONS = Math.round(500_000 * scale);
const NATS_OUTAGE_MS = 30_000;

interface Peaks {
  readonly capture: number;
  readonly apply: number;
}

export async function benchMemory(): Promise<void> {
  for (const when of ['live', 'backlog'] as const)
    for (const kind of ['insert', 'update'] as const) {
      const few = await peaksOf(kind, FEW_ROWS, when);
      const many = await peaksOf(kind, LARGE, when);
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
async function peaksOf(kind: 'insert' | 'update', rows: number, when: 'live' | 'backlog'): Promise<Peaks> {
  const { name, url, prefix } = await prepare(kind, rows);
  const storeUrl = await target.createDatabase(`${name}_store`);
  await copyTable(url, storeUrl, 'replica');
  const config = await writeConfig({
    natsUrl: nats.url,
    prefix,
    sourceUrl: url,
    targetUrl: storeUrl,
    schema: 'replica',
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
  const wanted = kind === 'insert' ? rows : (rows * (rows + 1)) / 2;
  const column = kind === 'insert' ? 'count(*)' : 'sum(id) filter (where qty = id % 100 + 1)';
  await until(
    'the rows',
    performance.now(),
    async () => (await scalar(storeUrl, `select ${column} from replica.items`)) === String(wanted),
  );
  const peaks = { capture: capture.usage().peakRssMb, apply: apply.usage().peakRssMb };
  await apply.stop();
  await capture.stop();
  await sql(url, `select pg_drop_replication_slot('${prefix}_bench')`);
  say(
    `memory ${when} ${kind} of ${rows} rows: capture ${peaks.capture.toFixed(0)} MB, apply ${peaks.apply.toFixed(0)} MB`,
  );
  return peaks;
}

/** Capture alone, warm, while `outage` runs and until it has caught up again. */
async function captureDuring(what: string, outage: (url: string) => Promise<void>): Promise<void> {
  const { url, prefix } = await prepare('small');
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
  await sql(url, `select pg_drop_replication_slot('${prefix}_bench')`);
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
