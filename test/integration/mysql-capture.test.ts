import { createConnection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Flavour } from '../../capture/mysql/binlog-handler.ts';
import { mysqlGrantsSql } from '../../capture/mysql/grants.ts';
import { checkMysqlSource } from '../../capture/mysql/preflight.ts';
import { openMysqlProbe } from '../../capture/mysql/status.ts';
import { readProgress, requestSnapshot, type TableProgress } from '../../capture/snapshot-request.ts';
import { readTail } from '../../core/cdc-stream.ts';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { Source, type Change } from '../support/mysql-source.ts';

const timeoutMs = 240_000;
describe.each([
  ['mysql', '9.7'],
  ['mariadb', '11.8'],
] as const)('capture of %s %s', (flavour: Flavour, version) => {
  let server: MysqlServer;
  let nats: NatsServer;
  const open: Source[] = [];
  const source = async (name: string, yaml: Record<string, unknown> = {}): Promise<Source> => {
    const made = await Source.open(`${name}_${flavour}`, server, nats, yaml);
    open.push(made);
    return made;
  };

  beforeAll(async () => {
    // Names in any case: MySQL takes that on only when a server is made.
    const settings: Record<string, string> = flavour === 'mariadb' ? { lower_case_table_names: '1' } : {};
    [server, nats] = await Promise.all([startMysql({ flavour, version, settings }), startNats()]);
  }, timeoutMs);
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close();
  });
  afterAll(async () => {
    await server?.dispose();
    await nats?.dispose();
  });

  it(
    'reads tables while they are written to, and goes on where it was stopped',
    async () => {
      const s = await source('flow');
      await s.run(`create table items (id int primary key, name varchar(40) not null, price decimal(10,2),
        twice int generated always as (id * 2) virtual, updated timestamp(3) not null default current_timestamp(3)) engine=InnoDB`);
      const values = Array.from({ length: 3000 }, (_, i) => `(${i}, 'item ${i}', ${i}.50)`).join(',');
      await s.run(`insert into items (id, name, price) values ${values}`);
      // Whatever isolation the server gives its sessions, what has not been committed is not read.
      await s.run('set global transaction isolation level read uncommitted');
      const other = await createConnection({ uri: s.settings.url, multipleStatements: true });
      await other.query(
        "begin; insert into items (id, name) values (5000, 'never'); update items set name = 'never' where id = 1",
      );
      s.start();
      for (let i = 0; i < 200; i++) {
        await s.run(`update items set name = 'changed ${i}' where id = ${(i * 37) % 3000}`);
        await s.run(`delete from items where id = ${(i * 53) % 3000}`);
        await s.run(`insert into items (id, name) values (${10_000 + i}, 'new')`);
      }
      await s.loaded(1);
      await other.query('rollback');
      await other.end();
      await s.run('set global transaction isolation level repeatable read');
      await s.expectEqual('items');
      await s.stop();
      await s.run("update items set id = id + 100000, name = 'moved' where id >= 10100");
      s.start();
      await s.expectEqual('items');
      const probe = await openMysqlProbe(s.name, s.settings);
      const reading = await probe.read(await readTail(s.nats, s.stream));
      await probe.close();
      expect(reading).toMatchObject({ state: 'ready', caughtUp: true });
      expect(reading.retainedLogBytes).toBeGreaterThan(0);
      await s.stop();
    },
    timeoutMs,
  );
  it(
    'reads tables of very many rows without a key, and of very long rows, in pieces, also while they are written to',
    async () => {
      const s = await source('many');
      await s.run(`create table many (v int, filler char(100)) engine=InnoDB;
        create table long_rows (id int primary key, v longtext) engine=InnoDB`);
      await s.run(
        `insert into many values ${Array.from({ length: 700 }, (_, i) => `(${i}, repeat('x', 100))`).join(',')}`,
      );
      await s.run('insert into many select v, filler from many;'.repeat(8));
      for (let id = 0; id < 30; id += 5)
        await s.run(
          `insert into long_rows values ${Array.from({ length: 5 }, (_, i) => `(${id + i}, repeat('${id + i} ', 400000))`).join(',')}`,
        );
      s.start();
      const of = async (table: string): Promise<Change[]> =>
        (await s.changes()).filter((change) => change.table.name === table);
      for (const [table, sql] of [
        ['long_rows', `update long_rows set v = 'changed' where id in (0, 29)`],
        ['many', `insert into many values (-1, 'added')`],
      ] as const) {
        await s.wait('the first rows', async () => (await of(table)).some(({ row }) => row[0] === 'r'));
        await s.run(sql);
      }
      await s.loaded(2);
      await s.expectEqual('long_rows');
      const ops = (await of('many')).map(({ row }) => (row[0] === 's' ? String(row[2]![1]) : row[0]));
      const last = ops.slice(ops.lastIndexOf('begin'));
      expect(last.filter((op) => op === 'r' || op === 'i')).toHaveLength(700 * 2 ** 8 + 1);
      await s.stop();
    },
    timeoutMs,
  );
  it(
    'sees what statements do, however they are written',
    async () => {
      const s = await source('texts');
      await s.run('create table a (id int primary key, v int)');
      await s.run('insert into a values (1, 1), (2, 2)');
      s.start();
      await s.loaded(1);
      await s.run('truncate /* for the night */ table a; insert into a values (3, 3)');
      await s.run('truncate table -- that one\n a; insert into a values (4, 4), (5, 4)');
      await s.expectEqual('a');
      if (flavour === 'mariadb') {
        await s.run('truncate table A; insert into a values (8, 8)');
        await s.expectEqual('a');
        await s.run('set statement lock_wait_timeout = 5 for truncate table a; insert into a values (6, 6), (7, 6)');
        await s.expectEqual('a');
        await s.run('alter ignore table a add unique (v)');
        await s.wait('the table to be read again', async () => (await s.folded('a')).size === 1);
        await s.expectEqual('a');
      }
      await s.stop();
    },
    timeoutMs,
  );
  it(
    'reads texts as they are, whatever the server makes of its sessions',
    async () => {
      const made = await source('names');
      await made.run(`create table t (id int primary key, v varchar(20) character set utf8mb4);
        insert into t values (1, 'naïve 漢字'); create user plain@'%' identified by 'plain';
        grant select, replication slave, replication client on *.* to plain@'%';
        set global init_connect = 'set names latin1'`);
      try {
        const url = new URL(made.settings.url);
        [url.username, url.password] = ['plain', 'plain'];
        const s = await Source.at(made.name, url.href, flavour, nats);
        open.push(s);
        s.start();
        await s.loaded(1);
        const read = (await s.changes()).filter(({ row }) => row[0] === 'r');
        expect(read.map(({ row }) => row[2])).toEqual([['1', 'naïve 漢字']]);
        await s.stop();
      } finally {
        await made.run("set global init_connect = '', global sql_select_limit = default");
      }
    },
    timeoutMs,
  );
  if (flavour === 'mysql')
    it.each(['on', 'off'] as const)(
      'knows the primary key that the server makes itself, its showing %s',
      async (shown) => {
        const s = await source(`made_${shown}`);
        await s.run(`set session sql_generate_invisible_primary_key = on;
          create table keyless (v int); insert into keyless values (1), (1), (2);
          set global show_gipk_in_create_table_and_information_schema = ${shown}`);
        try {
          s.start();
          await s.loaded(1);
          await s.run(
            'update keyless set v = 3 where v = 1 limit 1; delete from keyless where v = 1; insert into keyless values (4)',
          );
          await s.caughtUp();
          const changes = (await s.changes()).filter(({ row }) => row[0] !== 's');
          expect(new Set(changes.map(({ table }) => table.key.join()))).toEqual(new Set(['my_row_id']));
          expect([...(await s.folded('keyless')).values()]).toEqual([
            ['1', '3'],
            ['3', '2'],
            ['4', '4'],
          ]);
          await s.stop();
        } finally {
          await s.run('set global show_gipk_in_create_table_and_information_schema = default');
        }
      },
      timeoutMs,
    );

  it(
    'leaves out what the server keeps in a table for itself',
    async () => {
      const s = await source('hidden');
      await s.run(`create table urls (id int primary key, url text, ${flavour === 'mariadb' ? 'unique (url)' : 'unique (url(9))'});
        create table keyless (v int)`);
      await s.run("insert into urls values (1, 'a'), (2, 'b'); insert into keyless values (1)");
      s.start();
      await s.loaded(2);
      await s.run(
        "insert into urls values (3, 'c'); update urls set url = 'd' where id = 1; delete from urls where id = 2",
      );
      // On MySQL an index of an expression is a column that nobody sees.
      await s.run(`alter table keyless add index (${flavour === 'mariadb' ? 'v' : '(v + 1)'})`);
      await s.run('insert into keyless values (2)');
      await s.expectEqual('urls');
      const changes = (await s.changes()).filter(({ table, row }) => table.name === 'urls' && row[0] !== 's');
      expect(new Set(changes.map(({ table }) => table.columns.map(({ name }) => name).join()))).toEqual(
        new Set(['id,url']),
      );
      const keyless = (await s.changes()).filter(({ table, row }) => table.name === 'keyless' && row[0] === 'i');
      expect(keyless.map(({ row }) => row[2])).toEqual([['2']]);
      await s.stop();
    },
    timeoutMs,
  );

  if (flavour === 'mariadb')
    it(
      'has the present rows alone of tables whose history the server keeps',
      async () => {
        const s = await source('history');
        const period = `a timestamp(6) generated always as row start, b timestamp(6) generated always as row end,
          period for system_time (a, b)`;
        await s.run(`create table plain (id int primary key, v int) with system versioning;
          create table named (id int primary key, v int, ${period}) with system versioning;
          create table later (id int primary key, v int); insert into later values (1, 1), (2, 2)`);
        for (const table of ['plain', 'named'])
          await s.run(
            `insert into ${table} (id, v) values (1, 1), (2, 2), (3, 3); update ${table} set v = 9 where id = 2`,
          );
        s.start();
        await s.loaded(3);
        await s.run('alter table later add system versioning');
        for (const table of ['plain', 'named', 'later'])
          await s.run(`update ${table} set v = 10 where id = 1; delete from ${table} where id = 2;
            insert into ${table} (id, v) values (2, 20), (4, 40); update ${table} set id = 5 where id = 4;
            replace into ${table} (id, v) values (1, 11); delete history from ${table}; delete from ${table} where id = 5`);
        for (const table of ['plain', 'named', 'later']) await s.expectEqual(table);
        await s.stop();
      },
      timeoutMs,
    );

  if (flavour === 'mariadb')
    it(
      'does not take a transaction whose number goes back for one that it has',
      async () => {
        const s = await source('backwards');
        await s.run('create table a (id int primary key); insert into a values (1)');
        s.start();
        await s.loaded(1);
        await s.run('insert into a values (2)');
        await s.expectEqual('a');
        await s.run('set global gtid_strict_mode = off');
        try {
          await s.run('set session server_id = 77; set session gtid_seq_no = 1; insert into a values (3)');
          await s.wait('the end of the capture', async () => s.failure !== undefined).catch(() => undefined);
          expect(s.failure).toMatchObject({ code: 'source_binlog_settings' });
          expect(String(s.failure)).toContain('0-77-1 comes behind number');
        } finally {
          await s.run('set session server_id = default; set global gtid_strict_mode = default');
        }
      },
      timeoutMs,
    );

  it(
    'follows DDL between transactions, truncation and new tables',
    async () => {
      const s = await source('ddl');
      await s.run('create table a (id int primary key, v varchar(10)) engine=InnoDB');
      await s.run("insert into a values (1, 'one'), (2, 'two')");
      s.start();
      await s.loaded(1);
      await s.run("insert into a values (3, 'three')");
      await s.run('alter table a add column extra int not null default 7, modify v varchar(30)');
      await s.run("insert into a values (4, 'four', 8)");
      await s.run('alter table a drop column v');
      await s.run('insert into a values (5, 9)');
      await s.run('create table b (k varchar(20) primary key, v int) engine=InnoDB');
      await s.run("insert into b values ('x', 1), ('y', 2)");
      await s.run('truncate table a');
      await s.run('insert into a values (6, 10)');
      await s.expectEqual('a');
      await s.expectEqual('b');
      const changes = await s.changes();
      const columnsOf = (id: string): string[] =>
        changes
          .find(({ table, row }) => table.name === 'a' && row[0] === 'i' && row[2]![0] === id)!
          .table.columns.map((column) => column.name);
      expect(columnsOf('3')).toEqual(['id', 'v']);
      expect(columnsOf('4')).toEqual(['id', 'v', 'extra']);
      expect(columnsOf('5')).toEqual(['id', 'extra']);
      expect(changes.filter(({ row }) => row[0] === 't')).toHaveLength(1);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'cuts a large transaction into parts, and leaves out what was rolled back',
    async () => {
      const s = await source('large', { frame_bytes: '64KB' });
      await s.run('create table big (id int primary key, filler varchar(200)) engine=InnoDB');
      await s.run('create table audit (id int auto_increment primary key, what int) engine=MyISAM');
      await s.run('create trigger watch after insert on big for each row insert into audit (what) values (new.id)');
      s.start();
      await s.loaded(2);
      await s.run('drop trigger watch');
      const rows = (from: number, count: number): string =>
        Array.from({ length: count }, (_, i) => `(${from + i}, repeat('x', 180))`).join(',');
      await s.run(
        `begin; insert into big values ${rows(0, 4000)}; update big set filler = 'short' where id < 10; commit`,
      );
      await s.caughtUp();
      const parts = new Set(
        (await s.changes())
          .filter(({ table, row }) => table.name === 'big' && row[0] !== 's')
          .map(({ entry }) => entry[5]),
      );
      expect(parts).toEqual(new Set(['first', 'middle', 'last']));
      // MySQL with GTIDs refuses transactions that change both kinds of tables; MariaDB logs their rollback.
      if (flavour === 'mariadb')
        await s.run('create trigger watch after insert on big for each row insert into audit (what) values (new.id)');
      await s.run(`begin; insert into big values ${rows(10_000, 3)}; rollback`);
      await s.run(`begin; insert into big values ${rows(20_000, 3000)}; rollback`);
      await s.run(`begin; insert into big values ${rows(30_000, 2)}; savepoint a; insert into big values ${rows(40_000, 2)};
        rollback to savepoint a; insert into big values ${rows(50_000, 2)}; commit`);
      await s.expectEqual('big');
      await s.expectEqual('audit');
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'holds prepared XA transactions over a restart until they are committed or rolled back',
    async () => {
      const s = await source('xa');
      await s.run('create table t (id int primary key, v int) engine=InnoDB');
      s.start();
      await s.loaded(1);
      await s.run("xa start 'one'; insert into t values (1, 1), (2, 1); xa end 'one'; xa prepare 'one'");
      const other = await createConnection({ uri: s.settings.url, multipleStatements: true });
      await other.query("xa start 'two'; insert into t values (3, 1); xa end 'two'; xa prepare 'two'");
      const third = await createConnection({ uri: s.settings.url, multipleStatements: true });
      await third.query(
        "insert into t values (4, 1); xa start 'now'; insert into t values (5, 1); xa end 'now'; xa commit 'now' one phase",
      );
      await s.caughtUp();
      expect([...(await s.folded('t')).keys()].sort()).toEqual(['["4"]', '["5"]']);
      await s.stop();
      await third.query('insert into t values (6, 1)');
      s.start();
      await s.run("xa commit 'one'");
      await other.query("xa rollback 'two'");
      await s.expectEqual('t');
      expect([...(await s.folded('t')).keys()].sort()).toEqual(['["1"]', '["2"]', '["4"]', '["5"]', '["6"]']);
      expect((await readTail(s.nats, s.stream)).replay).toBeUndefined();
      await other.end();
      await third.end();
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'does not say of a table that went away while it was read that it was read to its end',
    async () => {
      const s = await source('gone', { snapshot_max_rows_per_second: 500 });
      await s.run(
        'create table t (id int primary key) engine=InnoDB; create table u (id int primary key) engine=InnoDB',
      );
      await s.run(`insert into t values ${Array.from({ length: 3000 }, (_, i) => `(${i})`).join(',')}`);
      s.start();
      const tables = async (): Promise<readonly TableProgress[]> =>
        (await readProgress(await openBucket(s.nats, s.config), s.name))?.tables ?? [];
      await s.wait('rows to be read', async () => (await tables()).some(({ name, cursor }) => name === 't' && cursor));
      await s.run('drop table t');
      await s.wait('the end of the snapshot', async () => (await tables()).every(({ state }) => state === 'done'));
      await s.caughtUp();
      const marks = (await s.changes()).filter(({ row }) => row[0] === 's');
      expect(marks.map(({ table, row }) => `${table.name} ${String(row[2]?.[1])}`).toSorted()).toEqual([
        't begin',
        't gone',
        'u begin',
        'u end',
      ]);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'leaves out a table that its user may not read, says so, and has it once it may be read',
    async () => {
      const s = await source('withheld');
      const user = `partly_${flavour}`;
      await s.run('create table t (id int primary key); create table secret (id int primary key)');
      await s.run(`insert into secret values (1); create user '${user}'@'%' identified by 'secret'`);
      await s.run(`grant replication slave on *.* to '${user}'@'%'; grant select on ${s.database}.t to '${user}'@'%'`);
      const url = s.settings.url.replace('root@', `${user}:secret@`).replace(/\/[^/]*$/, '/');
      (s as { settings: MysqlSourceConfig }).settings = { ...s.settings, url };
      expect(await checkMysqlSource(s.name, s.settings)).toContainEqual(
        expect.objectContaining({
          severity: 'warning',
          message: expect.stringMatching(/all tables of withheld/) as string,
        }),
      );
      s.start();
      await s.loaded(1);
      await s.run('insert into secret values (2); insert into t values (1)');
      await s.wait('the table to be named', async () =>
        s.states.some((state) => /left out.*withheld_\w+\.secret/.test(state)),
      );
      await s.expectEqual('t');
      const names = async (): Promise<Set<string>> => new Set((await s.changes()).map(({ table }) => table.name));
      expect(await names()).toEqual(new Set(['t']));
      await s.run(`grant select on ${s.database}.secret to '${user}'@'%'`);
      await s.loaded(2);
      await s.run('insert into secret values (3)');
      await s.expectEqual('secret');
      await s.wait('the table to be named no more', async () => s.states.at(-1)?.includes('left out') === false);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'checks a source, and says what to grant; the least privilege is enough',
    async () => {
      const s = await source('least');
      await s.run('create table t (id int primary key) engine=InnoDB; insert into t values (1)');
      const findings = await checkMysqlSource(s.name, s.settings);
      expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
      const user = `u_${flavour}`;
      await s.run(`create user '${user}'@'%' identified by 'secret'`);
      const refused = {
        ...s.settings,
        url: s.settings.url.replace('root@', `${user}:secret@`).replace(/\/[^/]*$/, '/'),
      };
      expect(
        (await checkMysqlSource(s.name, refused)).some(
          ({ severity, remedy }) => severity === 'error' && remedy?.startsWith('GRANT REPLICATION SLAVE') === true,
        ),
      ).toBe(true);
      await s.run(mysqlGrantsSql(s.name, s.settings, user));
      expect((await checkMysqlSource(s.name, refused)).filter(({ severity }) => severity === 'error')).toEqual([]);
      (s as { settings: MysqlSourceConfig }).settings = refused;
      s.start();
      await s.loaded(1);
      await s.run('insert into t values (2)');
      await s.caughtUp();
      expect((await s.folded('t')).size).toBe(2);
      await requestSnapshot(s.config, s.name, {});
      await s.loaded(2);
      await s.stop();
    },
    timeoutMs,
  );
});
