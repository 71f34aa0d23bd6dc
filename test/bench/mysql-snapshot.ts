/** A snapshot of a filled table of MySQL or MariaDB by a running installation, against `mysqldump | mysql`. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { readProgress, requestSnapshot } from '../../capture/snapshot-request.ts';
import { cdcStreamName, readTail } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { findMysqlTool } from '../../sandbox/mysql-tools.ts';
import { Program, until } from './contenders.ts';
import { inTurns, report } from './mysql.ts';
import { DIGEST, prime, Store, withBroker, type Flavour } from './mysql-setting.ts';
import { lines, rounds, say, scale } from './setting.ts';

const ROWS = Math.min(1_000_000, Math.round(1_000_000 * scale));
/** Between two looks at the progress, and at the target. */
const LOOK_MS = 25;
const COPY = 'copied';

export async function benchMysqlSnapshot(flavour: Flavour): Promise<void> {
  const [source, target] = await Promise.all([Store.start(flavour), Store.start(flavour)]);
  try {
    await source.fill(ROWS);
    const wanted = await source.value(`${DIGEST} from bench.items`);
    const copy = async (): Promise<number> => {
      await target.run(`drop database if exists ${COPY}`, `create database ${COPY}`);
      const began = performance.now();
      await dumpInto(source, target);
      return (performance.now() - began) / 1000;
    };
    const pairs: [number, number][] = [];
    let last: Load | undefined;
    for (let round = 0; round < rounds; round++) {
      await target.fill(0);
      const ours = async (): Promise<number> => {
        last = await load(source, target);
        return last.seconds;
      };
      pairs.push(await inTurns(round, copy, ours));
      for (const database of ['bench', COPY]) {
        const digest = await target.value(`${DIGEST} from ${database}.items`);
        if (digest !== wanted) throw new Error(`${database} of the target differs: ${digest}, not ${wanted}`);
      }
      const [native, waybill] = pairs.at(-1)!;
      say(`${flavour} snapshot: mysqldump | mysql ${native.toFixed(2)} s, waybill ${waybill.toFixed(2)} s`);
    }
    report(`${flavour} snapshot of ${ROWS} rows, against mysqldump | mysql`, pairs);
    const { cpu, rss } = last!;
    lines.push({
      what: '  CPU s per million rows, peak RSS (capture + apply)',
      native: '',
      waybill: `${cpu}, ${rss}`,
      ratio: '',
    });
  } finally {
    await Promise.all([source.dispose(), target.dispose()]);
  }
}

/** The table of the source, dumped as of one moment and read by the client of the target. */
async function dumpInto(source: Store, target: Store): Promise<void> {
  const { flavour } = source.server;
  const start = async (tool: 'mysqldump' | 'mysql', { server }: Store, args: string[]): Promise<ChildProcess> => {
    const found = await findMysqlTool(tool, flavour);
    const where = ['--no-defaults', `--host=${server.host}`, `--port=${server.port}`, '--protocol=tcp', '--user=root'];
    return spawn(found.file, [...found.args, ...where, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  };
  // A dump as a copy needs it: what else is in it differs between the two families.
  const dump = await start('mysqldump', source, [
    '--single-transaction',
    '--quick',
    '--no-tablespaces',
    ...(flavour === 'mysql' ? ['--set-gtid-purged=OFF', '--column-statistics=0'] : []),
    'bench',
    'items',
  ]);
  const reader = await start('mysql', target, [COPY]);
  reader.stdout!.resume();
  dump.stdin!.end();
  dump.stdout!.pipe(reader.stdin!);
  const codes = await Promise.all([dump, reader].map(async (child) => ((await once(child, 'exit')) as [number])[0]));
  if (codes.some((code) => code !== 0)) throw new Error(`mysqldump | mysql ended with ${codes.join(' and ')}`);
}

interface Load {
  readonly seconds: number;
  readonly cpu: string;
  readonly rss: string;
}

/** Has the table read by processes that run: from the request until the target stands behind the last row. */
async function load(source: Store, target: Store): Promise<Load> {
  const { prefix, config } = await prime(source, target);
  const settings = parseConfig(await readFile(config, 'utf8'), {}).nats;
  const programs = ['capture:bench', 'apply:replica'].map((only) => Program.start(config, only));
  return await withBroker(async (broker) => {
    try {
      const bucket = await openBucket(broker, settings);
      await source.beingRead(new Set());
      const there = `select count(*) from information_schema.tables where table_schema = 'waybill' and table_name = 'position'`;
      await until('the flow', performance.now(), async () => (await target.value(there)) === '1');
      const before = programs.map((program) => program.usage().cpuSeconds);
      const began = performance.now();
      const id = await requestSnapshot(settings, 'bench', {});
      await until('the table to be read', began, async () => {
        await delay(LOOK_MS);
        const progress = await readProgress(bucket, 'bench');
        return progress?.id === id && progress.tables.every(({ state }) => state === 'done');
      });
      const { seq } = await readTail(broker, cdcStreamName(prefix, 'bench'));
      const seconds = await until('the rows', began, async () => {
        await delay(LOOK_MS);
        return Number(await target.value(`select max(stream_seq) from waybill.position`)) >= seq;
      });
      const used = programs.map((program) => program.usage());
      const cpu = used.map(({ cpuSeconds }, n) => (((cpuSeconds - before[n]!) / ROWS) * 1e6).toFixed(1)).join(' + ');
      return { seconds, cpu: `${cpu} s`, rss: `${used.map(({ peakRssMb }) => peakRssMb.toFixed(0)).join(' + ')} MB` };
    } finally {
      await Promise.all(programs.map((program) => program.stop()));
      await target.run('drop database if exists waybill');
      await broker.manager.streams.delete(cdcStreamName(prefix, 'bench'));
    }
  });
}
