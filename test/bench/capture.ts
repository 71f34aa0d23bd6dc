/** Capture to acknowledged frames, against pg_recvlogical into /dev/null on the same log. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readTail } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { asPgPosition, parseLsn } from '../../core/position.ts';
import { findPostgresTool } from '../../sandbox/postgres.ts';
import { median, Program, sql, until, writeConfig } from './contenders.ts';
import { backlog, LARGE, lines, NAMES, nats, prepare, primeWaybill, rounds, say, SMALL } from './setting.ts';

export async function benchCapture(kind: 'small' | 'insert'): Promise<void> {
  const tool = await findPostgresTool('pg_recvlogical', 15);
  if (tool === undefined)
    throw new Error('pg_recvlogical is needed: apt-get install postgresql-client-15 postgresql-15');
  const ratios: number[] = [];
  const natives: number[] = [];
  const ours: number[] = [];
  const cpu: number[] = [];
  let rss = 0;
  for (let round = 0; round < rounds; round++) {
    const { name, url, prefix } = await prepare(kind);
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
