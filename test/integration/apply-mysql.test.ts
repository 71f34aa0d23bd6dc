/** A mirror flow against real MySQL and MariaDB servers and a real NATS, fed with frames made by hand. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { advanceSql, readPositions } from '../../apply/mysql/position.ts';
import { discardQuarantine, listQuarantine, replayQuarantine, showQuarantine } from '../../apply/mysql/quarantine.ts';
import { MysqlSession } from '../../apply/mysql/session.ts';
import { createMysqlStore } from '../../apply/mysql/store.ts';
import type { TargetConfig } from '../../core/config.ts';
import { NO_FLOW_REPORT } from '../../core/metrics.ts';
import type { RowChange, Value } from '../../core/frame.ts';
import { parsePosition, pgPosition } from '../../core/position.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { at, del, FrameFeed, ins, tableOf, upd } from '../support/frame-feed.ts';

let natsServer: NatsServer;

beforeAll(async () => {
  natsServer = await startNats();
}, 60_000);
afterAll(async () => {
  await natsServer?.dispose();
});

/** The server keeps what it says of transactions for 0.1 s after it was asked. */
const TRX = { timeout: 5000, interval: 250 };

const items = tableOf('items', ['id bigint', 'name text', 'doc text']);

describe.each([
  { flavour: 'mysql' as const, version: '9.7' as const },
  { flavour: 'mariadb' as const, version: '10.11' as const },
])('$flavour $version', ({ flavour, version }) => {
  let server: MysqlServer;
  let feed: FrameFeed;
  let session: MysqlSession;
  let target: TargetConfig;
  let databases = 0;

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });

  async function open(flow: Record<string, unknown> = {}): Promise<void> {
    target = { kind: flavour, url: await server.createDatabase(`vis_${++databases}`) };
    session = await MysqlSession.open(target, 'test');
    await session.run('DROP DATABASE IF EXISTS waybill');
    feed = await FrameFeed.open({
      natsUrl: natsServer.url,
      target,
      flow,
      createStore: createMysqlStore,
      readPosition: async () => (await readPositions(session))[0]?.position,
    });
  }

  async function close(): Promise<void> {
    await feed?.close();
    await session?.close();
  }

  afterEach(close);

  const rows = (sql: string): Promise<(string | null)[][]> => session.rows(sql);
  const run = (sql: string): Promise<unknown> => session.run(sql);

  describe('changes', () => {
    beforeEach(async () => open());

    test('insert, update, delete arrive, in a table made for them', async () => {
      feed.start();
      const odd = "it's \\ a\ttab\nline \0 nul \u{1F600}";
      await feed.frame([items], [[ins('1', odd, null), ins('2', 'b', 'x')]]);
      await feed.frame([items], [[upd('1', 'A', 'doc')], [del('2', null, null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT * FROM items')).toEqual([['1', 'A', 'doc']]);
      await feed.frame([items], [[ins('3', odd, null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT name, doc FROM items WHERE id = 3')).toEqual([[odd, null]]);
      expect(
        await rows(
          `SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND INDEX_NAME = 'PRIMARY'`,
        ),
      ).toEqual([['id']]);
    });

    test('many rows through LOAD DATA keep special characters, bytes, bits and nulls', async () => {
      const wide = tableOf('wide', [
        'id integer',
        't text',
        'b bytea',
        'n numeric(10,2)',
        'a text[]',
        'j jsonb',
        'ts timestamp with time zone',
        'f boolean',
        'x bit(9)',
      ]);
      feed.start();
      const bytes = Buffer.from([0, 255, 92, 10]).toString('base64');
      const row = (id: number, t: string | null): Value[] => [
        String(id),
        t,
        bytes,
        '1.50',
        '{"a,b",NULL,"NULL"}',
        '{"k": "\\n"}',
        '2024-02-29 23:59:59.123456+00',
        't',
        '100000001',
      ];
      const text = (id: number): string | null => (id % 2 === 0 ? `\\N ${id}\r\n\t\\.\0` : null);
      await feed.frame([wide], [Array.from({ length: 500 }, (_, id) => ins(...row(id, text(id))))]);
      await feed.caughtUp();
      const summary = `SELECT COUNT(*), SUM(t = CONCAT('\\N ', id, CHAR(13 USING utf8mb4), CHAR(10), CHAR(9), '\\.', CHAR(0))),
        SUM(t IS NULL), MIN(HEX(b)), MIN(n), MIN(a), MIN(JSON_UNQUOTE(JSON_EXTRACT(j, '$.k'))), MIN(ts), MIN(f), MIN(BIN(x)) FROM wide`;
      const rest = ['00FF5C0A', '1.50', '{"a,b",NULL,"NULL"}', '\n', '2024-02-29 23:59:59.123456', '1', '100000001'];
      expect(await rows(summary)).toEqual([['500', '250', '250', ...rest]]);
      await feed.frame(
        [wide],
        [Array.from({ length: 500 }, (_, id) => upd(...row(id, text(2 * id)!.replace(`${2 * id}`, `${id}`))))],
      );
      await feed.caughtUp();
      expect(await rows(summary)).toEqual([['500', '500', '0', ...rest]]);
    });

    test('the last state of a key counts, and partial images are merged', async () => {
      await feed.frame(
        [items],
        [
          [ins('1', 'a', 'long'), ins('2', 'b', 'gone')],
          [upd('1', 'a2', 0), del('2', null, null)],
          [ins('2', 'again', 'new'), upd('2', 'again2', 0)],
          [ins('4', 'x', 'y'), del('4', null, null)],
        ],
      );
      feed.start();
      await feed.caughtUp();
      await feed.frame([items], [[upd('1', 'a3', 0)]]);
      await feed.caughtUp();
      expect(await rows('SELECT * FROM items ORDER BY id')).toEqual([
        ['1', 'a3', 'long'],
        ['2', 'again2', 'new'],
      ]);
    });

    test('many partial updates of different columns through the staging table', async () => {
      feed.start();
      await feed.frame([items], [Array.from({ length: 300 }, (_, id) => ins(String(id), `n${id}`, `d${id}`))]);
      await feed.caughtUp();
      await feed.frame(
        [items],
        [
          Array.from({ length: 300 }, (_, id) =>
            id % 3 === 0
              ? upd(String(id), 'N', 0)
              : id % 3 === 1
                ? upd(String(id), 0, 'D')
                : del(String(id), null, null),
          ),
        ],
      );
      await feed.caughtUp();
      expect(
        await rows(
          `SELECT COUNT(*), SUM(name = 'N' AND doc = CONCAT('d', id)), SUM(doc = 'D' AND name = CONCAT('n', id)) FROM items`,
        ),
      ).toEqual([['200', '100', '100']]);
    });

    test('a changed key moves the row with its unchanged columns', async () => {
      feed.start();
      await feed.frame([items], [[ins('1', 'a', 'toast'), ins('5', 'e', 'f')]]);
      await feed.caughtUp();
      await feed.frame(
        [items],
        [[['u', 0, ['10', 'a2', 0], 'k', ['1', null, null]]], [['u', 0, ['50', 'e2', 'f2'], 'k', ['5', null, null]]]],
      );
      await feed.caughtUp();
      expect(await rows('SELECT * FROM items ORDER BY id')).toEqual([
        ['10', 'a2', 'toast'],
        ['50', 'e2', 'f2'],
      ]);
    });

    test('foreign keys hold in both directions', async () => {
      await run(`CREATE TABLE parents (id bigint PRIMARY KEY, name text);
        CREATE TABLE a_children (id bigint PRIMARY KEY, parent bigint, FOREIGN KEY (parent) REFERENCES parents (id))`);
      const tables = [
        tableOf('a_children', ['id bigint', 'parent bigint']),
        tableOf('parents', ['id bigint', 'name text']),
      ];
      feed.start();
      await feed.frame(tables, [[at(1, ins('1', 'p')), at(1, ins('2', 'q')), ins('1', '1'), ins('2', '2')]]);
      await feed.caughtUp();
      await feed.frame(tables, [
        [del('1', null), at(1, del('1', null)), at(1, ins('3', 'r')), upd('2', '3'), at(1, del('2', null))],
      ]);
      await feed.caughtUp();
      expect(await rows('SELECT c.id, p.id FROM a_children c JOIN parents p ON p.id = parent')).toEqual([['2', '3']]);
      expect(await rows('SELECT id FROM parents')).toEqual([['3']]);
      // Both are emptied by one statement at the source; here the children go first.
      await feed.frame(tables, [[['t', 1, []], ['t', 0, []], at(1, ins('9', 'z'))]]);
      await feed.caughtUp();
      expect(await rows('SELECT (SELECT COUNT(*) FROM a_children), (SELECT MIN(id) FROM parents)')).toEqual([
        ['0', '9'],
      ]);
      expect(await listQuarantine(session)).toEqual([]);
    });

    test.each(['PRIMARY KEY', 'AUTO_INCREMENT PRIMARY KEY'])(
      'a unique value that moves between rows is never taken for its row (%s)',
      async (key) => {
        await run(`CREATE TABLE items (id bigint ${key}, name varchar(20) UNIQUE, doc text)`);
        feed.start();
        await feed.frame([items], [[ins('1', 'a', null), ins('2', 'b', null)]]);
        await feed.caughtUp();
        // A swap, and a value that goes to a new row, in one compacted batch each.
        await feed.frame([items], [[upd('1', 'tmp', null), upd('2', 'a', null), upd('1', 'b', null)]]);
        await feed.caughtUp();
        expect(await rows('SELECT id, name FROM items ORDER BY id')).toEqual([
          ['1', 'b'],
          ['2', 'a'],
        ]);
        await feed.frame([items], [[upd('1', 'c', 'old'), ins('0', 'b', 'new')]]);
        await feed.caughtUp();
        expect(await rows('SELECT id, name, doc FROM items ORDER BY id')).toEqual([
          ['0', 'b', 'new'],
          ['1', 'c', 'old'],
          ['2', 'a', null],
        ]);
        expect(await listQuarantine(session)).toEqual([]);
        // A value that another row keeps: the change waits, and no row is touched.
        await feed.frame([items], [[ins('7', 'a', 'thief')]]);
        await feed.frame(
          [items],
          [Array.from({ length: 200 }, (_, id) => ins(`${1000 + id}`, id === 9 ? 'c' : `m${id}`, null))],
        );
        await feed.caughtUp();
        expect(await rows('SELECT COUNT(*), SUM(id < 1000) FROM items')).toEqual([['202', '3']]);
        expect((await listQuarantine(session)).map((entry) => [entry.key, entry.reason, entry.sqlState])).toEqual([
          ['["7"]', 'constraint', '23000'],
          ['["1009"]', 'constraint', '23000'],
        ]);
      },
    );

    test('a table without a key is written row by row', async () => {
      const log = tableOf('log', ['a integer', 'b text', 'j json', 'r real', 'c character(4)'], { keys: 0 });
      feed.start();
      const full = (op: 'u' | 'd', after: Value[] | null, before: Value[]): RowChange =>
        [op, 0, after, 'f', before] as RowChange;
      const twin: Value[] = ['1', 'x', '{"a": 1}', '1.1', 'ab  '];
      await feed.frame(
        [log],
        [[ins(...twin), ins(...twin), ins('1', 'X', '{"a": 1}', '1.1', 'ab  '), ins('2', null, null, null, null)]],
      );
      await feed.frame(
        [log],
        [[full('d', null, twin)], [full('u', ['3', 0, '[1]', '2.5', null], ['2', null, null, null, null])]],
      );
      await feed.caughtUp();
      expect(await rows('SELECT a, b, CAST(j AS CHAR), r, c FROM log ORDER BY a, b')).toEqual([
        ['1', 'X', '{"a": 1}', '1.1', 'ab'],
        ['1', 'x', '{"a": 1}', '1.1', 'ab'],
        ['3', null, '[1]', '2.5', null],
      ]);
    });

    test('truncate empties the table at its place', async () => {
      feed.start();
      await feed.frame([items], [[ins('1', 'a', null)], [ins('2', 'b', null), ['t', 0, []], ins('3', 'c', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT id FROM items')).toEqual([['3']]);
    });

    test('a new source column is added, and a dropped one is left alone', async () => {
      feed.start();
      await feed.frame([items], [[ins('1', 'a', 'd')]]);
      await feed.frame([tableOf('items', ['id bigint', 'name text', 'qty integer'])], [[ins('2', 'b', '7')]]);
      await feed.caughtUp();
      expect(await rows('SELECT id, name, doc, qty FROM items ORDER BY id')).toEqual([
        ['1', 'a', 'd', null],
        ['2', 'b', null, '7'],
      ]);
    });

    test('keys that differ by case or by a trailing space are two, also in texts without a length', async () => {
      const codes = tableOf('codes', ['code text', 'n integer']);
      feed.start();
      await feed.frame([codes], [[ins('a', '1'), ins('A', '2'), ins('a ', '3'), ins('\u00e4', '4')]]);
      await feed.frame([codes], [[upd('A', '5'), del('a', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT code, n FROM codes ORDER BY n')).toEqual([
        ['a ', '3'],
        ['\u00e4', '4'],
        ['A', '5'],
      ]);
    });

    test('a key column that would take two keys for one is refused with the remedy', async () => {
      await run('CREATE TABLE codes (code varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n int)');
      const { done } = feed.start();
      await feed.frame([tableOf('codes', ['code text', 'n integer'])], [[ins('a', '1')]]);
      await expect(done).rejects.toMatchObject({
        code: 'target_shape',
        message: expect.stringMatching(/codes: key column code.*utf8mb4_general_ci.*ALTER TABLE .* MODIFY/),
      });
    });

    test('where the source has the same collation, a key may change its case', async () => {
      const codes = tableOf('codes', ['code varchar(20)', 'n int(11)'], {
        dialect: 'mysql',
        collation: 'utf8mb4_general_ci',
        schema: `vis_${databases}`,
      });
      feed.start();
      await feed.frame([codes], [[ins('a', '1'), ins('b', '2')]]);
      await feed.caughtUp();
      await feed.frame([codes], [[['u', 0, ['A', '3'], 'k', ['a', null]]], [upd('b', '4')]]);
      await feed.caughtUp();
      expect(await rows('SELECT code, n FROM codes ORDER BY n')).toEqual([
        ['A', '3'],
        ['b', '4'],
      ]);
    });

    test('tables of another shape halt the flow with column and types named', async () => {
      await run('CREATE TABLE items (id bigint PRIMARY KEY, name int, doc text, n decimal(9,2))');
      const { done } = feed.start();
      await feed.frame(
        [tableOf('items', ['id bigint', 'name text', 'doc text', 'n numeric(12,4)'])],
        [[ins('1', 'a', null, '1')]],
      );
      await expect(done).rejects.toMatchObject({
        code: 'target_shape',
        message: expect.stringMatching(/items: column name is int.*text.*column n is decimal\(9,2\).*4 fractional/),
      });
    });

    test('a type without a counterpart halts the flow', async () => {
      const { done } = feed.start();
      await feed.frame([tableOf('big', ['id bigint', 'n numeric(80,10)'])], [[ins('1', '1')]]);
      await expect(done).rejects.toMatchObject({
        code: 'target_shape',
        message: expect.stringMatching(/big: column n \(numeric\(80,10\)\).*65 digits/),
      });
    });
  });

  describe('quarantine', () => {
    beforeEach(async () => {
      await open();
      await run(
        'CREATE TABLE items (id bigint PRIMARY KEY, name varchar(50), doc text, CONSTRAINT short CHECK (CHAR_LENGTH(name) < 5))',
      );
    });

    test('a bad row and what follows it wait; neighbours go on; replay and discard', async () => {
      let reported = 0;
      feed.start({ quarantined: (_, keys) => (reported += keys) });
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
      expect(reported).toBe(3);
      expect((await showQuarantine(session, list[0]!.id))?.change.change[2]).toEqual(['2', 'too long', null]);
      expect(await replayQuarantine(session, 'mirror', { all: true })).toMatchObject({
        applied: 0,
        failed: [{ id: list[0]!.id, reason: 'constraint' }],
      });
      await run(`ALTER TABLE items DROP CONSTRAINT short`);
      expect(await replayQuarantine(session, 'mirror', { ids: [list[2]!.id] })).toEqual({ applied: 3, failed: [] });
      expect(await rows('SELECT name, doc FROM items WHERE id = 2')).toEqual([['fin2', 'd']]);
      await feed.frame([items], [[upd('2', 'free', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT name FROM items WHERE id = 2')).toEqual([['free']]);
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
      await expect.poll(() => codes.includes('target_conflict'), { timeout: 5000 }).toBe(true);
      expect(await rows('SELECT COUNT(*) FROM items')).toEqual([['0']]);
      await feed.frame([wider], [[ins('999', 'n', null, '1')]], 'last', 400);
      await feed.caughtUp();
      expect(await rows('SELECT COUNT(*), SUM(qty) FROM items')).toEqual([['401', '201']]);
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
      const options = { flow: 'mirror', settings: feed.settings, stream: 'stream', report: NO_FLOW_REPORT };
      const first = await store.open('first');
      const second = await store.open('second');
      try {
        await first.openSink(options);
        await second.openSink(options);
        await expect.poll(() => first.lost.aborted, { timeout: 5000 }).toBe(true);
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
      await expect.poll(async () => (await rows('SELECT COUNT(*) FROM items'))[0]![0], { timeout: 15_000 }).toBe('2');
    });
  });
});
