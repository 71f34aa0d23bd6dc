/** A mirror flow into MySQL and MariaDB where tables of the target have foreign keys. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { listQuarantine } from '../../apply/mysql/quarantine.ts';
import type { MysqlSession } from '../../apply/mysql/session.ts';
import type { RowChange } from '../../core/frame.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { at, del, type FrameFeed, ins, tableOf, upd } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';

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

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });
  beforeEach(async () => {
    ({ session, feed } = await openMysqlTarget(server, natsServer.url, {}));
  });
  afterEach(async () => {
    await feed?.close();
    await session?.close();
  });

  const rows = (sql: string): Promise<(string | null)[][]> => session.rows(sql);
  const run = (sql: string): Promise<unknown> => session.run(sql);

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
    expect(await rows('SELECT (SELECT COUNT(*) FROM a_children), (SELECT MIN(id) FROM parents)')).toEqual([['0', '9']]);
    expect(await listQuarantine(session)).toEqual([]);
  });

  test('truncate empties tables that refer to themselves and to each other', async () => {
    await run(`CREATE TABLE nodes (id bigint PRIMARY KEY, parent bigint, FOREIGN KEY (parent) REFERENCES nodes (id));
      CREATE TABLE hens (id bigint PRIMARY KEY, egg bigint);
      CREATE TABLE eggs (id bigint PRIMARY KEY, hen bigint, FOREIGN KEY (hen) REFERENCES hens (id));
      ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES eggs (id)`);
    const tables = [
      tableOf('nodes', ['id bigint', 'parent bigint']),
      tableOf('hens', ['id bigint', 'egg bigint']),
      tableOf('eggs', ['id bigint', 'hen bigint']),
    ];
    feed.start();
    await feed.frame(tables, [
      [ins('1', null), ins('2', '1'), at(1, ins('1', null)), at(2, ins('1', '1'))],
      [at(1, upd('1', '1'))],
    ]);
    await feed.caughtUp();
    expect(await rows('SELECT n.parent, h.egg, e.hen FROM nodes n, hens h, eggs e WHERE n.id = 2')).toEqual([
      ['1', '1', '1'],
    ]);
    await feed.frame(tables, [
      [
        ['t', 0, []],
        ['t', 1, []],
        ['t', 2, []],
      ],
      [ins('3', null), at(1, ins('3', null))],
    ]);
    await feed.caughtUp();
    expect(await rows('SELECT id FROM nodes UNION ALL SELECT id FROM hens UNION ALL SELECT id FROM eggs')).toEqual([
      ['3'],
      ['3'],
    ]);
    // Foreign keys hold for what comes then.
    await feed.frame(tables, [[ins('4', '77')]]);
    await feed.caughtUp();
    expect((await listQuarantine(session)).map((entry) => [entry.key, entry.reason])).toEqual([
      ['["4"]', 'constraint'],
    ]);
  });

  test('a reading takes rows away that refer to each other in their own table', async () => {
    await run('CREATE TABLE nodes (id bigint PRIMARY KEY, parent bigint, FOREIGN KEY (parent) REFERENCES nodes (id))');
    const nodes = tableOf('nodes', ['id bigint', 'parent bigint']);
    feed.start();
    await feed.frame([nodes], [[ins('1', null), ins('2', '1'), ins('3', null)]]);
    await feed.caughtUp();
    const mark = (what: string): RowChange => ['s', 0, ['snap-1', what]];
    await feed.frame([nodes], [[mark('begin'), ['r', 0, ['3', null]], mark('end')]]);
    await feed.caughtUp();
    expect(await rows('SELECT id FROM nodes')).toEqual([['3']]);
  });
});
