/** A mirror flow into Postgres: transactions in several parts, restarts, and two writers. */
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { advanceSql, readPositions } from '../../apply/postgres/position.ts';
import { type Part, type RowChange, type Value } from '../../core/frame.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { formatHexLsn, formatPosition, parsePosition, pgPosition } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, del, ins, tableOf, upd } from '../support/frame-feed.ts';
import { PostgresTarget } from '../support/postgres-target.ts';

let pg: PostgresServer;
let natsServer: NatsServer;
let fixture: PostgresTarget;

beforeAll(async () => {
  [pg, natsServer] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterEach(async () => {
  await fixture.close();
});
afterAll(async () => {
  await Promise.all([pg?.dispose(), natsServer?.dispose()]);
});

const items = tableOf('items', ['id bigint', 'name text', 'doc text']);

describe('transactions and restarts', () => {
  test('a transaction of several frames is invisible until its end', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url, { batch_bytes: 3000 });
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('0', 'before', null)]]);
    // Only then is a session that idles in a transaction one in the middle of the next.
    await fixture.feed.caughtUp();
    const rows = (from: number): RowChange[] =>
      Array.from({ length: 150 }, (_, id) => ins(String(from + id), 'n', null));
    await fixture.feed.frame([items], [rows(1)], 'first', 0);
    await fixture.feed.frame([items], [rows(151)], 'middle', 150);
    // Savepoints of parts do not nest.
    await expect
      .poll(() =>
        fixture.rows(
          `SELECT query FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()`,
        ),
      )
      .toEqual([[expect.stringMatching(/RELEASE SAVEPOINT part$/)]]);
    await expect
      .poll(() =>
        fixture.rows(
          `SELECT count(*)::int FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()`,
        ),
      )
      .toEqual([[1]]);
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[1]]);
    await fixture.feed.frame([items], [rows(301)], 'last', 300);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[451]]);
  });

  test('a restart applies nothing twice, and what it was in the middle of once', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url, { batch_bytes: 3000 });
    const log = tableOf('log', ['a integer'], { keys: 0 });
    const first = fixture.feed.start();
    await fixture.feed.frame([log], [[ins('1')], [ins('2')]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame([log], [Array.from({ length: 400 }, () => ins('3'))], 'first', 0);
    await expect
      .poll(() =>
        fixture.rows(
          `SELECT count(*)::int FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()`,
        ),
      )
      .toEqual([[1]]);
    first.stop.abort();
    await first.done;
    fixture.feed.start();
    await fixture.feed.frame([log], [[ins('4')]], 'last', 400);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT a, count(*)::int FROM log GROUP BY a ORDER BY a')).toEqual([
      [1, 1],
      [2, 1],
      [3, 400],
      [4, 1],
    ]);
  });

  test('a table that was dropped behind the back of its flow is stopped, and made again by a reading alone', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    const { feed } = fixture;
    const [other, third] = [tableOf('other', ['id bigint']), tableOf('third', ['id bigint', 'note text'])];
    let notices: readonly TableNotice[] = [];
    const start = (): void => void feed.start({ tables: (found) => void (notices = found) });
    const mark = (table: number, what: string): RowChange => ['s', table, ['snap1', what]];
    start();
    await feed.frame(
      [items, other, third],
      [[ins('1', 'a', null), ins('2', 'b', null), at(1, ins('1')), at(2, ins('1', 'x'))]],
    );
    await feed.caughtUp();
    await feed.stopFlows();
    await fixture.client.query('DROP TABLE items; ALTER TABLE third DROP COLUMN note');
    start();
    await feed.frame([items, other, third], [[ins('3', 'c', null), at(1, ins('2')), at(2, ins('2', 'y'))]]);
    await feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM other ORDER BY id')).toEqual([['1'], ['2']]);
    await expect
      .poll(() => notices)
      .toMatchObject([
        { name: 'items', state: 'stopped', reason: expect.stringMatching(/it is missing/) },
        { name: 'third', state: 'stopped', reason: expect.stringMatching(/column note is missing/) },
      ]);
    expect(await fixture.rows(`SELECT to_regclass('items'), count(*)::int FROM third`)).toEqual([[null, 1]]);
    await feed.frame(
      [items, third],
      [
        [mark(0, 'begin'), mark(1, 'begin'), ['r', 0, ['1', 'a', null]], ['r', 0, ['2', 'b', null]]],
        [['r', 0, ['3', 'c', null]], ['r', 1, ['1', 'x']], ['r', 1, ['2', 'y']], mark(0, 'end'), mark(1, 'end')],
      ],
    );
    await feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items ORDER BY id')).toEqual([
      ['1', 'a'],
      ['2', 'b'],
      ['3', 'c'],
    ]);
    expect(await fixture.rows('SELECT id, note FROM third ORDER BY id')).toEqual([
      ['1', 'x'],
      ['2', 'y'],
    ]);
    await expect.poll(() => notices).toEqual([]);
  });

  test('a table that was dropped under a running flow comes again with the reading that the flow is told to wait for', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    const { feed } = fixture;
    const running = feed.start();
    await feed.frame([items], [[ins('1', 'a', null)]]);
    await feed.caughtUp();
    await fixture.client.query('DROP TABLE items');
    await feed.frame([items], [[ins('2', 'b', null)]]);
    await expect(running.done).rejects.toMatchObject({
      code: 'target_shape',
      remedy: expect.stringMatching(/waybill snapshot/),
    });
    // All of it in one batch.
    await feed.frame(
      [items],
      [
        [
          ['s', 0, ['snap1', 'begin']],
          ['r', 0, ['1', 'a', null]],
          ['r', 0, ['2', 'b', null]],
          ['s', 0, ['snap1', 'end']],
        ],
      ],
    );
    await feed.frame([items], [[ins('3', 'c', null)]]);
    await feed.stopFlows();
    feed.start();
    await feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['2'], ['3']]);
  });

  test('a position between two transactions of a frame: the first is not applied again', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    const log = tableOf('log', ['a integer'], { keys: 0 });
    const tx = (lsn: bigint, part: Part, rows: number, ordinal: number) => [
      1,
      formatHexLsn(lsn),
      formatHexLsn(lsn + 50n),
      Date.now() * 1000,
      rows,
      part,
      ordinal,
    ];
    await fixture.feed.publish(
      { v: 1, rows: [ins('1'), ins('2')], tx: [tx(100n, 'whole', 1, 0), tx(200n, 'first', 1, 0)], tables: [log] },
      pgPosition(200n, 1),
    );
    const first = fixture.feed.start();
    await expect
      .poll(async () => (await readPositions(fixture.client))[0]?.position)
      .toBe(formatPosition(pgPosition(150n)));
    first.stop.abort();
    await first.done;
    fixture.feed.start();
    await fixture.feed.publish(
      { v: 1, rows: [ins('3')], tx: [tx(200n, 'last', 1, 1)], tables: [log] },
      pgPosition(250n),
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT a FROM log ORDER BY a')).toEqual([[1], [2], [3]]);
  });

  test('a writer that was overtaken is fenced and starts again from the position', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    const codes: string[] = [];
    fixture.feed.start({
      state: (state, detail) => {
        if (state === 'waiting') codes.push(detail!.split(':')[0]!);
      },
    });
    await fixture.feed.frame([items], [[ins('1', 'a', null)]]);
    await fixture.feed.caughtUp();
    const [row] = await readPositions(fixture.client);
    const move = (next: bigint) =>
      advanceSql({
        flow: 'mirror',
        source: 'wms',
        expected: parsePosition(row!.position)!,
        next: pgPosition(next),
        stream: row!.stream,
        seq: 1,
        commitTimeUs: 0,
        quarantineVersion: 0,
      });
    // Another writer applies the second frame (with a different outcome, to tell whose it was).
    await fixture.client.query(move(1250n));
    await expect(fixture.client.query(move(1250n))).rejects.toMatchObject({ code: 'WB001' });
    await fixture.feed.frame([items], [[ins('2', 'zombie', null)]]);
    await fixture.feed.frame([items], [[ins('3', 'c', null)]]);
    await fixture.feed.caughtUp();
    expect(codes).toContain('target_fenced');
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3']]);
  });

  test('of two flows one stands by, and takes over', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    const first = fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', null)]]);
    await fixture.feed.caughtUp();
    let standby = false;
    fixture.feed.start({
      state: (state) => {
        if (state === 'standby') standby = true;
      },
    });
    await expect.poll(() => standby).toBe(true);
    first.stop.abort();
    await first.done;
    await fixture.feed.frame([items], [[ins('2', 'b', null)]]);
    await fixture.feed.caughtUp();
  });

  test('a snapshot removes what it did not see, over a restart', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    const log = tableOf('log', ['a integer'], { keys: 0 });
    const first = fixture.feed.start();
    const mark = (tableIndex: number, what: string): RowChange => ['s', tableIndex, ['snap-1', what]];
    const read = (...values: Value[]): RowChange => ['r', 0, values];
    const rows = Array.from({ length: 300 }, (_, id) => ins(String(id), 'old', null));
    await fixture.feed.frame([items, log], [[mark(0, 'begin'), ...rows, mark(0, 'end'), at(1, ins('1'))]]);
    await fixture.feed.frame(
      [items, log],
      [
        [mark(0, 'begin'), mark(1, 'begin')],
        [read('1', 'new', null), ['r', 1, ['2']]],
      ],
    );
    await fixture.feed.caughtUp();
    first.stop.abort();
    await first.done;
    fixture.feed.start();
    await fixture.feed.frame(
      [items, log],
      [
        [upd('2', 'streamed', null), ins('900', 'n', null)],
        Array.from({ length: 150 }, (_, id) => read(String(100 + id), 'new', null)),
      ],
    );
    await fixture.feed.frame([items, log], [[mark(0, 'end'), mark(1, 'end')]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int, sum(id)::int FROM items')).toEqual([
      [153, 1 + 2 + 900 + 150 * 100 + (149 * 150) / 2],
    ]);
    expect(await fixture.rows('SELECT a FROM log')).toEqual([[2]]);
    expect(await fixture.rows(`SELECT relname FROM pg_class WHERE relname LIKE 'seen%'`)).toEqual([]);
  });

  test('a range of keys may be bounded by a number that no key of the target can have', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    await fixture.rows('CREATE TABLE items (id integer PRIMARY KEY, name text, doc text)');
    fixture.feed.start();
    const mark = (kind: string): RowChange => ['s', 0, ['part', kind, '["2"]', '["3000000000"]']];
    await fixture.feed.frame([items], [['1', '2', '3'].map((id) => ins(id, 'a', null))]);
    await fixture.feed.frame([items], [[mark('begin_range')], [['r', 0, ['3', 'read', null]], mark('end_range')]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items ORDER BY id')).toEqual([
      [1, 'a'],
      [3, 'read'],
    ]);
  });

  test('deletes and truncates can be ignored, and tables left out', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url, {
      deletes: 'ignore',
      truncate: 'ignore',
      tables: ['public.*', '!public.log'],
      schema: 'wms',
    });
    fixture.feed.start();
    const log = tableOf('log', ['a integer'], { keys: 0 });
    await fixture.feed.frame(
      [items, log],
      [
        [ins('1', 'a', null), ins('2', 'a', null), at(1, ins('1'))],
        [del('1', null, null), ['t', 0, []]],
      ],
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM wms.items ORDER BY id')).toEqual([['1'], ['2']]);
    expect(await fixture.rows(`SELECT to_regclass('wms.log')`)).toEqual([[null]]);
  });

  test('the target may restart', async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', null)]]);
    await fixture.feed.caughtUp();
    await pg.stop('immediate');
    await fixture.feed.frame([items], [[ins('2', 'b', null)]]);
    await pg.start();
    const client = new Client({ connectionString: fixture.feed.config.targets['vis']!.url });
    client.on('error', () => undefined);
    await client.connect();
    try {
      await expect
        .poll(async () => (await client.query('SELECT count(*)::int AS n FROM items')).rows[0].n as number)
        .toBe(2);
    } finally {
      await client.end();
    }
  });
});
