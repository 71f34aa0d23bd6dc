/** docs/schema-changes.md, row by row, for sources of MySQL and MariaDB: into the same kind of server and into Postgres. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';
import { waitFor } from '../support/wait.ts';

let natsServer: NatsServer;
let postgres: PostgresServer;
beforeAll(async () => {
  [natsServer, postgres] = await Promise.all([startNats(), startPostgres()]);
}, 180_000);
afterAll(async () => {
  await Promise.all([natsServer?.dispose(), postgres?.dispose()]);
});

describe.each([
  { flavour: 'mysql' as const, version: '9.7' as const, to: 'postgres' as const },
  { flavour: 'mariadb' as const, version: '10.11' as const, to: 'mariadb' as const },
])('$flavour $version to $to', ({ flavour, version, to }) => {
  let server: MysqlServer;
  let pipe: CrossPipeline;

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });
  afterEach(async () => {
    await pipe?.close();
  });

  async function open(ddl: string, flow: Record<string, unknown> = {}): Promise<void> {
    pipe = await CrossPipeline.open({
      from: { dialect: flavour, server },
      to: { dialect: to, server: to === 'postgres' ? postgres : server },
      nats: natsServer,
      flow,
    });
    await pipe.source.run(ddl);
    await pipe.start();
    await equal('items');
  }

  const list = async (table: string, columns: string, side: 'source' | 'target'): Promise<string[]> =>
    (await pipe[side].run(`select ${columns} from ${side === 'source' ? pipe.schema : pipe.place}.${table}`))
      .map((row) => row.map(String).join('|'))
      .sort();

  /** Waits until both sides have the same rows, and, with `columns` left out, the same columns. */
  async function equal(table: string, columns = '*'): Promise<void> {
    let last: unknown[] = [];
    await waitFor(
      `${table} on both sides`,
      async () => {
        if (pipe.failure !== undefined) return true;
        const there = await names(table, 'target');
        const wanted = columns === '*' ? (await names(table, 'source')).join(', ') : columns;
        if (wanted.split(', ').some((name) => !there.includes(name))) return false;
        last = [await list(table, wanted, 'source'), await list(table, wanted, 'target')];
        return JSON.stringify(last[0]) === JSON.stringify(last[1]);
      },
      20_000,
    ).catch(() => expect(last[1]).toEqual(last[0]));
    if (pipe.failure !== undefined) throw pipe.failure;
  }

  async function names(table: string, side: 'source' | 'target'): Promise<string[]> {
    const rows = await pipe[side].run(
      `select column_name from information_schema.columns where table_schema = '${side === 'source' ? pipe.schema : pipe.place}'
          and table_name = '${table}' order by ordinal_position`,
    );
    return rows.map(([name]) => String(name));
  }

  const state = async (): Promise<string[]> =>
    (await pipe.target.run('select table_name, state, reason from waybill.tables'))
      .map((row) => row.join(' '))
      .filter((line) => line.includes(' gone ') || line.includes(' stopped '));

  const ITEMS = `create table items (id int primary key, name varchar(20) not null, qty int default 1);
    insert into items values (1, 'a', 1), (2, 'b', 2)`;

  test('columns come with what rows have in them, also where no row follows', async () => {
    await open(ITEMS);
    await pipe.source.run('alter table items add column note text');
    await equal('items');
    await pipe.source.run(
      "alter table items add column n int not null default 7, add column t varchar(9) default 'it''s'",
    );
    await equal('items');
    await pipe.source.run(
      'alter table items add column d datetime default current_timestamp, add column z int not null',
    );
    await pipe.source.run("insert into items (id, name, z) values (3, 'c', 5)");
    await equal('items', 'id, name, n, t, z');
    await pipe.source.run('alter table items add column k bigint not null auto_increment unique');
    await equal('items', 'id, name, n, t, z, k');
    await pipe.source.run('alter table items add column w varchar(40) default (concat(1 + 1, 2))');
    await equal('items', 'id, name, n, t, z, k, w');
  });

  test('a generated column that becomes a plain one is read again', async () => {
    await open('create table items (id int primary key, a int, c int); insert into items values (1, 1, 5), (2, 2, 6)');
    await pipe.source.run('alter table items add column b int generated always as (a * 2) stored');
    await pipe.source.run('insert into items (id, a, c) values (3, 3, 7)');
    await equal('items', 'id, a, c');
    await pipe.source.run('alter table items modify b int');
    await equal('items');
    // It is what it was before, with other values.
    await pipe.source.run(
      'alter table items modify c int generated always as (a * 3) stored; alter table items modify c int',
    );
    await equal('items');
  });

  test('a dropped column is dropped, a renamed one keeps its values, a wider type is read again', async () => {
    await open(ITEMS, { dropped_columns: 'drop' });
    await pipe.source.run('alter table items drop column qty; alter table items rename column name to title');
    await equal('items');
    await pipe.source.run(
      "alter table items modify title text, modify id bigint; insert into items values (5000000000, 'x')",
    );
    await equal('items');
    expect(await names('items', 'target')).toHaveLength(2);
  });

  test('columns that exchange names, or come again, have the values that they have at the source', async () => {
    await open(`create table items (id int primary key, a int, b int, t varchar(9));
      insert into items values (1, 10, 20, 'x'), (2, 11, 21, 'y')`);
    await pipe.source.run('alter table items rename column a to b, rename column b to a');
    await equal('items');
    await pipe.source.run('alter table items drop column a, add column a int');
    await equal('items');
    await pipe.source.run('alter table items rename column b to c, add column b int');
    await equal('items');
    await pipe.source.run('alter table items drop column b; alter table items add column b int default 4');
    await equal('items');
    // Each has the type that the other had.
    await pipe.source.run('alter table items rename column t to c, rename column c to t');
    await equal('items');
    await waitFor('the table to be followed', async () => (await state()).length === 0);
  });

  test('NULLs and another primary key', async () => {
    await open(ITEMS);
    await pipe.source.run('alter table items modify name varchar(20) null; insert into items values (3, null, 3)');
    await equal('items');
    await pipe.source.run('delete from items where name is null; alter table items modify name varchar(20) not null');
    await pipe.source.run('alter table items drop primary key, add primary key (name)');
    await pipe.source.run("update items set qty = 9 where name = 'a'; insert into items values (1, 'c', 3)");
    await equal('items');
    // What was NULL gets another value without a change in the log.
    await pipe.source.run("insert into items values (2, 'd', null)");
    await equal('items');
    await pipe.source.run("set sql_mode = ''; alter table items modify qty int not null");
    await equal('items');
    expect(await list('items', 'qty', 'target')).not.toContain('null');
  });

  if (flavour === 'mariadb')
    test('a table whose history the server keeps has its present rows alone', async () => {
      await open(`create table items (id int primary key, name varchar(20) not null) with system versioning;
        insert into items values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'); update items set name = 'B' where id = 2`);
      await pipe.source.run(
        "update items set name = 'A' where id = 1; delete from items where id in (3, 4); insert into items values (4, 'again'), (5, 'e')",
      );
      await pipe.source.run(
        "update items set id = 6 where id = 5; delete history from items; replace into items values (2, 'bb')",
      );
      await equal('items');
      await pipe.source.run('delete from items; insert into items values (7, 1)');
      await equal('items');
    });

  test('new, dropped and renamed tables', async () => {
    await open(ITEMS);
    await pipe.source.run('create table more (id int primary key)');
    await equal('more');
    await pipe.source.run('insert into more values (1); rename table items to goods');
    await equal('goods');
    await equal('more');
    await waitFor('the report', async () => (await state()).some((line) => line.startsWith('items gone renamed')));
    await pipe.source.run('drop table more');
    await waitFor('the report', async () => (await state()).some((line) => line.startsWith('more gone dropped')));
  });

  test('a table that has come and gone before the catalog was asked', async () => {
    await open(ITEMS);
    await pipe.source.run(
      'create table brief (id int primary key); insert into brief values (1), (2); drop table brief',
    );
    await waitFor('the report', async () => (await state()).some((line) => line.startsWith('brief gone dropped')));
  });

  if (to === 'postgres')
    test('a narrower type that has the same form in the target has its table read again', async () => {
      await open(`create table items (id int primary key, f float, n int, w varchar(9));
        insert into items values (1, 1.23456, null, 'a'), (2, 2, 7, 'b')`);
      await pipe.source.run(
        "set sql_mode = ''; alter table items modify f float(7,2), modify n int not null, modify w text; insert into items values (3, 3, 3, 'c')",
      );
      await equal('items');
      expect(await state()).toEqual([]);
      await pipe.source.run('alter table items modify f float, add column x int not null auto_increment unique');
      await equal('items');
    });

  test('a narrower type stops its table alone, also where other values are new', async () => {
    await open(
      'create table items (id int primary key, name varchar(20) not null, qty int); insert into items values (1, 1, null)',
    );
    await pipe.source.run(
      "set sql_mode = ''; alter table items modify name varchar(5) not null, modify qty int not null",
    );
    const stopped = async (): Promise<string[]> =>
      (await state()).filter((line) => /^items stopped .*varchar\(20\)/.test(line));
    await waitFor('the report', async () => (await stopped()).length === 1);
    // Behind the reading that nobody asked for.
    await pipe.source.run('create table more (id int primary key); insert into more values (1)');
    await equal('more');
    await requestSnapshot(pipe.config.nats, 'one', { tables: [`${pipe.schema}.more`] });
    await pipe.source.run('insert into more values (2)');
    await equal('more');
    expect(await stopped()).toHaveLength(1);
    await requestSnapshot(pipe.config.nats, 'one', { tables: [`${pipe.schema}.items`] });
    await equal('items');
    expect(await stopped()).toEqual([]);
  });

  test('a narrower type stops its table alone', async () => {
    await open(ITEMS);
    await pipe.source.run('create table other (id int primary key)');
    await pipe.source.run('alter table items modify name varchar(5) not null; insert into other values (1)');
    await equal('other');
    const stopped = async (): Promise<string[]> =>
      (await state()).filter((line) => /^items stopped .*varchar\(20\)/.test(line));
    await waitFor('the report', async () => (await stopped()).length === 1);
    await pipe.source.run("update items set name = 'z'; insert into other values (2)");
    await equal('other');
    expect(await stopped()).toHaveLength(1);
    // It is for a person to say.
    await requestSnapshot(pipe.config.nats, 'one', { tables: [`${pipe.schema}.items`] });
    await equal('items');
    expect(await stopped()).toEqual([]);
  });
});
