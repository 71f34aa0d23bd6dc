/** What the catalog of MySQL and MariaDB sources tells, and what it does not: labels, partitions, old formats, DDL. */
import { setTimeout as delay } from 'node:timers/promises';
import { createConnection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Flavour } from '../../capture/mysql/binlog-handler.ts';
import { checkMysqlSource } from '../../capture/mysql/preflight.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { Source } from '../support/mysql-source.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

const timeoutMs = 240_000;

describe.each([
  ['mysql', '9.7'],
  ['mariadb', '11.8'],
] as const)('the catalog of %s %s', (flavour: Flavour, version) => {
  let server: MysqlServer;
  let nats: NatsServer;
  const open: Source[] = [];
  const source = async (name: string, yaml: Record<string, unknown> = {}): Promise<Source> => {
    const made = await Source.open(`${name}_${flavour}`, server, nats, yaml);
    open.push(made);
    return made;
  };

  beforeAll(async () => {
    [server, nats] = await Promise.all([startMysql({ flavour, version }), startNats()]);
  }, timeoutMs);
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close();
  }, timeoutMs);
  afterAll(async () => {
    await server?.dispose();
    await nats?.dispose();
  }, timeoutMs);

  it(
    'takes labels that the catalog cannot show from the log',
    async () => {
      const s = await source('labels');
      await s.run(String.raw`create table t (mark enum('😀', 'b', '?', 'x\\y', 'it''s') character set utf8mb4 primary key,
        marks set('😀', 'ü') character set utf8mb4, plain enum('a', 'b\\c')) engine=InnoDB`);
      await s.run("insert into t values ('😀', '😀,ü', 'a')");
      s.start();
      await s.loaded(1);
      await s.run(String.raw`insert into t values ('?', '', 'b\\c'), ('x\\y', 'ü', null)`);
      await s.run("update t set marks = '😀' where mark = '😀'");
      await s.expectEqual('t');
      const typesOf = async (op: string): Promise<Set<string>> =>
        new Set(
          (await s.changes())
            .filter(({ row }) => row[0] === op)
            .map(({ table }) => table.columns.map(({ type }) => type).join(' ')),
        );
      const exact = String.raw`enum('😀','b','?','x\y','it''s') set('😀','ü') enum('a','b\c')`;
      expect([...(await typesOf('u'))]).toEqual([exact]);
      // Before the log has told the labels, such columns count as text.
      expect([...(await typesOf('r'))][0]).toMatch(/^varchar\(4\) varchar\(3\) enum\('a','b/);
      await s.run('alter table t add column n int');
      await s.run("insert into t values ('b', null, null, 1)");
      await s.caughtUp();
      expect((await typesOf('i')).has(`${exact} ${flavour === 'mysql' ? 'int' : 'int(11)'}`)).toBe(true);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'reads tables again whose partitions were dropped, emptied or exchanged',
    async () => {
      const s = await source('parts');
      const partitions = `partition by range (id) (partition p0 values less than (100), partition p1 values less than (200),
        partition p2 values less than (300))`;
      await s.run(`create table t (id int primary key, v int) engine=InnoDB ${partitions}`);
      await s.run('create table other (id int primary key, v int) engine=InnoDB');
      const rows = (from: number, count: number): string =>
        Array.from({ length: count }, (_, i) => `(${from + i}, 0)`).join(',');
      await s.run(`insert into t values ${rows(0, 300)}; insert into other values (1, 0)`);
      s.start();
      await s.loaded(2);
      const equal = async (ends: number): Promise<void> => {
        await s.caughtUp();
        await s.loaded(ends);
        await s.expectEqual('t');
      };
      await s.run('alter table t drop partition p0; insert into t values (250, 1) on duplicate key update v = 1');
      await equal(3);
      await s.run('alter table t truncate partition p1; insert into t values (150, 1)');
      await equal(4);
      // Made empty, filled by the exchange alone: its rows are in no log.
      await s.run('create table fresh (id int primary key, v int) engine=InnoDB');
      await s.run('alter table t exchange partition p2 with table fresh');
      await equal(6);
      await s.expectEqual('fresh');
      expect((await s.folded('fresh')).size).toBe(100);
      const rowsSoFar = async (): Promise<number> => (await s.changes()).filter(({ row }) => row[0] !== 's').length;
      const before = await rowsSoFar();
      await s.run('alter table t add partition (partition p3 values less than (400)); insert into t values (350, 1)');
      await s.expectEqual('t');
      await s.expectEqual('other');
      expect(await rowsSoFar()).toBe(before + 1);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'reads tables again whose name stands for another one',
    async () => {
      const s = await source('names');
      await s.run('create table t (id int primary key, v int) engine=InnoDB; insert into t values (1, 1), (2, 2)');
      await s.run(
        'create table next_t (id int primary key, v int) engine=InnoDB; insert into next_t values (2, 20), (3, 30)',
      );
      s.start();
      await s.loaded(2);
      await s.run('rename table t to old_t, next_t to t');
      await s.loaded(4);
      await s.expectEqual('t');
      await s.expectEqual('old_t');
      await s.run(
        'drop table t; create table t (id int primary key, v int) engine=InnoDB; insert into t values (9, 9)',
      );
      await s.wait('the new table', async () => {
        await s.caughtUp();
        return [...(await s.folded('t')).keys()].join() === '["9"]';
      });
      await s.expectEqual('t');
      const types = (await s.changes()).map(({ row }) => row[0]);
      expect(types).not.toContain('d');
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'sets a table aside that changes faster than it can be read, and says so; the rest goes on',
    async () => {
      // MySQL: a table whose definition changes; MariaDB: one without a key that is written to.
      const [key, change, what] =
        flavour === 'mysql'
          ? (['primary key', (i: number) => `alter table busy alter v set default ${i}`, 'altered'] as const)
          : (['not null', (i: number) => `update busy set v = ${i} limit 1`, 'written to'] as const);
      // Over a slow line a chunk of it takes far longer to read than what lies between two statements.
      const direct = new URL(await server.createDatabase(`storm_${flavour}`));
      const line = await TcpProxy.start({ host: direct.hostname, port: Number(direct.port) }, { bytesPerMs: 20_000 });
      const slow = new URL(direct);
      slow.port = String(line.port);
      const s = await Source.at(`storm_${flavour}`, slow.href, flavour, nats);
      open.push(s);
      await s.run(`create table busy (id int ${key}, v int, filler mediumtext) engine=InnoDB`);
      await s.run('create table calm (id int primary key) engine=InnoDB; insert into calm values (1)');
      await s.run(
        `insert into busy values ${Array.from({ length: 300 }, (_, i) => `(${i}, 0, repeat('x', 8000))`).join(',')}`,
      );
      const other = await createConnection({ uri: direct.href });
      let storming = true;
      const storm = (async (): Promise<void> => {
        for (let i = 0; storming; i++) {
          await other.query(change(i));
          await delay(1);
        }
      })();
      try {
        s.start();
        await s.wait('the table set aside', async () =>
          s.states.some(
            (state) => state.startsWith('snapshot') && state.includes(`busy waits: 20 times running it was ${what}`),
          ),
        );
        await s.wait('the other table read', async () =>
          (await s.changes()).some(
            ({ table, row }) => table.name === 'calm' && row[0] === 's' && (row[2] as string[])[1] === 'end',
          ),
        );
      } finally {
        storming = false;
        await storm;
        await other.end();
      }
      await s.loaded(2);
      if (flavour === 'mysql') await s.expectEqual('busy');
      await s.wait('an end of it', async () => /^(?:idle|streaming)$/.test(s.states.at(-1) ?? ''));
      await s.stop();
      await line.close();
    },
    timeoutMs,
  );

  it(
    'has what foreign keys do to rows, or names the tables of which the log lacks it',
    async () => {
      const s = await source('cascades');
      await s.run(`create table parent (id int primary key) engine=InnoDB; create table child (id int primary key, belongs int,
        foreign key (belongs) references parent (id) on delete cascade on update set null) engine=InnoDB;
        insert into parent values (1), (2), (3); insert into child values (1, 1), (2, 2), (3, 3)`);
      const findings = await checkMysqlSource(s.name, s.settings);
      const warned = findings.filter(({ message }) => message.includes('foreign key'));
      if (flavour === 'mariadb') {
        expect(warned).toMatchObject([{ severity: 'warning', subject: expect.stringMatching(/child$/) as string }]);
        return;
      }
      expect(warned).toEqual([]);
      s.start();
      await s.loaded(2);
      await s.run('delete from parent where id = 1; update parent set id = 4 where id = 2');
      await s.expectEqual('child');
      await s.stop();
    },
    timeoutMs,
  );

  if (flavour === 'mariadb')
    it(
      'refuses times in the format of MariaDB 5.3 that have fractional digits',
      async () => {
        const s = await source('oldtimes');
        await s.run(`set global mysql56_temporal_format = OFF; create table whole (id int primary key, at datetime, t time);
          create table parts (id int primary key, at datetime(3))`);
        try {
          const findings = await checkMysqlSource(s.name, s.settings);
          expect(findings.filter(({ severity }) => severity === 'error')).toMatchObject([
            {
              subject: `source ${s.name}: mysql56_temporal_format`,
              remedy: expect.stringContaining('SET GLOBAL') as string,
            },
            {
              message: expect.stringMatching(
                /column at of .*parts is stored in the format of MariaDB 5\.3.*FORCE/,
              ) as string,
            },
          ]);
        } finally {
          await s.run('set global mysql56_temporal_format = ON');
        }
        s.start();
        await expect(s.wait('the refusal', async () => false)).rejects.toMatchObject({
          code: 'source_binlog_settings',
          message: expect.stringContaining('ALTER TABLE') as string,
        });
        await s.run('alter table parts force; insert into parts values (1, "2026-01-02 03:04:05.678")');
        s.start();
        await s.loaded(2);
        await s.run('insert into whole values (1, "2026-01-02 03:04:05", "-12:00:01")');
        await s.expectEqual('whole');
        await s.expectEqual('parts');
        await s.stop();
      },
      timeoutMs,
    );
});
