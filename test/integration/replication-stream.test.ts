/** The replication connection itself: how it is held back. */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { PgOutputHandler } from '../../capture/postgres/pgoutput.ts';
import { ReplicationStream } from '../../capture/postgres/replication-stream.ts';
import { parseConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { timeoutMs } from '../support/postgres-source.ts';
import { waitFor } from '../support/wait.ts';

let server: PostgresServer;
let client: pg.Client;
let settings: PostgresSourceConfig;
let stop: (() => Promise<void>) | undefined;

beforeAll(async () => {
  server = await startPostgres();
  client = new pg.Client(server.url);
  await client.connect();
  settings = parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: ['nats://127.0.0.1:1'], stream: { max_bytes: '64MB' } },
      sources: { one: { kind: 'postgres', url: server.url } },
      targets: {},
      flows: {},
    }),
    {},
  ).sources['one'] as PostgresSourceConfig;
  await client.query('create table t (id int primary key, v text); create publication p for table t');
}, timeoutMs);
afterEach(async () => {
  await stop?.();
  stop = undefined;
});
afterAll(async () => {
  await client?.end();
  await server?.dispose();
}, timeoutMs);

/** Takes what the handler is called with, by name. */
function handlerOf(calls: Partial<PgOutputHandler>): PgOutputHandler {
  const ignore = (): void => {};
  return {
    begin: ignore,
    commit: ignore,
    origin: ignore,
    relation: ignore,
    type: ignore,
    insert: ignore,
    update: ignore,
    delete: ignore,
    truncate: ignore,
    message: ignore,
    twoPhase: ignore,
    ...calls,
  };
}

async function open(slot: string, calls: Partial<PgOutputHandler>): Promise<ReplicationStream> {
  await client.query(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
  return new ReplicationStream({
    settings,
    applicationName: slot,
    slot,
    publication: 'p',
    startLsn: 0n,
    handler: handlerOf(calls),
    onActivity: () => {},
    onKeepalive: () => {},
  });
}

function run(stream: ReplicationStream): void {
  const running = stream.run();
  running.catch(() => {});
  stop = async () => {
    await stream.stop();
    await running;
  };
}

describe('a replication stream', () => {
  it(
    'that is paused before it is connected brings little until it is resumed',
    async () => {
      let rows = 0;
      const stream = await open('paused', { insert: () => void (rows += 1) });
      const all = 20_000;
      await client.query(`insert into t select i, repeat('x', 2000) from generate_series(1, ${all}) i`);
      stream.pause();
      run(stream);
      await waitFor('the walsender to wait, or all rows', async () => {
        const { rows: senders } = await client.query(
          `select from pg_stat_activity where application_name = 'paused' and wait_event = 'WalSenderWriteData'`,
        );
        return senders.length > 0 || rows === all;
      });
      expect(rows).toBe(0);
      stream.resume();
      await waitFor('all rows', async () => rows === all);
    },
    timeoutMs,
  );

  it(
    'that is held by two look-ups goes on after both',
    async () => {
      const done: (() => void)[] = [];
      const seen: string[] = [];
      const stream = await open('held', {
        begin: () => {
          for (const name of ['first', 'second'])
            stream.holdUntil(
              new Promise<void>((resolve) =>
                done.push(() => {
                  seen.push(name);
                  resolve();
                }),
              ),
            );
        },
        insert: () => void seen.push('row'),
        commit: () => void seen.push('commit'),
      });
      run(stream);
      await client.query(`delete from t; insert into t values (1, 'a')`);
      await waitFor('the look-ups', async () => done.length === 2);
      done[0]!();
      await client.query('select 1');
      done[1]!();
      await waitFor('the commit', async () => seen.includes('commit'));
      expect(seen).toEqual(['first', 'second', 'row', 'commit']);
    },
    timeoutMs,
  );
});
