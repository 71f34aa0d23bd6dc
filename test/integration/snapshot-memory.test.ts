/** Snapshots of large rows: no more of them is in memory at once than there is room for. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { TableProgress } from '../../capture/snapshot-request.ts';
import { ChunkWindows } from '../../capture/postgres/chunk-windows.ts';
import { connectSource } from '../../capture/postgres/connection.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { changesOf, repeat, Source, timeoutMs, type Place } from '../support/postgres-source.ts';
import { SnapshotByHand } from '../support/snapshot-by-hand.ts';

const MB = 1 << 20;
/** Of one connection: chunks of 8 MB, and as much again where sizes differ. */
const ROOM_BYTES = 16 * MB;

let nats: NatsServer;
let server: PostgresServer;

beforeAll(async () => {
  [nats, server] = await Promise.all([startNats(), startPostgres()]);
}, timeoutMs);
afterAll(async () => {
  await Promise.all([nats?.dispose(), server?.dispose()]);
}, timeoutMs);

function entry(name: string): TableProgress {
  return { schema: 'public', name, state: 'pending', cursor: null, rows: 0 };
}

/** Runs statements in a database of their own, and gives its URL. */
async function made(name: string, sql: string): Promise<string> {
  const url = await server.createDatabase(name);
  const source = await Source.open(name, url, nats);
  await source.query(sql);
  await source.close();
  return url;
}

describe('large rows', () => {
  it(
    'of a table with a key end a chunk, and what is behind them is read in the next ones',
    async () => {
      // They take 60 KB each where they lie, and nothing tells where they are.
      const url = await made(
        'keyed',
        `create table t (id int primary key, v text); insert into t select i, 'small' from generate_series(1, 1000) i;
         insert into t select i, repeat('x', ${5 * MB}) from generate_series(1001, 1020) i; analyze`,
      );
      const s = await SnapshotByHand.start(url, [entry('t')], { readers: 1 });
      const keys: number[] = [];
      for (let end: string | undefined; end === undefined;) {
        const chunk = await s.nextChunk();
        expect(chunk.bytes).toBeLessThan(ROOM_BYTES + 6 * MB);
        keys.push(...chunk.keys.map(Number));
        ({ end } = chunk);
        s.decide(chunk.id, 'kept');
      }
      await s.ended;
      expect(keys).toEqual(Array.from({ length: 1020 }, (_, i) => i + 1));
      expect(s.progress.tables[0]).toMatchObject({ state: 'done', rows: 1020 });
      await s.close();
    },
    timeoutMs,
  );

  it(
    'that are followed by a small one only end a chunk though all of it has come with them',
    async () => {
      const url = await made(
        'followed',
        `create table t (id int primary key, v text);
         insert into t values (1, repeat('x', ${ROOM_BYTES + MB})), (2, 'small'); analyze`,
      );
      const s = await SnapshotByHand.start(url, [entry('t')], { readers: 1 });
      const chunks: (readonly string[])[] = [];
      for (let end: string | undefined; end === undefined;) {
        const chunk = await s.nextChunk();
        chunks.push(chunk.keys);
        ({ end } = chunk);
        s.decide(chunk.id, 'kept');
      }
      await s.ended;
      expect(chunks).toEqual([['1'], ['2']]);
      await s.close();
    },
    timeoutMs,
  );

  it(
    'that are read again by their keys are read by fewer keys at a time',
    async () => {
      const url = await made(
        'by_key',
        `create table t (id int primary key, v text);
         insert into t select i, repeat('x', ${5 * MB}) from generate_series(1, 12) i`,
      );
      const keys = Array.from({ length: 14 }, (_, i) => [String(i)]);
      const s = await SnapshotByHand.start(url, [{ ...entry('t'), keys }], { readers: 1 });
      const read = new Set<string>();
      let ended = false;
      void s.ended.finally(() => (ended = true));
      while (read.size < 12 || !ended) {
        const chunk = await Promise.race([s.nextChunk(), s.ended]);
        if (chunk === undefined) break;
        expect(chunk.bytes).toBeLessThan(ROOM_BYTES + 6 * MB);
        for (const key of chunk.keys) read.add(key);
        s.decide(chunk.id, 'kept');
      }
      await s.ended;
      expect([...read].map(Number).sort((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
      expect(s.progress.tables[0]).toMatchObject({ state: 'done', rows: 12 });
      await s.close();
    },
    timeoutMs,
  );

  it(
    'of a table without a key are published in pieces, which begin anew when one of them must be read again',
    async () => {
      const url = await made(
        'keyless',
        `create table t (v text); alter table t replica identity full;
         insert into t select repeat('x', ${5 * MB}) from generate_series(1, 14)`,
      );
      const s = await SnapshotByHand.start(url, [entry('t')], { readers: 1 });
      // Who changes the table does not wait until the log has come to a piece of it.
      const waiting = await s.nextChunk();
      const other = await Source.open('other', url, nats);
      await other.query('alter table t add column w int');
      await other.close();
      const first = await s.nextChunk();
      expect([waiting.more, first.id === waiting.id]).toEqual([true, false]);
      s.decide(first.id, 'kept');
      const again = await s.nextChunk();
      expect([first.more, again.more, again.id]).toEqual([true, true, first.id]);
      s.decide(again.id, 'again');
      let rows = 0;
      for (let more = true; more;) {
        const piece = await s.nextChunk();
        expect(piece.id).not.toBe(first.id);
        expect(piece.bytes).toBeLessThan(ROOM_BYTES + 6 * MB);
        rows += piece.keys.length;
        ({ more } = piece);
        expect(piece.end === undefined).toBe(more);
        s.decide(piece.id, 'kept');
      }
      await s.ended;
      expect(rows).toBe(14);
      expect(s.progress.tables[0]).toMatchObject({ state: 'done', rows: 14 });
      const marks = (await s.marks()).map((mark) => mark.k).filter((k) => k !== 'high');
      expect(marks).toEqual(['low', 'begin', 'low', 'begin', 'low', 'begin']);
      await s.close();
    },
    timeoutMs,
  );

  it(
    'of a table without a key are all there, each once, whatever was written while pieces were read',
    async () => {
      const s = await Source.open('pieces', await server.createDatabase('pieces'), nats, {});
      await s.query('create table t (n int, v text); alter table t replica identity full');
      await s.query(`insert into t select i, repeat('x', ${MB}) from generate_series(1, 24) i`);
      const writer = await connectSource(s.settings, 'writer');
      let from: Place | undefined;
      const marks: unknown[] = [];
      const told = async (kind: string, times: number): Promise<boolean> => {
        const frames = await s.frames(from);
        from = frames.at(-1)?.headers ?? from;
        marks.push(...changesOf(frames).flatMap(({ row }) => (row[0] === 's' ? [row[2]?.[1]] : [])));
        return marks.filter((mark) => mark === kind).length >= times;
      };
      let isBegunAgain = false;
      const writing = repeat(async (step) => {
        if (!isBegunAgain) await writer.query(`update t set v = v || 'y' where n = ${1 + (step % 24)}`);
      });
      s.start();
      await s.wait('the table to be read anew', () => told('begin', 2));
      isBegunAgain = true;
      await s.wait('the end of the snapshot', () => told('end', 1));
      await writing.stop();
      await writer.end();
      await s.caughtUp();
      expect(await s.folded('public', 't')).toEqual(await s.table('public', 't'));
      const read: string[] = [];
      for (const { payload } of await s.frames()) {
        let row = 0;
        for (const [, commit, , , rows] of payload.tx)
          for (const [op] of payload.rows.slice(row, (row += rows)))
            if (op !== 'm' && op !== 's') read.push(op + commit);
      }
      // Nothing but its rows stands behind the last beginning, in pieces.
      expect(
        read
          .slice(-24)
          .map((each) => each[0])
          .join(''),
      ).toBe('r'.repeat(24));
      expect(new Set(read.slice(-24)).size).toBeGreaterThan(1);
      await s.close();
    },
    timeoutMs,
  );
});

describe('the ids of transactions that passed', () => {
  it(
    'are forgotten once a chunk has seen them, also while a transaction stays open',
    async () => {
      const COMMITS = 300;
      const s = await Source.open('passed', await server.createDatabase('passed'), nats, {
        snapshot_chunk_rows: 20,
        snapshot_max_rows_per_second: 400,
        snapshot_connections: 1,
      });
      await s.query('create table t (id int primary key); insert into t select generate_series(1, 100000)');
      await s.query('create table held (id int primary key); create table busy (n int primary key)');
      // As many as each window is given.
      const given: number[] = [];
      const realOpen = ChunkWindows.prototype.open;
      const open = vi.spyOn(ChunkWindows.prototype, 'open').mockImplementation(function (
        this: ChunkWindows,
        chunk,
        oid,
        before,
      ) {
        const ids = [...before];
        given.push(ids.length);
        realOpen.call(this, chunk, oid, ids);
      });
      try {
        s.start();
        await s.wait('the first chunks', async () => given.length > 2);
        const holder = await connectSource(s.settings, 'holder');
        await holder.query('begin; insert into held values (1)');
        await s.query(`do $$ begin for i in 1..${COMMITS} loop insert into busy values (i); commit; end loop; end $$`);
        await s.caughtUp();
        const from = given.length;
        await s.wait('two chunks behind them', async () => given.length >= from + 2);
        expect(given.at(-1)).toBeLessThan(COMMITS / 4);
        await holder.end();
      } finally {
        open.mockRestore();
        await s.close();
      }
    },
    timeoutMs,
  );
});
