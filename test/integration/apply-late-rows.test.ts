/** Rows that the target takes only once others of their source transaction are there, which come in a later part of it. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Part, RowChange } from '../../core/frame.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, del, ins, tableOf, upd, type FrameFeed } from '../support/frame-feed.ts';
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

/** As large as a batch may be here. */
const BATCH = { batch_bytes: '16KB' };

async function intoPostgres(server: PostgresServer): Promise<Target> {
  const target = await PostgresTarget.open(server, natsServer.url, BATCH);
  return {
    feed: target.feed,
    run: (sql) => target.client.query(sql),
    rows: (sql) => target.rows(sql),
    close: () => target.close(),
  };
}

async function intoMysql(server: MysqlServer): Promise<Target> {
  const { session, feed } = await openMysqlTarget(server, natsServer.url, BATCH);
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

const many = (from: number): RowChange[] => Array.from({ length: 40 }, (_, n) => ins(`${from + n}`, 'x'.repeat(1000)));

describe.each(['postgres', 'mysql', 'mariadb'] as const)('%s', (kind) => {
  const items = tableOf('items', ['id bigint', 'name text']);
  const kids = tableOf('kids', ['id bigint', 'item bigint']);
  const tables = [items, kids];
  const kid = (id: string, item: string): RowChange => at(1, ins(id, item));

  let server: PostgresServer | MysqlServer;
  let target: Target;

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

  async function open(...constraints: string[]): Promise<void> {
    target = await (kind === 'postgres' ? intoPostgres(server as PostgresServer) : intoMysql(server as MysqlServer));
    await target.run(
      `CREATE TABLE items (id bigint PRIMARY KEY, name ${kind === 'postgres' ? 'text' : 'longtext'} CHECK (name <> 'bad'))`,
    );
    await target.run(
      `CREATE TABLE kids (id bigint PRIMARY KEY, item bigint, ${['FOREIGN KEY (item) REFERENCES items (id)', ...constraints].join(', ')})`,
    );
  }

  /** One transaction, in so many parts; what `behind` has comes with the last of them in one frame. */
  async function transaction(parts: readonly (readonly RowChange[])[], of = tables): Promise<void> {
    let ordinal = 0;
    for (const [n, rows] of parts.entries()) {
      const part: Part = n === 0 ? 'first' : n === parts.length - 1 ? 'last' : 'middle';
      await target.feed.frame(of, [rows], part, ordinal);
      ordinal += rows.length;
    }
  }

  const waiting = async (): Promise<string[]> => {
    const key = kind === 'postgres' ? 'key' : '`key`';
    const found = (await target.rows(`SELECT table_name, ${key}, reason FROM waybill.quarantine ORDER BY id`)) as (
      string | null
    )[][];
    return found.map((row) => row.join(' '));
  };
  const keptItems = async (): Promise<number> =>
    Number(((await target.rows('SELECT count(*) FROM items')) as [[string]])[0][0]);
  const keptKids = async (): Promise<string[]> =>
    ((await target.rows('SELECT id, item FROM kids ORDER BY id')) as string[][]).map((row) => row.join('>'));

  test('a row whose parent comes in a later part of its transaction goes in', async () => {
    await open();
    target.feed.start();
    await transaction([[kid('2', '3000'), kid('4', '3001'), ...many(1000)], many(2000), many(3000)]);
    await target.feed.caughtUp();
    expect(await keptKids()).toEqual(['2>3000', '4>3001']);
    expect(await waiting()).toEqual([]);
    expect(await keptItems()).toBe(120);
  });

  test('what follows a row that goes in late keeps its order, also in later transactions', async () => {
    await open();
    await transaction([
      [kid('2', '3000'), kid('4', '3001'), kid('5', '3002'), ...many(1000)],
      [at(1, upd('2', '3003')), at(1, del('4', null)), ...many(2000)],
      many(3000),
    ]);
    await target.feed.frame(tables, [[at(1, upd('2', '3004'))], [at(1, upd('5', '3005'))], [kid('4', '3006')]]);
    target.feed.start();
    await target.feed.caughtUp();
    expect(await keptKids()).toEqual(['2>3004', '4>3006', '5>3005']);
    expect(await waiting()).toEqual([]);
    await target.feed.frame(tables, [[at(1, upd('2', '3007'))]]);
    await target.feed.caughtUp();
    expect(await keptKids()).toEqual(['2>3007', '4>3006', '5>3005']);
  });

  test('what is refused to the end of its transaction waits, in its order and with the reason that it has by then', async () => {
    await open(kind === 'postgres' ? 'CHECK (id <> 6)' : 'CHECK (id <> 6 OR item < 0)');
    target.feed.start();
    await transaction([
      [ins('7', 'bad'), kid('1', '7'), kid('2', '3000'), kid('6', '1000'), ...many(1000)],
      [at(1, upd('1', '1000')), ...many(2000)],
      [...many(3000), ins('8', 'bad')],
    ]);
    await target.feed.frame(tables, [[at(1, upd('1', '1001'))], [at(1, upd('2', '1001'))]]);
    await target.feed.caughtUp();
    expect(await keptKids()).toEqual(['2>1001']);
    expect(await keptItems()).toBe(120);
    const found = await waiting();
    expect(found).toEqual(
      expect.arrayContaining(['items ["7"] constraint', 'kids ["6"] constraint', 'items ["8"] constraint']),
    );
    expect(found.filter((entry) => entry.startsWith('kids ["1"]'))).toEqual([
      'kids ["1"] constraint',
      'kids ["1"] held',
      'kids ["1"] held',
    ]);
    expect(found).toHaveLength(6);
  });

  // Only Postgres counts the rows that were read.
  if (kind === 'postgres')
    test('what was refused before is not read again in each part', async () => {
      await open();
      const flow = target.feed.start();
      const parts = 30;
      const refusedIn = (n: number): RowChange[] => Array.from({ length: 20 }, (_, i) => kid(`${n * 20 + i}`, '9999'));
      await transaction([
        ...Array.from({ length: parts }, (_, n) => [...refusedIn(n), ...many(100 * n)]),
        [ins('9999', 'parent')],
      ]);
      await target.feed.caughtUp();
      expect(await keptKids()).toHaveLength(parts * 20);
      flow.stop.abort();
      await flow.done;
      const count = async (what: string): Promise<number> => {
        const [row] = (await target.rows(
          `SELECT ${what} FROM pg_stat_user_tables WHERE schemaname = 'waybill' AND relname = 'quarantine'`,
        )) as string[][];
        return Number(row![0]);
      };
      // The server counts when a session ends, at the latest.
      await expect.poll(() => count('n_tup_del')).toBe(parts * 20);
      expect(await count('seq_tup_read + idx_tup_fetch')).toBeLessThan(parts * 20 * 10);
    });

  test('what waited before the transaction keeps waiting, with what comes of it there', async () => {
    await open();
    target.feed.start();
    await target.feed.frame(tables, [[kid('1', '3000')]]);
    await target.feed.caughtUp();
    await transaction([[at(1, upd('1', '3001')), kid('2', '3002'), ...many(1000)], many(2000), many(3000)]);
    await target.feed.caughtUp();
    expect(await keptKids()).toEqual(['2>3002']);
    expect(await waiting()).toEqual(['kids ["1"] constraint', 'kids ["1"] held']);
  });

  describe('a table without a key', () => {
    const dialect = kind === 'postgres' ? 'postgres' : 'mysql';
    const log = tableOf('log', ['name text', 'item bigint'], { keys: 0, dialect });
    const wider = tableOf('log', ['name text', 'item bigint', 'more text'], { keys: 0, dialect });
    const all = [items, kids, log, wider];
    const added = (...values: (string | null)[]): RowChange => at(2, ins(...values));
    const removed = (...values: (string | null)[]): RowChange => ['d', 2, null, 'f', values];
    const changed = (before: string[], after: string[]): RowChange => ['u', 2, after, 'f', before];
    const logged = async (): Promise<string[]> =>
      ((await target.rows('SELECT name, item FROM log ORDER BY name, item')) as string[][]).map((row) => row.join('>'));

    async function openLog(): Promise<void> {
      await open();
      await target.run(
        "CREATE TABLE log (name varchar(9), item bigint, FOREIGN KEY (item) REFERENCES items (id), CHECK (name <> 'bad'))",
      );
      target.feed.start();
    }

    test('rows that were refused and then deleted in their transaction do not come back', async () => {
      await openLog();
      await transaction(
        [
          [added('x', '3000'), added('y', '3001'), added('z', '3002'), added('z', '3002'), ...many(1000)],
          // What is refused here makes this part be written row by row, and the keys in quarantine be read again.
          [removed('x', '3000'), added('bad', '1000'), changed(['y', '3001'], ['y', '3003']), ...many(2000)],
          [removed('y', '3003'), removed('z', '3002'), added('v', '1001'), ...many(3000)],
        ],
        all,
      );
      await target.feed.caughtUp();
      expect(await logged()).toEqual(['v>1001', 'z>3002']);
      expect(await waiting()).toEqual(['log  constraint']);
    });

    test('what follows a row that is refused to the end waits with it, and other rows go on', async () => {
      await openLog();
      await transaction(
        [[added('x', '9'), ...many(1000)], [removed('x', '9'), added('y', '1000'), ...many(2000)], [...many(3000)]],
        all,
      );
      await target.feed.frame(all, [[added('x', '9'), removed('x', '9'), added('z', '1000')]]);
      await target.feed.frame(all, [[removed('y', '1000')], [added('y', '1001')]]);
      await target.feed.caughtUp();
      expect(await logged()).toEqual(['y>1001', 'z>1000']);
      expect(await waiting()).toEqual(['log  constraint', 'log  held', 'log  constraint', 'log  held']);
    });

    test('a row is refused, its table changes, and the row is deleted', async () => {
      await openLog();
      await transaction(
        [
          [added('x', '3000'), ...many(1000)],
          [at(3, ins('y', '1000', 'm')), at(3, removed('x', '3000', null)), ...many(2000)],
          many(3000),
        ],
        all,
      );
      await target.feed.caughtUp();
      expect(await logged()).toEqual(['y>1000']);
      expect(await waiting()).toEqual([]);
    });
  });
});
