/**
 * A backlog of small transactions read in slices, against the same through a walsender. Where the source has no slot to spare
 * the log is streamed (docs/decisions.md, "Catching up in slices"): that is how one of the two is had.
 */
import { readTail } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { asPgPosition, parseLsn } from '../../core/position.ts';
import { median, Program, sql, until, writeConfig } from './contenders.ts';
import { backlog, dropWaybill, lines, NAMES, nats, prepare, primeWaybill, rounds, say, SMALL } from './setting.ts';

/** Physical slots hold no log until somebody reads by them. */
const TAKE_SPARE_SLOTS = `
select count(pg_create_physical_replication_slot('spare_' || i))
  from generate_series(1, current_setting('max_replication_slots')::int - (select count(*)::int from pg_replication_slots)) i`;
const GIVE_SPARE_SLOTS = `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like 'spare\\_%'`;

interface Reading {
  readonly seconds: number;
  readonly cpu: number;
}

export async function benchCatchUp(): Promise<void> {
  const slices: Reading[] = [];
  const streams: Reading[] = [];
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const found: { slices?: Reading; streamed?: Reading } = {};
    for (const way of round % 2 === 0 ? (['slices', 'streamed'] as const) : (['streamed', 'slices'] as const))
      found[way] = await read(way);
    say(
      `catch-up round ${round + 1}: streamed ${found.streamed!.seconds.toFixed(2)} s, in slices ${found.slices!.seconds.toFixed(2)} s`,
    );
    slices.push(found.slices!);
    streams.push(found.streamed!);
    ratios.push(found.streamed!.seconds / found.slices!.seconds);
  }
  const seconds = (readings: Reading[]): string => `${median(readings.map((one) => one.seconds)).toFixed(2)} s`;
  const cpu = (readings: Reading[]): string => `${median(readings.map((one) => one.cpu)).toFixed(1)} s`;
  lines.push(
    {
      what: `catch-up: ${NAMES.small}, streamed against in slices`,
      native: seconds(streams),
      waybill: seconds(slices),
      ratio: median(ratios).toFixed(2),
    },
    {
      what: '  capture CPU s per million changes',
      native: cpu(streams),
      waybill: cpu(slices),
      ratio: '',
    },
  );
}

/** The seconds from the start of a capture until the stream holds all of a backlog. */
async function read(way: 'slices' | 'streamed'): Promise<Reading> {
  const prepared = await prepare('small');
  const { url, prefix } = prepared;
  const config = await writeConfig({ natsUrl: nats.url, prefix, sourceUrl: url, targetUrl: url, schema: 'copy' });
  await primeWaybill(config, url, prefix, undefined);
  const goal = parseLsn(await backlog(url, 'small'))!;
  if (way === 'streamed') await sql(url, TAKE_SPARE_SLOTS);
  const connection = await connectNats(parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats, 'bench');
  const began = performance.now();
  const capture = Program.start(config, 'capture:bench');
  try {
    const seconds = await until(
      'capture',
      began,
      async () => asPgPosition((await readTail(connection, `${prefix}_cdc_bench`)).end).lsn >= goal,
    );
    return { seconds, cpu: (capture.usage().cpuSeconds / SMALL) * 1e6 };
  } finally {
    await capture.stop();
    await connection.close();
    await sql(url, GIVE_SPARE_SLOTS);
    await dropWaybill(prepared);
  }
}
