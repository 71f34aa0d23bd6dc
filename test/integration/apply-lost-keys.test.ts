/** Changes in quarantine that do not tell the key which their table has by now: nothing else waits for them. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { targetOf, type TargetDesk } from '../../apply/target-kind.ts';
import type { RowChange } from '../../core/frame.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, del, ins, tableOf, type FrameFeed } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';
import { PostgresTarget } from '../support/postgres-target.ts';

interface Target {
  readonly feed: FrameFeed;
  readonly run: (sql: string) => Promise<unknown>;
  readonly rows: (sql: string) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

let natsServer: NatsServer;
beforeAll(async () => {
  natsServer = await startNats();
}, 60_000);
afterAll(async () => {
  await natsServer?.dispose();
});

async function intoPostgres(server: PostgresServer): Promise<Target> {
  const target = await PostgresTarget.open(server, natsServer.url);
  return {
    feed: target.feed,
    run: (sql) => target.client.query(sql),
    rows: (sql) => target.rows(sql),
    close: () => target.close(),
  };
}

async function intoMysql(server: MysqlServer): Promise<Target> {
  const { session, feed } = await openMysqlTarget(server, natsServer.url, {});
  return {
    feed,
    run: (sql) => session.run(sql),
    rows: (sql) => session.rows(sql),
    close: async () => {
      await feed.close();
      await session.close();
    },
  };
}

describe.each(['postgres', 'mariadb'] as const)('%s', (kind) => {
  let server: PostgresServer | MysqlServer;
  let target: Target;
  let desk: TargetDesk;

  beforeAll(async () => {
    server = await (kind === 'postgres' ? startPostgres() : startMysql({ flavour: 'mariadb', version: '10.11' }));
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });
  afterEach(async () => {
    await desk?.close();
    await target?.close();
  });

  const kids = tableOf('kids', ['id bigint', 'item bigint']);

  test.each([
    ['at once', ['code bigint']],
    ['after a restart', ['code bigint']],
    ['where its column stays', ['code bigint', 'id bigint']],
  ])('what waits by a key that is gone halts nothing, %s', async (when, columns) => {
    target = await (kind === 'postgres' ? intoPostgres(server as PostgresServer) : intoMysql(server as MysqlServer));
    const { feed, run, rows } = target;
    desk = await (await targetOf(feed.config.targets['vis']!)).openDesk('test');
    await run('CREATE TABLE items (id bigint PRIMARY KEY, code bigint NOT NULL UNIQUE)');
    await run('CREATE TABLE notes (id bigint PRIMARY KEY, name bigint CHECK (name < 100))');
    await run('CREATE TABLE kids (id bigint PRIMARY KEY, item bigint, FOREIGN KEY (item) REFERENCES items (code))');
    const before = [
      tableOf('items', ['id bigint', 'code bigint']),
      tableOf('notes', ['id bigint', 'name bigint']),
      kids,
    ];
    const flow = feed.start();
    await feed.frame(before, [[ins('1', '10'), ins('2', '20'), at(2, ins('1', '20'))]]);
    // A deletion tells no more than the key, and an insert nothing of a column that is new.
    await feed.frame(before, [[del('2', null)], [at(1, ins('1', '500'))], [at(2, ins('5', '99'))]]);
    await feed.caughtUp();
    const refused = [
      ['items', 'd', 'constraint'],
      ['notes', 'i', 'constraint'],
      ['kids', 'i', 'constraint'],
    ];
    const first = await desk.listQuarantine('mirror');
    expect(first.map(({ table, op, reason }) => [table, op, reason])).toEqual(refused);

    const item = (code: string): RowChange => ins(...[code, null].slice(0, columns.length));
    const after = [tableOf('items', columns), tableOf('notes', ['uid bigint', 'name bigint']), kids];
    await feed.frame(after, [[item('99'), at(1, ins('7', '7')), at(2, ins('6', '10'))]]);
    await feed.caughtUp();
    if (when === 'after a restart') {
      flow.stop.abort();
      await flow.done;
      feed.start();
    }
    await feed.frame(after, [[item('30'), at(1, ins('1', '8')), at(2, ins('8', '20'))]]);
    await feed.caughtUp();
    expect(await desk.tableNotices('mirror')).toEqual([]);
    const text = (sql: string): Promise<string[]> => rows(sql).then((found) => (found as string[][]).map(String));
    expect(await text('SELECT code FROM items ORDER BY code')).toEqual(['10', '20', '30', '99']);
    expect(await text('SELECT uid, name FROM notes ORDER BY uid')).toEqual(['1,8', '7,7']);
    expect(await text('SELECT id, item FROM kids ORDER BY id')).toEqual(['1,20', '6,10', '8,20']);
    const list = await desk.listQuarantine('mirror');
    expect(list.map(({ table, op, reason }) => [table, op, reason])).toEqual(refused);

    const [deletion, insertion] = list.map(({ id }) => id);
    const failure = (id: string | undefined): unknown => ({
      id,
      reason: 'key',
      sqlState: null,
      message: expect.stringContaining('has another key since') as unknown,
    });
    const only = await desk.replayQuarantine('mirror', { ids: [deletion!] }, feed.settings);
    expect(only).toEqual({ applied: 0, failed: [failure(deletion)] });
    const all = await desk.replayQuarantine('mirror', { all: true }, feed.settings);
    expect(all).toEqual({ applied: 1, failed: [failure(deletion), failure(insertion)] });
    expect(await text('SELECT item FROM kids WHERE id = 5')).toEqual(['99']);
    expect(await desk.discardQuarantine('mirror', [deletion!, insertion!])).toBe(2);
    expect(await desk.listQuarantine('mirror')).toEqual([]);
  });
});
