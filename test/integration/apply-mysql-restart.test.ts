/** A mirror flow into MySQL and MariaDB: rows that the target refuses, transactions in parts, restarts. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { advanceSql, readPositions } from '../../apply/mysql/position.ts';
import { discardQuarantine, listQuarantine, replayQuarantine, showQuarantine } from '../../apply/mysql/quarantine.ts';
import { MysqlSession } from '../../apply/mysql/session.ts';
import { createMysqlStore } from '../../apply/mysql/store.ts';
import type { TargetConfig } from '../../core/config.ts';
import type { RowChange, Value } from '../../core/frame.ts';
import { NO_FLOW_REPORT, type TableNotice } from '../../core/metrics.ts';
import { parsePosition, pgPosition } from '../../core/position.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { at, del, FrameFeed, ins, tableOf, upd } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';

let natsServer: NatsServer;

beforeAll(async () => {
  natsServer = await startNats();
}, 60_000);
afterAll(async () => {
  await natsServer?.dispose();
});

/** The server keeps what it says of transactions for 0.1 s after it was asked. */
const TRX = { interval: 250 };

const items = tableOf('items', ['id bigint', 'name text', 'doc text']);

describe.each([
  { flavour: 'mysql' as const, version: '9.7' as const },
  { flavour: 'mariadb' as const, version: '10.11' as const },
])('$flavour $version', ({ flavour, version }) => {
  let server: MysqlServer;
  let feed: FrameFeed;
  let session: MysqlSession;
  let target: TargetConfig;

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });

  async function open(flow: Record<string, unknown> = {}): Promise<void> {
    ({ target, session, feed } = await openMysqlTarget(server, natsServer.url, flow));
  }

  async function close(): Promise<void> {
    await feed?.close();
    await session?.close();
  }

  afterEach(close);

  const rows = (sql: string): Promise<(string | null)[][]> => session.rows(sql);
  const run = (sql: string): Promise<unknown> => session.run(sql);

  describe('quarantine', () => {
    beforeEach(async () => {
      await open();
      await run(
        'CREATE TABLE items (id bigint PRIMARY KEY, name varchar(50), doc text, CONSTRAINT short CHECK (CHAR_LENGTH(name) < 5))',
      );
    });

    test('a bad row and what follows it wait; neighbours go on; replay and discard', async () => {
      const waiting: Record<string, number> = {};
      feed.start({ quarantined: (reason, keys) => void (waiting[reason] = keys) });
      await feed.frame([items], [[ins('1', 'ok', null), ins('2', 'too long', null), ins('3', 'ok', null)]]);
      await feed.caughtUp();
      await feed.frame([items], [[upd('2', 'fine', null)]]);
      await feed.frame([items], [[upd('2', 'fin2', 'd'), ins('4', 'ok', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3'], ['4']]);
      const list = await listQuarantine(session, 'mirror');
      expect(list.map((entry) => [entry.key, entry.op, entry.reason])).toEqual([
        ['["2"]', 'i', 'constraint'],
        ['["2"]', 'u', 'held'],
        ['["2"]', 'u', 'held'],
      ]);
      await expect.poll(() => waiting).toEqual({ constraint: 1, held: 1 });
      expect((await showQuarantine(session, list[0]!.id))?.change.change[2]).toEqual(['2', 'too long', null]);
      expect(await replayQuarantine(session, 'mirror', { all: true })).toMatchObject({
        applied: 0,
        failed: [{ id: list[0]!.id, reason: 'constraint' }],
      });
      await run(`ALTER TABLE items DROP CONSTRAINT short`);
      expect(await replayQuarantine(session, 'mirror', { ids: [list[2]!.id] })).toEqual({ applied: 3, failed: [] });
      // Somebody else did that: the flow notices.
      await expect.poll(() => waiting).toEqual({ constraint: 0, held: 0 });
      expect(await rows('SELECT name, doc FROM items WHERE id = 2')).toEqual([['fin2', 'd']]);
      await feed.frame([items], [[upd('2', 'free', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT name FROM items WHERE id = 2')).toEqual([['free']]);
    });

    test('what waits is replayed into its table as that is by now', async () => {
      feed.start();
      await feed.frame([items], [[ins('1', 'ok', 'a'), ins('2', 'too long', 'b')]]);
      await feed.caughtUp();
      await feed.frame([tableOf('items', ['id bigint', 'name text'])], [[ins('3', 'ok')]]);
      await feed.caughtUp();
      await run('ALTER TABLE items DROP CONSTRAINT short, DROP COLUMN doc');
      expect(await replayQuarantine(session, 'mirror', { all: true })).toEqual({ applied: 1, failed: [] });
      expect(await rows('SELECT * FROM items ORDER BY id')).toEqual([
        ['1', 'ok'],
        ['2', 'too long'],
        ['3', 'ok'],
      ]);
    });

    test('held keys survive a restart, and discarding releases them', async () => {
      const first = feed.start();
      await feed.frame([items], [[ins('2', 'too long', null)]]);
      await feed.caughtUp();
      first.stop.abort();
      await first.done;
      feed.start();
      await feed.frame([items], [[upd('2', 'b', null)]]);
      await feed.caughtUp();
      const list = await listQuarantine(session);
      expect(list.map((entry) => entry.reason)).toEqual(['constraint', 'held']);
      const ids = list.map((entry) => entry.id);
      expect(await discardQuarantine(session, 'mirror', ids)).toBe(2);
      await feed.frame([items], [[upd('2', 'c', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT id, name FROM items')).toEqual([['2', 'c']]);
    });

    test('a bad row among many in LOAD DATA is found', async () => {
      feed.start();
      await feed.frame(
        [items],
        [Array.from({ length: 400 }, (_, id) => ins(String(id), id === 250 ? 'too long' : 'ok', null))],
      );
      await feed.caughtUp();
      expect(await rows('SELECT COUNT(*) FROM items')).toEqual([['399']]);
      expect((await listQuarantine(session)).map((entry) => entry.key)).toEqual(['["250"]']);
    });

    test.each([1, 300])('a value that would be bent is not written (among %i rows)', async (count) => {
      await run(
        'CREATE TABLE bent (id bigint PRIMARY KEY, n decimal(10,2), v varchar(3) CHARACTER SET latin1, d date)',
      );
      const bent = tableOf('bent', ['id bigint', 'n numeric', 'v text', 'd date']);
      const odd: [Value, Value, Value][] = [
        ['1.234', null, null],
        ['NaN', null, null],
        [null, 'abc ', null],
        [null, 'abcd', null],
        [null, '\u4e2d', null],
        [null, null, 'infinity'],
        [null, null, '0044-03-15 BC'],
        ['123456789.00', null, null],
      ];
      feed.start();
      for (const [index, values] of odd.entries())
        await feed.frame(
          [bent],
          [
            Array.from({ length: count }, (_, id) =>
              ins(`${index * 1000 + id}`, ...(id === 0 ? values : ['1.50', 'ok', '2024-01-01'])),
            ),
          ],
        );
      await feed.caughtUp();
      expect(await rows('SELECT COUNT(*) FROM bent')).toEqual([[String((count - 1) * odd.length)]]);
      expect((await listQuarantine(session)).map((entry) => [entry.key, entry.reason])).toEqual(
        odd.map((_, index) => [`["${index * 1000}"]`, 'value']),
      );
    });

    test('a bad row inside a transaction of several batches', async () => {
      await close();
      await open({ batch_bytes: 2000 });
      await run('CREATE TABLE items (id bigint PRIMARY KEY, name varchar(50) CHECK (CHAR_LENGTH(name) < 5), doc text)');
      feed.start();
      const some = (from: number): RowChange[] =>
        Array.from({ length: 200 }, (_, id) => ins(String(from + id), from + id === 250 ? 'too long' : 'ok', null));
      await feed.frame([items], [some(0)], 'first', 0);
      await feed.frame([items], [some(200)], 'middle', 200);
      await feed.frame([items], [some(400)], 'last', 400);
      await feed.caughtUp();
      expect(await rows('SELECT COUNT(*) FROM items')).toEqual([['599']]);
      expect((await listQuarantine(session)).map((entry) => [entry.key, entry.ordinal])).toEqual([['["250"]', 250]]);
    });
  });

  describe('transactions and restarts', () => {
    const openTransactions = async (): Promise<string | null> =>
      (await rows('SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 0'))[0]![0]!;

    test('a transaction of several frames is invisible until its end', async () => {
      await open({ batch_bytes: 3000 });
      feed.start();
      await feed.frame([items], [[ins('0', 'before', null)]]);
      await feed.caughtUp();
      const some = (from: number): RowChange[] =>
        Array.from({ length: 150 }, (_, id) => ins(String(from + id), 'n', null));
      await feed.frame([items], [some(1)], 'first', 0);
      await feed.frame([items], [some(151)], 'middle', 150);
      await expect.poll(openTransactions, TRX).toBe('1');
      expect(await rows('SELECT COUNT(*) FROM items')).toEqual([['1']]);
      await feed.frame([items], [some(301)], 'last', 300);
      await feed.caughtUp();
      expect(await rows('SELECT COUNT(*) FROM items')).toEqual([['451']]);
    });

    test('a table that changes in the middle of a transaction publishes no half of it', async () => {
      await open({ batch_bytes: 3000 });
      const codes: string[] = [];
      feed.start({
        state: (state, detail) => {
          if (state === 'waiting') codes.push(detail!.split(':')[0]!);
        },
      });
      const wider = tableOf('items', ['id bigint', 'name text', 'doc text', 'qty integer']);
      await feed.frame([items], [Array.from({ length: 200 }, (_, id) => ins(String(id), 'n', null))], 'first', 0);
      await expect.poll(openTransactions, TRX).toBe('1');
      await feed.frame(
        [wider],
        [Array.from({ length: 200 }, (_, id) => ins(String(200 + id), 'n', null, '1'))],
        'middle',
        200,
      );
      // What is written is taken back before the table changes.
      await expect.poll(async () => await rows("SHOW COLUMNS FROM items LIKE 'qty'")).toHaveLength(1);
      expect(await rows('SELECT COUNT(*) FROM items')).toEqual([['0']]);
      await feed.frame([wider], [[ins('999', 'n', null, '1')]], 'last', 400);
      await feed.caughtUp();
      expect(codes).toEqual(['target_conflict']);
      expect(await rows('SELECT COUNT(*), SUM(qty) FROM items')).toEqual([['401', '201']]);
    });

    test('a table that changes several times in one transaction is written in each of its versions', async () => {
      await open();
      const versions = [3, 4, 5].map((count) =>
        tableOf('items', ['id bigint', 'name text', 'doc text', 'a integer', 'b integer'].slice(0, count)),
      );
      let tries = 0;
      feed.start({ state: (state) => void (tries += state === 'waiting' ? 1 : 0) });
      await feed.frame([items], [[ins('1', 'n', null)]]);
      await feed.caughtUp();
      const rowOf = (id: string, version: number): RowChange =>
        at(version, ins(...[id, 'n', null, '1', '2'].slice(0, 3 + version)));
      // The version of the middle comes once more.
      await feed.frame(versions, [[rowOf('2', 0), rowOf('3', 1), rowOf('4', 2), rowOf('5', 1), rowOf('6', 0)]]);
      await feed.frame([versions[2]!], [[ins('7', 'n', null, '1', '2')]]);
      await feed.caughtUp();
      expect(await rows('SELECT * FROM items ORDER BY id')).toEqual([
        ['1', 'n', null, null, null],
        ['2', 'n', null, null, null],
        ['3', 'n', null, '1', null],
        ['4', 'n', null, '1', '2'],
        ['5', 'n', null, '1', null],
        ['6', 'n', null, null, null],
        ['7', 'n', null, '1', '2'],
      ]);
      expect(tries).toBe(1);
      expect(await rows('SELECT * FROM waybill.schema_changes')).toEqual([]);
    });

    test('a transaction that makes many tables begins again once for all of them', async () => {
      await open({ batch_bytes: 3000 });
      let tries = 0;
      feed.start({ state: (state) => void (tries += state === 'waiting' ? 1 : 0) });
      const tables = Array.from({ length: 5 }, (_, index) => tableOf(`made_${index}`, ['id bigint', 'name text']));
      const some = Array.from({ length: 150 }, (_, id) => ins(String(id), 'n'));
      for (const [index, table] of tables.entries())
        await feed.frame([table], [some], index === 0 ? 'first' : 'middle', index * 150);
      await feed.frame([tables[0]!], [[ins('999', 'end')]], 'last', 750);
      await feed.caughtUp();
      const counts = tables.map(({ name }) => `SELECT COUNT(*) FROM ${name}`);
      expect(await rows(counts.join(' UNION ALL '))).toEqual([['151'], ['150'], ['150'], ['150'], ['150']]);
      expect(tries).toBe(1);
    });

    test('a restart applies nothing twice, and what it was in the middle of once', async () => {
      await open({ batch_bytes: 3000 });
      const log = tableOf('log', ['a integer'], { keys: 0 });
      const first = feed.start();
      await feed.frame([log], [[ins('1')], [ins('2')]]);
      await feed.caughtUp();
      await feed.frame([log], [Array.from({ length: 400 }, () => ins('3'))], 'first', 0);
      await expect.poll(openTransactions, TRX).toBe('1');
      first.stop.abort();
      await first.done;
      feed.start();
      await feed.frame([log], [[ins('4')]], 'last', 400);
      await feed.caughtUp();
      expect(await rows('SELECT a, COUNT(*) FROM log GROUP BY a ORDER BY a')).toEqual([
        ['1', '1'],
        ['2', '1'],
        ['3', '400'],
        ['4', '1'],
      ]);
    });

    test('a table that was dropped behind the back of its flow is stopped, and made again by a reading alone', async () => {
      await open();
      const third = tableOf('third', ['id bigint', 'note text']);
      let notices: readonly TableNotice[] = [];
      const start = (): void => void feed.start({ tables: (found) => void (notices = found) });
      const mark = (table: number, what: string): RowChange => ['s', table, ['snap1', what]];
      start();
      await feed.frame([items, third], [[ins('1', 'a', null), at(1, ins('1', 'x'))]]);
      await feed.caughtUp();
      await feed.stopFlows();
      await run('DROP TABLE items; ALTER TABLE third DROP COLUMN note');
      start();
      await feed.frame([items, third], [[ins('2', 'b', null), at(1, ins('2', 'y'))]]);
      await feed.caughtUp();
      expect(notices).toMatchObject([
        { name: 'items', state: 'stopped', reason: expect.stringMatching(/it is missing/) },
        { name: 'third', state: 'stopped', reason: expect.stringMatching(/column note is missing/) },
      ]);
      expect(await rows('SELECT * FROM third')).toEqual([['1']]);
      await feed.frame(
        [items, third],
        [
          [mark(0, 'begin'), mark(1, 'begin'), ['r', 0, ['1', 'a', null]], ['r', 1, ['1', 'x']]],
          [['r', 0, ['2', 'b', null]], ['r', 1, ['2', 'y']], mark(0, 'end'), mark(1, 'end')],
        ],
      );
      await feed.caughtUp();
      expect(await rows('SELECT id, name FROM items ORDER BY id')).toEqual([
        ['1', 'a'],
        ['2', 'b'],
      ]);
      expect(await rows('SELECT id, note FROM third ORDER BY id')).toEqual([
        ['1', 'x'],
        ['2', 'y'],
      ]);
      expect(notices).toEqual([]);
      // Under a running flow, with the reading in the batch that finds it out.
      await feed.stopFlows();
      await run('DROP TABLE items');
      await feed.frame([items], [[ins('3', 'c', null)]]);
      await feed.frame([items], [[mark(0, 'begin'), ['r', 0, ['1', 'a', null]], mark(0, 'end')]]);
      start();
      await feed.caughtUp();
      expect(await rows('SELECT id FROM items')).toEqual([['1']]);
    });

    test('a writer that was overtaken is fenced and starts again from the position', async () => {
      await open();
      const codes: string[] = [];
      feed.start({
        state: (state, detail) => {
          if (state === 'waiting') codes.push(detail!.split(':')[0]!);
        },
      });
      await feed.frame([items], [[ins('1', 'a', null)]]);
      await feed.caughtUp();
      const [row] = await readPositions(session);
      // Another writer applies the second frame (with a different outcome, to tell whose it was).
      const [moved] = await session.run(
        advanceSql({
          flow: 'mirror',
          source: 'wms',
          expected: parsePosition(row!.position)!,
          next: pgPosition(1250n),
          stream: row!.stream,
          seq: 1,
          commitTimeUs: 0,
          quarantineVersion: 0,
        }),
      );
      expect(moved!.rows).toBe(1);
      await feed.frame([items], [[ins('2', 'zombie', null)]]);
      await feed.frame([items], [[ins('3', 'c', null)]]);
      await feed.caughtUp();
      expect(codes).toContain('target_fenced');
      expect(await rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3']]);
    });

    test('a session that hangs in a transaction is ended by its successor', async () => {
      await open();
      const store = createMysqlStore(target);
      const options = {
        flow: 'mirror',
        settings: feed.settings,
        stream: 'stream',
        installation: 'i',
        report: NO_FLOW_REPORT,
        checks: { upTo: undefined },
      };
      const first = await store.open('first');
      const second = await store.open('second');
      try {
        await first.openSink(options);
        await second.openSink(options);
        await expect.poll(() => first.lost.aborted).toBe(true);
        expect(second.lost.aborted).toBe(false);
      } finally {
        await first.close();
        await second.close();
      }
    });

    test('a snapshot removes what it did not see, over a restart', async () => {
      await open();
      const log = tableOf('log', ['a integer'], { keys: 0 });
      const first = feed.start();
      const mark = (index: number, what: string): RowChange => ['s', index, ['snap-1', what]];
      const read = (...values: Value[]): RowChange => ['r', 0, values];
      const old = Array.from({ length: 300 }, (_, id) => ins(String(id), 'old', null));
      await feed.frame([items, log], [[mark(0, 'begin'), ...old, mark(0, 'end'), at(1, ins('1'))]]);
      await feed.frame(
        [items, log],
        [
          [mark(0, 'begin'), mark(1, 'begin')],
          [read('1', 'new', null), ['r', 1, ['2']]],
        ],
      );
      await feed.caughtUp();
      first.stop.abort();
      await first.done;
      feed.start();
      await feed.frame(
        [items, log],
        [
          [upd('2', 'streamed', null), ins('900', 'n', null)],
          Array.from({ length: 150 }, (_, id) => read(String(100 + id), 'new', null)),
        ],
      );
      await feed.frame([items, log], [[mark(0, 'end'), mark(1, 'end')]]);
      await feed.caughtUp();
      expect(await rows('SELECT COUNT(*), SUM(id) FROM items')).toEqual([
        ['153', String(1 + 2 + 900 + 150 * 100 + (149 * 150) / 2)],
      ]);
      expect(await rows('SELECT a FROM log')).toEqual([['2']]);
      expect(await rows('SELECT * FROM waybill.snapshot')).toEqual([]);
      // A second one finds the table of the first, empty.
      await feed.frame([items], [[mark(0, 'begin'), read('1', 'x', null), mark(0, 'end')]]);
      await feed.caughtUp();
      expect(await rows('SELECT id, name FROM items')).toEqual([['1', 'x']]);
    });

    test('deletes and truncates can be ignored, tables left out, and all put into one database', async () => {
      await open({ deletes: 'ignore', truncate: 'ignore', tables: ['public.*', '!public.log'], schema: 'wms' });
      await run('DROP DATABASE IF EXISTS wms');
      feed.start();
      const log = tableOf('log', ['a integer'], { keys: 0 });
      await feed.frame(
        [items, log],
        [
          [ins('1', 'a', null), ins('2', 'a', null), at(1, ins('1'))],
          [del('1', null, null), ['t', 0, []]],
        ],
      );
      await feed.caughtUp();
      expect(await rows('SELECT id FROM wms.items ORDER BY id')).toEqual([['1'], ['2']]);
      expect(await rows("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'wms'")).toEqual([
        ['items'],
      ]);
    });

    test('without LOAD DATA LOCAL many rows travel as literals', async () => {
      await open();
      await run('SET GLOBAL local_infile = OFF');
      try {
        feed.start();
        await feed.frame([items], [Array.from({ length: 3000 }, (_, id) => ins(String(id), `n${id}`, 'd'))]);
        await feed.caughtUp();
        await feed.frame(
          [items],
          [
            Array.from({ length: 3000 }, (_, id) =>
              id % 2 === 0 ? upd(String(id), 'N', 0) : del(String(id), null, null),
            ),
          ],
        );
        await feed.caughtUp();
        expect(await rows("SELECT COUNT(*), SUM(name = 'N' AND doc = 'd') FROM items")).toEqual([['1500', '1500']]);
      } finally {
        await run('SET GLOBAL local_infile = ON');
      }
    });

    test('the target may restart', async () => {
      await open();
      feed.start();
      await feed.frame([items], [[ins('1', 'a', null)]]);
      await feed.caughtUp();
      await server.stop('immediate');
      await feed.frame([items], [[ins('2', 'b', null)]]);
      await server.start();
      await session.close();
      session = await MysqlSession.open(target, 'test');
      await expect.poll(async () => (await rows('SELECT COUNT(*) FROM items'))[0]![0]).toBe('2');
    });
  });
});
