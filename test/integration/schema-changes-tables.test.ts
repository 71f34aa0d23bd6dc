/** docs/schema-changes.md, row by row: tables, partitions and what stops, Postgres to Postgres on real servers. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { targetOf } from '../../apply/target-kind.ts';
import { readProgress, requestSnapshot } from '../../capture/snapshot-request.ts';
import { openBucket } from '../../core/lease.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { definitions } from '../support/definitions.ts';
import { Pipeline } from '../support/pipeline.ts';
import { ITEMS, SchemaCase } from '../support/schema-case.ts';
import { waitFor } from '../support/wait.ts';

let postgres: PostgresServer;
let natsServer: NatsServer;
let it: SchemaCase;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterAll(async () => {
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});
afterEach(async () => {
  await it?.close();
});

async function open(ddl = ITEMS, flow: Record<string, unknown> = {}): Promise<void> {
  it = await SchemaCase.open(postgres, natsServer, ddl, flow);
}

/** Waits until a table has been read again because of what became of it. */
async function readByItself(name: string): Promise<void> {
  const bucket = await openBucket(it.pipe.nats, it.pipe.config.nats);
  await waitFor('the reading', async () => {
    const progress = await readProgress(bucket, 'wms');
    return progress?.tables.some((table) => table.name === name && table.needed === true && table.state === 'done');
  });
}

describe('tables', () => {
  test('a new table is captured and loaded without a restart', async () => {
    await open();
    await it.run(
      "create table orders (id int primary key, at timestamptz); insert into orders values (1, '2026-01-01')",
    );
    await it.equal();
    await it.run("insert into orders values (2, '2026-01-02')");
    await it.equal();
    await it.run('create table empty (id int primary key)');
    await it.equal();
  });

  test('a new table without identity is left out, and said to be', async () => {
    await open();
    await it.run('create table loose (name text); insert into loose values ($$a$$)');
    await waitFor('the report', async () => it.pipe.leftOut.length > 0);
    expect(it.pipe.leftOut).toEqual([
      { schema: 'public', name: 'loose', reason: expect.stringMatching(/REPLICA IDENTITY FULL/) },
    ]);
    // Neither then nor when another one is read again: once it is published its updates fail at the source.
    await it.pipe.target.query('delete from items');
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.settle(async () => [await it.source('items'), await it.target('items')]);
    await it.run("update loose set name = 'b'");
    await it.run('alter table loose replica identity full');
    await it.equal();
  });

  test.each([
    ['loses its primary key', 'drop constraint items_pkey', 'add primary key (id)'],
    [
      'gets a generated column in its identity',
      'replica identity full, add column twice int generated always as (qty * 2) stored',
      'drop column twice',
    ],
    ['is set to have no identity', 'replica identity nothing', 'replica identity default'],
  ])('one that %s is not published until it has one again, and is read then', async (_, spoil, mend) => {
    await open();
    await it.run(`alter table items ${spoil}`);
    await waitFor('the report', async () => it.pipe.leftOut.length > 0);
    expect(it.pipe.leftOut).toEqual([
      { schema: 'public', name: 'items', reason: expect.stringMatching(/REPLICA IDENTITY/) },
    ]);
    // Published, it would refuse these.
    await it.run("update items set name = 'b' where id < 20; delete from items where id > 40");
    await it.pipe.stop(['capture']);
    await it.run('delete from items where id < 5');
    it.pipe.leftOut = [];
    it.pipe.start(['capture']);
    await waitFor('the report', async () => it.pipe.leftOut.length > 0);
    await it.run("update items set name = 'c' where id = 20");
    await it.run(`alter table items ${mend}`);
    await it.equal();
    expect(it.pipe.leftOut).toEqual([]);
    await it.run("update items set name = 'd' where id = 21; delete from items where id = 22");
    await it.equal();
  });

  test('what leaves the publication and is mended while nothing runs is read when something does', async () => {
    await open();
    await it.run('alter table items replica identity nothing');
    await waitFor('the report', async () => it.pipe.leftOut.length > 0);
    await it.pipe.stop(['capture']);
    await it.run('delete from items where id < 5; alter table items replica identity default');
    it.pipe.start(['capture']);
    await it.equal();
  });

  test('a table that leaves the patterns and comes back before anybody looks is read again', async () => {
    const ddl = `create schema elsewhere; ${ITEMS}`;
    it = await SchemaCase.open(postgres, natsServer, ddl, { dropped_columns: 'drop' }, { tables: ['public.*'] });
    const away = (ids: string, then = ''): Promise<void> =>
      it.run(`begin; alter table items set schema elsewhere; delete from elsewhere.items where id in (${ids});
        alter table elsewhere.items set schema public; ${then} commit`);
    await away('1, 2', 'update items set qty = 5 where id = 20;');
    await it.equal();
    await away('3, 4');
    await it.equal();
    await it.pipe.stop(['capture']);
    await away('5, 6');
    it.pipe.start(['capture']);
    await it.equal();
    await away('7, 8', "alter table items add note text default 'from there', drop name;");
    await it.equal();
  });

  test('a dropped table is kept, and said to be', async () => {
    await open();
    await it.run('create table orders (id int primary key); insert into orders values (1)');
    await it.equal();
    await it.run('drop table orders');
    await it.notices();
    expect(it.pipe.notices).toEqual([
      { schema: 'public', name: 'orders', state: 'gone', reason: expect.stringMatching(/^dropped/) },
    ]);
    expect(await it.target('orders')).toEqual(['{"id":1}']);
  });

  test('a stopped table that is dropped is gone, and waits for nobody', async () => {
    await open();
    await it.run('create table orders (id int primary key, n bigint); insert into orders values (1, 1)');
    await it.equal();
    await it.run('alter table orders alter n type smallint; insert into orders values (2, 2)');
    await waitFor('the stop', async () => it.pipe.notices.some(({ state }) => state === 'stopped'));
    await it.run('drop table orders');
    await waitFor('the end', async () => it.pipe.notices.every(({ state }) => state !== 'stopped'));
    expect(it.pipe.notices).toEqual([
      { schema: 'public', name: 'orders', state: 'gone', reason: expect.stringMatching(/^dropped/) },
    ]);
    expect(await it.target('orders')).toHaveLength(1);
  });

  test('with dropped_tables: drop one that is stopped is dropped as well', async () => {
    await open(ITEMS, { dropped_tables: 'drop' });
    await it.run('alter table items alter qty type smallint');
    await waitFor('the stop', async () => it.pipe.notices.some(({ state }) => state === 'stopped'));
    await it.run('drop table items; create table other (id int primary key)');
    await it.equal();
    expect(it.pipe.notices).toEqual([]);
  });

  test('with dropped_tables: drop it is dropped, and may come again', async () => {
    await open(ITEMS, { dropped_tables: 'drop' });
    await it.run('drop table items');
    await it.run('create table other (id int primary key)');
    await it.equal();
    await it.run("create table items (code text primary key); insert into items values ('a')");
    await it.equal();
  });

  test('one that is dropped and made again is another table, whatever its columns were before', async () => {
    await open();
    await it.run(`begin; drop table items; create table items (id smallint primary key, name varchar(4) not null);
      insert into items values (1, 'a'), (2, 'b'); commit`);
    await it.settle(async () => [await it.source('items'), await it.target('items', ['id', 'name'])]);
    await it.run("insert into items values (3, 'c'); delete from items where id = 1");
    await it.settle(async () => [await it.source('items'), await it.target('items', ['id', 'name'])]);
    expect(it.pipe.notices).toEqual([]);
  });

  test('a renamed table is loaded under its new name, and kept under the old one', async () => {
    await open();
    await it.run('alter table items rename to goods');
    await it.run("insert into goods values (100, 'x', 1)");
    await it.settle(async () => [await it.source('goods'), await it.target('goods')]);
    await it.notices();
    expect(it.pipe.notices).toEqual([
      { schema: 'public', name: 'items', state: 'gone', reason: expect.stringMatching(/^renamed to public.goods/) },
    ]);
    expect(await it.target('items')).toHaveLength(50);
  });

  test('one that takes the place of another, which stays under a new name', async () => {
    await open();
    await it.run(`alter table items rename to items_old; create table items (like items_old including all);
      insert into items select id, name || '!', qty from items_old where id < 10`);
    await it.equal();
    await it.run(`begin; alter table items rename to items_spare; alter table items_old rename to items;
      alter table items_spare rename to items_old; commit; insert into items values (200, 'x', 1)`);
    await it.equal();
    await it.run("insert into items_old values (201, 'y', 1); update items set qty = 0 where id < 3");
    await it.equal();
    expect(it.pipe.notices).toEqual([]);
  });

  test('another primary key, in two steps', async () => {
    await open(`create table items (id int primary key, code int not null, qty int);
      insert into items select n, 1000 - n, n from generate_series(1, 50) n;`);
    await it.run('alter table items drop constraint items_pkey');
    await it.run('insert into items values (100, 5000, 1)');
    await it.pipe.stop(['capture']);
    it.pipe.start(['capture']);
    await it.settle(async () => [await it.source('items'), await it.target('items')]);
    await it.run('alter table items add primary key (code)');
    await readByItself('items');
    await it.run('update items set id = 101 where code = 5000');
    await it.equal();
  });

  test('with renamed_tables: rename it is renamed', async () => {
    await open(ITEMS, { renamed_tables: 'rename' });
    await it.run('alter table items rename to goods');
    await it.run("insert into goods values (100, 'x', 1)");
    await it.equal();
  });
});

test('the tables of a schema that is renamed are loaded under its new name, and kept under the old one', async () => {
  it = new SchemaCase(
    await Pipeline.open(
      postgres,
      natsServer,
      'create schema before; create table before.still (id int primary key); insert into before.still values (1), (2)',
      {},
      postgres,
      { tables: ['*.*'] },
    ),
  );
  const both = async (schema: string): Promise<string[][]> => [
    ['{"id":1}', '{"id":2}'],
    await it.target(`${schema}.still`).catch((thrown: Error) => [thrown.message]),
  ];
  it.pipe.start();
  await it.settle(() => both('before'));
  await it.run('alter schema before rename to behind');
  await it.settle(() => both('behind'));
  await it.notices();
  expect(it.pipe.notices).toEqual([
    { schema: 'before', name: 'still', state: 'gone', reason: expect.stringMatching(/^renamed to behind.still/) },
  ]);
  expect(await it.target('before.still')).toHaveLength(2);
});

test('a table for which the publication may not be changed is left out, and its SQL is said', async () => {
  await open();
  const role = `limited_${randomUUID().slice(0, 8)}`;
  await it.pipe.stop(['capture']);
  await it.run(`create role ${role} replication; grant select on all tables in schema public to ${role};
    alter default privileges in schema public grant select on tables to ${role};
    do $$ begin execute format('alter database %I set role = ${role}', current_database()); end $$`);
  it.pipe.start(['capture']);
  // At its start it would refuse to run.
  await it.run("insert into items values (100, 'x', 1)");
  await it.equal();
  await it.run('create table fresh (id int primary key); insert into fresh values (1)');
  await waitFor('the report', async () => it.pipe.leftOut.length > 0);
  expect(it.pipe.leftOut).toEqual([
    { schema: 'public', name: 'fresh', reason: expect.stringMatching(/ALTER PUBLICATION .* ADD TABLE .*fresh/) },
  ]);
});

describe('partitions', () => {
  const PARTS = `create table log (id int, day date, note text, primary key (id, day)) partition by range (day);
    create table log_1 partition of log for values from ('2026-01-01') to ('2026-02-01');
    insert into log select n, '2026-01-10', 'x' from generate_series(1, 20) n;`;

  test('a new one, and one that is attached with its rows', async () => {
    await open(PARTS);
    await it.run("create table log_2 partition of log for values from ('2026-02-01') to ('2026-03-01')");
    await it.run("insert into log values (21, '2026-02-10', 'y')");
    await it.run(`begin; create table log_3 (like log including all); insert into log_3 select n, '2026-03-05', 'z' from generate_series(1, 30) n;
      alter table log attach partition log_3 for values from ('2026-03-01') to ('2026-04-01'); commit`);
    await it.equal();
  });

  test('one that is attached to a table without a key', async () => {
    await open(`create table log (day date, note text) partition by range (day);
      create table log_1 partition of log for values from ('2026-01-01') to ('2026-02-01');
      alter table log replica identity full; alter table log_1 replica identity full;
      insert into log select '2026-01-10', 'x' from generate_series(1, 20) n;`);
    await it.run(`create table log_2 (like log); alter table log_2 replica identity full;
      insert into log_2 select '2026-02-10', 'y' || n % 3 from generate_series(1, 30) n;
      alter table log attach partition log_2 for values from ('2026-02-01') to ('2026-03-01')`);
    await it.settle(async () => [await it.source('log'), await it.target('log')]);
  });

  test('one that is attached to a table that loses its key before its rows are read', async () => {
    await open(PARTS);
    const older = new pg.Client({ connectionString: it.pipe.config.sources['wms']!.url });
    await older.connect();
    try {
      // Nothing is read before it ends.
      await older.query('begin; select pg_current_xact_id()');
      await it.run(`create table log_2 (like log including all); insert into log_2 select n, '2026-02-10', 'y' from generate_series(1, 30) n;
        alter table log attach partition log_2 for values from ('2026-02-01') to ('2026-03-01')`);
      const bucket = await openBucket(it.pipe.nats, it.pipe.config.nats);
      await waitFor('the partition to be asked for', async () =>
        (await readProgress(bucket, 'wms'))?.tables.some(({ part }) => part?.name === 'log_2'),
      );
      await it.run(`alter table log replica identity full; alter table log_1 replica identity full;
        alter table log_2 replica identity full; alter table log drop constraint log_pkey;
        insert into log values (40, '2026-01-20', 'last')`);
      const last = "select from log where note = 'last'";
      await waitFor('the last row', async () => (await it.pipe.target.query(last)).rowCount === 1);
    } finally {
      await older.query('rollback');
      await older.end();
    }
    await it.settle(async () => [await it.source('log'), await it.target('log')]);
  });

  test('one that is dropped, detached or emptied takes its rows along', async () => {
    await open(PARTS);
    await it.run(`create table log_2 partition of log for values from ('2026-02-01') to ('2026-03-01');
      create table log_3 partition of log for values from ('2026-03-01') to ('2026-04-01');
      insert into log values (1, '2026-02-10', 'y'), (1, '2026-03-10', 'z')`);
    await it.equal();
    await it.run('drop table log_2');
    await it.equal();
    await it.run('truncate log_3');
    await it.equal();
    await it.run('alter table log detach partition log_1; drop table log_1');
    await it.equal();
  });
});

describe('what cannot be followed', () => {
  test('a narrower type stops its table alone until it is read again', async () => {
    await open(`${ITEMS} create table other (id int primary key)`);
    await it.run('alter table items alter name type varchar(10)');
    await it.run("insert into items values (100, 'short', 1)");
    // Nobody asked for that.
    await readByItself('items');
    await it.run('insert into other values (1)');
    await it.settle(async () => [await it.source('other'), await it.target('other')]);
    await it.notices();
    expect(it.pipe.notices).toEqual([
      {
        schema: 'public',
        name: 'items',
        state: 'stopped',
        reason: expect.stringMatching(/name was text and is character varying\(10\)/),
      },
    ]);
    expect(await it.target('items')).toHaveLength(50);
    await it.pipe.stop(['apply']);
    const { config } = it.pipe;
    const target = await targetOf(config.targets['vis']!);
    const desk = await target.openDesk('test');
    expect(await desk.tableNotices('mirror')).toEqual(it.pipe.notices);
    await desk.close();
    expect(await target.check('vis', config.flows, {})).toContainEqual({
      severity: 'error',
      subject: 'target vis: flow mirror',
      message: expect.stringMatching(/public.items is not followed: .*was text/),
      remedy: expect.stringMatching(/waybill snapshot wms public.items/),
    });
    it.pipe.start(['apply']);
    await it.run("insert into items values (101, 'later', 1)");
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.equal();
    expect(it.pipe.notices).toEqual([]);
  });

  test('a type that rows of the target do not fit empties it where somebody asks, and not before', async () => {
    await open();
    await it.run('alter table items alter qty type int using 1000000 + qty; insert into items values (100, $$x$$, 7)');
    await it.equal();
    await it.run(`alter table items alter qty drop default; alter table items alter qty type smallint using qty % 1000;
      alter table items alter name type int using id * 2`);
    await readByItself('items');
    await waitFor('the stop', async () => it.pipe.notices.some(({ state }) => state === 'stopped'));
    expect(await it.target('items')).toContain('{"id":5,"name":"item 5","qty":1000005}');
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.equal();
    await waitFor('the report', async () => it.pipe.notices.length === 0);
  });

  test('a table that is asked for right behind a narrower type is not stopped by that afterwards', async () => {
    await open();
    await it.run('alter table items alter name type varchar(10)');
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.equal();
    expect(it.pipe.notices).toEqual([]);
  });

  test('with schema_changes: stop any change stops its table', async () => {
    await open(ITEMS, { schema_changes: 'stop' });
    await it.run('alter table items add column note text');
    await it.notices();
    expect(it.pipe.notices[0]?.reason).toMatch(/column note is new/);
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.equal();
  });

  test.each([
    [
      'dropped and made again',
      `begin; drop table items; create table items (id smallint primary key, name varchar(4));
        insert into items values (1, 'a'); commit; insert into items values (2, 'b')`,
    ],
    [
      'written anew with another type',
      "alter table items alter qty type bigint; insert into items values (100, 'x', 1)",
    ],
  ])('with schema_changes: stop one that is %s is stopped until somebody asks for it', async (_, change) => {
    await open(`${ITEMS} create table other (id int primary key)`, { schema_changes: 'stop' });
    const definition = await definitions(it.pipe.target);
    await it.run(change);
    await readByItself('items');
    // What comes behind that has been applied.
    await it.run('insert into other values (1)');
    await it.settle(async () => [await it.source('other'), await it.target('other')]);
    expect(it.pipe.notices).toMatchObject([{ name: 'items', state: 'stopped' }]);
    expect(await definitions(it.pipe.target)).toEqual(definition);
    expect(await it.target('items')).toHaveLength(50);
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.settle(async () => [await it.source('items', ['id', 'name']), await it.target('items', ['id', 'name'])]);
    await waitFor('the report', async () => it.pipe.notices.length === 0);
  });

  test('a table in the target that belongs to somebody else', async () => {
    await open();
    const role = `limited_${randomUUID().slice(0, 8)}`;
    await it.pipe.stop(['apply']);
    await it.pipe.target.query(`create role ${role}; grant all on schema public, waybill to ${role};
      grant all on all tables in schema public, waybill to ${role};
      do $$ begin execute format('alter database %I set role = ${role}', current_database()); end $$`);
    it.pipe.start(['apply']);
    await it.run("alter table items add note text default 'new'");
    await it.notices();
    expect(it.pipe.notices).toMatchObject([
      { name: 'items', state: 'stopped', reason: expect.stringMatching(/must be owner/) },
    ]);
    await it.pipe.target.query(`alter table items owner to ${role}`);
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.equal();
    await waitFor('the report', async () => it.pipe.notices.length === 0);
  });

  test('a view in the target that is in the way', async () => {
    await open(ITEMS, { dropped_columns: 'drop' });
    await it.pipe.target.query('create view names as select id, name from items');
    await it.run('alter table items drop column name');
    await it.notices();
    expect(it.pipe.notices[0]?.reason).toMatch(/depend/);
    await it.pipe.target.query('drop view names');
    await requestSnapshot(it.pipe.config.nats, 'wms', { tables: ['public.items'] });
    await it.equal();
  });
});

test("looking for changes waits for nobody who holds a partition, and is in nobody's way", async () => {
  await open(`${ITEMS}
    create table events (id int, day date, primary key (id, day)) partition by range (day);
    create table events_a partition of events for values from ('2026-01-01') to ('2026-02-01');
    create table events_b partition of events for values from ('2026-02-01') to ('2026-03-01');
    insert into events values (1, '2026-01-05'), (2, '2026-02-05')`);
  const there = "select to_regclass('fresh') is not null as found";
  const holder = new pg.Client({ connectionString: it.pipe.config.sources['wms']!.url });
  await holder.connect();
  try {
    await holder.query('begin; lock table events_b in access exclusive mode');
    await it.run('create table fresh (id int primary key); insert into fresh values (1)');
    // Its rows wait for a transaction that is as old; that it is there has been seen.
    await waitFor('the new table', async () => (await it.pipe.target.query(there)).rows[0].found === true);
    await it.run('begin; lock table events_a in access exclusive mode nowait; rollback');
    await holder.query('rollback');
  } finally {
    await holder.end();
  }
  await it.equal();
});
