/** A mirror flow into MySQL and MariaDB, fed with frames made by hand: changes and values. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { FollowedTables } from '../../apply/followed-tables.ts';
import {
  listQuarantine,
  loadHeldKeys,
  quarantinedAt,
  replayQuarantine,
  showQuarantine,
} from '../../apply/mysql/quarantine.ts';
import { MysqlSession } from '../../apply/mysql/session.ts';
import { createMysqlStore } from '../../apply/mysql/store.ts';
import { PAGE_SIZES } from '../../apply/quarantine-entry.ts';
import { prepareWaybillDatabase } from '../../apply/mysql/waybill-database.ts';
import type { RowChange, Value } from '../../core/frame.ts';
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

const items = tableOf('items', ['id bigint', 'name text', 'doc text']);

describe.each([
  { flavour: 'mysql' as const, version: '9.7' as const },
  { flavour: 'mariadb' as const, version: '10.11' as const },
])('$flavour $version', ({ flavour, version }) => {
  let server: MysqlServer;
  let feed: FrameFeed;
  let session: MysqlSession;

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });

  async function open(flow: Record<string, unknown> = {}, url?: string): Promise<void> {
    ({ session, feed } = await openMysqlTarget(server, natsServer.url, flow, url));
  }

  async function close(): Promise<void> {
    await feed?.close();
    await session?.close();
  }

  afterEach(close);

  const rows = (sql: string): Promise<(string | null)[][]> => session.rows(sql);
  const run = (sql: string): Promise<unknown> => session.run(sql);
  const stopped = async (): Promise<string> =>
    (await rows("SELECT reason FROM waybill.tables WHERE state = 'stopped'")).join();

  test('a url without a database does for changes of every kind, few and many', async () => {
    await open({ schema: 'nowhere' }, server.url);
    feed.start();
    const ids = Array.from({ length: 500 }, (_, n) => String(n));
    await feed.frame([items], [ids.map((id) => ins(id, 'a', null))]);
    await feed.frame([items], [ids.map((id, n) => (n % 2 === 0 ? upd(id, 'b', null) : del(id, null, null)))]);
    await feed.frame([items], [[upd('0', 'c', null), del('2', null, null)]]);
    await feed.caughtUp();
    expect(await rows('SELECT name, COUNT(*) FROM nowhere.items GROUP BY name ORDER BY name')).toEqual([
      ['b', '248'],
      ['c', '1'],
    ]);
    const mark = (kind: 'begin' | 'end'): RowChange => ['s', 0, ['again', kind]];
    await feed.frame([items], [[mark('begin')], [['r', 0, ['0', 'd', null]], mark('end')]]);
    await feed.caughtUp();
    expect(await rows('SELECT id, name FROM nowhere.items')).toEqual([['0', 'd']]);
  });

  if (flavour === 'mysql')
    test('a server may ask for a primary key of every table, of temporary ones too', async () => {
      await open();
      await run('SET GLOBAL sql_require_primary_key = ON');
      try {
        await close();
        await open();
        feed.start();
        const ids = Array.from({ length: 500 }, (_, n) => String(n));
        await feed.frame([items], [ids.map((id) => ins(id, 'a', null))]);
        await feed.frame([items], [ids.map((id, n) => (n % 2 === 0 ? upd(id, 'b', null) : del(id, null, null)))]);
        await feed.caughtUp();
        expect(await rows('SELECT name, COUNT(*) FROM items GROUP BY name')).toEqual([['b', '250']]);
      } finally {
        await run('SET GLOBAL sql_require_primary_key = OFF');
      }
    });

  test('a flow that another installation is writing is not taken for its own', async () => {
    await open();
    feed.start();
    await feed.frame([items], [[ins('1', 'a', null)]]);
    await feed.caughtUp();
    const other = await FrameFeed.open({
      natsUrl: natsServer.url,
      target: { kind: flavour, url: await server.createDatabase(`other_${randomUUID().slice(0, 8)}`) },
      flow: {},
      createStore: createMysqlStore,
      readPosition: async () => undefined,
    });
    try {
      await other.frame([items], [[ins('7', 'b', null)]]);
      const owner = async (): Promise<unknown> => (await rows('SELECT installation FROM waybill.owner')).join();
      const first = await owner();
      await expect(other.start().done).rejects.toMatchObject({ code: 'target_foreign' });
      await feed.frame([items], [[ins('2', 'b', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['2']]);
      // One that is gone lost its NATS, for all that anybody knows.
      await feed.stopFlows();
      other.start();
      await expect.poll(owner).not.toBe(first);
    } finally {
      await other.close();
    }
  });

  test('a value that is larger than a packet may be waits, whole, and its neighbours go on', async () => {
    await open();
    await run('SET GLOBAL max_allowed_packet = 262144');
    try {
      feed.start();
      const large = "'\u{1F600}\\".repeat(50_000);
      await feed.frame([items], [[ins('1', 'a', null), ins('2', large, null), ins('3', 'c', null)]]);
      await feed.caughtUp();
      await feed.frame([items], [[upd('2', 'b', 'd')]]);
      await feed.caughtUp();
      expect(await rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3']]);
      const list = await listQuarantine(session, 'mirror');
      expect(list.map(({ key, reason }) => [key, reason])).toEqual([
        ['["2"]', 'value'],
        ['["2"]', 'held'],
      ]);
      expect(list[0]!.message).toContain('max_allowed_packet');
      expect((await showQuarantine(session, list[0]!.id))?.change.change).toEqual(['i', 0, ['2', large, null]]);
      await run('SET GLOBAL max_allowed_packet = 16777216');
      const again = await MysqlSession.open(feed.config.targets['vis']!, 'test');
      expect(await replayQuarantine(again, 'mirror', { all: true })).toEqual({ applied: 2, failed: [] });
      await again.close();
      expect(await rows('SELECT id, name, doc FROM items WHERE id = 2')).toEqual([['2', 'b', 'd']]);
      expect(await rows('SELECT * FROM waybill.quarantine_piece')).toEqual([]);
    } finally {
      await run('SET GLOBAL max_allowed_packet = DEFAULT');
    }
  });

  test('changes that wait in pieces are read so much at a time as others', async () => {
    await open();
    await prepareWaybillDatabase(session);
    const table = '"schema": "public", "name": "items", "key": ["id"], "columns": [{"name": "id"}]';
    const change = (n: number): string => `'{"table": {${table}}, "change": ["i", 0, ["${n}"]]}'`;
    const list = Array.from({ length: PAGE_SIZES + 6 }, (_, n) =>
      [n + 1, "'mirror', 'wms', 'public', 'items', 'at', 0, 'i', ''", n < 3 ? "NULL, ''" : `'', ${change(n)}`].join(),
    );
    await run(
      `INSERT INTO waybill.quarantine (id, flow, source, table_schema, table_name, position, ordinal, op, reason, \`key\`, \`change\`, created_at)
       VALUES (${list.join(', now()), (')}, now());
       INSERT INTO waybill.quarantine_piece SELECT id, 0, '{"table": {${table}}, "change": ["' FROM waybill.quarantine WHERE \`change\` = '';
       INSERT INTO waybill.quarantine_piece SELECT id, 1, CONCAT(REPEAT('x', 2500000), '"]}') FROM waybill.quarantine_piece`,
    );
    const { settings } = feed;
    const flow = { flow: 'mirror', settings, followed: new FollowedTables(settings) };
    const pages = async (): Promise<number> => {
      let count = 0;
      for await (const _ of quarantinedAt(session, flow, 'at')) count += 1;
      return count;
    };
    expect(await pages()).toBe(3);
    expect((await loadHeldKeys(session, flow)).has('public.items', String(PAGE_SIZES + 5))).toBe(true);
    // Whoever asks need not be a flow, which makes it.
    await run("DELETE FROM waybill.quarantine WHERE `change` = ''; DROP TABLE waybill.quarantine_piece");
    expect(await pages()).toBe(1);
  });

  test('a range of keys may begin in the batch in which the reading of its whole table ends', async () => {
    await open();
    feed.start();
    const mark = (...content: Value[]): RowChange => ['s', 0, content];
    const read = (id: string): RowChange => ['r', 0, [id, 'read', null]];
    await feed.frame([items], [['1', '2', '3'].map((id) => ins(id, 'a', null))]);
    await feed.frame([items], [[mark('whole', 'begin')]]);
    await feed.caughtUp();
    await feed.frame(
      [items],
      [
        [read('1'), read('2'), mark('whole', 'end')],
        [ins('4', 'a', null), mark('part', 'begin_range', '["2"]', null)],
        [read('2'), mark('part', 'end_range', '["2"]', null)],
      ],
    );
    await feed.caughtUp();
    expect(await rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['2']]);
    expect(await rows('SELECT * FROM waybill.snapshot_range')).toEqual([]);
  });

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

    test('keys that are alike when they are joined are two all the same', async () => {
      const pairs = tableOf('pairs', ['a varchar(9)', 'b varchar(9)', 'n int'], {
        keys: 2,
        dialect: flavour,
        collation: 'utf8mb4_bin',
      });
      feed.start();
      await feed.frame([pairs], [[ins('x\0', 'y', '1'), ins('x', '\0y', '2'), upd('z', 'z', '3')]]);
      await feed.frame([pairs], [[upd('x\0', 'y', '4'), del('x', '\0y', null)]]);
      await feed.caughtUp();
      expect(await rows('SELECT HEX(a), HEX(b), n FROM pairs ORDER BY n')).toEqual([
        ['7A', '7A', '3'],
        ['7800', '79', '4'],
      ]);
    });

    test('rows whose key is a float are found by it', async () => {
      const weights = tableOf('weights', ['kg float', 'n int'], { dialect: flavour });
      feed.start();
      await feed.frame([weights], [[ins('0.1', '1'), ins('0.2', '2'), ins('0.3', '3')]]);
      await feed.frame([weights], [[upd('0.1', '4'), del('0.2', null), ['u', 0, ['0.4', '5'], 'f', ['0.3', '3']]]]);
      await feed.caughtUp();
      expect(await rows('SELECT kg, n FROM weights ORDER BY kg')).toEqual([
        ['0.1', '4'],
        ['0.4', '5'],
      ]);
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

    test('of new rows that come twice in a batch the later one counts', async () => {
      const row = (id: number, name: string): RowChange => ['r', 0, [String(id), name, null]];
      const many = Array.from({ length: 300 }, (_, id) => row(id, 'read'));
      await feed.frame([items], [[ins('7', 'inserted', null)], many, [row(8, 'again')]]);
      feed.start();
      await feed.caughtUp();
      expect(await rows('SELECT name, COUNT(*) FROM items GROUP BY name ORDER BY name')).toEqual([
        ['again', '1'],
        ['read', '299'],
      ]);
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

    test('a key column that would take two keys for one stops its table with the remedy', async () => {
      await run('CREATE TABLE codes (code varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n int)');
      feed.start();
      await feed.frame([tableOf('codes', ['code text', 'n integer'])], [[ins('a', '1')]]);
      await feed.caughtUp();
      expect(await stopped()).toMatch(/codes: key column code.*utf8mb4_general_ci.*ALTER TABLE .* MODIFY/);
    });

    test('where the source has the same collation, a key may change its case', async () => {
      const codes = tableOf('codes', ['code varchar(20)', 'n int(11)'], {
        dialect: 'mysql',
        collation: 'utf8mb4_general_ci',
        schema: (await rows('SELECT DATABASE()'))[0]![0]!,
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

    test('a table of another shape is stopped with column and types named, and the others go on', async () => {
      await run('CREATE TABLE items (id bigint PRIMARY KEY, name int, doc text, n decimal(9,2))');
      feed.start();
      await feed.frame(
        [tableOf('items', ['id bigint', 'name text', 'doc text', 'n numeric(12,4)']), tableOf('other', ['id bigint'])],
        [[ins('1', 'a', null, '1'), at(1, ins('7'))]],
      );
      await feed.caughtUp();
      expect(await stopped()).toMatch(/items: column name is int.*text.*column n is decimal\(9,2\).*4 fractional/);
      expect(await rows('SELECT id FROM other')).toEqual([['7']]);
    });

    test('a type without a counterpart stops its table', async () => {
      feed.start();
      await feed.frame([tableOf('big', ['id bigint', 'n numeric(80,10)'])], [[ins('1', '1')]]);
      await feed.caughtUp();
      expect(await stopped()).toMatch(/big: column n \(numeric\(80,10\)\).*65 digits/);
    });
  });
});
