/** A mirror flow against a real Postgres and a real NATS, fed with frames made by hand: changes and values. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { listQuarantine } from '../../apply/postgres/quarantine.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import { hearApplied, type Applied } from '../../core/applied.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { type RowChange, type Value } from '../../core/frame.ts';
import { pgPosition } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, del, FrameFeed, ins, tableOf, upd } from '../support/frame-feed.ts';
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

describe('changes', () => {
  beforeEach(async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
  });

  test('insert, update, delete arrive, in a table made for them', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', "it's \\ a\ttab\nline", null), ins('2', 'b', 'x')]]);
    await fixture.feed.frame([items], [[upd('1', 'A', 'doc')], [del('2', null, null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT * FROM items')).toEqual([['1', 'A', 'doc']]);
    await fixture.feed.frame([items], [[ins('3', "it's \\ a\ttab\nline", null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT name, doc FROM items WHERE id = 3')).toEqual([["it's \\ a\ttab\nline", null]]);
    expect(
      await fixture.rows(`SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = 'items'::regclass AND indisprimary`),
    ).toEqual([['id']]);
  });

  test('a flow that another installation is writing is not taken for its own', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', null)]]);
    await fixture.feed.caughtUp();
    const other = await FrameFeed.open({
      natsUrl: natsServer.url,
      target: fixture.feed.config.targets['vis']!,
      flow: { schema: 'elsewhere' },
      createStore: createPostgresStore,
      readPosition: async () => undefined,
    });
    try {
      await other.frame([items], [[ins('7', 'b', null)]]);
      const owner = async (): Promise<unknown> => (await fixture.rows('SELECT installation FROM waybill.owner')).join();
      const first = await owner();
      await expect(other.start().done).rejects.toMatchObject({ code: 'target_foreign' });
      await fixture.feed.frame([items], [[ins('2', 'b', null)]]);
      await fixture.feed.caughtUp();
      expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['2']]);
      // One that is gone lost its NATS, for all that anybody knows.
      await fixture.feed.stopFlows();
      other.start();
      await expect.poll(owner).not.toBe(first);
    } finally {
      await other.close();
    }
  });

  test('the flow says how far it is, and how fast', async () => {
    const { config, nats } = fixture.feed;
    const heard = new Promise<Applied>((resolve) =>
      hearApplied(nats, config.nats.prefix, cdcStreamName(config.nats.prefix, 'wms'), resolve),
    );
    await nats.connection.flush();
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', null)]]);
    expect(await heard).toEqual({ v: 1, flow: 'mirror', seq: 1, bytesPerSecond: expect.any(Number) });
    expect((await heard).bytesPerSecond).toBeGreaterThan(0);
    expect(await fixture.rows('SELECT id FROM items')).toEqual([['1']]);
  });

  test('many rows through COPY keep special characters, bytes and nulls', async () => {
    const wide = tableOf('wide', [
      'id integer',
      't text',
      'b bytea',
      'n numeric(10,2)',
      'a text[]',
      'j jsonb',
      'ts timestamp with time zone',
    ]);
    fixture.feed.start();
    const row = (id: number, t: string | null): RowChange =>
      ins(
        String(id),
        t,
        Buffer.from([0, 255, 92, 10]).toString('base64'),
        '1.50',
        '{"a,b",NULL,"NULL"}',
        '{"k": "\\n"}',
        'infinity',
      );
    await fixture.feed.frame(
      [wide],
      [Array.from({ length: 500 }, (_, id) => row(id, id % 2 === 0 ? `\\N ${id}\r\n\t\\.` : null))],
    );
    await fixture.feed.frame(
      [wide],
      [Array.from({ length: 500 }, (_, id) => ['u', 0, row(id, `\\.${id}`)[2]!] as RowChange)],
    );
    await fixture.feed.caughtUp();
    expect(
      await fixture.rows(`SELECT count(*)::int, count(*) FILTER (WHERE t = '\\.' || id)::int, min(encode(b, 'hex')),
        min(n)::text, min(a::text), min(j->>'k'), min(ts)::text FROM wide`),
    ).toEqual([[500, 500, '00ff5c0a', '1.50', '{"a,b",NULL,"NULL"}', '\n', 'infinity']]);
  });

  test('of new rows that come twice in a batch the later one counts', async () => {
    const row = (id: number, name: string): RowChange => ['r', 0, [String(id), name, null]];
    const many = Array.from({ length: 300 }, (_, id) => row(id, 'read'));
    await fixture.feed.frame([items], [[ins('7', 'inserted', null)], many, [row(8, 'again')]]);
    fixture.feed.start();
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT name, count(*)::int FROM items GROUP BY 1 ORDER BY 1')).toEqual([
      ['again', 1],
      ['read', 299],
    ]);
  });

  test('many updates write the rows that the target lacks', async () => {
    fixture.feed.start();
    const many = (count: number, name: string): RowChange[] =>
      Array.from({ length: count }, (_, id) => upd(String(id), name, null));
    await fixture.feed.frame([items], [Array.from({ length: 200 }, (_, id) => ins(String(id), 'new', null))]);
    await fixture.feed.frame([items], [many(200, 'a')]);
    await fixture.feed.caughtUp();
    const names = 'SELECT name, count(*)::int FROM items GROUP BY 1 ORDER BY 1';
    expect(await fixture.rows(names)).toEqual([['a', 200]]);
    await fixture.client.query('DELETE FROM items WHERE id % 2 = 0');
    await fixture.feed.frame([items], [many(200, 'b')]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows(names)).toEqual([['b', 200]]);
    await fixture.client.query('DELETE FROM items');
    await fixture.feed.frame([items], [many(300, 'c')]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows(names)).toEqual([['c', 300]]);
  });

  test('the last state of a key counts, and partial images are merged', async () => {
    await fixture.feed.frame(
      [items],
      [
        [ins('1', 'a', 'long'), ins('2', 'b', 'gone')],
        [upd('1', 'a2', 0), del('2', null, null)],
        [ins('2', 'again', 'new'), upd('2', 'again2', 0)],
        [ins('4', 'x', 'y'), del('4', null, null)],
      ],
    );
    fixture.feed.start();
    await fixture.feed.caughtUp();
    await fixture.feed.frame([items], [[upd('1', 'a3', 0)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT * FROM items ORDER BY id')).toEqual([
      ['1', 'a3', 'long'],
      ['2', 'again2', 'new'],
    ]);
  });

  test('many partial updates of different columns through the staging table', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [Array.from({ length: 300 }, (_, id) => ins(String(id), `n${id}`, `d${id}`))]);
    await fixture.feed.frame(
      [items],
      [
        Array.from({ length: 300 }, (_, id) =>
          id % 3 === 0 ? upd(String(id), 'N', 0) : id % 3 === 1 ? upd(String(id), 0, 'D') : del(String(id), null, null),
        ),
      ],
    );
    await fixture.feed.caughtUp();
    expect(
      await fixture.rows(`SELECT count(*)::int, count(*) FILTER (WHERE name = 'N' AND doc = 'd' || id)::int,
        count(*) FILTER (WHERE doc = 'D' AND name = 'n' || id)::int FROM items`),
    ).toEqual([[200, 100, 100]]);
  });

  test('a changed key moves the row with its unchanged columns', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', 'toast'), ins('5', 'e', 'f')]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame(
      [items],
      [[['u', 0, ['10', 'a2', 0], 'k', ['1', null, null]]], [['u', 0, ['50', 'e2', 'f2'], 'k', ['5', null, null]]]],
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT * FROM items ORDER BY id')).toEqual([
      ['10', 'a2', 'toast'],
      ['50', 'e2', 'f2'],
    ]);
  });

  test('foreign keys hold in both directions', async () => {
    await fixture.client.query(`CREATE TABLE parents (id bigint PRIMARY KEY, name text);
      CREATE TABLE a_children (id bigint PRIMARY KEY, parent bigint REFERENCES parents)`);
    const tables = [
      tableOf('a_children', ['id bigint', 'parent bigint']),
      tableOf('parents', ['id bigint', 'name text']),
    ];
    fixture.feed.start();
    await fixture.feed.frame(tables, [[at(1, ins('1', 'p')), at(1, ins('2', 'q')), ins('1', '1'), ins('2', '2')]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame(tables, [
      [del('1', null), at(1, del('1', null)), at(1, ins('3', 'r')), upd('2', '3'), at(1, del('2', null))],
    ]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT c.id, p.id FROM a_children c JOIN parents p ON p.id = parent')).toEqual([
      ['2', '3'],
    ]);
    expect(await fixture.rows('SELECT id FROM parents')).toEqual([['3']]);
    expect(await listQuarantine(fixture.client)).toEqual([]);
  });

  test('a swap of unique values is replayed in source order', async () => {
    await fixture.client.query('CREATE TABLE items (id bigint PRIMARY KEY, name text UNIQUE, doc text)');
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', null), ins('2', 'b', null)]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame([items], [[upd('1', 'tmp', null), upd('2', 'a', null), upd('1', 'b', null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items ORDER BY id')).toEqual([
      ['1', 'b'],
      ['2', 'a'],
    ]);
    expect(await listQuarantine(fixture.client)).toEqual([]);
  });

  test('a table without a key is written row by row', async () => {
    const log = tableOf('log', ['a integer', 'b text', 'j json'], { keys: 0 });
    fixture.feed.start();
    const full = (op: 'u' | 'd', after: Value[] | null, before: Value[]): RowChange =>
      [op, 0, after, 'f', before] as RowChange;
    await fixture.feed.frame([log], [[ins('1', 'x', '{}'), ins('1', 'x', '{}'), ins('2', null, null)]]);
    await fixture.feed.frame(
      [log],
      [[full('d', null, ['1', 'x', '{}'])], [full('u', ['3', 0, '[1]'], ['2', null, null])]],
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT a, b, j::text FROM log ORDER BY a')).toEqual([
      [1, 'x', '{}'],
      [3, null, '[1]'],
    ]);
  });

  test('truncate empties the table at its place', async () => {
    fixture.feed.start();
    await fixture.feed.frame(
      [items],
      [[ins('1', 'a', null)], [ins('2', 'b', null), ['t', 0, []], ins('3', 'c', null)]],
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM items')).toEqual([['3']]);
  });

  test('tables that were truncated together are, foreign keys between them or not, and no other is', async () => {
    await fixture.client.query(`CREATE TABLE parents (id bigint PRIMARY KEY);
      CREATE TABLE kids (id bigint PRIMARY KEY, parent bigint REFERENCES parents)`);
    const tables = [tableOf('parents', ['id bigint']), tableOf('kids', ['id bigint', 'parent bigint'])];
    const both = (options: string[]): RowChange[] => [
      ['t', 0, options],
      ['t', 1, options],
    ];
    const states: string[] = [];
    fixture.feed.start({ state: (state, detail = '') => void states.push(`${state} ${detail}`) });
    await fixture.feed.frame(tables, [[ins('1'), at(1, ins('1', '1'))]]);
    await fixture.feed.frame(tables, [[...both([]), ins('2')]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM parents')).toEqual([['2']]);
    expect(await fixture.rows('SELECT id FROM kids')).toEqual([]);
    await fixture.client.query(`CREATE TABLE others (parent bigint REFERENCES parents); INSERT INTO others VALUES (2)`);
    await fixture.feed.frame(tables, [[...both(['cascade']), ins('3')]]);
    await expect.poll(() => states.join('\n')).toMatch(/waiting target_query.*foreign key/);
    expect(await fixture.rows('SELECT parent FROM others')).toEqual([['2']]);
    await fixture.client.query('DROP TABLE others');
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM parents')).toEqual([['3']]);
  });

  test('a new source column is added, and a dropped one is left alone', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a', 'd')]]);
    await fixture.feed.frame([tableOf('items', ['id bigint', 'name text', 'qty integer'])], [[ins('2', 'b', '7')]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name, doc, qty FROM items ORDER BY id')).toEqual([
      ['1', 'a', 'd', null],
      ['2', 'b', null, 7],
    ]);
  });

  test('a frame without rows moves the position', async () => {
    fixture.feed.start();
    await fixture.feed.publish({ v: 1, rows: [], tx: [], tables: [] }, pgPosition(5000n));
    await fixture.feed.caughtUp();
  });

  test('a table of another shape is stopped with both types named, and the others go on', async () => {
    await fixture.client.query('CREATE TABLE items (id bigint PRIMARY KEY, name integer, doc text)');
    const notices: unknown[] = [];
    fixture.feed.start({ tables: (tables) => void notices.splice(0, notices.length, ...tables) });
    await fixture.client.query("INSERT INTO items VALUES (9, 9, 'somebody''s')");
    const others = tableOf('others', ['id bigint']);
    await fixture.feed.frame([items, others], [[ins('1', 'a', null), ['i', 1, ['7']]]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM others')).toEqual([['7']]);
    const stopped = [
      { schema: 'public', name: 'items', state: 'stopped', reason: expect.stringMatching(/name is integer.*text/) },
    ];
    expect(notices).toEqual(stopped);
    const read: RowChange[] = [
      ['s', 0, ['x', 'begin']],
      ['r', 0, ['1', 'a', null]],
      ['s', 0, ['x', 'end']],
    ];
    // It is somebody's: nothing is changed or emptied for a reading.
    await fixture.feed.frame([items], [read]);
    await fixture.feed.caughtUp();
    expect(notices).toEqual(stopped);
    expect(await fixture.rows('SELECT * FROM items')).toEqual([['9', 9, "somebody's"]]);
    await fixture.client.query('ALTER TABLE items ALTER name TYPE text');
    await fixture.feed.frame([items], [read]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items')).toEqual([['1', 'a']]);
    expect(notices).toEqual([]);
  });
});

describe('values of another kind of source', () => {
  const days = { ...tableOf('days', ['id int', 'd date']), dialect: 'mysql' as const };
  const rows = Array.from({ length: 400 }, (_, n) => ins(String(n), n === 250 ? '0000-00-00' : '2026-11-24'));

  test.each([
    ['null', 400, null],
    ['epoch', 400, '1970-01-01'],
    ['reject', 399, undefined],
  ])('a date of zeros in the middle of a COPY, zero_dates: %s', async (policy, count, stored) => {
    fixture = await PostgresTarget.open(pg, natsServer.url, { zero_dates: policy });
    fixture.feed.start();
    await fixture.feed.frame([days], [rows]);
    await fixture.feed.frame([days], [[upd('1', '2026-11-25')]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM days')).toEqual([[count]]);
    expect(await fixture.rows('SELECT d::text FROM days WHERE id = 250')).toEqual(
      stored === undefined ? [] : [[stored]],
    );
    expect((await listQuarantine(fixture.client, 'mirror')).map((entry) => entry.key)).toEqual(
      policy === 'reject' ? ['["250"]'] : [],
    );
  });
});
