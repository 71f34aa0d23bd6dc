/**
 * A capture that is killed while it receives a transaction in progress, and while it hands one on: it goes on where the
 * stream ends, whichever way it receives transactions then.
 */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { asPgPosition } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { timeoutMs } from '../support/postgres-source.ts';
import { Stage } from '../support/stage.ts';
import { StreamedPair } from '../support/streamed-pair.ts';

const LEASE_TTL_MS = 1000;

let nats: NatsServer;
let server: PostgresServer;
let folder: string;
const cleanups: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-streaming-'));
  [nats, server] = await Promise.all([startNats(), startPostgres()]);
}, timeoutMs);
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, timeoutMs);
afterAll(async () => {
  await Promise.all([nats?.dispose(), server?.dispose()]);
  await rm(folder, { recursive: true, force: true });
}, timeoutMs);

/** A pair of which the streamed one runs as a process, and may be started either way. */
async function open(name: string) {
  const pair = await StreamedPair.open(server, nats, name);
  cleanups.push(async () => pair.close());
  await pair.plain.query('create table t (id int primary key, v text)');
  const spool = join(folder, name);
  const stages = new Map<'on' | 'off', Stage>();
  for (const streaming of ['on', 'off'] as const) {
    const configFile = join(folder, `${name}-${streaming}.yaml`);
    const source = {
      kind: 'postgres',
      url: pair.plain.url,
      heartbeat: '1s',
      frame_bytes: '16KB',
      streaming,
      spool_dir: spool,
    };
    await writeFile(
      configFile,
      JSON.stringify({
        version: 1,
        nats: { servers: [nats.url], stream: { sync_interval: '0s', max_bytes: '1GB' } },
        sources: { [pair.streamed.name]: source },
      }),
    );
    const logFile = join(folder, `${name}-${streaming}.log`);
    const stage = new Stage({ configFile, only: `capture:${pair.streamed.name}`, logFile, leaseTtlMs: LEASE_TTL_MS });
    cleanups.push(async () => stage.end('SIGKILL'));
    stages.set(streaming, stage);
  }
  const client = new pg.Client(pair.plain.url);
  await client.connect();
  cleanups.push(async () => client.end());
  return {
    pair,
    spool,
    stage: (streaming: 'on' | 'off'): Stage => stages.get(streaming)!,
    run: async (sql: string): Promise<unknown> => client.query(sql),
  };
}

/** A large transaction with parts that are rolled back, in two halves. */
const halves = (first: number): readonly [string, string] => [
  `begin; insert into t select i, repeat('x', 60) || i from generate_series(${first}, ${first + 4999}) i;
   savepoint s; insert into t select i, repeat('y', 60) from generate_series(${first + 5000}, ${first + 7499}) i;
   rollback to s`,
  `insert into t select i, repeat('z', 60) || i from generate_series(${first + 5000}, ${first + 9999}) i;
   update t set v = v || '!' where id between ${first + 2500} and ${first + 6000}; commit`,
];

it(
  'leaves nothing out and brings nothing twice when it is killed, and when it goes on the other way',
  async () => {
    const { pair, stage, run, spool } = await open('killed');
    pair.plain.start();
    stage('on').start();
    for (const source of pair.both) await source.loaded(1);
    const from = [await pair.plain.caughtUp(), await pair.streamed.caughtUp()] as const;
    await stage('on').end('SIGTERM');

    let first = 0;
    const killed: { failpoint: string; middle: boolean }[] = [];
    for (const [failpoint, then] of [
      ['capture.block-spooled:7', 'on'],
      ['capture.mid-replay:3', 'on'],
      ['capture.mid-replay:2', 'off'],
    ] as const) {
      const [one, two] = halves((first += 100_000));
      stage('on').start(failpoint);
      await run(one);
      await run(two);
      await stage('on').exited();
      const { end } = await pair.streamed.tail();
      killed.push({ failpoint, middle: asPgPosition(end).ordinal > 0 });
      stage(then).start();
      await pair.caughtUp();
      await stage(then).end('SIGKILL');
    }
    // The other way round: what was published in part at its commit is finished by one that is kept.
    const [one, two] = halves((first += 100_000));
    stage('off').start('capture.mid-transaction:20');
    await run(one);
    await run(two);
    await stage('off').exited();
    expect(asPgPosition((await pair.streamed.tail()).end).ordinal).toBeGreaterThan(0);
    stage('on').start();
    await pair.caughtUp();
    await pair.sentInBlocks(1);

    expect(killed.filter(({ middle }) => middle).map(({ failpoint }) => failpoint)).toEqual([
      'capture.mid-replay:3',
      'capture.mid-replay:2',
    ]);
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([13_501, 13_501, 13_501, 13_501]);
    expect(await pair.streamed.folded('public', 't')).toEqual(await pair.plain.table('public', 't'));
    expect(await readdir(spool), 'files of those that were killed').toEqual([]);
  },
  timeoutMs,
);
