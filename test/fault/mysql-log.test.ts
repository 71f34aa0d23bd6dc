/** What happens to the log of MySQL and MariaDB while it is read: rotation, DDL, XA, rollbacks, readers that clash. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createConnection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readTail } from '../../core/cdc-stream.ts';
import { asGtidPosition } from '../../core/position.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { queryRow } from '../../sandbox/mysql-client.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { suspend } from '../../sandbox/process.ts';
import { endDumps, Source } from '../support/mysql-source.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;

describe.each([
  ['mysql', '9.7'],
  ['mariadb', '10.11'],
] as const)('the log of %s %s', (flavour, version) => {
  let server: MysqlServer;
  let nats: NatsServer;
  let folder: string;
  const open: Source[] = [];
  const stages: Stage[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'waybill-log-'));
    [server, nats] = await Promise.all([startMysql({ flavour, version }), startNats()]);
  }, timeoutMs);
  afterEach(async () => {
    for (const stage of stages.splice(0)) {
      stage.signal('SIGCONT');
      await stage.end('SIGKILL');
    }
    for (const one of open.splice(0)) await one.close();
  }, timeoutMs);
  afterAll(async () => {
    await Promise.all([server?.dispose(), nats?.dispose()]);
    await rm(folder, { recursive: true, force: true });
  }, timeoutMs);

  const made = async (source: Promise<Source>): Promise<Source> => {
    const one = await source;
    open.push(one);
    return one;
  };
  const source = (name: string, yaml: Record<string, unknown> = {}): Promise<Source> =>
    made(Source.open(name, server, nats, yaml));
  const rows = (from: number, count: number): string =>
    Array.from({ length: count }, (_, i) => `(${from + i}, repeat('x', 180))`).join(',');
  const inserted = async (s: Source): Promise<number[]> =>
    (await s.changes()).filter(({ row }) => row[0] === 'i').map(({ row }) => Number(row[2]![0]));

  /** The same source in a process of its own. */
  const stageOf = async (s: Source, yaml: Record<string, unknown> = {}): Promise<Stage> => {
    const configFile = join(folder, `${s.name}.json`);
    const settings = { kind: flavour, url: s.settings.url, tables: [`${s.name}.*`], heartbeat: '1s', ...yaml };
    await writeFile(
      configFile,
      JSON.stringify({
        version: 1,
        nats: { servers: [nats.url], prefix: s.config.prefix },
        sources: { [s.name]: settings },
      }),
    );
    const logFile = join(folder, `${s.name}-${stages.length}.log`);
    const stage = new Stage({ configFile, only: `capture:${s.name}`, logFile, leaseTtlMs: 1000 });
    stages.push(stage);
    return stage;
  };

  it(
    'may go on in another file in the middle of a transaction, and of a capture that was stopped there',
    async () => {
      const [size] = await queryRow(server.url, 'select @@global.max_binlog_size');
      await queryRow(server.url, 'set global max_binlog_size = 4096');
      try {
        const s = await source('rotated', { frame_bytes: '64KB' });
        await s.run('create table big (id int primary key, filler varchar(200)) engine=InnoDB');
        const other = await createConnection({ uri: server.url });
        s.start();
        await s.loaded(1);
        for (let round = 0; round < 3; round++) {
          await s.run(`begin; insert into big values ${rows(round * 10_000, 3000)}`);
          await other.query('flush binary logs');
          await s.run(`insert into big values ${rows(round * 10_000 + 3000, 10)}`);
          await other.query('flush binary logs');
          await s.run(`update big set filler = null where id = ${round * 10_000}; commit`);
          await s.stop();
          s.start();
        }
        await other.end();
        await s.expectEqual('big');
        const ids = await inserted(s);
        expect(ids).toHaveLength(3 * 3010);
        expect(ids).toEqual(ids.toSorted((a, b) => a - b));
        await s.stop();
      } finally {
        await queryRow(server.url, `set global max_binlog_size = ${size}`);
      }
    },
    timeoutMs,
  );

  it(
    'may describe tables as they are no more when it is read late',
    async () => {
      const s = await source('late');
      await s.run('create table t (id int primary key, a varchar(20), b int) engine=InnoDB');
      s.start();
      await s.loaded(1);
      await s.stop();
      await s.run(
        "insert into t values (1, 'one', 1); alter table t add column c enum('x', 'y') not null default 'y' after id",
      );
      await s.run("insert into t values (2, 'x', 'two', 2); alter table t drop column b, modify a varchar(60)");
      await s.run("insert into t values (3, 'x', repeat('z', 60)); update t set a = 'One' where id = 1");
      await s.run('create table gone (id int primary key); insert into gone values (7); drop table gone');
      s.start();
      await s.caughtUp();
      const seen = (await s.changes()).filter(({ row }) => row[0] === 'i' || row[0] === 'u');
      const shape = ({ table, row }: (typeof seen)[number]): unknown[] => [
        table.columns.map(({ name }) => name).join(' '),
        row[2],
      ];
      expect(seen.map(shape)).toEqual([
        ['id a b', ['1', 'one', '1']],
        ['id c a b', ['2', 'x', 'two', '2']],
        ['id c a', ['3', 'x', 'z'.repeat(60)]],
        ['id c a', ['1', 'y', 'One']],
        ['id', ['7']],
      ]);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'keeps what was rolled back but for tables without transactions',
    async () => {
      const s = await source('undone', { frame_bytes: '64KB' });
      await s.run('create table t (id int primary key, filler varchar(200)) engine=InnoDB');
      await s.run('create table kept (id int primary key, filler varchar(200)) engine=MyISAM');
      s.start();
      await s.loaded(2);
      // MySQL refuses transactions that change both while it has GTIDs; MariaDB logs them with their rollback.
      const both = flavour === 'mariadb';
      await s.run(
        `begin; ${both ? `insert into t values ${rows(0, 2)};` : ''} insert into kept values ${rows(0, 2)}; rollback`,
      );
      if (both) {
        await s.run(
          `begin; insert into t values ${rows(100, 3000)}; insert into kept values ${rows(100, 3000)}; rollback`,
        );
        await s.run(`begin; insert into t values ${rows(5000, 2)}; savepoint a; insert into t values ${rows(6000, 2)};
          insert into kept values ${rows(6000, 2)}; rollback to a; insert into t values ${rows(7000, 2)}; commit`);
        // More than a frame holds, behind a savepoint, in what ends in a commit.
        await s.run(`begin; insert into t values ${rows(8000, 1)}; insert into kept values ${rows(8000, 1)}; savepoint b;
          insert into t values ${rows(30_000, 3000)}; rollback to b; insert into t values ${rows(8001, 1)}; commit`);
      }
      await s.run(`begin; insert into t values ${rows(9000, 3000)}; rollback; insert into t values ${rows(20_000, 1)}`);
      await s.expectEqual('t');
      await s.expectEqual('kept');
      expect((await s.folded('kept')).size).toBe(both ? 3005 : 2);
      expect((await s.folded('t')).size).toBe(both ? 7 : 1);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'is read on over a long pause, whatever net_write_timeout the server has',
    async () => {
      const [before] = await queryRow(server.url, 'select @@global.net_write_timeout');
      await queryRow(server.url, 'set global net_write_timeout = 1');
      const own = await startNats();
      try {
        const s = await made(Source.open('slow', server, own, { frame_bytes: '64KB' }));
        await s.run('create table big (id int primary key, filler mediumtext) engine=InnoDB');
        s.start();
        await s.loaded(1);
        const from = s.states.length;
        // The broker stands still while far more comes than sockets hold, for several times the server's patience.
        await suspend(own.pid!);
        try {
          for (let i = 0; i < 5; i++)
            await s.run(
              `insert into big values ${Array.from({ length: 10 }, (_, n) => `(${i * 10 + n}, repeat('x', 500000))`).join(',')}`,
            );
          await delay(3000);
        } finally {
          process.kill(own.pid!, 'SIGCONT');
        }
        await s.expectEqual('big');
        expect(await inserted(s)).toEqual(Array.from({ length: 50 }, (_, i) => i));
        expect(s.states.slice(from).filter((state) => state.includes('source_unreachable'))).toEqual([]);
        await s.stop();
      } finally {
        await own.dispose();
        await queryRow(server.url, `set global net_write_timeout = ${before}`);
      }
    },
    timeoutMs,
  );

  it(
    'is read by two installations of the same names; of one server id MariaDB ends one, which says so and does not come back',
    async () => {
      const s = await source('clash');
      await s.run('create table t (id int primary key) engine=InnoDB');
      // Another installation, which knows nothing of the first.
      const own = await startNats();
      try {
        const other = await made(Source.at('clash', s.settings.url, flavour, own));
        for (const one of [s, other]) {
          one.start();
          await one.loaded(1);
        }
        await s.run('insert into t values (1)');
        for (const one of [s, other]) await one.expectEqual('t');
        await other.stop();
        await s.stop();

        for (const one of [s, other]) Object.assign(one.settings, { server_id: 4_000_001 });
        s.start();
        await s.run('insert into t values (2)');
        await s.expectEqual('t');
        other.start();
        if (flavour === 'mysql') {
          // It tells readers apart by their uuid, which is their own all the same.
          await s.run('insert into t values (3)');
          for (const one of [s, other]) await one.expectEqual('t');
          for (const one of [s, other]) await one.stop();
          return;
        }
        await waitFor('the end of the first', async () => s.failure);
        expect(s.failure).toMatchObject({
          code: 'source_server_id_clash',
          remedy: expect.stringContaining('server_id') as string,
        });
        expect(s.states.at(-1)).toMatch(/^blocked source_server_id_clash/);
        await s.run('insert into t values (3)');
        await other.expectEqual('t');
        expect(other.failure).toBeUndefined();
        await other.stop();
      } finally {
        await own.dispose();
      }
    },
    timeoutMs,
  );

  it(
    'is taken over at once from a process that hangs, with the sessions that it left',
    async () => {
      // Slowly enough to be met in the middle of it.
      const slow = { snapshot_chunk_rows: 100, snapshot_max_rows_per_second: 2000 };
      const s = await source('hung', slow);
      await s.run('create table t (id int primary key, filler varchar(200)) engine=InnoDB');
      await s.run(`insert into t values ${rows(0, 10_000)}`);
      const first = await stageOf(s, slow);
      first.start();
      // In the middle of the load, so that it has a session for it, too.
      const sessions = async (): Promise<string[]> =>
        (
          await s.client.query(
            `SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'root' AND DB IS NULL AND ID <> CONNECTION_ID()`,
            'test',
          )
        ).map(([id]) => id!);
      await s.wait('its sessions', async () => (await readTail(s.nats, s.stream).catch(() => ({ seq: 0 }))).seq > 5);
      await first.suspend();
      const left = new Set(await sessions());
      const second = await stageOf(s, slow);
      second.start();
      const { epoch } = await readTail(s.nats, s.stream);
      await s.wait('the takeover', async () => (await readTail(s.nats, s.stream)).epoch > epoch);
      // Gone, although their process still hangs: what reads the log, and what else it had.
      expect(left.size).toBeGreaterThan(1);
      await s.wait('the end of the sessions', async () => !(await sessions()).some((id) => left.has(id)));
      first.signal('SIGCONT');
      await s.run('insert into t values (100000, null)');
      await s.loaded(1);
      await s.expectEqual('t');
      // What the first had under way may overtake the second in turn, but never do both go on.
      const states = async (): Promise<string[]> =>
        (await Promise.all([first.status(), second.status()])).map(({ state }) => state);
      let last: readonly string[] = [];
      await s
        .wait('one of them to stand by', async () => {
          last = await states();
          return last.includes('standby') && last.some((state) => state === 'streaming' || state === 'idle');
        })
        .catch(async (cause: unknown) => {
          throw new Error(`states ${last.join()}; ${first.log().slice(-2000)}; ${second.log().slice(-2000)}`, {
            cause,
          });
        });
    },
    timeoutMs,
  );

  it(
    'may hold the end of an XA transaction whose rows nobody has any more: then all tables are read',
    async () => {
      const s = await source('unknown');
      await s.run(
        'create table t (id int primary key) engine=InnoDB; create table u (id int primary key) engine=InnoDB',
      );
      await s.run("insert into t values (1); xa start 'x'; insert into t values (2); xa end 'x'; xa prepare 'x'");
      s.start();
      await s.loaded(2);
      expect([...(await s.folded('t')).keys()]).toEqual(['["1"]']);
      const other = await createConnection({ uri: s.settings.url });
      // MariaDB lets another session finish it only once its own has gone.
      if (flavour === 'mariadb') await s.run("xa commit 'x'");
      else await other.query("xa commit 'x'").catch(async () => await s.run("xa commit 'x'"));
      await other.end();
      await s.loaded(4);
      await s.expectEqual('t');
      expect((await s.folded('t')).size).toBe(2);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'may hold what asks for tables to be read: a capture that is killed before it stored that asks again',
    async () => {
      const s = await source('asked');
      await s.run('create table u (id int primary key) engine=InnoDB');
      await s.run(`create table t (id int primary key) engine=InnoDB
        partition by range (id) (partition p0 values less than (10), partition p1 values less than maxvalue)`);
      await s.run('insert into t values (1), (20)');
      const other = await createConnection({ uri: s.settings.url, multipleStatements: true });
      await other.query("xa start 'y'; insert into u values (2); xa end 'y'; xa prepare 'y'");
      s.start();
      await s.loaded(2);
      await s.stop();
      const stage = await stageOf(s);
      await s.run('insert into t values (21); alter table t drop partition p0');
      stage.start('capture.before-reread');
      await stage.exited();
      await other.query("xa commit 'y'");
      await other.end();
      // The first is asked for once more.
      stage.start('capture.before-reread:2');
      await stage.exited();
      s.start();
      await s.wait('both tables as they are', async () => {
        const keys = async (table: string): Promise<string> => [...(await s.folded(table)).keys()].sort().join();
        return (await keys('t')) === '["20"],["21"]' && (await keys('u')) === '["2"]';
      });
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'goes on inside of a transaction on a server that has others before it',
    async () => {
      const s = await source('order', { frame_bytes: '64KB' });
      await s.run('create table big (id int primary key, filler varchar(200)) engine=InnoDB');
      s.start();
      await s.loaded(1);
      await s.stop();
      const base = (
        await s.client.query(
          flavour === 'mysql' ? 'SELECT @@global.gtid_executed' : 'SELECT @@global.gtid_binlog_pos',
          'test',
        )
      )[0]![0]!;
      await s.run(`insert into big values ${rows(0, 6000)}`);
      const stage = await stageOf(s, { frame_bytes: '64KB' });
      stage.start('capture.acked:4');
      await stage.exited();
      const { open: half } = asGtidPosition((await readTail(s.nats, s.stream)).end)!;
      expect(half?.ordinal).toBeGreaterThan(100);

      const second = await startMysql({ flavour, version });
      try {
        await second.createDatabase('order');
        const db = await createConnection({ uri: second.urlFor('order'), multipleStatements: true });
        const { gtid } = half!;
        // A server that has executed the same, and before the unfinished transaction others that the first one has not.
        if (gtid.kind === 'mysql') {
          await db.query('reset binary logs and gtids');
          await db.query(`set global gtid_purged = '${base.replaceAll('\n', '')}'`);
          await db.query(
            'set sql_log_bin = 0; create table big (id int primary key, filler varchar(200)) engine=InnoDB; set sql_log_bin = 1',
          );
          await db.query(`insert into big values ${rows(50_000, 3)}`);
          await db.query(`set gtid_next = '${gtid.source}:${gtid.gno}'`);
        } else {
          await db.query(
            'set sql_log_bin = 0; create table big (id int primary key, filler varchar(200)) engine=InnoDB; set sql_log_bin = 1',
          );
          await db.query(`set global gtid_slave_pos = '${base}'`);
          await db.query(`set gtid_domain_id = 5; insert into big values ${rows(50_000, 3)}`);
          await db.query(`set gtid_domain_id = ${gtid.domain}, server_id = ${gtid.server}, gtid_seq_no = ${gtid.seq}`);
        }
        await db.query(`insert into big values ${rows(0, 6000)}`);
        await db.query(
          gtid.kind === 'mysql'
            ? "set gtid_next = 'automatic'; insert into big values (60000, null)"
            : 'set gtid_domain_id = 5, gtid_seq_no = 0; insert into big values (60000, null)',
        );
        await db.end();
        const after = await made(Source.at('order', second.urlFor('order'), flavour, nats, { frame_bytes: '64KB' }));
        after.start();
        await after.expectEqual('big');
        const ids = await inserted(after);
        expect(ids.toSorted((a, b) => a - b)).toEqual([
          ...Array.from({ length: 6000 }, (_, i) => i),
          50_000,
          50_001,
          50_002,
          60_000,
        ]);
        // What was passed over came after the transaction that stood first.
        expect(ids.indexOf(50_000)).toBeGreaterThan(ids.indexOf(5999));
        await after.stop();
      } finally {
        await second.dispose();
      }
    },
    timeoutMs,
  );

  it(
    'holds prepared XA transactions over a restart of the server',
    async () => {
      const s = await source('xa');
      await s.run('create table t (id int primary key) engine=InnoDB');
      s.start();
      await s.loaded(1);
      await s.run("xa start 'a'; insert into t values (1); xa end 'a'; xa prepare 'a'");
      await s.caughtUp();
      await s.stop();
      await endDumps(server);
      await server.stop('fast');
      await server.start();
      const after = await made(Source.at('xa', server.urlFor('xa'), flavour, nats));
      after.start();
      await after.run('insert into t values (2)');
      await after.wait('the row after the restart', async () => (await after.folded('t')).has('["2"]'));
      expect((await after.folded('t')).has('["1"]')).toBe(false);
      await after.run("xa commit 'a'");
      await after.expectEqual('t');
      expect((await after.changes()).filter(({ row }) => row[0] === 's')).toHaveLength(2);
      await after.stop();
    },
    timeoutMs,
  );
});
