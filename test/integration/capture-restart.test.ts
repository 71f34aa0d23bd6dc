import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { inspectSource } from '../../capture/postgres/inspect.ts';
import { connectSource } from '../../capture/postgres/connection.ts';
import { readTail } from '../../core/cdc-stream.ts';
import { FramePublisher } from '../../core/frame-publisher.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { readProgress, requestSnapshot } from '../../capture/snapshot-request.ts';
import { openBucket } from '../../core/lease.ts';
import { asPgPosition, parseLsn, pgPosition } from '../../core/position.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { run, suspend } from '../../sandbox/process.ts';
import { CaptureTests } from '../support/capture-tests.ts';
import { changesOf, configFor, Source, timeoutMs } from '../support/postgres-source.ts';

const tests = CaptureTests.forThisFile();

describe.each([15, 18] as const)('capture of PostgreSQL %i', (version) => {
  let server: PostgresServer;

  beforeAll(async () => {
    server = await tests.server({ version });
  }, timeoutMs);

  it('goes on where it was, however often it is stopped', async () => {
    const restarts = await tests.open(server, `restarts${version}`, { frame_bytes: '8KB' });
    await restarts.query('create table t (id int primary key, v text)');
    await restarts.query(`insert into t select i, 'old' from generate_series(1, 3000) i`);
    const writer = await connectSource(restarts.settings, 'writer');
    const writing = tests.loop(async (n) => {
      await writer.query(
        `begin; insert into t select i, repeat('x', 100) from generate_series(${100_000 + n * 200}, ${100_199 + n * 200}) i;
         update t set v = '${n}' where id between ${n % 40} and ${(n % 40) + 3}; delete from t where id = ${n + 1};
         delete from t where id < ${100_000 + (n - 50) * 200} and id >= 100000; commit`,
      );
    });
    for (let round = 0; round < 5; round++) {
      const before = writing.steps;
      restarts.start(`round ${round}`);
      const from = await restarts.tail().catch(() => undefined);
      await restarts.wait('the stream to move', async () => {
        const tail = await restarts.tail();
        return writing.steps > before + 5 && tail.seq > (from?.seq ?? 0) + 3;
      });
      await restarts.stop();
    }
    await writing.stop();
    await writer.end();
    restarts.start('last');
    await restarts.loaded(1);
    await restarts.caughtUp();
    expect(await restarts.folded('public', 't')).toEqual(await restarts.table('public', 't'));
  });

  it('reads a long backlog in slices, and the end of it from the stream', async () => {
    const behind = await tests.open(server, `behind${version}`, { frame_bytes: '64KB' });
    await behind.query('create table t (id int primary key, v text)');
    await behind.query(`insert into t select i, repeat('x', 500) from generate_series(1, 20000) i`);
    behind.start();
    await behind.loaded(1);
    await behind.stop();
    // 40 MB of log: a column that appears, one large transaction, many small ones.
    await behind.query('alter table t add column more int');
    await behind.query(`update t set v = repeat('y', 500)`);
    await behind.query(
      `do $$ begin for i in 1..4000 loop update t set more = i, v = repeat('z', 500) where id = 1 + i * 7 % 20000; commit; end loop; end $$`,
    );
    await behind.query('delete from t where id % 50 = 0');
    const before = await behind.tail();
    for (let round = 0; round < 3; round++) {
      behind.start(`round ${round}`);
      const from = await behind.tail();
      await behind.wait('frames of the backlog', async () => (await behind.tail()).seq > from.seq + 20);
      await behind.stop();
    }
    behind.start('last');
    await behind.query('update t set more = -1 where id = 1');
    const end = await behind.caughtUp();
    expect(await behind.folded('public', 't')).toEqual(await behind.table('public', 't'));
    expect(end.seq).toBeGreaterThan(before.seq + 60);
    // What comes once all has been caught up ends the wait for the stream.
    await behind.query('update t set more = -2 where id = 2');
    await behind.caughtUp();
    expect(await behind.folded('public', 't')).toEqual(await behind.table('public', 't'));
    // The copy of the slot is gone, and the slot itself is read by a walsender again.
    const slots = `select slot_name, active from pg_replication_slots where database = current_database()`;
    await behind.wait('the walsender', async () => String(await behind.query(slots)) === `${behind.slot},t`);
  });

  it('streams a long backlog where no slot can be spared', async () => {
    const spare = await tests.open(server, `spare${version}`);
    await spare.query('create table t (id int primary key, v text)');
    await spare.query(`insert into t select i, repeat('x', 500) from generate_series(1, 20000) i`);
    spare.start();
    await spare.loaded(1);
    await spare.stop();
    await spare.query(`update t set v = repeat('y', 500)`);
    const [[free]] = (await spare.query(
      `select current_setting('max_replication_slots')::int - count(*) from pg_replication_slots`,
    )) as [[string]];
    for (let n = 0; n < Number(free); n++)
      await spare.query(`select pg_create_physical_replication_slot('taken_${n}')`);
    try {
      spare.start('again');
      await spare.caughtUp();
      expect(await spare.folded('public', 't')).toEqual(await spare.table('public', 't'));
    } finally {
      await spare.query(
        `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name ~ '^taken'`,
      );
    }
  });

  it('streams a long backlog whose slices the source has no room for', async () => {
    const tight = await tests.open(server, `tight${version}`);
    await tight.query('create table t (id int primary key, v text)');
    await tight.query(`insert into t select i, repeat('x', 500) from generate_series(1, 20000) i`);
    tight.start();
    await tight.loaded(1);
    await tight.stop();
    for (const letter of 'yz') await tight.query(`update t set v = repeat('${letter}', 500)`);
    const [[name]] = (await tight.query('select quote_ident(current_database())')) as [[string]];
    await tight.query(`alter database ${name} set work_mem = '64kB'`);
    await tight.query(`alter database ${name} set temp_file_limit = '100kB'`);
    const client = await connectSource(tight.settings, 'probe');
    await expect(
      client.query(
        `select data from pg_logical_slot_peek_binary_changes('${tight.slot}', null, 25000, 'proto_version', '1',
           'publication_names', '${tight.slot}')`,
      ),
    ).rejects.toMatchObject({ code: '53400' });
    await client.end();
    tight.start('again');
    await tight.caughtUp();
    expect(tight.states.filter((state) => /^(?:starting source|blocked)/.test(state))).toEqual([]);
    expect(await tight.folded('public', 't')).toEqual(await tight.table('public', 't'));
  });

  it('stops at whatever moment it is asked to', async () => {
    const stops = await tests.open(server, `stops${version}`, { frame_bytes: '4KB' });
    await stops.query('create table t (id int primary key)');
    await stops.query('insert into t select generate_series(1, 1000)');
    let longest = 0;
    for (let round = 0; round < 30; round++) {
      stops.start(`round ${round}`);
      await delay(round * 4);
      const began = performance.now();
      await stops.stop();
      longest = Math.max(longest, performance.now() - began);
    }
    expect(longest).toBeLessThan(15_000);
  });

  it('reads a table that is written to, and both together are the table', async () => {
    const busy = await tests.open(server, `concurrent${version}`, { snapshot_chunk_rows: 500 });
    await busy.query('create table t (id int, part text, big text, n int, primary key (part, id))');
    await busy.query('alter table t alter big set storage external');
    await busy.query('create table keyless (a int, b text)');
    await busy.query('alter table keyless replica identity full');
    await busy.query(
      `insert into t select i, 'p' || i % 10, case when i % 50 = 0 then repeat('b', 4000) else '' end, 0 from generate_series(1, 8000) i`,
    );
    await busy.query(`insert into keyless select i, 'k' from generate_series(1, 500) i`);
    const writers = await Promise.all([0, 1].map(() => connectSource(busy.settings, 'writer')));
    const writing = writers.map((writer, who) =>
      tests.loop(async (n) => {
        const id = ((n * 7919) % 4000) * 2 + who;
        await writer.query(
          `begin; update t set n = n + 1 where id = ${id}; delete from t where id = ${id + 400};
           update t set part = 'p' || ${n % 10} where id = ${id + 800};
           insert into t values (${100_000 + n * 2 + who}, 'p${n % 10}', repeat('n', 3000), 0); commit`,
        );
      }),
    );
    busy.start();
    await busy.loaded(2);
    await Promise.all(writing.map((one) => one.stop()));
    for (const writer of writers) await writer.end();
    await busy.caughtUp();
    const changes = await busy.changes();
    expect(changes.filter(({ row }) => row[0] === 'u').length, 'written while it read').toBeGreaterThan(50);
    expect(await busy.folded('public', 't')).toEqual(await busy.table('public', 't'));
    expect(await busy.folded('public', 'keyless')).toEqual(await busy.table('public', 'keyless'));
  });

  it('reads a chunk again when a row of it changed meanwhile without all its columns', async () => {
    const chunks = await tests.open(server, `chunks${version}`, { snapshot_chunk_rows: 200, snapshot_connections: 1 });
    // The one reader takes the smallest table first: that keeps it busy until the second is locked.
    await chunks.query('create table a (id int primary key)');
    await chunks.query('insert into a select generate_series(1, 60000)');
    await chunks.query('create table b (id int primary key, n int, pad text, big text)');
    await chunks.query('alter table b alter big set storage external, alter pad set storage plain');
    await chunks.query(
      `insert into b select i, 0, repeat('p', 1800), repeat('b', 4000 * (i / 3 % 2)) from generate_series(1, 1500) i`,
    );
    // Connected before the reader starts, so that nothing but the statement itself may come too late for it.
    const locker = await connectSource(chunks.settings, 'locker');
    chunks.start();
    await chunks.wait('the first table', async () => (await chunks.tail().catch(() => ({ seq: 0 }))).seq > 4);
    await locker.query('begin; lock table b in access exclusive mode');
    await chunks.wait('the reader to wait for the second table', async () => {
      const waiting = await chunks.query(`select from pg_locks where relation = 'b'::regclass and not granted`);
      return waiting.length === 1;
    });
    // Between the chunk's low mark and its rows: the log has the new row without its large column.
    await locker.query('update b set n = 1 where id = 3; commit');
    await locker.end();
    await chunks.loaded(2);
    await chunks.caughtUp();
    const partial = (await chunks.changes()).filter(({ table, row }) => table?.name === 'b' && row[0] === 'u');
    expect(partial.map(({ row }) => row[2])).toEqual([['3', '1', 'p'.repeat(1800), 0]]);
    expect(await chunks.folded('public', 'b')).toEqual(await chunks.table('public', 'b'));
  });

  it('reads a row by its new key that moves, without all its columns, to where was read before', async () => {
    const moves = await tests.open(server, `moves${version}`, {
      snapshot_chunk_rows: 100,
      snapshot_connections: 1,
      snapshot_max_rows_per_second: 400,
    });
    await moves.query('create table t (id int primary key, n int, big text)');
    await moves.query('alter table t alter big set storage external');
    await moves.query(`insert into t select i, 0, repeat('b', 4000) from generate_series(1, 2000) i`);
    moves.start();
    await moves.wait('the first chunk', async () => {
      const progress = await readProgress(await openBucket(moves.nats, moves.config), moves.name);
      return (progress?.tables[0]?.cursor ?? null) !== null;
    });
    await moves.query('update t set id = -id where id in (1900, 1950)');
    await moves.query('update t set id = -7 where id = -1950');
    // Whoever goes on from here knows of them.
    await moves.caughtUp();
    await moves.stop();
    await moves.query('update t set n = 1 where id = -1900');
    moves.start('again');
    await moves.loaded(1);
    await moves.wait('all rows', async () => {
      await moves.caughtUp();
      return JSON.stringify(await moves.folded('public', 't')) === JSON.stringify(await moves.table('public', 't'));
    });
    const rows = (await moves.changes()).map(({ row }) => row);
    const moved = rows.findIndex((row) => row[0] === 'u' && row[2]?.[0] === '-1900' && row[2]?.[2] === 0);
    expect(moved).toBeGreaterThan(0);
    expect(rows.findIndex((row) => row[0] === 'r' && row[2]?.[0] === '-1900')).toBeGreaterThan(moved);
  });

  it('knows what it has to read before a stream that was lost begins afresh', async () => {
    const lost = await tests.open(server, `lost${version}`);
    await lost.query('create table t (id int primary key)');
    await lost.query('insert into t select generate_series(1, 10)');
    lost.start();
    await lost.loaded(1);
    await lost.stop();
    await lost.nats.manager.streams.delete(lost.stream);
    const bucket = await openBucket(lost.nats, lost.config);
    // Nothing is read, and so noted, before an older transaction ends.
    const older = await connectSource(lost.settings, 'older');
    await older.query('begin; select txid_current()');
    lost.start('again');
    await lost.wait('the first frame', async () => (await lost.tail().catch(() => ({ seq: 0 }))).seq > 0);
    expect((await readProgress(bucket, lost.name))!.tables.map(({ state }) => state)).toEqual(['pending']);
    const planned = (await bucket.get(`snapshot.${lost.name}`))!.created;
    const begun = (await lost.nats.manager.streams.getMessage(lost.stream, { seq: 1 }))!.time;
    expect(planned.getTime()).toBeLessThanOrEqual(begun.getTime());
    await older.query('rollback');
    await older.end();
    await lost.loaded(1);
    await lost.stop();
  });

  it('waits for a reset when its slot is gone, and then reads everything again', async () => {
    const dropped = await tests.open(server, `dropped${version}`);
    await dropped.query('create table t (id int primary key, v text)');
    await dropped.query(`insert into t select i, 'a' from generate_series(1, 100) i`);
    dropped.start();
    await dropped.loaded(1);
    await dropped.caughtUp();
    await dropped.stop();
    await dropped.query('select pg_drop_replication_slot($1)', [dropped.slot]);
    await dropped.query('delete from t where id <= 50');
    await dropped.query(`insert into t values (1000, 'missed')`);
    dropped.start();
    await dropped.wait('slot_missing', async () =>
      dropped.states.some((state) => state.startsWith('slot_missing source_slot_missing')),
    );
    const from = await dropped.tail();
    await dropped.query(`insert into t values (1001, 'missed too')`);
    await requestSnapshot(dropped.config, dropped.name, { reset: true });
    await dropped.wait('the end of the new snapshot', async () => {
      return changesOf(await dropped.frames(from)).some(({ row }) => row[0] === 's' && row[2]?.[1] === 'end');
    });
    await dropped.query(`insert into t values (1002, 'after')`);
    await dropped.caughtUp();
    const frames = await dropped.frames(from);
    expect(frames.map(({ headers }) => headers.reset)[0]).toBe(true);
    expect(await dropped.folded('public', 't')).toEqual(await dropped.table('public', 't'));
  });

  it('notices a log that ends before what was captured of it, and follows it when it is told to', async () => {
    const diverged = await tests.open(server, `diverged${version}`);
    await diverged.query('create table t (id int primary key)');
    await diverged.query('insert into t select generate_series(1, 10)');
    diverged.start();
    await diverged.loaded(1);
    await diverged.caughtUp();
    await diverged.stop();
    // As if a standby had been promoted that lacks the newest of the log.
    const tail = await readTail(diverged.nats, diverged.stream);
    const { origin = '' } = tail;
    const lost = new FramePublisher(diverged.nats, diverged.config, { source: diverged.name, origin, epoch: 9, tail });
    const end = pgPosition(asPgPosition(tail.end).lsn + (1n << 30n));
    const frame = { payload: new FrameWriter(64).finish(), start: tail.end, end, rows: 0, transactions: 0, timeUs: 0 };
    await lost.publish(frame);
    await diverged.query('insert into t values (11)');
    diverged.start();
    await diverged.wait('source_diverged', async () => diverged.states.at(-1)?.includes('blocked source_diverged'));
    await requestSnapshot(diverged.config, diverged.name, { reset: true });
    await diverged.wait('all rows', async () => (await diverged.folded('public', 't')).length === 11);
  });

  it('follows a promoted server, and notices one whose log left before the end of what was captured', async ({
    skip,
  }) => {
    const own = await tests.server({ version });
    const dataDir = own.dataDir ?? skip('the server is elsewhere');
    const name = `promoted${version}`;
    const url = await own.createDatabase(name);
    const open = async (): Promise<Source> => await tests.adopt(await Source.open(name, url, tests.nats));
    /** As a standby is: the server goes on from its log as a new timeline. */
    const promote = async (): Promise<void> => {
      await writeFile(join(dataDir, 'standby.signal'), '');
      await own.start();
      const client = await connectSource(configFor(name, url, tests.nats.url).settings, 'test');
      // Until then it may go over to another one at any moment.
      expect((await inspectSource(client)).timeline).toBeUndefined();
      await client.query('select pg_promote()');
      await client.end();
    };

    const before = await open();
    await before.query('create table t (id int primary key, v text)');
    await before.query(`insert into t select i, 'both' from generate_series(1, 10) i`);
    before.start();
    await before.loaded(1);
    await before.caughtUp();
    await before.stop();
    await own.stop();
    await promote();

    const after = await open();
    after.start();
    await after.query(`insert into t values (11, 'on the second timeline')`);
    await after.caughtUp();
    expect(await after.folded('public', 't')).toEqual(await after.table('public', 't'));
    await after.stop();
    // What a standby has that lags: all but the newest.
    await own.stop();
    await run('cp', ['-a', dataDir, `${dataDir}.lagging`]);
    await own.start();
    const newest = await open();
    newest.start();
    await newest.query(`insert into t select i, 'lost' from generate_series(100, 150) i`);
    await newest.caughtUp();
    await newest.stop();
    await own.stop();
    await rm(dataDir, { recursive: true });
    await rename(`${dataDir}.lagging`, dataDir);
    await promote();

    const diverged = await open();
    const { end } = await diverged.tail();
    await diverged.wait('the new log to be longer than what was captured', async () => {
      await diverged.query(`insert into t select coalesce(max(id), 0) + 1, repeat('new', 1000) from t`);
      const [[lsn]] = (await diverged.query('select pg_current_wal_lsn()::text')) as [[string]];
      return parseLsn(lsn)! > asPgPosition(end).lsn;
    });
    diverged.start();
    await diverged.wait('source_diverged', async () => diverged.states.at(-1)?.includes('blocked source_diverged'));
    expect(diverged.states.at(-1)).toMatch(/timeline 3, which left timeline 2 at/);
    const from = await diverged.tail();
    await requestSnapshot(diverged.config, diverged.name, { reset: true });
    await diverged.wait('the end of the new snapshot', async () =>
      changesOf(await diverged.frames(from)).some(({ row }) => row[0] === 's' && row[2]?.[1] === 'end'),
    );
    expect(await diverged.folded('public', 't')).toEqual(await diverged.table('public', 't'));
  });

  it('confirms nothing while the broker may have lost it', async () => {
    const own = await tests.broker();
    const unsynced = await tests.open(server, `unsynced${version}`, { heartbeat: '60s' }, own);
    Object.assign(unsynced.config.stream, { sync_interval: 300 });
    await unsynced.query('create table t (id int primary key)');
    unsynced.start();
    await unsynced.loaded(1);
    const { end } = await unsynced.caughtUp();
    await suspend(own.pid!);
    const confirmed = async (): Promise<boolean> => {
      const [[lsn]] = (await unsynced.query(
        `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '${unsynced.slot}'`,
      )) as [[string]];
      return parseLsn(lsn)! >= asPgPosition(end).lsn;
    };
    // It goes on for a while before it finds out, longer than a broker at work takes to sync.
    await unsynced.wait('the lease to be lost', async () => unsynced.states.some((state) => /lease|nats_/.test(state)));
    expect(await confirmed()).toBe(false);
    process.kill(own.pid!, 'SIGCONT');
    await unsynced.wait('the slot to be confirmed behind a later frame', async () => {
      await unsynced.query("select pg_logical_emit_message(true, 'test', 'later')");
      return confirmed();
    });
  });

  it('notices a slot that was advanced beyond the stream', async () => {
    const ahead = await tests.open(server, `ahead${version}`);
    await ahead.query('create table t (id int primary key)');
    ahead.start();
    await ahead.loaded(1);
    await ahead.caughtUp();
    await ahead.stop();
    await ahead.query('insert into t select generate_series(1, 1000)');
    await ahead.query('select pg_replication_slot_advance($1, pg_current_wal_lsn())', [ahead.slot]);
    ahead.start();
    await ahead.wait('source_slot_ahead', async () =>
      ahead.states.some((state) => state.startsWith('blocked source_slot_ahead')),
    );
    await requestSnapshot(ahead.config, ahead.name, { reset: true });
    await ahead.wait('all rows', async () => (await ahead.folded('public', 't')).length === 1000);
    expect(await ahead.folded('public', 't')).toEqual(await ahead.table('public', 't'));
  });
});
