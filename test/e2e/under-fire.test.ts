/**
 * The workload of the demo runs while every part of the path is killed, again and again. Afterwards both sides are
 * equal by full content, and a reader that polled the target all the time never saw half of a source transaction.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readFrames } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { comparePositions, ORIGIN, type Position } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { compareDatabases } from '../../sandbox/demo/equality.ts';
import { createWarehouse, TABLES } from '../../sandbox/demo/schema.ts';
import { checkInvariant, runWorkload } from '../../sandbox/demo/workload.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

/** Enough that every kill falls into work, and no more: the rest of the machine's time is for the parts that are killed. */
const RATE_PER_SECOND = 40;
const READ_EVERY_MS = 150;

let source: PostgresServer;
let target: PostgresServer;
let nats: NatsServer;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-fire-'));
  [source, target, nats] = await Promise.all([startPostgres(), startPostgres(), startNats()]);
});

afterAll(async () => {
  await Promise.all([source?.dispose(), target?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

/** A connection that is made anew when its server was killed; what it was asked then rejects. */
class Reconnecting {
  readonly #url: string;
  #client: Promise<Client> | undefined;

  constructor(url: string) {
    this.#url = url;
  }

  async use<T>(work: (client: Client) => Promise<T>): Promise<T> {
    this.#client ??= this.#connect();
    try {
      return await work(await this.#client);
    } catch (thrown) {
      await this.end();
      throw thrown;
    }
  }

  async end(): Promise<void> {
    const client = await this.#client?.catch(() => undefined);
    this.#client = undefined;
    await client?.end().catch(() => {});
  }

  async #connect(): Promise<Client> {
    const client = new Client({ connectionString: this.#url });
    client.on('error', () => {});
    await client.connect();
    return client;
  }
}

/** Runs a statement, again until the server takes it. */
async function execute(connection: Reconnecting, sql: string): Promise<void> {
  await waitFor(`"${sql.slice(0, 40)}" to succeed`, async () => await connection.use((client) => client.query(sql)));
}

it('both sides are equal after 24 kills, and the target was never seen half-way', async () => {
  const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? Date.now() % 1_000_000);
  process.stdout.write(`under fire: seed ${seed}\n`);
  const sourceUrl = await source.createDatabase('wms');
  const targetUrl = await target.createDatabase('visibility');
  await createWarehouse(sourceUrl);
  const [toSource, toTarget] = [new Reconnecting(sourceUrl), new Reconnecting(targetUrl)];
  await execute(
    toSource,
    'create table fire_marker (id int primary key); create table bulk (id int primary key, run int, note text)',
  );
  const configText = `version: 1
nats: { servers: ["${nats.url}"], stream: { sync_interval: 0s } }
sources: { wms: { kind: postgres, url: "${sourceUrl}", heartbeat: 1s, frame_bytes: 64KB, snapshot_chunk_rows: 200 } }
targets: { visibility: { kind: postgres, url: "${targetUrl}" } }
flows: { wms_replica: { mirror: wms, to: visibility, schema: wms, batch_bytes: 256KB } }
`;
  const configFile = join(folder, 'waybill.yaml');
  await writeFile(configFile, configText);
  const stage = (only: string): Stage =>
    new Stage({ configFile, only, logFile: join(folder, `${only.replace(':', '-')}.log`), leaseTtlMs: 1000 });
  const capture = stage('capture:wms');
  const apply = stage('apply:wms_replica');

  const stop = new AbortController();
  const workload = runWorkload({ url: sourceUrl, signal: stop.signal, ratePerSecond: RATE_PER_SECOND, seed });
  workload.catch(() => {});
  let markers = 0;
  const throughTarget = async (what: string): Promise<void> => {
    const id = ++markers;
    await execute(toSource, `insert into fire_marker values (${id}) on conflict do nothing`);
    try {
      await waitFor(
        `marker ${id} to arrive after ${what}`,
        async () =>
          await toTarget.use(async (client) => {
            const { rowCount } = await client.query('select from wms.fire_marker where id = $1', [id]);
            return rowCount === 1;
          }),
      );
    } catch (thrown) {
      throw new Error(`${String(thrown)}\ncapture: ${capture.log()}\napply: ${apply.log()}`, { cause: thrown });
    }
  };

  let kills = 0;
  // The initial load is killed in its middle, three times, and continues.
  capture.start('capture.mid-snapshot:2');
  apply.start();
  for (const nth of [3, 2]) {
    await capture.exited();
    kills += 1;
    capture.start(`capture.mid-snapshot:${nth}`);
  }
  await capture.exited();
  kills += 1;
  capture.start();
  await throughTarget('the initial load');
  await waitFor('the initial load to end', async () => {
    const connection = await connectNats(parseConfig(configText, {}).nats, 'test');
    try {
      const { openBucket } = await import('../../core/lease.ts');
      const { readProgress } = await import('../../capture/snapshot-request.ts');
      const progress = await readProgress(await openBucket(connection, parseConfig(configText, {}).nats), 'wms');
      return progress?.tables.every((table) => table.state === 'done');
    } finally {
      await connection.close();
    }
  });
  await throughTarget('the last chunk');

  // From here on every state of the target is a state that the source once committed.
  const problems: string[] = [];
  let reads = 0;
  const reader = (async () => {
    const connection = new Reconnecting(targetUrl);
    while (!stop.signal.aborted) {
      try {
        await connection.use(async (client) => {
          problems.push(...(await checkInvariant(client, 'wms')));
          const { rows } = await client.query<{ n: string }>(
            'select count(*) as n from wms.bulk where run >= 0 group by run having count(*) not in (0, 20000)',
          );
          for (const row of rows) problems.push(`a bulk transaction was seen with ${row.n} rows`);
        });
        reads += 1;
      } catch {
        // The target was killed under the reader; read on when it is back.
      }
      await delay(READ_EVERY_MS);
    }
    await connection.end();
  })();

  let bulkRuns = 0;
  const bulk = (): Promise<void> => {
    const run = bulkRuns++;
    return execute(
      toSource,
      `insert into bulk select ${run} * 100000 + g, ${run}, repeat('x', 50) from generate_series(1, 20000) g on conflict do nothing`,
    );
  };
  const restart = (killed: Stage, failpoint?: string) => async (): Promise<void> => {
    await killed.end('SIGKILL');
    killed.start(failpoint);
    if (failpoint === undefined) return;
    await killed.exited();
    killed.start();
  };
  const crash = (server: { kill(): Promise<void>; start(): Promise<void> }) => async (): Promise<void> => {
    await server.kill();
    await server.start();
  };
  const midTransaction = (failed: Stage, failpoint: string) => async (): Promise<void> => {
    await failed.end('SIGTERM');
    failed.start(failpoint);
    await bulk();
    await failed.exited();
    failed.start();
  };
  const attacks: [string, () => Promise<void>][] = [
    ['SIGKILL of capture', restart(capture)],
    ['SIGKILL of apply', restart(apply)],
    ['capture after publish, before ack', restart(capture, 'capture.published-before-ack:5')],
    ['capture after ack', restart(capture, 'capture.acked:5')],
    ['apply before commit', restart(apply, 'apply.before-commit:5')],
    ['apply after commit', restart(apply, 'apply.committed:5')],
    ['capture between frames of a large transaction', midTransaction(capture, 'capture.mid-transaction:3')],
    ['nats-server', crash(nats)],
    ['source database', crash(source)],
    ['target database', crash(target)],
  ];
  for (let i = 0; kills < 24; i++) {
    const [what, attack] = attacks[i % attacks.length]!;
    await attack();
    kills += 1;
    await throughTarget(what);
  }

  stop.abort();
  const totals = await workload;
  await reader;
  await throughTarget('the end of the workload');
  const differences = await compareDatabases(
    sourceUrl,
    targetUrl,
    [...TABLES, 'public.bulk', 'public.fire_marker'],
    'wms',
  );
  process.stdout.write(
    `under fire: ${kills} kills, ${totals.committed} transactions, ${totals.rolledBack} rolled back, ${reads} reads of the target\n`,
  );
  await Promise.all([apply.end('SIGTERM'), capture.end('SIGTERM'), toSource.end(), toTarget.end()]);
  expect(problems).toEqual([]);
  expect(differences).toEqual([]);
  expect(totals.committed).toBeGreaterThan(500);
  expect(reads).toBeGreaterThan(50);

  // The stream itself has neither gap nor overlap: readFrames throws at the first.
  const config = parseConfig(configText, {});
  const connection = await connectNats(config.nats, 'test');
  const { last_seq: lastSeq } = (await connection.manager.streams.info('waybill_cdc_wms')).state;
  let end: Position = ORIGIN;
  for await (const frame of readFrames(connection, 'waybill_cdc_wms', {
    startSeq: 1,
    position: ORIGIN,
    signal: new AbortController().signal,
  })) {
    expect(comparePositions(frame.start, end)).toBe(0);
    end = frame.end;
    if (frame.seq === lastSeq) break;
  }
  await connection.close();
  await Promise.all([capture.end('SIGKILL'), apply.end('SIGKILL')]);
});
