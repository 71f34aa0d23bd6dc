/** Two writers of one stream: safety rests on the stream's expected sequence, whatever the lease says. */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { ProgressStore, readProgress, type SnapshotProgress } from '../../capture/snapshot-request.ts';
import {
  cdcStreamName,
  ensureCdcStream,
  readFrames,
  readTail,
  type ReceivedFrame,
  type StreamTail,
} from '../../core/cdc-stream.ts';
import { parseConfig, type Config, type PostgresSourceConfig } from '../../core/config.ts';
import { FramePublisher, type SealedFrame } from '../../core/frame-publisher.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { decodeFrame, type TableSchema } from '../../core/frame.ts';
import { openBucket } from '../../core/lease.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asPgPosition, comparePositions, ORIGIN, pgPosition, type Position } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { findStartSequence } from '../../core/start-sequence.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;
const log = createLogger('silent');
const TABLE: TableSchema = {
  schema: 'public',
  name: 't',
  version: 'v',
  identity: 'default',
  key: ['id'],
  columns: [{ name: 'id', type: 'bigint', portable: 'bigint', notNull: true }],
};

function lsnOf(position: Position): number {
  return Number(asPgPosition(position).lsn);
}

let server: NatsServer;
let nats: Nats;
let other: Nats;
let postgres: PostgresServer;

beforeAll(async () => {
  [server, postgres] = await Promise.all([startNats({ config: { maxPayload: 64 * 1024 } }), startPostgres()]);
  [nats, other] = await Promise.all(
    [configFor('x').nats, configFor('x').nats].map((config) => connectNats(config, 'test')) as [
      Promise<Nats>,
      Promise<Nats>,
    ],
  );
}, timeoutMs);
afterAll(async () => {
  await Promise.all([nats?.close(), other?.close()]);
  await Promise.all([server?.dispose(), postgres?.dispose()]);
}, timeoutMs);

function configFor(source: string, url = 'postgresql://nowhere/db'): Config {
  return parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: [server.url], stream: { sync_interval: '0s', max_bytes: '1GB' } },
      sources: { [source]: { kind: 'postgres', url, heartbeat: '1s', frame_bytes: '4KB' } },
    }),
    {},
  );
}

/** All frames of a stream; readFrames throws where one does not join the one before it. */
async function allFrames(stream: string): Promise<ReceivedFrame[]> {
  const { seq } = await readTail(nats, stream);
  const stop = new AbortController();
  const frames: ReceivedFrame[] = [];
  for await (const frame of readFrames(nats, stream, { startSeq: 1, position: ORIGIN, signal: stop.signal })) {
    frames.push(frame);
    if (frame.seq >= seq) break;
  }
  stop.abort();
  for (const [i, frame] of frames.entries()) {
    const before = frames[i - 1]?.end ?? ORIGIN;
    expect(comparePositions(frame.start, before), `${frame.place} joins the one before`).toBe(0);
    if (i > 0) expect(frame.epoch, frame.place).toBeGreaterThanOrEqual(frames[i - 1]!.epoch);
  }
  return frames;
}

const idsOf = (frames: readonly ReceivedFrame[]): number[] =>
  frames.flatMap((frame) =>
    decodeFrame(frame.payload, frame.place)
      .rows.filter((row) => row[0] === 'i' || row[0] === 'r')
      .map((row) => Number(row[2]?.[0])),
  );

describe('two publishers on one stream', () => {
  /** A frame that holds the rows from `from` to before `to`: row n is the transaction that ends at n + 1. */
  const frameOf = (from: number, to: number, padding = 0): SealedFrame => {
    const writer = new FrameWriter(1024);
    for (let n = from; n < to; n++) {
      const text = Buffer.from(String(n).padStart(padding, '0'));
      writer.beginRow('i', TABLE);
      writer.beginTuple();
      writer.writeText(text, 0, text.length);
      writer.endTuple();
      writer.endRow();
    }
    writer.addTransaction([1, '0', '0', 1, to - from, 'whole', 0]);
    const payload = writer.finish();
    return {
      payload,
      start: pgPosition(BigInt(from)),
      end: pgPosition(BigInt(to)),
      rows: to - from,
      transactions: 1,
      timeUs: 1,
    };
  };
  const publisherOn = (connection: Nats, source: string, tail: StreamTail, epoch = 1): FramePublisher =>
    new FramePublisher(connection, configFor(source).nats, { source, origin: 'o', epoch, tail });
  const conflict = expect.objectContaining({ code: 'stream_conflict' }) as unknown;

  it('that cut the same log in other places: one of them wins each time', async () => {
    const source = 'cuts';
    const stream = cdcStreamName('waybill', source);
    await ensureCdcStream(nats, configFor(source).nats, source);
    const wins = [0, 0];
    for (let round = 0; round < 60; round++) {
      const tail = await readTail(nats, stream);
      const from = lsnOf(tail.end);
      const racers = [nats, other].map((connection) => publisherOn(connection, source, tail));
      const lengths = [1 + (round % 7), 2 + ((round * 5) % 6)];
      // Whoever is asked first changes with the round.
      const order = round % 2 === 0 ? [0, 1] : [1, 0];
      const outcomes: PromiseSettledResult<void>[] = [];
      await Promise.all(
        order.map(async (i) => {
          [outcomes[i]] = await Promise.allSettled([racers[i]!.publish(frameOf(from, from + lengths[i]!))]);
        }),
      );
      expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected']);
      const winner = outcomes.findIndex((outcome) => outcome.status === 'fulfilled');
      expect((outcomes[1 - winner] as PromiseRejectedResult).reason).toEqual(conflict);
      wins[winner]! += 1;
      // The loser stays out for good, even at the place where the winner now is.
      const loser = racers[1 - winner]!;
      const end = (await readTail(nats, stream)).end;
      expect(lsnOf(end)).toBe(from + lengths[winner]!);
      await expect(loser.publish(frameOf(lsnOf(end), lsnOf(end) + 1))).rejects.toEqual(conflict);
      await racers[winner]!.publish(frameOf(lsnOf(end), lsnOf(end) + 1));
    }
    expect(wins[0]! + wins[1]!).toBe(60);
    expect(Math.min(...wins)).toBeGreaterThan(0);
    const ids = idsOf(await allFrames(stream));
    expect(ids).toEqual(ids.map((_, n) => n));
    expect(ids.length).toBe(lsnOf((await readTail(nats, stream)).end));
  });

  it('of which one is overtaken between the pieces of a frame', async () => {
    const source = 'pieces';
    const stream = cdcStreamName('waybill', source);
    await ensureCdcStream(nats, configFor(source).nats, source);
    let overtaken = 0;
    for (let round = 0; round < 8; round++) {
      const tail = await readTail(nats, stream);
      const from = lsnOf(tail.end);
      const big = publisherOn(nats, source, tail, 2 * round + 1).publish(frameOf(from, from + 2, 2 << 20));
      const state = { finished: false };
      const outcome = Promise.allSettled([big]).finally(() => (state.finished = true));
      // The other one asks again and again for the place behind the first pieces, until the stream is there.
      const midway = { ...tail, seq: tail.seq + 3 + round };
      let won = false;
      while (!won && !state.finished) {
        const small = publisherOn(other, source, midway, 2 * round + 2).publish(frameOf(from, from + 1));
        const [attempt] = await Promise.allSettled([small]);
        won = attempt.status === 'fulfilled';
        if (attempt.status === 'rejected') expect(attempt.reason).toEqual(conflict);
      }
      if (won) overtaken += 1;
      const [first] = await outcome;
      const { end } = await readTail(other, stream);
      if (first.status === 'rejected') {
        expect(first.reason).toEqual(conflict);
        expect(lsnOf(end)).toBe(from + 1);
      } else expect(lsnOf(end)).toBe(from + 2);
      // Whatever was left behind, the next one goes on from the end of the stream.
      const next = await readTail(other, stream);
      const at = lsnOf(next.end);
      await publisherOn(other, source, next, 2 * round + 2).publish(frameOf(at, at + 1, round % 2 === 0 ? 100_000 : 0));
    }
    const ids = idsOf(await allFrames(stream));
    expect(ids).toEqual(ids.map((_, n) => n));
    expect(overtaken).toBeGreaterThan(0);
    // From every place a reader begins at the first piece of the frame that starts there, past those left behind.
    for (const { start, end, place } of await allFrames(stream)) {
      const startSeq = await findStartSequence(nats, stream, start);
      const stop = new AbortController();
      for await (const frame of readFrames(nats, stream, { startSeq, position: start, signal: stop.signal })) {
        expect(frame.end, place).toEqual(end);
        break;
      }
      stop.abort();
    }
  });

  it('of which a stale one comes back after its frame was stored unseen', async () => {
    const source = 'stale';
    const stream = cdcStreamName('waybill', source);
    await ensureCdcStream(nats, configFor(source).nats, source);
    const tail = await readTail(nats, stream);
    const frame = frameOf(0, 3);
    await publisherOn(nats, source, tail).publish(frame);
    // The same frame once more, as after an acknowledgement that was lost.
    await expect(publisherOn(nats, source, tail).publish(frame)).rejects.toEqual(conflict);
    expect(idsOf(await allFrames(stream))).toEqual([0, 1, 2]);
  });
});

it('the progress of a snapshot is written by the last who read it alone', async () => {
  const bucket = await openBucket(nats, configFor('x').nats);
  const [first, second] = [new ProgressStore(bucket, 'progress'), new ProgressStore(bucket, 'progress')];
  const progress = (cursor: string): SnapshotProgress => ({
    v: 1,
    id: 'one',
    tables: [{ schema: 'public', name: 't', state: 'running', cursor: [cursor], rows: 1 }],
  });
  const conflict = expect.objectContaining({ code: 'stream_conflict' }) as unknown;
  expect(await first.read()).toBeUndefined();
  await first.write(progress('1'));
  await first.write(progress('2'));
  await expect(second.write(progress('9'))).rejects.toEqual(conflict);
  expect(await second.read()).toEqual(progress('2'));
  await second.write(progress('3'));
  await expect(first.write(progress('2'))).rejects.toEqual(conflict);
  expect(await readProgress(bucket, 'progress')).toEqual(progress('3'));
  // What a teardown leaves behind does not keep a new capture out.
  await bucket.purge('snapshot.progress');
  expect(await second.read()).toBeUndefined();
  await second.write(progress('1'));
});

describe('two captures of one source', () => {
  const running: { stop(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const capture of running.splice(0)) await capture.stop();
  }, timeoutMs);

  it(
    'take turns, and the stream goes on without hole or repeat',
    async () => {
      const name = 'turns';
      const url = await postgres.createDatabase(name);
      const config = configFor(name, url);
      const stream = cdcStreamName('waybill', name);
      const client = new pg.Client(url);
      await client.connect();
      await client.query('create table t (id bigint primary key)');
      await client.query('insert into t select generate_series(0, 999)');

      const start = (holder: string): { states: string[]; stop(): Promise<void>; failure(): unknown } => {
        const controller = new AbortController();
        const states: string[] = [];
        let failure: unknown;
        const done = runPostgresCapture({
          name,
          settings: config.sources[name] as PostgresSourceConfig,
          nats: config.nats,
          holder,
          leaseTtlMs: 1500,
          log,
          signal: controller.signal,
          report: {
            ...NO_CAPTURE_REPORT,
            state: (state, detail = '') => void states.push(`${state} ${detail}`.trim()),
          },
        }).catch((thrown: unknown) => (failure = thrown));
        const capture = {
          states,
          failure: () => failure,
          async stop() {
            controller.abort();
            await done;
          },
        };
        running.push(capture);
        return capture;
      };

      let next = 1000;
      const state = { writing: true };
      const writer = (async () => {
        for (; state.writing; next += 5)
          await client.query(`insert into t select generate_series(${next}, ${next + 4})`);
      })();
      writer.catch(() => {});

      let active = start('holder 0');
      await waitFor('the first to capture', async () => (await readTail(nats, stream)).seq > 3);
      for (let turn = 1; turn <= 3; turn++) {
        const standby = start(`holder ${turn}`);
        await waitFor('the second to stand by', async () =>
          standby.states.includes(`standby held by holder ${turn - 1}`),
        );
        const quiet = standby.states.length;
        const seen = (await readTail(nats, stream)).seq;
        await waitFor('the first to go on', async () => (await readTail(nats, stream)).seq > seen + 5);
        expect(standby.states.slice(quiet), 'a standby stays one').toEqual([]);
        await active.stop();
        expect(active.failure()).toBeUndefined();
        const { epoch } = await readTail(nats, stream);
        await waitFor('the second to take over', async () => (await readTail(nats, stream)).epoch > epoch);
        active = standby;
      }
      state.writing = false;
      await writer;
      const { rows } = await client.query<{ count: string }>('select count(*) from t');
      expect(Number(rows[0]!.count)).toBe(next);
      await waitFor('all rows', async () => new Set(idsOf(await allFrames(stream))).size === next);
      await client.end();

      const frames = await allFrames(stream);
      expect(new Set(frames.map((frame) => frame.epoch)).size).toBe(4);
      // A row may be read by the first load and be in the log before it; nothing else is there twice.
      const inserted = frames.flatMap((frame) =>
        decodeFrame(frame.payload, frame.place)
          .rows.filter((row) => row[0] === 'i')
          .map((row) => Number(row[2]?.[0])),
      );
      expect(inserted).toEqual([...inserted].sort((a, b) => a - b));
      expect(new Set(inserted).size).toBe(inserted.length);
    },
    timeoutMs,
  );

  const capture = (
    name: string,
    config: Config,
    holder: string,
    signal: AbortSignal,
    more: Partial<PostgresSourceConfig> = {},
  ): Promise<void> => {
    const settings = { ...(config.sources[name] as PostgresSourceConfig), snapshot_chunk_rows: 700, ...more };
    return runPostgresCapture({ name, settings, nats: config.nats, holder, leaseTtlMs: 1500, log, signal });
  };
  const prepare = async (name: string, rows: number): Promise<{ config: Config; stream: string }> => {
    const url = await postgres.createDatabase(name);
    const client = new pg.Client(url);
    await client.connect();
    await client.query('create table t (id bigint primary key)');
    await client.query(`insert into t select generate_series(0, ${rows - 1})`);
    await client.end();
    return { config: configFor(name, url), stream: cdcStreamName('waybill', name) };
  };

  it(
    'stop at whatever moment they are told to',
    async () => {
      const { config, stream } = await prepare('stops', 5000);
      // From before the first connection into streaming: the moment is what is tested.
      for (let round = 0; round < 40; round++) {
        const controller = new AbortController();
        const done = capture('stops', config, `round ${round}`, controller.signal).then(() => true);
        await abortableDelay(3 * round, controller.signal);
        controller.abort();
        await waitFor(`the end of round ${round}`, () => done);
      }
      const last = new AbortController();
      const done = capture('stops', config, 'last', last.signal);
      await waitFor('all rows', async () => new Set(idsOf(await allFrames(stream))).size === 5000);
      last.abort();
      await done;
    },
    timeoutMs,
  );

  const LOADED = 60_000;

  it(
    'lose no row of the first load where another writer breaks in',
    async () => {
      const { config, stream } = await prepare('broken', LOADED);
      const controller = new AbortController();
      // The load lasts for several interruptions, however fast the machine is, and leaves room between its frames.
      const done = capture('broken', config, 'one', controller.signal, { snapshot_max_rows_per_second: 6000 });
      let broken = 0;
      await waitFor(
        'the end of the first load',
        async () => {
          const tail = await readTail(other, stream);
          if (broken < 40 && tail.seq > 3) {
            // Without rows: it breaks nothing but the sequence that the capture expects.
            const { origin = '', epoch, end } = tail;
            const writer = new FramePublisher(other, config.nats, { source: 'broken', origin, epoch, tail });
            const payload = new FrameWriter(64).finish();
            const frame = { payload, start: end, end, rows: 0, transactions: 0, timeUs: 0 };
            const [outcome] = await Promise.allSettled([writer.publish(frame)]);
            if (outcome.status === 'fulfilled') broken += 1;
          }
          const frames = await allFrames(stream);
          return frames.some((frame) =>
            decodeFrame(frame.payload, frame.place).rows.some((row) => row[0] === 's' && row[2]?.[1] === 'end'),
          );
        },
        120_000,
      );
      controller.abort();
      await done;
      expect(broken).toBeGreaterThan(3);
      expect(new Set(idsOf(await allFrames(stream))).size).toBe(LOADED);
    },
    timeoutMs,
  );
});
