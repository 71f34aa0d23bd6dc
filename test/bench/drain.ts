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
} from './setting.ts';

export async function benchDrain(kind: Kind): Promise<void> {
  const ratios: number[] = [];
  const natives: number[] = [];
  const ours: number[] = [];
  const cpu: number[] = [];
  let rss: string = '';
  for (let round = 0; round < rounds; round++) {
    const prepared = await prepare(kind);
    const { serial, name, url, prefix } = prepared;
    const nativeUrl = await target.createDatabase(`${name}_native`);
    const storeUrl = await target.createDatabase(`${name}_store`);
    await copyTable(url, nativeUrl, 'public');
    await copyTable(url, storeUrl, 'replica');
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
    await backlog(url, kind);
    const wantedDigest = await scalar(url, `${DIGEST} items t`);
    const native = async (): Promise<number> => {
      await sql(nativeUrl, `alter subscription s${serial} enable`);
      const began = await slotActive(url, `native_${serial}`);
      const seconds = await untilTrue('native', began, nativeUrl, lastRow(kind, 'public'));
      await sql(
        nativeUrl,
        `alter subscription s${serial} disable`,
        `alter subscription s${serial} set (slot_name = none)`,
        `drop subscription s${serial}`,
      );
      return seconds;
    };
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
      const seconds = await untilTrue('waybill', began, storeUrl, lastRow(kind, 'replica'));
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
    await sql(url, `select pg_drop_replication_slot('native_${serial}')`);
    await dropWaybill(prepared);
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
