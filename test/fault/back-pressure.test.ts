/** A broker that does not answer for a while: reading pauses, and the source is told all the time that somebody is there. */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { cdcStreamName, readTail } from '../../core/cdc-stream.ts';
import { parseConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { createLogger } from '../../core/logger.ts';
import { connectNats } from '../../core/nats.ts';
import { asPgPosition } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { suspend } from '../../sandbox/process.ts';
import { waitFor } from '../support/wait.ts';

const WAL_SENDER_TIMEOUT_MS = 1500;
let nats: NatsServer;
let postgres: PostgresServer;

beforeAll(async () => {
  [nats, postgres] = await Promise.all([
    startNats(),
    startPostgres({ settings: { wal_sender_timeout: `${WAL_SENDER_TIMEOUT_MS}ms` } }),
  ]);
});
afterAll(async () => {
  await Promise.all([nats?.dispose(), postgres?.dispose()]);
});

it('a walsender does not time out while reading is paused', async () => {
  const url = await postgres.createDatabase('pressed');
  const config = parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], stream: { sync_interval: '0s', max_bytes: '1GB' } },
      sources: { pressed: { kind: 'postgres', url, heartbeat: '1s', frame_bytes: '64KB' } },
    }),
    {},
  );
  const client = new pg.Client(url);
  await client.connect();
  await client.query('create table t (id int primary key, v text)');
  const stop = new AbortController();
  const done = runPostgresCapture({
    name: 'pressed',
    settings: config.sources['pressed'] as PostgresSourceConfig,
    nats: config.nats,
    holder: 'test',
    leaseTtlMs: 60_000,
    log: createLogger('silent'),
    signal: stop.signal,
  });
  done.catch(() => {});
  const connection = await connectNats(config.nats, 'test');
  const end = async (): Promise<bigint> =>
    asPgPosition((await readTail(connection, cdcStreamName('waybill', 'pressed'))).end).lsn;
  const walsenders = async (): Promise<number[]> =>
    (await client.query<{ pid: number }>('select pid from pg_stat_replication')).rows.map(({ pid }) => pid);
  try {
    const [walsender] = await waitFor('the stream', async () => {
      const pids = await walsenders();
      return pids.length === 1 && pids;
    });
    await client.query(`insert into t values (0, 'first')`);
    const first = BigInt(
      (await client.query<{ lsn: string }>(`select pg_current_wal_insert_lsn() - '0/0' as lsn`)).rows[0]!.lsn,
    );
    await waitFor('the first row', async () => (await end()) >= first);

    await suspend(nats.pid!);
    try {
      // More than the sockets and buffers between hold.
      await client.query(`insert into t select i, repeat(md5(i::text), 30) from generate_series(1, 30000) i`);
      const sent = async (): Promise<string> =>
        (await client.query<{ sent_lsn: string }>('select sent_lsn from pg_stat_replication')).rows[0]!.sent_lsn;
      await waitFor('the pause', async () => {
        const before = await sent();
        await delay(300);
        return (await sent()) === before;
      });
      // Well below the 5 s after which a request to the broker is given up, and the session with it.
      await delay(1.5 * WAL_SENDER_TIMEOUT_MS);
      expect(await walsenders()).toEqual([walsender]);
    } finally {
      process.kill(nats.pid!, 'SIGCONT');
    }
    const last = BigInt(
      (await client.query<{ lsn: string }>(`select pg_current_wal_insert_lsn() - '0/0' as lsn`)).rows[0]!.lsn,
    );
    await waitFor('the rest', async () => (await end()) >= last);
    expect(await walsenders(), 'the same connection all the time').toEqual([walsender]);
  } finally {
    stop.abort();
    await done;
    await connection.close();
    await client.end();
  }
});
