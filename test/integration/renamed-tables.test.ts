/** With `renamed_tables: rename`, a table that cannot be followed when its name changes: frames made by hand, real servers. */
import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { readTable } from '../../apply/mysql/target-table.ts';
import type { RowChange, TableSchema } from '../../core/frame.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { ins, type FrameFeed } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';
import { PostgresTarget } from '../support/postgres-target.ts';

interface Target {
  readonly feed: FrameFeed;
  readonly ids: (table: string) => Promise<unknown>;
  readonly exists: (table: string) => Promise<boolean>;
  readonly close: () => Promise<void>;
}

/** Versions of a table, whatever it is called: `type` is that of its second column. */
function version(name: string, type: string, id = 77): TableSchema {
  const columns = [
    { id: 1, name: 'id', type: 'integer', portable: 'integer', notNull: true },
    { id: 2, name: 'n', type, portable: type, notNull: false },
  ];
  const hash = createHash('sha256')
    .update(JSON.stringify([name, id, columns]))
    .digest('hex')
    .slice(0, 12);
  return { schema: 'public', name, id, version: hash, identity: 'default', key: ['id'], columns };
}

const mark = (id: string, what: string): RowChange => ['s', 0, [id, what]];
const read = (...values: string[]): RowChange => ['r', 0, values];

let natsServer: NatsServer;
let postgres: PostgresServer;
let mysql: MysqlServer;

beforeAll(async () => {
  [natsServer, postgres, mysql] = await Promise.all([
    startNats(),
    startPostgres(),
    startMysql({ flavour: 'mysql', version: '9.7' }),
  ]);
}, 180_000);
afterAll(async () => {
  await Promise.all([natsServer?.dispose(), postgres?.dispose(), mysql?.dispose()]);
});

const FLOW = { renamed_tables: 'rename', dropped_tables: 'drop' };

const TARGETS: Readonly<Record<string, () => Promise<Target>>> = {
  postgres: async () => {
    const target = await PostgresTarget.open(postgres, natsServer.url, FLOW);
    return {
      feed: target.feed,
      ids: async (table) => (await target.rows(`SELECT id FROM ${table} ORDER BY id`)).flat().map(String),
      exists: async (table) => (await target.rows(`SELECT to_regclass('${table}')::text`)).flat()[0] !== null,
      close: () => target.close(),
    };
  },
  mysql: async () => {
    const { session, feed, target } = await openMysqlTarget(mysql, natsServer.url, FLOW);
    const database = new URL(target.url).pathname.slice(1);
    return {
      feed,
      ids: async (table) => (await session.rows(`SELECT id FROM ${table} ORDER BY id`)).flat(),
      exists: async (table) => (await readTable(session, database, table)) !== undefined,
      close: async () => {
        await feed.close();
        await session.close();
      },
    };
  },
};

describe.each(['postgres', 'mysql'])('%s', (kind) => {
  let target: Target;
  let notices: readonly TableNotice[] = [];

  afterEach(async () => {
    await target?.close();
  });

  async function open(): Promise<void> {
    target = await TARGETS[kind]!();
    notices = [];
    target.feed.start({ tables: (found) => void (notices = found) });
    await send(version('items', 'bigint'), ins('1', '10'), ins('2', '20'));
  }

  async function send(table: TableSchema, ...rows: RowChange[]): Promise<void> {
    await target.feed.frame([table], [rows]);
    await target.feed.caughtUp();
  }

  test('one that is stopped under its new name goes on once it is read again, and leaves nothing behind', async () => {
    await open();
    await send(version('goods', 'smallint'), ins('3', '30'));
    expect(notices).toMatchObject([{ name: 'goods', state: 'stopped' }]);
    await send(version('items', 'bigint'), mark('renamed to public.goods', 'gone'));
    await send(version('goods', 'smallint'), mark('x', 'begin'));
    await send(version('goods', 'smallint'), read('1', '11'), read('4', '40'));
    await send(version('goods', 'smallint'), mark('x', 'end'));
    expect(notices).toEqual([]);
    expect(await target.ids('goods')).toEqual(['1', '4']);
    expect(await target.exists('items')).toBe(false);
  });

  test('one that is renamed again while it is stopped', async () => {
    await open();
    await send(version('goods', 'smallint'), ins('3', '30'));
    await send(version('items', 'bigint'), mark('renamed to public.goods', 'gone'));
    await send(version('wares', 'bigint'), ins('3', '30'));
    await send(version('goods', 'smallint'), mark('renamed to public.wares', 'gone'));
    await send(version('wares', 'bigint'), mark('x', 'begin'));
    await send(version('wares', 'bigint'), read('1', '11'), read('4', '40'));
    await send(version('wares', 'bigint'), mark('x', 'end'));
    expect(notices).toEqual([]);
    expect(await target.ids('wares')).toEqual(['1', '4']);
    expect([await target.exists('items'), await target.exists('goods')]).toEqual([false, false]);
  });

  test('one that was away from the tables, came back under another name, and is renamed there', async () => {
    await open();
    await send(version('items', 'bigint'), mark('renamed to other.items, which is not among the tables', 'gone'));
    await send(version('goods', 'bigint'), ins('3', '30'));
    await send(version('wares', 'bigint'), ins('4', '40'));
    await send(version('goods', 'bigint'), mark('renamed to public.wares', 'gone'));
    expect(await target.ids('wares')).toEqual(['3', '4']);
    expect([await target.exists('items'), await target.exists('goods')]).toEqual([true, false]);
    expect(notices).toMatchObject([{ name: 'items', state: 'gone' }]);
  });

  test('one that was stopped before it was renamed, and is read under its new name', async () => {
    await open();
    await send(version('items', 'smallint'), ins('3', '30'));
    expect(notices).toMatchObject([{ name: 'items', state: 'stopped' }]);
    await send(version('goods', 'smallint'), mark('x', 'begin'));
    await send(version('items', 'smallint'), mark('renamed to public.goods', 'gone'));
    await send(version('goods', 'smallint'), read('1', '11'), read('4', '40'));
    await send(version('goods', 'smallint'), mark('x', 'end'));
    expect(notices).toEqual([]);
    expect(await target.ids('goods')).toEqual(['1', '4']);
    expect(await target.exists('items')).toBe(false);
  });

  test('one that is dropped while it is stopped under its new name does not take another of its old name along', async () => {
    await open();
    await send(version('goods', 'smallint'), ins('3', '30'));
    await send(version('items', 'bigint'), mark('renamed to public.goods', 'gone'));
    const another = version('items', 'text', 78);
    await send(another, mark('y', 'begin'));
    await send(another, read('5', 'five'));
    await send(another, mark('y', 'end'));
    await send(version('goods', 'smallint'), mark('dropped', 'gone'));
    expect(notices).toEqual([]);
    expect(await target.ids('items')).toEqual(['5']);
    await expect.poll(() => target.exists('goods')).toBe(false);
  });
});
