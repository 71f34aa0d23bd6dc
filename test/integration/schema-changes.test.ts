/** docs/schema-changes.md, row by row: columns and keys, Postgres to Postgres on real servers. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ddlTriggerSql } from '../../capture/postgres/ddl-trigger.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { definitions, rowsOf, tablesOf } from '../support/definitions.ts';
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

describe('columns', () => {
  test('a new column, with and without a default, filled and empty', async () => {
    await open();
    await it.run('alter table items add column note text');
    await it.run("insert into items values (100, 'new', 1, 'with a note')");
    await it.run(
      "alter table items add column colour text not null default 'red', add column seen timestamptz default now()",
    );
    await it.run("update items set colour = 'blue' where id < 10");
    await it.run('alter table items add column data bytea, add column amount numeric(10,2) default 0.5');
    await it.equal();
  });

  test('a change that asks nothing of a target in a schema of another name', async () => {
    it = new SchemaCase(await Pipeline.open(postgres, natsServer, ITEMS, { schema: 'mirrored' }));
    const both = async (): Promise<string[][]> => [await it.source('items'), await it.target('mirrored.items')];
    it.pipe.start();
    await waitFor('the table', async () => {
      const { rows } = await it.pipe.target.query(`select to_regclass('mirrored.items') as oid`);
      return (rows as { oid: unknown }[])[0]!.oid !== null;
    });
    await it.settle(both);
    await it.run('alter table items replica identity full');
    await it.run(
      `insert into items values (100, 'new', 1); update items set qty = 7 where id = 1; delete from items where id = 2`,
    );
    await it.settle(both);
    const { rows } = await it.pipe.target.query('select table_schema, table_name, state from waybill.tables');
    expect(rows).toEqual([{ table_schema: 'public', table_name: 'items', state: 'follows' }]);
  });

  test('a new column whose values no event tells is read again', async () => {
    await open();
    await it.run(
      'alter table items add column code uuid not null default gen_random_uuid(), add column n serial, add column m int generated always as identity',
    );
    await it.run("insert into items (id, name) values (100, 'new')");
    // The default calls a sequence that the target does not have.
    await it.settle(async () => it.contents());
    await waitFor('columns that may not be NULL', async () =>
      /code uuid not null.* m integer not null.* n integer not null/.test((await definitions(it.pipe.target))[0]!),
    );
  });

  test('values that no event tells, and of which the catalog shows nothing by now, are read again', async () => {
    await open(`${ITEMS} create table counted (id int primary key); insert into counted select generate_series(1, 20);
      create table priced (id int primary key, price int); insert into priced select n, n from generate_series(1, 20) n;
      create table parted (id int primary key) partition by hash (id);
      create table parted_0 partition of parted for values with (modulus 1, remainder 0);
      insert into parted select generate_series(1, 20);`);
    await it.run(`create table made (id int primary key, a int, twice int generated always as (a * 2) stored);
      insert into made select n, n from generate_series(1, 20) n`);
    const plain = ['id', 'a'];
    await it.settle(async () => [await it.source('made', plain), await it.target('made', plain)]);
    await it.pipe.stop(['capture']);
    await it.run(`alter table items add column code uuid not null default gen_random_uuid(); alter table items alter code drop default;
      alter table counted add column n int generated always as identity; alter table counted alter n drop identity;
      alter table priced alter price type int using price + 1;
      alter table parted add column n int default 5; alter table parted alter n drop default;
      alter table made alter twice drop expression`);
    it.pipe.start(['capture']);
    await it.equal();
    // While it runs, with what was found before.
    await it.run('alter table priced alter price type int using price + 1');
    await it.equal();
  });

  test('a column that was changed and changed back keeps all that it was', async () => {
    await open();
    await it.run("alter table items add column code text not null default 'x'");
    await it.equal();
    // Its place in the catalog is new, and what it is like is not.
    await it.run("alter table items alter code set default 'x'");
    await it.run('truncate items');
    await it.run("insert into items (id, name) values (1, 'after')");
    await it.equal();
    await it.run('alter table items alter code drop not null; alter table items alter code set not null');
    await it.run("insert into items (id, name) values (2, 'again')");
    await it.equal();
  });

  test('a column that may be NULL for the rest of its life takes NULLs to the end', async () => {
    await open(undefined, { dropped_columns: 'drop' });
    await it.run("alter table items add column code text not null default 'x'");
    await it.equal();
    // By the time that the log comes to the row, the catalog does not know the column any more.
    await it.run(
      `begin; alter table items alter code drop not null; insert into items values (100, 'new', 1, null);
       alter table items drop column code; commit`,
    );
    await it.equal();
  });

  test('a dropped column is kept in the target, and new rows have none', async () => {
    await open();
    await it.run("alter table items add column code text not null default 'x'");
    await it.equal();
    await it.run('alter table items drop column name, drop column code');
    await it.run('insert into items values (100, 7)');
    await it.settle(async () => [await it.source('items', ['id', 'qty']), await it.target('items', ['id', 'qty'])]);
    expect((await definitions(it.pipe.target))[0]).toMatch(/name text,/);
    expect((await it.pipe.target.query('select name from items where id = 5')).rows).toEqual([{ name: 'item 5' }]);
  });

  test('with dropped_columns: drop it is dropped', async () => {
    await open(ITEMS, { dropped_columns: 'drop' });
    await it.run('alter table items drop column name');
    await it.run('insert into items values (100, 7)');
    await it.equal();
  });

  test('a column that is dropped and comes again is another one', async () => {
    await open();
    await it.run('alter table items drop column name');
    await it.run('alter table items add column name int');
    await it.run('insert into items values (100, 7, 8)');
    await it.settle(async () => [await it.source('items'), await it.target('items', ['id', 'qty', 'name'])]);
    expect((await it.pipe.target.query('select name_dropped from items where id = 5')).rows).toEqual([
      { name_dropped: 'item 5' },
    ]);
  });

  test('a renamed column keeps its values, also when names are exchanged', async () => {
    await open('create table items (id int primary key, a text, b text); insert into items values (1, $$a$$, $$b$$)');
    await it.run('alter table items rename column a to title');
    await it.run("insert into items values (2, 'c', 'd')");
    await it.equal();
    await it.run(
      'begin; alter table items rename column title to x; alter table items rename column b to title; alter table items rename column x to b; commit',
    );
    await it.run("insert into items values (3, 'e', 'f')");
    await it.equal();
  });

  test('a wider type', async () => {
    await open(
      `create table items (id int primary key, small smallint, code varchar(5), price numeric(6,2), born date, doc json);
       insert into items values (1, 7, 'abc', 12.50, '2026-02-03', '{"a": 1}')`,
    );
    await it.run('alter table items alter code type varchar(50), alter price type numeric(12,2)');
    await it.run("insert into items values (2, 8, 'longer than five', 1234567.89)");
    await it.equal();
    await it.run(
      'alter table items alter id type bigint, alter small type int, alter born type timestamp, alter doc type jsonb, alter code type text',
    );
    await it.run("insert into items values (5000000000, 100000, 'x', 1, '2026-01-01 12:00')");
    await it.equal();
    // With values that no event tells, also where no row follows.
    await it.run(
      'alter table items alter small type bigint using small * 2, alter price type numeric(14,3) using price + 0.125',
    );
    await it.equal();
  });

  test('defaults and NULLs', async () => {
    await open();
    await it.run('alter table items alter name drop not null, alter qty set default 7');
    await it.run('insert into items (id) values (100)');
    await it.equal();
    await it.run(
      "update items set name = 'x' where name is null; alter table items alter name set not null, alter qty drop default",
    );
    await it.equal();
    await it.run('alter table items add at timestamptz; alter table items alter at set default current_timestamp');
    await it.equal();
    await it.run('alter table items alter qty set default 3');
    await it.equal();
    // A sequence of the source's own.
    await it.run("create sequence counted; alter table items alter qty set default nextval('counted')");
    await waitFor('no default', async () => (await definitions(it.pipe.target))[0]!.endsWith(' qty integer key id'));
  });

  test('changes of definition and of rows in one transaction', async () => {
    await open(ITEMS, { dropped_columns: 'drop' });
    await it.run(`begin; insert into items values (100, 'before', 1); alter table items add column note text;
      insert into items values (101, 'between', 1, 'n'); update items set qty = 9 where id = 100;
      alter table items drop column qty; alter table items rename note to remark; insert into items values (102, 'after', 'r'); commit`);
    await it.equal();
  });

  test('what changed while nothing ran', async () => {
    await open(ITEMS, { dropped_columns: 'drop' });
    await it.pipe.stop();
    await it.run("alter table items rename name to title; insert into items values (100, 'x', 1)");
    await it.run('alter table items drop column qty; alter table items add column weight numeric default random()');
    await it.run("insert into items values (101, 'y', 2)");
    await it.run('create table more (id int primary key); insert into more values (1)');
    it.pipe.start();
    await it.settle(async () => it.contents());
  });
});

describe('keys', () => {
  test('another primary key', async () => {
    await open(
      "create table items (id int primary key, code text not null, n int); insert into items values (1, 'a', 1), (2, 'b', 2)",
    );
    await it.run('alter table items drop constraint items_pkey, add primary key (code)');
    await it.run(
      "update items set n = 5 where code = 'a'; delete from items where code = 'b'; insert into items values (1, 'c', 3)",
    );
    await it.equal();
    await it.run('alter table items drop constraint items_pkey, add primary key (code, n)');
    await it.run("update items set n = 6 where code = 'a'");
    await it.equal();
  });

  test('another replica identity', async () => {
    await open(`${ITEMS} alter table items add code text; update items set code = 'c' || id;
      alter table items alter code set not null, add unique (code)`);
    await it.run('alter table items replica identity using index items_code_key');
    await it.run("update items set id = 200 where code = 'c1'; delete from items where code = 'c2'");
    await it.settle(async () => it.contents());
    await waitFor('the key', async () => (await definitions(it.pipe.target))[0]!.endsWith('key code'));
    await it.run('alter table items replica identity default');
    await it.run("update items set code = 'other' where id = 200; delete from items where id = 3");
    await it.equal();
  });

  test('a key that is made of a new column', async () => {
    await open(
      'create table items (name text); alter table items replica identity full; insert into items values ($$a$$), ($$b$$)',
    );
    await it.run('alter table items add column id bigserial primary key; alter table items replica identity default');
    await it.run("update items set name = 'c' where name = 'a'");
    await it.settle(async () => it.contents());
    await waitFor('the key', async () => (await definitions(it.pipe.target))[0]!.endsWith('key id'));
  });
});

test('a label that an enum of the source got is added to the one of the target', async () => {
  const other = await startPostgres({ version: 15 });
  const type = "create type mood as enum ('sad', 'glad')";
  const pipe = await Pipeline.open(
    postgres,
    natsServer,
    `${type}; create table items (id int primary key, m mood, other text); insert into items values (1, 'sad')`,
    {},
    other,
  );
  try {
    await pipe.target.query(type);
    pipe.start();
    await pipe.settled(['items']);
    await pipe.source.query("alter type mood add value 'it''s all right' before 'glad'; alter type mood add value 'x'");
    await pipe.source.query(
      `begin; insert into items values (2, 'glad'); insert into items values (3, 'it''s all right'); update items set m = 'x' where id = 1; commit`,
    );
    await pipe.source.query("insert into items select n, 'x' from generate_series(100, 400) n");
    await expect.poll(() => rowsOf(pipe.target, 'items')).toEqual(await rowsOf(pipe.source, 'items'));
    expect((await pipe.target.query('select from waybill.quarantine')).rowCount).toBe(0);
    expect((await pipe.target.query('select enum_range(null::mood)::text as labels')).rows).toEqual([
      { labels: `{sad,glad,"it's all right",x}` },
    ]);
    // Who does not own the type may not add one: the rows wait.
    await pipe.stop(['apply']);
    await pipe.target.query(`create role limited; grant all on schema public, waybill to limited;
      grant all on all tables in schema public, waybill to limited; grant all on all sequences in schema waybill to limited;
      do $$ begin execute format('alter database %I set role = limited', current_database()); end $$`);
    pipe.start(['apply']);
    await pipe.source.query("alter type mood add value 'y'");
    await pipe.source.query("insert into items values (500, 'y'); insert into items values (501, 'x')");
    await expect.poll(() => rowsOf(pipe.target, 'items', ['id'])).toContain('{"id":501}');
    expect((await pipe.target.query('select from waybill.quarantine')).rowCount).toBe(1);
    expect(pipe.failure).toBeUndefined();
  } finally {
    await pipe.close();
    await other.dispose();
  }
});

test('a label of an enum that is renamed has its tables read again', async () => {
  await open();
  const sameRows = (): Promise<void> => it.settle(async () => it.contents());
  await it.run(`create type mood as enum ('sad', 'glad'); create domain temper as mood;
    create table moods (id int primary key, m mood, t temper, l mood[]);
    insert into moods select n, 'sad', 'glad', '{sad,glad}' from generate_series(1, 50) n;
    create table halves (id int, m mood, primary key (id)) partition by range (id);
    create table low partition of halves for values from (0) to (100);
    insert into halves values (1, 'sad'), (2, 'glad')`);
  await waitFor('the new tables', async () => (await tablesOf(it.pipe.target)).length === 3);
  await sameRows();
  await it.run("alter type mood rename value 'sad' to 'unhappy'");
  await sameRows();
  await it.run("alter type mood add value 'mixed' before 'glad'");
  await it.run("alter type mood rename value 'glad' to 'happy'; insert into moods values (100, 'happy', 'unhappy')");
  await sameRows();
  await it.pipe.stop(['capture']);
  await it.run("alter type mood rename value 'happy' to 'merry'");
  it.pipe.start(['capture']);
  await sameRows();
});

test('a label that is renamed is seen through whatever types are made of its enum', async () => {
  const values = {
    nature: 'sad',
    phases: '{sad}',
    'temper[]': '{sad}',
    span: '[sad,glad)',
    span_multirange: '{[sad,glad)}',
    report: '(7,sad)',
  };
  const tables = Object.entries(values).map(([type, value], index) => {
    const name = `made_${index}`;
    return {
      name,
      ddl: `create table ${name} (id int primary key, m ${type}); insert into ${name} values (1, '${value}')`,
    };
  });
  const types = `create type mood as enum ('sad', 'glad'); create domain temper as mood; create domain nature as temper;
    create domain phases as mood[]; create type span as range (subtype = mood); create type report as (by int, m mood)`;
  it = new SchemaCase(await Pipeline.open(postgres, natsServer, [types, ...tables.map(({ ddl }) => ddl)].join(';')));
  it.pipe.start();
  const all = tables.map(({ name }) => `select m::text from ${name}`).join(' union all ');
  const sameRows = async (): Promise<void> =>
    await expect
      .poll(async () => (await it.pipe.target.query(all).catch(() => undefined))?.rows, { timeout: 30_000 })
      .toEqual((await it.pipe.source.query(all)).rows);
  await sameRows();
  await it.run("alter type mood rename value 'sad' to 'unhappy'");
  await sameRows();
});

test('a renamed label comes to an enum of the target as another one', async () => {
  await open();
  const type = "create type mood as enum ('sad', 'glad')";
  await it.pipe.target.query(type);
  await it.run(`${type}; create table moods (id int primary key, m mood)`);
  await it.run(
    "insert into moods select n, 'sad' from generate_series(1, 50) n; insert into moods values (51, 'glad')",
  );
  await it.equal();
  await it.run("alter type mood rename value 'sad' to 'unhappy'");
  await it.equal();
  expect((await it.pipe.target.query('select enum_range(null::mood)::text as labels')).rows).toEqual([
    { labels: '{sad,glad,unhappy}' },
  ]);
});

test('with the event trigger changes come in their place, also several within a moment', async () => {
  await open(ITEMS, { dropped_columns: 'drop', dropped_tables: 'drop', renamed_tables: 'rename' });
  await it.run(ddlTriggerSql());
  await it.run(`begin; alter table items rename name to title; update items set qty = 5 where id = 1;
    alter table items rename qty to name; alter table items rename title to qty; update items set name = 6 where id = 2; commit`);
  await it.run('alter table items alter qty drop not null; insert into items values (100)');
  await it.run("update items set qty = '' where qty is null; alter table items alter qty set not null");
  await it.run('create table more (id int primary key); alter table more rename to less; insert into less values (1)');
  await it.equal();
  await it.run('drop table less; alter table items rename to goods');
  await it.equal();
  expect(it.pipe.notices).toEqual([]);
});
