/** A backlog from the source's log into the target's tables, against native logical replication. */
import { median, Program, scalar, sql, until, untilTrue, writeConfig } from './contenders.ts';
import {
  backlog,
  copyTable,
  DIGEST,
  dropWaybill,
  KEYS,
  LARGE,
  lines,
  NAMES,
  nats,
  prepare,
  primeWaybill,
  rounds,
  say,
  SMALL,
  target,
  type Kind,
  type Prepared,
} from './setting.ts';

/** What both contenders bring from the log of a database into tables that stand there as they were before it. */
export interface Workload {
  readonly prepared: Prepared;
  readonly changes: number;
  /** Tables of the source for the configuration, where they are not the one. */
  readonly tables?: string;
  /** Makes the tables in a target, with the rows that the source has now. */
  readonly copyTo: (url: string, schema: string) => Promise<void>;
  readonly backlog: () => Promise<unknown>;
  /** True once the last change of the backlog is visible in this schema. */
  readonly lastRow: (schema: string) => string;
  /** The content of all tables of this schema, for a comparison of databases. */
  readonly digest: (schema: string) => string;
}

export interface Drained {
  /** Seconds. */
  readonly native: number;
  readonly waybill: number;
  /** CPU seconds of a million changes, capture and apply together. */
  readonly cpu: number;
  readonly rss: string;
}

export async function benchDrain(kind: Kind): Promise<void> {
  const all: Drained[] = [];
  for (let round = 0; round < rounds; round++) {
    const prepared = await prepare(kind);
    const { name, url } = prepared;
    const drained = await drain(round, {
      prepared,
      changes: kind === 'small' ? SMALL : LARGE,
      copyTo: (to, schema) => copyTable(url, to, schema),
      backlog: () => backlog(url, kind),
      lastRow: (schema) => lastRow(kind, schema),
      digest: (schema) => `${DIGEST} ${schema}.items t`,
    });
    say(`drain ${kind} ${name}: native ${drained.native.toFixed(2)} s, waybill ${drained.waybill.toFixed(2)} s`);
    all.push(drained);
  }
  report(`drain: ${NAMES[kind]}`, all);
}

/** Lines of the result. */
export function report(what: string, all: readonly Drained[]): void {
  lines.push(
    {
      what,
      native: `${median(all.map(({ native }) => native)).toFixed(2)} s`,
      waybill: `${median(all.map(({ waybill }) => waybill)).toFixed(2)} s`,
      ratio: median(all.map(({ native, waybill }) => native / waybill)).toFixed(2),
    },
    {
      what: '  CPU s per million changes, peak RSS (capture + apply)',
      native: '',
      waybill: `${median(all.map(({ cpu }) => cpu)).toFixed(1)} s, ${all.at(-1)!.rss}`,
      ratio: '',
    },
  );
}

/** Both contenders one after the other, in an order that alternates from round to round. Throws where a target differs. */
export async function drain(round: number, workload: Workload): Promise<Drained> {
  const { prepared, changes } = workload;
  const { serial, name, url, prefix } = prepared;
  const nativeUrl = await target.createDatabase(`${name}_native`);
  const storeUrl = await target.createDatabase(`${name}_store`);
  await workload.copyTo(nativeUrl, 'public');
  await workload.copyTo(storeUrl, 'replica');
  const config = await writeConfig({
    natsUrl: nats.url,
    prefix,
    sourceUrl: url,
    targetUrl: storeUrl,
    schema: 'replica',
    ...(workload.tables === undefined ? {} : { tables: workload.tables }),
  });
  await primeWaybill(config, url, prefix, storeUrl);
  await sql(url, `select pg_create_logical_replication_slot('native_${serial}', 'pgoutput')`);
  await sql(
    nativeUrl,
    `create subscription s${serial} connection '${url}' publication native with (create_slot = false, enabled = false, copy_data = false, slot_name = 'native_${serial}')`,
  );
  await workload.backlog();
  const wantedDigest = await scalar(url, workload.digest('public'));
  const native = async (): Promise<number> => {
    await sql(nativeUrl, `alter subscription s${serial} enable`);
    const began = await slotActive(url, `native_${serial}`);
    const seconds = await untilTrue('native', began, nativeUrl, workload.lastRow('public'));
    await sql(
      nativeUrl,
      `alter subscription s${serial} disable`,
      `alter subscription s${serial} set (slot_name = none)`,
      `drop subscription s${serial}`,
    );
    return seconds;
  };
  let cpu = 0;
  let rss = '';
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
    const seconds = await untilTrue('waybill', began, storeUrl, workload.lastRow('replica'));
    const [c, a] = [capture.usage(), apply.usage()];
    cpu = ((c.cpuSeconds + a.cpuSeconds) / changes) * 1e6;
    rss = `${c.peakRssMb.toFixed(0)} + ${a.peakRssMb.toFixed(0)} MB`;
    await apply.stop();
    await capture.stop();
    return seconds;
  };
  const nativeFirst = round % 2 === 0;
  const first = await (nativeFirst ? native() : waybill());
  const second = await (nativeFirst ? waybill() : native());
  for (const [where, schema] of [
    [nativeUrl, 'public'],
    [storeUrl, 'replica'],
  ] as const) {
    const digest = await scalar(where, workload.digest(schema));
    if (digest !== wantedDigest)
      throw new Error(`${name}: ${schema} differs from the source: ${digest}, not ${wantedDigest}`);
  }
  await sql(url, `select pg_drop_replication_slot('native_${serial}')`);
  await dropWaybill(prepared);
  return nativeFirst ? { native: first, waybill: second, cpu, rss } : { native: second, waybill: first, cpu, rss };
}

/** Both contenders are timed from the moment they read the slot, or a copy of it. */
async function slotActive(url: string, slot: string): Promise<number> {
  await until(
    'the slot to be read',
    performance.now(),
    async () =>
      (await scalar(
        url,
        `select count(*) from pg_replication_slots where active and (slot_name = '${slot}' or slot_name like '${slot}_catch_up%')`,
      )) !== '0',
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
