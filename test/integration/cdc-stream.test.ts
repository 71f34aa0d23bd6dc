/** Reading the stream of a source: without pauses, and over holes where that is allowed. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { readPositions } from '../../apply/postgres/position.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { addRequest, readRequests, removeRequest } from '../../capture/request-queue.ts';
import { requestSnapshot, type SnapshotRequest } from '../../capture/snapshot-request.ts';
import { cdcStreamName, ensureCdcStream, readFrames, readReset, readTail } from '../../core/cdc-stream.ts';
import { parseConfig, type Config, type PostgresSourceConfig } from '../../core/config.ts';
import { decodeFrame } from '../../core/frame.ts';
import { FramePublisher } from '../../core/frame-publisher.ts';
import { openBucket } from '../../core/lease.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT, NO_FLOW_REPORT } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { gtidPosition, type GtidPosition } from '../../core/gtid-position.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { asPgPosition, formatPosition, ORIGIN, pgPosition, type Position } from '../../core/position.ts';
import { findStartSequence } from '../../core/start-sequence.ts';
import { compareDatabases } from '../../sandbox/demo/equality.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait.ts';

const log = createLogger('silent');
let server: NatsServer;
let nats: Nats;
let source: PostgresServer;
let target: PostgresServer;
const running: { stop(): Promise<void> }[] = [];
const clients: pg.Client[] = [];

beforeAll(async () => {
  [server, source, target] = await Promise.all([startNats(), startPostgres(), startPostgres()]);
  nats = await connectNats(configFor('x').nats, 'test');
});
afterEach(async () => {
  for (const one of running.splice(0)) await one.stop();
  for (const client of clients.splice(0)) await client.end();
});
afterAll(async () => {
  await nats?.close();
  await Promise.all([server?.dispose(), source?.dispose(), target?.dispose()]);
});

function configFor(name: string, sourceUrl = 'postgresql://nowhere/db', targetUrl = sourceUrl): Config {
  return parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: [server.url], stream: { sync_interval: '0s', max_bytes: '1GB' } },
      sources: { [name]: { kind: 'postgres', url: sourceUrl, heartbeat: '1s' } },
      targets: { store: { kind: 'postgres', url: targetUrl } },
      flows: { [name]: { mirror: name, to: 'store', schema: 'copy' } },
    }),
    {},
  );
}

it('a slow reader of small and large frames is never kept waiting', async () => {
  const name = 'mixed';
  const stream = cdcStreamName('waybill', name);
  await ensureCdcStream(nats, configFor(name).nats, name);
  const publisher = new FramePublisher(nats, configFor(name).nats, {
    source: name,
    origin: 'o',
    epoch: 1,
    tail: await readTail(nats, stream),
  });
  // Bytes that do not compress, in sizes that fill what is left of any budget by bytes in ever other ways.
  const noise = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => ((i * 2_654_435_761) >>> 13) & 0xff));
  const sizes = Array.from({ length: 240 }, (_, i) => (i % 3 === 0 ? (1 << 20) - 2048 - i * 97 : 200 + i * 331));
  for (const [i, size] of sizes.entries())
    await publisher.publish({
      payload: noise.subarray(0, size),
      start: i === 0 ? ORIGIN : pgPosition(BigInt(i)),
      end: pgPosition(BigInt(i + 1)),
      rows: 1,
      transactions: 1,
      timeUs: 0,
    });
  const received: number[] = [];
  const stop = new AbortController();
  let longestMs = 0;
  let askedMs = performance.now();
  for await (const frame of readFrames(nats, stream, { startSeq: 1, position: ORIGIN, signal: stop.signal })) {
    longestMs = Math.max(longestMs, performance.now() - askedMs);
    received.push(frame.payload.length);
    if (received.length === sizes.length) break;
    await delay(10);
    askedMs = performance.now();
  }
  stop.abort();
  expect(received).toEqual(sizes);
  // A request that is only served again when it expires shows as a pause of several seconds.
  expect(longestMs).toBeLessThan(2000);
});

it('a reader of another history begins at the frame that this one begins with, noted yet or not', async () => {
  const name = 'histories';
  const { nats: config } = configFor(name);
  const stream = cdcStreamName('waybill', name);
  await ensureCdcStream(nats, config, name);
  const tail = await readTail(nats, stream);
  const publisher = new FramePublisher(nats, config, { source: name, origin: 'o', epoch: 1, tail });
  const at = (upTo: number, reads: number): GtidPosition =>
    gtidPosition(MysqlGtidSet.of(new Map([['3e11fa47-71ca-11e1-9e33-c80aa9429562', [1, upTo]]])), reads);
  const frame = { payload: Buffer.from('x'), rows: 0, transactions: 0, timeUs: 0 };
  await publisher.publish({ ...frame, start: ORIGIN, end: at(73, 0), reset: true });
  // It has read more tables than this history has, and less of the log: neither is before the other.
  expect(await findStartSequence(nats, stream, at(63, 5), 40)).toBe(1);
  await publisher.publish({ ...frame, start: at(73, 0), end: at(73, 1) });
  expect(await findStartSequence(nats, stream, at(63, 5), 40)).toBe(1);
  // It has taken more of both, but elsewhere.
  expect(await findStartSequence(nats, stream, at(73, 9), 0)).toBe(1);
  expect(await findStartSequence(nats, stream, at(73, 0), 1)).toBe(2);
});

it('a hole that a position lies behind concerns nobody, also where the place in this stream is not known', async () => {
  const name = 'passed';
  const { nats: config } = configFor(name);
  const stream = cdcStreamName('waybill', name);
  await ensureCdcStream(nats, config, name);
  const tail = await readTail(nats, stream);
  const publisher = new FramePublisher(nats, config, { source: name, origin: 'o', epoch: 1, tail });
  const frame = { payload: Buffer.from('x'), rows: 0, transactions: 0, timeUs: 0 };
  const at = (n: number): Position => (n === 0 ? ORIGIN : pgPosition(BigInt(n * 10)));
  for (let n = 0; n < 8; n++) await publisher.publish({ ...frame, start: at(n), end: at(n + 1) });
  await nats.manager.streams.deleteMessage(stream, 3);
  // The sequence that a target has noted for another stream is no sequence of this one: 0.
  for (const seq of [undefined, 0, 7]) expect(await findStartSequence(nats, stream, at(7), seq)).toBe(8);
  await expect(findStartSequence(nats, stream, at(2), 2)).rejects.toMatchObject({ code: 'stream_gap' });
  const reading = readFrames(nats, stream, {
    startSeq: await findStartSequence(nats, stream, at(2), 0),
    position: at(2),
    signal: AbortSignal.timeout(10_000),
  });
  await expect(reading.next()).rejects.toMatchObject({ code: 'stream_gap' });
});

it('a position that is too long for a message is refused', async () => {
  const name = 'positions';
  const { nats: config } = configFor(name);
  await ensureCdcStream(nats, config, name);
  const tail = await readTail(nats, cdcStreamName('waybill', name));
  const publisher = new FramePublisher(nats, config, { source: name, origin: 'o', epoch: 1, tail });
  const hex = (n: number): string => n.toString(16).padStart(12, '0');
  const sources = Array.from({ length: 1000 }, (_, n) => [`3e11fa47-71ca-11e1-9e33-${hex(n)}`, [1, 1]] as const);
  const position = gtidPosition(MysqlGtidSet.of(new Map(sources)));
  const payload = Buffer.from('{}');
  const frame = { payload, start: position, end: position, rows: 0, transactions: 0, timeUs: 0 };
  await expect(publisher.publish(frame)).rejects.toMatchObject({ code: 'nats_payload_too_small' });
});

it('who publishes hears at once that the connection broke', async () => {
  const name = 'broken';
  const { nats: config } = configFor(name);
  await ensureCdcStream(nats, config, name);
  const tail = await readTail(nats, cdcStreamName('waybill', name));
  const proxy = await TcpProxy.start({ host: '127.0.0.1', port: Number(new URL(server.url).port) });
  const connection = await connectNats({ ...config, servers: [`nats://127.0.0.1:${proxy.port}`] }, 'test');
  try {
    const publisher = new FramePublisher(connection, config, { source: name, origin: 'o', epoch: 1, tail });
    const frame = { payload: Buffer.from('{}'), start: ORIGIN, rows: 0, transactions: 0, timeUs: 0 };
    await publisher.publish({ ...frame, end: pgPosition(1n) });
    proxy.freeze();
    const publishing = publisher.publish({ ...frame, start: pgPosition(1n), end: pgPosition(2n) });
    proxy.thaw();
    // Not that the time for it is up.
    await expect(publishing).rejects.toMatchObject({ code: 'nats_unreachable' });
    await waitFor('the connection to be there again', async () => {
      const { seq } = await readTail(connection, cdcStreamName('waybill', name));
      return seq === 1;
    });
  } finally {
    await connection.close();
    await proxy.close();
  }
});

it('who asks hears at once that the connection broke, and that there is none', async () => {
  const name = 'asked';
  const { nats: config } = configFor(name);
  await ensureCdcStream(nats, config, name);
  const stream = cdcStreamName('waybill', name);
  const proxy = await TcpProxy.start({ host: '127.0.0.1', port: Number(new URL(server.url).port) });
  const connection = await connectNats({ ...config, servers: [`nats://127.0.0.1:${proxy.port}`] }, 'test');
  try {
    const bucket = await openBucket(connection, config);
    const questions = [
      (): Promise<unknown> => connection.manager.streams.info(stream),
      (): Promise<unknown> => bucket.get('asked'),
      (): Promise<unknown> => bucket.put('asked', 'x'),
      (): Promise<unknown> => readTail(connection, stream),
    ];
    const outcomes = async (): Promise<string[]> =>
      await Promise.all(
        questions.map((ask) =>
          ask().then(
            () => 'answered',
            (thrown: unknown) => (thrown as { code?: string }).code ?? String(thrown),
          ),
        ),
      );
    expect(await outcomes()).toEqual(questions.map(() => 'answered'));
    proxy.freeze();
    const asking = outcomes();
    proxy.cut();
    // Not that the time for it is up.
    expect(await asking).toEqual(questions.map(() => 'nats_unreachable'));
    expect(await outcomes()).toEqual(questions.map(() => 'nats_unreachable'));
    proxy.thaw();
    proxy.mend();
    await waitFor('answers again', async () => (await outcomes()).every((outcome) => outcome === 'answered'));
  } finally {
    await connection.close();
    await proxy.close();
  }
});

/** Frames of one position each, to which the stream is made. */
async function publishFrames(name: string, from: number, to: number): Promise<void> {
  const { nats: config } = configFor(name);
  await ensureCdcStream(nats, config, name);
  const tail = await readTail(nats, cdcStreamName('waybill', name));
  const publisher = new FramePublisher(nats, config, { source: name, origin: 'o', epoch: 1, tail });
  for (let i = from; i < to; i++)
    await publisher.publish({
      payload: Buffer.from('{}'),
      start: i === 0 ? ORIGIN : pgPosition(BigInt(i)),
      end: pgPosition(BigInt(i + 1)),
      rows: 0,
      transactions: 0,
      timeUs: 0,
    });
}

it('a reader takes what comes while it asks for the stream for no stream that has lost its newest frames', async () => {
  const name = 'asked';
  const stream = cdcStreamName('waybill', name);
  await publishFrames(name, 0, 5);
  let read = 0;
  let asked = 0;
  const stop = new AbortController();
  // Answers that take a while: frames come meanwhile.
  const info: Nats['manager']['streams']['info'] = async (...of) => {
    const answer = await nats.manager.streams.info(...of);
    if (++asked === 2) {
      await publishFrames(name, 5, 8);
      await waitFor('the frames that came meanwhile', async () => read === 8);
    }
    return answer;
  };
  const streams = Object.create(nats.manager.streams, { info: { value: info } }) as Nats['manager']['streams'];
  const manager = Object.create(nats.manager, { streams: { value: streams } }) as Nats['manager'];
  const reading = (async () => {
    const frames = readFrames({ ...nats, manager }, stream, { startSeq: 1, position: ORIGIN, signal: stop.signal });
    for await (const { seq } of frames) read = seq;
  })();
  const looksAgain = waitFor('another look', async () => asked > 2, 30_000).finally(() => stop.abort());
  await Promise.all([reading, looksAgain]);
  expect(read).toBe(8);
}, 60_000);

it('a reader of a stream that is removed does not wait for ever', async () => {
  const name = 'removed';
  const stream = cdcStreamName('waybill', name);
  const publish = (from: number, to: number): Promise<void> => publishFrames(name, from, to);
  await publish(0, 5);
  const reading = (async () => {
    let read = 0;
    for await (const { seq } of readFrames(nats, stream, {
      startSeq: 1,
      position: ORIGIN,
      signal: AbortSignal.timeout(30_000),
    })) {
      read = seq;
      if (seq !== 5) continue;
      await nats.manager.streams.delete(stream);
      await publish(0, 3);
    }
    return read;
  })();
  await expect(reading).rejects.toMatchObject({ code: expect.stringMatching(/^stream_/) as string });
});

it('a reader whose consumer lives and delivers nothing does not wait for ever, and one that takes its time is left alone', async () => {
  const name = 'stalled';
  const stream = cdcStreamName('waybill', name);
  await publishFrames(name, 0, 3);
  const read: number[] = [];
  const taken = waitForEvent();
  const slow = waitForEvent();
  const reading = (async () => {
    const options = { startSeq: 1, position: ORIGIN, signal: AbortSignal.timeout(60_000), stalledLooks: 2 };
    for await (const { seq } of readFrames(nats, stream, options)) {
      read.push(seq);
      if (seq !== 3) continue;
      taken.happens();
      await slow.happened;
    }
  })();
  const failed = expect(reading).rejects.toMatchObject({ code: 'nats_timeout' });
  await taken.happened;
  // Heartbeats go on while a consumer pauses.
  for await (const { name: consumer } of nats.manager.consumers.list(stream))
    await nats.manager.consumers.pause(stream, consumer, new Date(Date.now() + 3_600_000));
  await publishFrames(name, 3, 5);
  let looks = 0;
  const { info } = nats.manager.streams;
  nats.manager.streams.info = async (...args) =>
    await info.apply(nats.manager.streams, args).finally(() => (looks += 1));
  try {
    await waitFor('looks while what came is not done with', async () => looks > 3, 60_000);
    slow.happens();
    await failed;
  } finally {
    nats.manager.streams.info = info;
  }
  expect(read).toEqual([1, 2, 3]);
}, 90_000);

/** Something that one waits for until another says so. */
function waitForEvent(): { readonly happened: Promise<void>; happens(): void } {
  let happens!: () => void;
  const happened = new Promise<void>((resolve) => (happens = resolve));
  return { happened, happens };
}

describe('a flow whose next frame is gone', () => {
  /** A source with its capture and flow. Frames expire when `forget` says so. */
  async function prepare(name: string) {
    const [sourceUrl, targetUrl] = await Promise.all([source.createDatabase(name), target.createDatabase(name)]);
    const config = configFor(name, sourceUrl, targetUrl);
    const stream = cdcStreamName('waybill', name);
    const [db, store] = await Promise.all(
      [sourceUrl, targetUrl].map(async (url) => {
        const client = new pg.Client(url);
        await client.connect();
        clients.push(client);
        return client;
      }) as [Promise<pg.Client>, Promise<pg.Client>],
    );
    await db.query('create table t (id int primary key, v text)');
    await db.query(`insert into t select i, 'first' from generate_series(1, 2000) i`);
    const start = (run: (signal: AbortSignal) => Promise<void>): { stop(): Promise<void> } => {
      const controller = new AbortController();
      const done = run(controller.signal);
      done.catch(() => {});
      const stage = {
        stop: async () => {
          controller.abort();
          await done;
        },
      };
      running.push(stage);
      return stage;
    };
    const common = { name, nats: config.nats, leaseTtlMs: 1000, log };
    const settings = config.sources[name] as PostgresSourceConfig;
    start((signal) =>
      runPostgresCapture({ ...common, settings, holder: randomUUID(), signal, report: NO_CAPTURE_REPORT }),
    );
    const states: string[] = [];
    const flow = (): { stop(): Promise<void> } =>
      start((signal) =>
        runMirrorFlow({
          ...common,
          settings: config.flows[name]!,
          store: createPostgresStore({ kind: 'postgres', url: targetUrl }),
          holder: randomUUID(),
          signal,
          report: { ...NO_FLOW_REPORT, state: (state, detail = '') => void states.push(`${state} ${detail}`) },
        }),
      );
    /** Waits until all that is committed now is in the stream. */
    const captured = async (): Promise<void> => {
      const { rows } = await db.query<{ lsn: string }>(
        `select pg_logical_emit_message(true, 'test', 'here') - '0/0' as lsn`,
      );
      const written = BigInt(rows[0]!.lsn);
      await waitFor('the stream', async () => asPgPosition((await readTail(nats, stream)).end).lsn > written);
    };
    const copyEquals = async (): Promise<void> => {
      await captured();
      const { end } = await readTail(nats, stream);
      await waitFor(`the target to stand where the stream does; states ${states.slice(-3).join(', ')}`, async () => {
        const [at] = await readPositions(store);
        return at !== undefined && at.position >= formatPosition(end);
      });
      // The first load may have yet to begin.
      await waitFor('both sides to be equal', async () => {
        const differences = await compareDatabases(sourceUrl, targetUrl, ['public.t'], 'copy');
        if (differences.length > 0) throw new Error(JSON.stringify(differences.slice(0, 3)));
        return true;
      });
    };
    /** Asks for a snapshot from scratch, and waits until it is under way. */
    const reset = async (): Promise<void> => {
      const before = await readReset(nats, stream);
      await requestSnapshot(config.nats, name, { reset: true });
      await waitFor('the reset', async () => (await readReset(nats, stream)) > before);
      await waitFor('the snapshot', async () => {
        const stop = new AbortController();
        const from = await readReset(nats, stream);
        const { seq } = await readTail(nats, stream);
        if (seq <= from) return false;
        try {
          for await (const frame of readFrames(nats, stream, {
            startSeq: from,
            position: ORIGIN,
            signal: stop.signal,
          })) {
            const { rows } = decodeFrame(frame.payload, frame.place);
            if (rows.some((row) => row[0] === 's' && row[2]?.[1] === 'end')) return true;
            if (frame.seq >= seq) return false;
          }
          return false;
        } finally {
          stop.abort();
        }
      });
    };
    /** Changes in several frames, deletions among them, that the flow does not see. */
    const change = async (round: number): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        const from = round * 200 + i * 20;
        await db.query('delete from t where id between $1 and $2', [from + 1, from + 10]);
        await db.query(`update t set v = $1 where id between $2 and $3`, [`${round}.${i}`, from + 11, from + 15]);
        await db.query('insert into t values ($1, $2)', [10_000 + from, 'new']);
        await captured();
      }
    };
    const position = async (): Promise<number> => (await readPositions(store))[0]!.streamSeq;
    const forget = (upTo: number): Promise<unknown> => nats.manager.streams.purge(stream, { seq: upTo + 1 });
    return { stream, db, store, states, flow, copyEquals, reset, change, position, forget };
  }

  it('goes on from where everything was read again, though older frames are still there', async () => {
    const { stream, store, states, flow, copyEquals, reset, change, position, forget } = await prepare('jumps');
    const first = flow();
    await copyEquals();
    await first.stop();
    await change(1);
    await reset();
    await change(2);
    const at = await position();
    const resetSeq = await readReset(nats, stream);
    expect(resetSeq).toBeGreaterThan(at + 4);
    await forget(at + 2);
    const { state } = await nats.manager.streams.info(stream);
    expect(state.first_seq, 'the first frame kept is not the reset').toBeLessThan(resetSeq);
    flow();
    await copyEquals();
    expect(states.some((text) => text.startsWith('blocked'))).toBe(false);
    // Nothing of the snapshot is left behind in the target.
    expect((await store.query(`select from pg_class where relname like 'seen\\_%'`)).rowCount).toBe(0);
  });

  it('never goes back over a frame that was deleted, and is equal again after the remedy', async () => {
    const { stream, db, store, states, flow, copyEquals, reset, change, position } = await prepare('holed');
    // Whoever went back would be refused by this.
    const forward = async (): Promise<unknown> =>
      store.query(`create function forward() returns trigger language plpgsql as $$ begin
          if new.stream_seq < old.stream_seq then raise 'it goes back from % to %', old.stream_seq, new.stream_seq; end if;
          return new; end $$;
        create trigger forward before update on waybill.position for each row execute function forward()`);
    const first = flow();
    await copyEquals();
    await forward();
    await first.stop();
    await change(1);
    const at = await position();
    await nats.manager.streams.deleteMessage(stream, at + 3);
    await change(2);
    flow();
    await waitFor('the flow to halt', async () => states.some((text) => text.startsWith('blocked stream_gap')));
    expect(await position()).toBe(at + 2);
    await reset();
    await copyEquals();
    // The next frame itself, and a flow that comes when all has been read again.
    await running.pop()!.stop();
    await change(3);
    await nats.manager.streams.deleteMessage(stream, (await position()) + 1);
    await reset();
    await change(4);
    states.length = 0;
    const next = flow();
    await copyEquals();
    expect(states.some((text) => text.startsWith('blocked'))).toBe(false);
    // Far behind the next one that is gone, which comes when the flow has long passed where it looked.
    await next.stop();
    await change(5);
    await reset();
    await nats.manager.streams.deleteMessage(stream, (await position()) + 3);
    await db.query(`insert into t values (30000, 'last')`);
    flow();
    await copyEquals();
    expect(states.some((text) => text.startsWith('blocked'))).toBe(false);
  });

  it('halts where that place is gone too, changes nothing, and goes on after the next reset', async () => {
    const { stream, db, store, states, flow, copyEquals, reset, change, position, forget } = await prepare('expires');
    const first = flow();
    await copyEquals();
    await first.stop();
    await change(1);
    await reset();
    await change(2);
    const at = await position();
    const rows = async (): Promise<unknown> => (await store.query('select * from copy.t order by id')).rows;
    const before = await rows();
    await forget((await readReset(nats, stream)) + 1);
    flow();
    await waitFor('the flow to halt', async () => states.some((text) => text.startsWith('blocked stream_gap')));
    expect(await position()).toBe(at);
    expect(await rows()).toEqual(before);
    await db.query(`insert into t values (20000, 'last')`);
    await reset();
    await copyEquals();
  });
});

it('requests for snapshots wait in their order, and none takes the place of another', async () => {
  const config = configFor('queue').nats;
  const bucket = await openBucket(nats, config);
  // As a version wrote it that knew no others.
  await bucket.put('snapshot-request.queue', JSON.stringify({ v: 1, id: 'old', tables: ['public.a'] }));
  const ids = await Promise.all(
    Array.from({ length: 12 }, (_, n) => requestSnapshot(config, 'queue', { tables: [`public.t${n}`] })),
  );
  const waiting = await readRequests(bucket, 'queue');
  expect(waiting[0]).toEqual({ v: 1, id: 'old', tables: ['public.a'] });
  expect(waiting.map(({ id }) => id).toSorted()).toEqual(['old', ...ids].toSorted());
  await Promise.all(['old', ...ids, 'unknown'].map((id) => removeRequest(bucket, 'queue', id)));
  expect(await readRequests(bucket, 'queue')).toEqual([]);
  const big = (id: string): SnapshotRequest => ({ v: 1, id, keys: [['x'.repeat(300_000)]] });
  expect(await addRequest(bucket, 'queue', big('one'))).toBe(true);
  expect(await addRequest(bucket, 'queue', big('two'))).toBe(false);
  expect((await readRequests(bucket, 'queue')).map(({ id }) => id)).toEqual(['one']);
});
