/** Tables whose state changes within one batch, on each kind of target: frames made by hand, real servers. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { RowChange, TableSchema } from '../../core/frame.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, ins, tableOf, type FrameFeed } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';
import { PostgresTarget } from '../support/postgres-target.ts';

interface Target {
  readonly feed: FrameFeed;
  readonly ids: (table: string) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

type Transaction = readonly RowChange[];

let natsServer: NatsServer;
beforeAll(async () => {
  natsServer = await startNats();
}, 60_000);
afterAll(async () => {
  await natsServer?.dispose();
});

const mark = (id: string, what: string): RowChange => ['s', 0, [id, what]];
const read = (...values: string[]): RowChange => ['r', 0, values];

async function intoPostgres(server: PostgresServer, flow: Record<string, unknown>): Promise<Target> {
  const target = await PostgresTarget.open(server, natsServer.url, flow);
  return {
    feed: target.feed,
    ids: async (table) => (await target.rows(`SELECT id FROM ${table} ORDER BY id`)).flat().map(String),
    close: () => target.close(),
  };
}

async function intoMysql(server: MysqlServer, flow: Record<string, unknown>): Promise<Target> {
  const { session, feed } = await openMysqlTarget(server, natsServer.url, flow);
  return {
    feed,
    ids: async (table) => (await session.rows(`SELECT id FROM ${table} ORDER BY id`)).flat(),
    close: async () => {
      await feed.close();
      await session.close();
    },
  };
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('%s', (kind) => {
  const dialect = kind === 'postgres' ? 'postgres' : 'mysql';
  const of = (name: string, columns: readonly string[]): TableSchema => tableOf(name, columns, { dialect });
  const whole = kind === 'postgres' ? 'integer' : 'int';
  const items = of('items', ['id bigint', `n ${whole}`]);
  const narrower = of('items', ['id bigint', 'n smallint']);
  const other = of('other', ['id bigint']);
  const changed = of('other', ['id bigint', `m ${whole}`]);
  const tables = [items, other, changed, narrower];

  let server: PostgresServer | MysqlServer;
  let target: Target;
  let notices: readonly TableNotice[] = [];

  beforeAll(async () => {
    server = await (kind === 'postgres'
      ? startPostgres()
      : startMysql(kind === 'mysql' ? { flavour: 'mysql', version: '9.7' } : { flavour: 'mariadb', version: '10.11' }));
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });
  afterEach(async () => {
    await target?.close();
  });

  const start = (): unknown => target.feed.start({ tables: (found) => void (notices = found) });

  async function open(flow: Record<string, unknown>): Promise<void> {
    notices = [];
    target = await (kind === 'postgres'
      ? intoPostgres(server as PostgresServer, flow)
      : intoMysql(server as MysqlServer, flow));
    start();
    await target.feed.frame([items, other], [[ins('1', '1'), ins('2', '2'), at(1, ins('1'))]]);
    await target.feed.caughtUp();
  }

  /** While the flow is down, so that they come as one batch. */
  async function atOnce(frames: readonly (readonly Transaction[])[], named = tables): Promise<void> {
    await target.feed.stopFlows();
    for (const transactions of frames) await target.feed.frame(named, [...transactions]);
    start();
    await target.feed.caughtUp();
  }

  describe.each(['keep', 'drop'])('dropped_tables: %s', (dropped) => {
    test.each([
      ['dropped', 'nothing else', [], [items]],
      ['dropped', 'a change of another table', [[at(1, ins('2'))], [at(2, ins('3', '3'))]], tables],
      ['renamed to x', 'nothing else', [], [items]],
      ['renamed to x', 'a change of another table', [[at(1, ins('2'))], [at(2, ins('3', '3'))]], tables],
    ] satisfies [string, string, Transaction[], TableSchema[]][])(
      'a table that is %s and comes back as it was, with %s in between',
      async (why, _, between, named) => {
        await open({ dropped_tables: dropped });
        await atOnce(
          [
            [
              [mark(why, 'gone')],
              [mark('x', 'begin')],
              [read('5', '5')],
              ...between,
              [ins('6', '6')],
              [mark('x', 'end')],
            ],
          ],
          named,
        );
        expect(notices).toEqual([]);
        await target.feed.frame([items], [[ins('7', '7')]]);
        await target.feed.caughtUp();
        expect(await target.ids('items')).toEqual(['5', '6', '7']);
      },
    );
  });

  test('a table that is gone once more is gone', async () => {
    await open({});
    await atOnce([
      [
        [mark('dropped', 'gone')],
        [ins('5', '5')],
        [at(1, ins('2'))],
        [at(2, ins('3', '3'))],
        [mark('dropped', 'gone')],
      ],
    ]);
    expect(notices).toMatchObject([{ name: 'items', state: 'gone' }]);
    expect(await target.ids('items')).toEqual(['1', '2', '5']);
  });

  test('a table that was stopped stays so when it is as before again, for rows of it were passed over', async () => {
    await open({});
    const stops: Transaction[] = [[at(3, ins('3', '3'))], [ins('4', '4')]];
    await atOnce([stops]);
    expect(notices).toMatchObject([{ name: 'items', state: 'stopped' }]);
    expect(await target.ids('items')).toEqual(['1', '2']);
    await atOnce([[[mark('x', 'begin')], [read('3', '3'), read('4', '4')], [mark('x', 'end')]]]);
    expect(notices).toEqual([]);
    expect(await target.ids('items')).toEqual(['3', '4']);
  });
});
