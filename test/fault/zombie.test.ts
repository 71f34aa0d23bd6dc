/**
 * A process that hangs in the middle of its work and comes back when another one has taken over. It is stopped with
 * SIGSTOP: its connections stay open, and with them its slot, its locks and its open transaction.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { cdcStreamName, readFrames, readTail, type ReceivedFrame } from '../../core/cdc-stream.ts';
import { parseConfig, type NatsConfig } from '../../core/config.ts';
import { decodeFrame } from '../../core/frame.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asPgPosition, comparePositions, ORIGIN, type PgPosition } from '../../core/position.ts';
import { installationId, sessionName } from '../../core/stale-sessions.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;
const LEASE_TTL_MS = 1000;
/** Expiry of the lease, one look at it, the start of a session, and the machine's noise. */
const TAKEOVER_MS = 15_000;
/** Between large transactions. */
const PAUSE_MS = 200;

let server: NatsServer;
let nats: Nats;
let source: PostgresServer;
let target: PostgresServer;
let folder: string;
const stages: Stage[] = [];
const clients: pg.Client[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-zombie-'));
  [server, source, target] = await Promise.all([startNats(), startPostgres(), startPostgres()]);
  nats = await connectNats(natsConfig(), 'test');
}, timeoutMs);
afterEach(async () => {
  for (const stage of stages.splice(0)) {
    stage.signal('SIGCONT');
    await stage.end('SIGKILL');
  }
  for (const client of clients.splice(0)) await client.end();
}, timeoutMs);
afterAll(async () => {
  await nats?.close();
  await Promise.all([server?.dispose(), source?.dispose(), target?.dispose()]);
  await rm(folder, { recursive: true, force: true });
}, timeoutMs);

const natsConfig = (): NatsConfig => parseConfig(`version: 1\nnats: { servers: ["${server.url}"] }`, {}).nats;

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on('error', () => {});
  await client.connect();
  clients.push(client);
  return client;
}

/** Databases for one source and one flow, and stages to run them; `name` tells them from those of other tests. */
async function prepare(name: string) {
  const sourceUrl = await source.createDatabase(name);
  const targetUrl = await target.createDatabase(name);
  const configFile = join(folder, `${name}.yaml`);
  await writeFile(
    configFile,
    `version: 1
nats: { servers: ["${server.url}"], stream: { sync_interval: 0s, max_bytes: 1GB } }
sources: { ${name}: { kind: postgres, url: "${sourceUrl}", heartbeat: 1s, frame_bytes: 16KB } }
targets: { store: { kind: postgres, url: "${targetUrl}" } }
flows: { ${name}: { mirror: ${name}, to: store, batch_bytes: 64KB } }
`,
  );
  let serial = 0;
  return {
    stream: cdcStreamName('waybill', name),
    db: await connect(sourceUrl),
    store: await connect(targetUrl),
    targetUrl,
    stage(kind: 'capture' | 'apply'): Stage {
      const logFile = join(folder, `${name}-${++serial}.log`);
      const stage = new Stage({ configFile, only: `${kind}:${name}`, logFile, leaseTtlMs: LEASE_TTL_MS });
      stages.push(stage);
      stage.start();
      return stage;
    },
  };
}

const standsBy = (stage: Stage): Promise<unknown> =>
  waitFor('a process to stand by', async () => (await stage.status()).state === 'standby');

const endOf = async (stream: string): Promise<PgPosition> => asPgPosition((await readTail(nats, stream)).end);

/** All frames of a stream; readFrames throws where one does not join the one before it. */
async function allFrames(stream: string): Promise<ReceivedFrame[]> {
  const { seq } = await readTail(nats, stream);
  const { signal } = new AbortController();
  const frames: ReceivedFrame[] = [];
  for await (const frame of readFrames(nats, stream, { startSeq: 1, position: ORIGIN, signal })) {
    frames.push(frame);
    if (frame.seq >= seq) break;
  }
  for (const [i, frame] of frames.entries()) {
    expect(comparePositions(frame.start, frames[i - 1]?.end ?? ORIGIN), frame.place).toBe(0);
    if (i > 0) expect(frame.epoch, frame.place).toBeGreaterThanOrEqual(frames[i - 1]!.epoch);
  }
  return frames;
}

/**
 * Inserts transactions of many rows and of one, one after the other, until it is told to stop; gives their ids' end. It
 * pauses between the large ones: what is written faster than it is applied would have to be waited for in the end.
 */
function writeRows(db: pg.Client, bulkRows: number): { stop(): Promise<number> } {
  const state = { writing: true, next: 0 };
  const done = (async () => {
    for (let i = 0; state.writing; i++) {
      const rows = i % 4 === 0 ? bulkRows : 1;
      if (rows > 1) await delay(PAUSE_MS);
      await db.query(`insert into t select g, repeat('x', 100) from generate_series($1::int, $2::int) g`, [
        state.next,
        state.next + rows - 1,
      ]);
      state.next += rows;
    }
  })();
  done.catch(() => {});
  return {
    async stop() {
      state.writing = false;
      await done;
      return state.next;
    },
  };
}

describe('a capture that hangs and comes back', () => {
  it(
    'is fenced and stands by, and the stream has neither gap nor overlap',
    async () => {
      const { db, stream, stage } = await prepare('hangs');
      await db.query('create table t (id int primary key, note text)');
      let active = stage('capture');
      await waitFor('the capture to begin', async () => (await readTail(nats, stream)).seq > 0);
      let standby = stage('capture');
      await standsBy(standby);
      const writer = writeRows(db, 5000);
      const waits: number[] = [];
      for (let round = 0; round < 3; round++) {
        // In the middle of a transaction that spans frames.
        await waitFor('part of a transaction', async () => (await endOf(stream)).ordinal > 0);
        const { epoch } = await readTail(nats, stream);
        await active.suspend();
        const stoppedMs = performance.now();
        await waitFor('the takeover', async () => (await readTail(nats, stream)).epoch > epoch, TAKEOVER_MS);
        waits.push(performance.now() - stoppedMs);
        const { seq } = await readTail(nats, stream);
        active.signal('SIGCONT');
        await standsBy(active);
        await waitFor('the successor to go on', async () => (await readTail(nats, stream)).seq > seq + 20);
        [active, standby] = [standby, active];
      }
      process.stdout.write(`capture taken over after ${waits.map((ms) => Math.round(ms)).join(', ')} ms\n`);
      const count = await writer.stop();
      const lsn = (await db.query<{ lsn: string }>(`select pg_current_wal_insert_lsn() - '0/0' as lsn`)).rows[0]!.lsn;
      await waitFor('the rest', async () => (await endOf(stream)).lsn >= BigInt(lsn));
      const frames = await allFrames(stream);
      expect(new Set(frames.map((frame) => frame.epoch)).size).toBe(4);
      const inserted = frames.flatMap((frame) =>
        decodeFrame(frame.payload, frame.place)
          .rows.filter((row) => row[0] === 'i')
          .map((row) => Number(row[2]?.[0])),
      );
      expect(inserted.length).toBe(count);
      expect(inserted.every((id, n) => id === n)).toBe(true);
    },
    timeoutMs,
  );

  it(
    'in the middle of the first load gives up its place, its slot and its snapshot',
    async () => {
      const { db, store, stream, stage } = await prepare('loads');
      await db.query('create table t (id int primary key, note text)');
      await db.query(`insert into t select g, repeat('x', 100) from generate_series(0, 199999) g`);
      const flow = stage('apply');
      const first = stage('capture');
      const second = stage('capture');
      await waitFor('the load', async () => (await readTail(nats, stream)).seq > 30);
      const zombie = await waitFor('one of them to stand by', async () => {
        if ((await first.status()).state === 'standby') return second;
        return (await second.status()).state === 'standby' && first;
      });
      const { epoch } = await readTail(nats, stream);
      await zombie.suspend();
      await waitFor('the takeover', async () => (await readTail(nats, stream)).epoch > epoch, TAKEOVER_MS);
      zombie.signal('SIGCONT');
      await standsBy(zombie);
      await waitFor('all rows', async () => {
        const { rows } = await store.query<{ n: number }>('select count(*)::int as n from t');
        return rows[0]!.n === 200_000;
      });
      await allFrames(stream);
      expect((await flow.status()).state).not.toBe('blocked');
    },
    timeoutMs,
  );
});

describe('a capture that is far behind', () => {
  it(
    'goes on after the broker was gone while it read a slice',
    async () => {
      const { db, stream, stage } = await prepare('behind');
      await db.query('create table t (id int primary key, note text)');
      const capture = stage('capture');
      await waitFor('the capture to begin', async () => (await readTail(nats, stream)).seq > 0);
      await capture.end('SIGTERM');
      await db.query(`insert into t select g, repeat('x', 100) from generate_series(0, 199999) g`);
      const { seq } = await readTail(nats, stream);
      capture.start();
      await waitFor('the first slice', async () => (await readTail(nats, stream)).seq > seq + 20);
      await server.kill();
      // Longer than the publisher waits for an acknowledgement.
      await delay(12_000);
      await server.start();
      await waitFor('the capture to go on', async () => (await capture.status()).state !== 'starting');
      const lsn = (await db.query<{ lsn: string }>(`select pg_current_wal_insert_lsn() - '0/0' as lsn`)).rows[0]!.lsn;
      await waitFor('the rest', async () => (await endOf(stream)).lsn >= BigInt(lsn));
      const frames = await allFrames(stream);
      const inserted = frames.flatMap((frame) =>
        decodeFrame(frame.payload, frame.place)
          .rows.filter((row) => row[0] === 'i')
          .map((row) => Number(row[2]?.[0])),
      );
      expect(inserted.length).toBe(200_000);
      expect(inserted.every((id, n) => id === n)).toBe(true);
      await capture.end('SIGTERM');
    },
    timeoutMs,
  );
});

describe('sessions left in a target', () => {
  it(
    'are ended also in the middle of a COPY, and those of others are not',
    async () => {
      const { db, store, targetUrl, stage } = await prepare('leaves');
      await db.query('create table t (id int primary key, note text)');
      await db.query('insert into t values (1)');
      stage('capture');
      const apply = stage('apply');
      await waitFor('the first row', async () => (await store.query('select from t')).rowCount === 1);
      await apply.end('SIGTERM');

      const installation = await installationId(await openBucket(nats, natsConfig()));
      const left = new pg.Client({
        connectionString: targetUrl,
        application_name: sessionName('apply', 'leaves', installation),
      });
      const broken = new Promise((resolve) => left.on('error', resolve));
      await left.connect();
      await left.query('begin');
      await left.query('select from waybill.position for update');
      const copying = left.query(copyFrom('copy t from stdin'));
      copying.on('error', () => {});
      copying.write('2\tleft behind\n');
      const others = await Promise.all(
        [sessionName('apply', 'leaves', 'another'), sessionName('apply', 'leaves_too', installation)].map(
          async (name) => {
            const client = new pg.Client({ connectionString: targetUrl, application_name: name });
            await client.connect();
            clients.push(client);
            return client;
          },
        ),
      );

      await db.query('insert into t values (3)');
      stage('apply');
      await waitFor('the next row', async () => (await store.query('select from t')).rowCount === 2, TAKEOVER_MS);
      await broken;
      expect((await store.query<{ id: number }>('select id from t order by id')).rows).toEqual([{ id: 1 }, { id: 3 }]);
      for (const other of others) expect((await other.query('select')).rowCount).toBe(1);
    },
    timeoutMs,
  );
});

describe('an apply that hangs and comes back', () => {
  /** Whether somebody holds the row of the position in an open transaction. */
  const positionIsHeld = async (store: pg.Client): Promise<boolean> =>
    (await store.query('select from waybill.position for update skip locked')).rowCount === 0;

  /** Waits until the one session of a flow waits: for a lock, or for what its client sends next. */
  const sessionWaits = (store: pg.Client, what: 'Lock' | 'Client'): Promise<unknown> =>
    waitFor(`the flow's session to wait (${what})`, async () => {
      const { rows: sessions } = await store.query<{ wait: string | null }>(
        `select wait_event_type as wait from pg_stat_activity where application_name like 'waybill apply%'
           and datname = current_database()`,
      );
      return sessions.length === 1 && sessions[0]!.wait === what;
    });

  it(
    'with a transaction open in the target does not keep its successor waiting',
    async () => {
      const { db, store, stage, targetUrl } = await prepare('holds');
      const locker = await connect(targetUrl);
      await db.query('create table t (id int primary key, note text)');
      stage('capture');
      let active = stage('apply');
      await waitFor(
        'the flow to begin',
        async () => (await store.query('select from waybill.position')).rowCount === 1,
      );
      let standby = stage('apply');
      await standsBy(standby);
      const writer = writeRows(db, 5000);
      const rows = async (): Promise<number> =>
        (await store.query<{ n: number }>('select count(*)::int as n from t')).rows[0]!.n;
      const waits: number[] = [];
      for (let round = 0; round < 3; round++) {
        // A lock on its table keeps it in the middle of a transaction until it is stopped there.
        await waitFor('an open transaction', async () => {
          await locker.query('begin; lock table t in access exclusive mode');
          await sessionWaits(store, 'Lock');
          await active.suspend();
          await locker.query('commit');
          // Whatever it had sent is done when the server has nothing of it left to do; then it holds the row or not.
          await sessionWaits(store, 'Client');
          if (await positionIsHeld(store)) return true;
          active.signal('SIGCONT');
          return false;
        });
        const before = await rows();
        const stoppedMs = performance.now();
        await waitFor('the takeover', async () => (await rows()) > before, TAKEOVER_MS);
        waits.push(performance.now() - stoppedMs);
        active.signal('SIGCONT');
        await standsBy(active);
        [active, standby] = [standby, active];
      }
      process.stdout.write(`apply taken over after ${waits.map((ms) => Math.round(ms)).join(', ')} ms\n`);
      const count = await writer.stop();
      await waitFor('all rows', async () => (await rows()) === count);
      expect((await store.query('select from t where id not between 0 and $1', [count - 1])).rowCount).toBe(0);
      for (const one of [active, standby]) expect(one.running).toBe(true);
    },
    timeoutMs,
  );
});
