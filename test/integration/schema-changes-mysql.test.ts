/** docs/schema-changes.md, row by row, for targets of MySQL and MariaDB: frames made by hand, real servers. */
import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { planChanges } from '../../apply/mysql/change-plan.ts';
import { SchemaIntents } from '../../apply/mysql/schema-intents.ts';
import type { MysqlSession } from '../../apply/mysql/session.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { readTable, surroundings } from '../../apply/mysql/target-table.ts';
import type { ColumnSchema, RowChange, TableSchema, Value } from '../../core/frame.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { at, ins, upd, type FrameFeed } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';

type Column = Partial<ColumnSchema> & { readonly name: string; readonly type: string };

/** A table of a Postgres source: `id` tells columns apart, whatever they are called. */
function table(columns: readonly Column[], key: readonly string[] = ['id'], name = 'items'): TableSchema {
  const all = columns.map((column, index) => ({
    id: index + 1,
    portable: column.type,
    notNull: key.includes(column.name),
    ...column,
  }));
  const version = createHash('sha256')
    .update(JSON.stringify([name, all, key]))
    .digest('hex')
    .slice(0, 12);
  return { schema: 'public', name, id: 77, version, identity: 'default', key, columns: all };
}

const ID = { name: 'id', type: 'integer' };
const A = { name: 'a', type: 'text' };
const B = { name: 'b', type: 'text' };
const FIRST = table([ID, A, B]);
const mark = (id: string, what: string): RowChange => ['s', 0, [id, what]];
const read = (...values: Value[]): RowChange => ['r', 0, values];

let natsServer: NatsServer;
beforeAll(async () => {
  natsServer = await startNats();
}, 60_000);
afterAll(async () => {
  await natsServer?.dispose();
});

describe.each([
  { flavour: 'mysql' as const, version: '9.7' as const },
  { flavour: 'mariadb' as const, version: '10.11' as const },
])('$flavour $version', ({ flavour, version }) => {
  let server: MysqlServer;
  let feed: FrameFeed;
  let session: MysqlSession;
  let notices: readonly TableNotice[] = [];
  let database = '';

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });
  afterEach(async () => {
    await feed?.close();
    await session?.close();
  });

  async function open(flow: Record<string, unknown> = {}, first = FIRST): Promise<void> {
    let target;
    ({ session, feed, target } = await openMysqlTarget(server, natsServer.url, flow));
    database = new URL(target.url).pathname.slice(1);
    notices = [];
    start();
    await feed.frame([first], [[ins('1', 'a1', 'b1'), ins('2', 'a2', 'b2')]]);
    await feed.caughtUp();
  }

  const start = (): ReturnType<FrameFeed['start']> => feed.start({ tables: (found) => void (notices = found) });
  const send = async (version: TableSchema, ...rows: RowChange[]): Promise<void> => {
    await feed.frame([version], [rows]);
    await feed.caughtUp();
  };
  const rows = (sql: string): Promise<(string | null)[][]> => session.rows(sql);
  const items = (columns = '*'): Promise<(string | null)[][]> => rows(`SELECT ${columns} FROM items ORDER BY id`);
  const shape = async (name = 'items'): Promise<string[]> =>
    [...(await readTable(session, database, name))!.columns.values()].map(
      (column) => `${column.name} ${column.type}${column.notNull ? ' not null' : ''}`,
    );
  const key = async (): Promise<readonly string[]> => (await readTable(session, database, 'items'))!.primary;

  test('a new column is added, filled with what the rows have at the source, and NOT NULL then', async () => {
    await open();
    const wider = table([
      ID,
      A,
      B,
      { name: 'n', type: 'integer', notNull: true, existing: '7' },
      { name: 'note', type: 'text', existing: "it's" },
      { name: 'data', type: 'bytea' },
    ]);
    await send(wider, ins('3', 'a3', 'b3', '8', null, 'AAE='));
    expect(await items('id, n, note, HEX(data)')).toEqual([
      ['1', '7', "it's", null],
      ['2', '7', "it's", null],
      ['3', '8', null, '0001'],
    ]);
    expect((await shape()).find((line) => line.startsWith('n '))).toMatch(/not null$/);
  });

  test('a column whose values come with a load is NOT NULL at its end', async () => {
    await open();
    const wider = table([ID, A, B, { name: 'code', type: 'integer', notNull: true }]);
    await send(wider, mark('x', 'begin'));
    expect((await shape()).at(-1)).not.toMatch(/not null/);
    await send(wider, read('1', 'a', 'b', '1'), read('2', 'a', 'b', '2'));
    await send(wider, mark('x', 'end'));
    await expect.poll(async () => (await shape()).at(-1)).toMatch(/not null/);
    await expect.poll(() => rows('SELECT pending FROM waybill.tables')).toEqual([['[]']]);
  });

  test('a dropped column is kept, or dropped; one that comes again is another', async () => {
    await open();
    const without = table([ID, { ...B, id: 3 }]);
    await send(without, ins('3', 'b3'));
    expect(await items()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', null, 'b3'],
    ]);
    await send(table([ID, { ...B, id: 3 }, { name: 'a', type: 'integer', id: 4 }]), ins('4', 'b4', '44'));
    expect(await items('id, a_dropped, a')).toEqual([
      ['1', 'a1', null],
      ['2', 'a2', null],
      ['3', null, null],
      ['4', null, '44'],
    ]);
    await feed.close();
    await session.close();
    await open({ dropped_columns: 'drop' });
    await send(without, ins('3', 'b3'));
    expect(await items()).toEqual([
      ['1', 'b1'],
      ['2', 'b2'],
      ['3', 'b3'],
    ]);
  });

  test('renamed columns keep their values, also in a chain, exchanged, and with another type', async () => {
    await open();
    await send(table([ID, { ...A, name: 'b' }, { ...B, name: 'c' }]), ins('3', 'a3', 'b3'));
    expect(await items('id, b, c')).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', 'a3', 'b3'],
    ]);
    await send(table([ID, { ...A, name: 'c' }, { ...B, name: 'b' }]), ins('4', 'a4', 'b4'));
    expect(await items('id, c, b')).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', 'a3', 'b3'],
      ['4', 'a4', 'b4'],
    ]);
    await send(table([{ name: 'no', type: 'bigint' }, A, B], ['no']), ins('5000000000', 'a5', 'b5'));
    expect(await rows('SELECT a FROM items WHERE no > 3')).toEqual([['a4'], ['a5']]);
    expect(notices).toEqual([]);
  });

  test('a change that a kill cut short goes on from where it was', async () => {
    const next = table([ID, { ...A, name: 'b' }, { ...B, name: 'a' }]);
    for (const [stored, done] of [
      [0, 0],
      [0, 1],
      [1, 1],
      [1, 2],
      [2, 2],
    ] as const) {
      await open();
      await feed.stopFlows();
      const plan = planChanges({
        settings: feed.settings,
        schema: database,
        before: FIRST,
        after: next,
        found: (await readTable(session, database, 'items'))!,
        around: await surroundings(session),
        kept: [],
        pending: [],
        restart: false,
        unasked: false,
        narrower: false,
      });
      expect(plan.steps).toHaveLength(2);
      const intents = new SchemaIntents(session, 'mirror', 'wms');
      await intents.store(next, { schema: database, definition: next, plan, done: stored });
      for (const { sql } of plan.steps.slice(0, done)) await session.run(sql);
      start();
      await send(next, ins('3', 'a3', 'b3'));
      expect(await items('id, b, a')).toEqual([
        ['1', 'a1', 'b1'],
        ['2', 'a2', 'b2'],
        ['3', 'a3', 'b3'],
      ]);
      expect(await rows('SELECT * FROM waybill.schema_changes WHERE plan IS NOT NULL')).toEqual([]);
      await feed.close();
      await session.close();
    }
    await open();
  });

  test('a wider type; a narrower one stops its table alone until it is read again', async () => {
    const types = (...texts: string[]): TableSchema =>
      table([ID, ...texts.map((type, index) => ({ name: 'ab'[index]!, type }))]);
    await open({}, types('character varying(5)', 'character varying(5)'));
    await send(types('character varying(20)', 'text'), ins('3', 'longer than five', 'x'.repeat(70_000)));
    expect(await items('id, a, LENGTH(b)')).toContainEqual(['3', 'longer than five', '70000']);
    const narrow = types('character varying(4)', 'text');
    const other = table([ID], ['id'], 'other');
    await feed.frame([narrow, other], [[ins('4', 'a4', 'b4'), at(1, ins('1'))]]);
    await feed.caughtUp();
    expect(notices).toMatchObject([
      { name: 'items', state: 'stopped', reason: expect.stringMatching(/a was character varying\(20\) and is/) },
    ]);
    expect(await rows('SELECT id FROM other')).toEqual([['1']]);
    const target = await targetOf(feed.config.targets['vis']!);
    expect(await target.check('vis', feed.config.flows, {})).toContainEqual({
      severity: 'error',
      subject: 'target vis: flow mirror',
      message: expect.stringMatching(/public.items is not followed: .*character varying/),
      remedy: expect.stringMatching(/waybill snapshot wms public.items/),
    });
    // Nobody asked for it.
    await send(narrow, ['s', 0, ['x', 'begin', 'unasked']], read('5', 'a5', 'b5'), mark('x', 'end'));
    expect(notices).toMatchObject([{ name: 'items', state: 'stopped' }]);
    expect(await items('id')).toEqual([['1'], ['2'], ['3']]);
    await send(narrow, mark('y', 'begin'));
    await send(narrow, read('4', 'a4', 'b4'));
    await send(narrow, mark('y', 'end'));
    expect(await items()).toEqual([['4', 'a4', 'b4']]);
    expect((await shape())[1]).toBe('a varchar(4)');
    expect(notices).toEqual([]);
  });

  test('with schema_changes: stop any change stops its table', async () => {
    await open({ schema_changes: 'stop' });
    await send(table([ID, A, B, { name: 'c', type: 'text' }]), ins('3', 'a', 'b', 'c'));
    expect(notices).toMatchObject([{ state: 'stopped', reason: expect.stringMatching(/column c is new/) }]);
    expect(await items('id')).toEqual([['1'], ['2']]);
  });

  test('NULLs and another primary key', async () => {
    await open({}, table([ID, { ...A, notNull: true }, B]));
    await send(table([ID, A, { ...B, notNull: true }]), ins('3', null, 'b3'));
    expect((await shape()).slice(1)).toEqual(['a longtext', 'b longtext not null']);
    const keyed = table([ID, A, { ...B, notNull: true }], ['b']);
    await send(keyed, upd('9', 'moved', 'b2'));
    expect(await key()).toEqual(['b']);
    expect(await rows("SELECT id, a FROM items WHERE b = 'b2'")).toEqual([['9', 'moved']]);
    await send(table([{ ...ID, notNull: true }, A, { ...B, notNull: true }], ['id', 'b']), ins('9', 'two', 'b9'));
    expect(await key()).toEqual(['id', 'b']);
  });

  test('defaults follow between databases of the same kind', async () => {
    const own = (columns: Column[]): TableSchema => ({ ...table(columns), dialect: flavour, schema: database });
    await open();
    await send({ ...own([{ ...ID, type: 'int' }]), name: 'own' }, ins('1'));
    const n = { name: 'n', type: 'int', default: '5', existing: '5' };
    await send({ ...own([{ ...ID, type: 'int' }, n]), name: 'own' }, ins('2', '2'));
    await session.run('INSERT INTO own (id) VALUES (3)');
    const next = { name: 'n', type: 'int', default: '6' };
    await send({ ...own([{ ...ID, type: 'int' }, next]), name: 'own' }, ins('4', '4'));
    await session.run('INSERT INTO own (id) VALUES (5)');
    expect(await rows('SELECT n FROM own ORDER BY id')).toEqual([['5'], ['2'], ['5'], ['4'], ['6']]);
  });

  test('with schema_changes: stop one that is made again is stopped until somebody asks for it', async () => {
    await open({ schema_changes: 'stop' });
    const again = { ...table([ID, { ...A, type: 'smallint' }]), id: 78 };
    const unasked: RowChange = ['s', 0, ['x', 'begin', 'unasked']];
    for (const marks of [[unasked], [mark('', 'schema'), unasked]]) {
      await send(again, ...marks);
      await send(again, read('5', '5'));
      await send(again, mark('x', 'end'));
      expect(notices).toMatchObject([{ name: 'items', state: 'stopped' }]);
      expect(await items('id, a')).toEqual([
        ['1', 'a1'],
        ['2', 'a2'],
      ]);
    }
    await send(again, mark('y', 'begin'), read('5', '5'), mark('y', 'end'));
    expect(notices).toEqual([]);
    expect(await items('id, a')).toEqual([['5', '5']]);
  });

  test('a table that is gone is kept and said to be, or dropped, and may come again', async () => {
    await open();
    await send(FIRST, mark('dropped', 'gone'));
    expect(notices).toMatchObject([{ name: 'items', state: 'gone', reason: expect.stringMatching(/^dropped/) }]);
    expect(await items('id')).toEqual([['1'], ['2']]);
    await feed.close();
    await session.close();
    await open({ dropped_tables: 'drop' });
    await send(FIRST, mark('dropped', 'gone'));
    await expect.poll(async () => await readTable(session, database, 'items')).toBeUndefined();
    await send(table([ID, { name: 'n', type: 'integer' }]), ins('1', '5'));
    expect(await items()).toEqual([['1', '5']]);
    expect(notices).toEqual([]);
  });

  test('one that is stopped is gone as well; an older version in the report of its end is of no account', async () => {
    const narrower = table([ID, { ...A, type: 'smallint' }, B]);
    await open();
    await send(narrower, ins('3', '3', 'b3'));
    expect(notices).toMatchObject([{ name: 'items', state: 'stopped' }]);
    await send(narrower, mark('dropped', 'gone'));
    expect(notices).toMatchObject([{ name: 'items', state: 'gone', reason: expect.stringMatching(/^dropped/) }]);
    expect(await items('id')).toEqual([['1'], ['2']]);
    await feed.close();
    await session.close();
    await open({ dropped_tables: 'drop' });
    // A capture that comes back may know of a version only that its table had before.
    await send(narrower, mark('dropped', 'gone'));
    expect(notices).toEqual([]);
    await expect.poll(async () => await readTable(session, database, 'items')).toBeUndefined();
  });

  test('with renamed_tables: rename a table is renamed', async () => {
    await open({ renamed_tables: 'rename' });
    await send(FIRST, mark('renamed to public.goods', 'gone'));
    const goods = table([ID, A, B], ['id'], 'goods');
    await send(goods, ins('3', 'a3', 'b3'));
    expect(await rows('SELECT id FROM goods ORDER BY id')).toEqual([['1'], ['2'], ['3']]);
    expect(await readTable(session, database, 'items')).toBeUndefined();
  });

  test('a table that is renamed in the middle of a transaction is stopped', async () => {
    await open({ renamed_tables: 'rename' });
    const goods = { ...FIRST, name: 'goods' };
    await feed.frame([FIRST, goods], [[ins('3', 'a3', 'b3'), at(1, ins('4', 'a4', 'b4'))]]);
    await feed.caughtUp();
    expect(notices).toMatchObject([
      { name: 'goods', state: 'stopped', reason: expect.stringMatching(/middle of a transaction/) },
    ]);
    expect(await items('id')).toEqual([['1'], ['2'], ['3']]);
  });

  test('a change in the middle of a transaction that cannot be done there stops the table', async () => {
    await open({ dropped_columns: 'drop' });
    await feed.frame([FIRST, table([ID, { ...B, id: 3 }])], [[ins('3', 'a3', 'b3'), at(1, ins('4', 'b4'))]]);
    await feed.caughtUp();
    expect(notices).toMatchObject([{ state: 'stopped', reason: expect.stringMatching(/middle of a transaction/) }]);
    expect(await items('id')).toEqual([['1'], ['2'], ['3']]);
  });

  test('a new column that rows of the same transaction have a value in stops the table', async () => {
    await open({});
    const n = { name: 'n', type: 'integer', existing: '7', id: 4 };
    await feed.frame([FIRST, table([ID, A, B, n])], [[ins('3', 'a3', 'b3'), at(1, ins('4', 'a4', 'b4', '8'))]]);
    await feed.caughtUp();
    expect(notices).toMatchObject([{ state: 'stopped', reason: expect.stringMatching(/middle of a transaction/) }]);
    expect(await items('id')).toEqual([['1'], ['2'], ['3']]);
  });
});
