/**
 * MySQL and MariaDB: capture against `mysqlbinlog`, a drain against a native replica, memory. Servers with equal
 * settings, the same backlog for all, the order of the contenders alternating.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { parsePosition } from '../../core/position.ts';
import { findMysqlTool } from '../../sandbox/mysql-tools.ts';
import { median, Program, until } from './contenders.ts';
import { covers, DIGEST, holds, prime, rowsIn, Store, withBroker, type Flavour, type Setup } from './mysql-setting.ts';
import { KEYS, lines, rounds, say, scale } from './setting.ts';

const CAPTURED = { small: Math.round(200_000 * scale), insert: Math.round(900_000 * scale) };
const DRAINED = Math.round(100_000 * scale);
const FEW_ROWS = 1000;
const MANY_ROWS = Math.round(1_000_000 * scale);

/** Both contenders in an order that alternates from round to round. */
export async function inTurns(
  round: number,
  native: () => Promise<number>,
  ours: () => Promise<number>,
): Promise<[number, number]> {
  if (round % 2 === 0) {
    const first = await native();
    return [first, await ours()];
  }
  const first = await ours();
  return [await native(), first];
}

/** A line of the result, of seconds in pairs: native, ours. */
export function report(what: string, pairs: readonly (readonly [number, number])[]): void {
  lines.push({
    what,
    native: `${median(pairs.map(([native]) => native)).toFixed(2)} s`,
    waybill: `${median(pairs.map(([, ours]) => ours)).toFixed(2)} s`,
    ratio: median(pairs.map(([native, ours]) => native / ours)).toFixed(2),
  });
}

/** Capture to acknowledged frames, against `mysqlbinlog -vv --read-from-remote-server` to /dev/null on the same log. */
export async function benchMysqlCapture(flavour: Flavour): Promise<void> {
  const tool = await findMysqlTool('mysqlbinlog', flavour);
  const source = await Store.start(flavour);
  try {
    for (const kind of ['small', 'insert'] as const) {
      await source.fill(kind === 'small' ? KEYS : 0);
      const setups: Setup[] = [];
      for (let round = 0; round < rounds; round++) setups.push(await prime(source, source));
      const file = await source.newFile();
      await source.backlog(kind, CAPTURED[kind]);
      const goal = await source.executed();
      await source.newFile();
      const { host, port } = source.server;
      const native = async (): Promise<number> => {
        const began = performance.now();
        const args = ['--no-defaults', '-vv', '--read-from-remote-server', `--host=${host}`, `--port=${port}`];
        const child = spawn(tool.file, [...tool.args, ...args, '--user=root', file], {
          stdio: ['ignore', 'ignore', 'inherit'],
        });
        const [code] = (await once(child, 'exit')) as [number];
        if (code !== 0) throw new Error(`mysqlbinlog ended with ${code}`);
        return (performance.now() - began) / 1000;
      };
      // The first to read a log pays for its pages.
      await native();
      const pairs: [number, number][] = [];
      const cpu: number[] = [];
      let rss = 0;
      for (let round = 0; round < rounds; round++) {
        const { prefix, config } = setups[round]!;
        const ours = async (): Promise<number> =>
          await withBroker(async (broker) => {
            const before = await source.readers();
            const capture = Program.start(config, 'capture:bench');
            const began = await source.beingRead(before);
            const seconds = await until('capture', began, async () => await holds(broker, prefix, goal));
            const usage = capture.usage();
            cpu.push((usage.cpuSeconds / CAPTURED[kind]) * 1e6);
            rss = Math.max(rss, usage.peakRssMb);
            await capture.stop();
            const rows = await rowsIn(broker, prefix);
            if (rows !== CAPTURED[kind]) throw new Error(`the stream holds ${rows} rows, not ${CAPTURED[kind]}`);
            await broker.manager.streams.delete(cdcStreamName(prefix, 'bench'));
            return seconds;
          });
        pairs.push(await inTurns(round, native, ours));
        say(
          `${flavour} capture ${kind}: mysqlbinlog ${pairs.at(-1)![0].toFixed(2)} s, waybill ${pairs.at(-1)![1].toFixed(2)} s`,
        );
      }
      report(
        `${flavour} capture: ${CAPTURED[kind]} ${kind === 'small' ? 'one-row updates' : 'rows inserted at once'}`,
        pairs,
      );
      lines.push({
        what: '  CPU s per million changes, peak RSS',
        native: '',
        waybill: `${median(cpu).toFixed(1)} s, ${rss.toFixed(0)} MB`,
        ratio: '',
      });
    }
  } finally {
    await source.dispose();
  }
}

/** Drain of one-row transactions into a server of the same kind, against a native replica. */
export async function benchMysqlDrain(flavour: Flavour): Promise<void> {
  const [source, replica, target] = await Promise.all([
    Store.start(flavour),
    Store.start(flavour),
    Store.start(flavour),
  ]);
  const word = flavour === 'mysql' ? 'replica' : 'slave';
  const { host, port } = source.server;
  try {
    await replica.run(
      flavour === 'mysql'
        ? `change replication source to source_host = '${host}', source_port = ${port}, source_user = 'root', source_auto_position = 1, get_source_public_key = 1`
        : `change master to master_host = '${host}', master_port = ${port}, master_user = 'root', master_use_gtid = slave_pos`,
    );
    await source.fill(KEYS);
    await target.fill(KEYS);
    const reached = async (goal: GtidSet): Promise<boolean> => covers(await replica.executed(), goal);
    const pairs: [number, number][] = [];
    for (let round = 0; round < rounds; round++) {
      const start = await source.executed();
      await replica.run(`start ${word}`);
      await until('the replica', performance.now(), async () => await reached(start));
      await replica.run(`stop ${word}`);
      const { prefix, config } = await prime(source, target);
      await source.backlog('small', DRAINED);
      const goal = await source.executed();
      const native = async (): Promise<number> => {
        const began = performance.now();
        await replica.run(`start ${word}`);
        const seconds = await until('the replica', began, async () => await reached(goal));
        await replica.run(`stop ${word}`);
        return seconds;
      };
      const ours = async (): Promise<number> => {
        const apply = Program.start(config, 'apply:replica');
        const there = `select count(*) from information_schema.tables where table_schema = 'waybill' and table_name = 'position'`;
        await until('the flow', performance.now(), async () => (await target.value(there)) === '1');
        const before = await source.readers();
        const capture = Program.start(config, 'capture:bench');
        const began = await source.beingRead(before);
        const seconds = await until('waybill', began, async () => {
          const text = await target
            .value(`select position from waybill.position where flow = 'replica'`)
            .catch(() => undefined);
          const position = text === undefined ? undefined : parsePosition(text);
          return position?.kind === flavour && covers(position.gtids, goal);
        });
        for (const stage of [apply, capture]) await stage.stop();
        await target.run('drop database waybill');
        await withBroker(async (broker) => await broker.manager.streams.delete(cdcStreamName(prefix, 'bench')));
        return seconds;
      };
      pairs.push(await inTurns(round, native, ours));
      say(`${flavour} drain: replica ${pairs.at(-1)![0].toFixed(2)} s, waybill ${pairs.at(-1)![1].toFixed(2)} s`);
      const wanted = await source.value(`${DIGEST} from bench.items`);
      for (const [name, store] of Object.entries({ replica, target })) {
        const digest = await store.value(`${DIGEST} from bench.items`);
        if (digest !== wanted) throw new Error(`the ${name} differs from the source: ${digest}, not ${wanted}`);
      }
    }
    report(`${flavour} drain: ${DRAINED} one-row update transactions`, pairs);
  } finally {
    await Promise.all([source, replica, target].map((store) => store.dispose()));
  }
}

/** Peak memory of both stages for one transaction, small and large. */
export async function benchMysqlMemory(flavour: Flavour): Promise<void> {
  const [source, target] = await Promise.all([Store.start(flavour), Store.start(flavour)]);
  try {
    for (const kind of ['insert', 'update'] as const) {
      const peaks: { capture: number; apply: number }[] = [];
      for (const rows of [FEW_ROWS, MANY_ROWS]) {
        for (const store of [source, target]) await store.fill(kind === 'update' ? rows : 0);
        const { prefix, config } = await prime(source, target);
        const [capture, apply] = ['capture:bench', 'apply:replica'].map((only) => Program.start(config, only)) as [
          Program,
          Program,
        ];
        await source.backlog(kind, rows);
        const wanted = await source.value(`${DIGEST} from bench.items`);
        await until(
          'the rows',
          performance.now(),
          async () => (await target.value(`${DIGEST} from bench.items`)) === wanted,
        );
        peaks.push({ capture: capture.usage().peakRssMb, apply: apply.usage().peakRssMb });
        await apply.stop();
        await capture.stop();
        await target.run('drop database waybill');
        await withBroker(async (broker) => await broker.manager.streams.delete(cdcStreamName(prefix, 'bench')));
        say(`${flavour} memory ${kind} of ${rows}: ${JSON.stringify(peaks.at(-1))}`);
      }
      for (const stage of ['capture', 'apply'] as const)
        lines.push({
          what: `${flavour} peak RSS of ${stage}: ${kind} in one transaction, ${FEW_ROWS} rows, then ${MANY_ROWS}`,
          native: '',
          waybill: `${peaks[0]![stage].toFixed(0)}, ${peaks[1]![stage].toFixed(0)} MB`,
          ratio: (peaks[1]![stage] / peaks[0]![stage]).toFixed(2),
        });
    }
  } finally {
    await Promise.all([source.dispose(), target.dispose()]);
  }
}
