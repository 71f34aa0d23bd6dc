/** What goes wrong with MySQL and MariaDB sources: killed captures, lost primaries, purged logs, foreign servers. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connectSource } from '../../capture/mysql/connection.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
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
] as const)('capture of %s %s under faults', (flavour, version) => {
  const word = flavour === 'mysql' ? 'replica' : 'slave';
  let primary: MysqlServer;
  let replica: MysqlServer;
  let nats: NatsServer;
  let folder: string;
  const open: Source[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'waybill-fault-'));
    [primary, replica, nats] = await Promise.all([
      startMysql({ flavour, version }),
      startMysql({ flavour, version }),
      startNats(),
    ]);
    await replicate(primary, replica);
  }, timeoutMs);
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close();
  });
  afterAll(async () => {
    await Promise.all([primary?.dispose(), replica?.dispose(), nats?.dispose()]);
    await rm(folder, { recursive: true, force: true });
  });

  const hosts = (): string => [primary, replica].map(({ port }) => `127.0.0.1:${port}`).join();
  const made = async (source: Promise<Source>): Promise<Source> => {
    const one = await source;
    open.push(one);
    return one;
  };

  it(
    'goes on inside of a transaction whose capture was killed, after a server restart too',
    async () => {
      const s = await made(Source.open('cut', primary, nats, { frame_bytes: '64KB' }));
      await s.run('create table big (id int primary key, filler varchar(200)) engine=InnoDB');
      s.start();
      await s.loaded(1);
      await s.stop();
      const rows = Array.from({ length: 6000 }, (_, i) => `(${i}, repeat('x', 180))`).join(',');
      await s.run(`insert into big values ${rows}`);
      const configFile = join(folder, 'cut.json');
      await writeFile(
        configFile,
        JSON.stringify({
          version: 1,
          nats: { servers: [nats.url], prefix: 't_cut' },
          sources: { cut: { kind: flavour, url: s.settings.url, tables: ['cut.*'], frame_bytes: '64KB' } },
        }),
      );
      const stage = new Stage({ configFile, only: 'capture:cut', logFile: join(folder, 'cut.log'), leaseTtlMs: 1000 });
      stage.start('capture.acked:4');
      await stage.exited();
      const tail = asGtidPosition((await readTail(s.nats, s.stream)).end);
      expect(tail?.open?.ordinal).toBeGreaterThan(100);
      await queryRow(replica.url, `stop ${word}`);
      await endDumps(primary);
      await primary.stop('fast');
      await primary.start();
      const again = await made(Source.at('cut', primary.urlFor('cut'), flavour, nats, { frame_bytes: '64KB' }));
      again.start();
      await again.caughtUp();
      const inserted = (await again.changes()).filter(({ row }) => row[0] === 'i').map(({ row }) => row[2]![0]);
      expect(inserted).toEqual(Array.from({ length: 6000 }, (_, i) => String(i)));
      await again.run('insert into big values (6000, null)');
      await again.expectEqual('big');
      // A restart of the source under a capture that runs.
      await primary.stop('fast');
      await primary.start();
      await queryRow(primary.urlFor('cut'), "insert into big values (6001, 'after the restart')");
      await waitFor('the row after the restart', async () => (await again.folded('big')).has('["6001"]'));
      await again.stop();
      await queryRow(replica.url, `start ${word}`);
    },
    timeoutMs,
  );

  it(
    'reads all tables again where the log was purged, when asked to',
    async () => {
      const s = await made(Source.open('purged', primary, nats));
      await s.run('create table t (id int primary key) engine=InnoDB; insert into t values (1)');
      s.start();
      await s.loaded(1);
      await s.stop();
      await s.run('insert into t values (2); flush binary logs; insert into t values (3); flush binary logs');
      const newest = (await s.client.query('SHOW BINARY LOGS', 'test')).at(-1)![0]!;
      await waitFor(
        'the old log files removed',
        async () => {
          await s.run(`purge binary logs to '${newest}'`);
          return (await s.client.query('SHOW BINARY LOGS', 'test')).length === 1;
        },
        90_000,
      );
      s.start();
      await s.wait('the purged log noticed', async () =>
        s.states.some((state) => state.startsWith('slot_lost source_log_purged')),
      );
      await requestSnapshot(s.config, s.name, { reset: true });
      await s.loaded(2);
      await s.expectEqual('t');
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'leaves a source that hangs: it goes on at the next server, or where it was when that is back',
    async () => {
      // Longer between looks at the size of the log than the silence lasts that is taken for the end of the connection.
      const s = await made(Source.open('frozen', primary, nats, { heartbeat: '4s' }));
      const two = await made(Source.at('frozen', s.settings.url, flavour, nats, { heartbeat: '4s' }));
      Object.assign(two, { name: 'two', settings: { ...s.settings, url: `mysql://root@${hosts()}/frozen` } });
      await s.run('create table t (id int primary key) engine=InnoDB; insert into t values (1)');
      await waitFor('the replica to have it', async () => {
        return (await queryRow(replica.urlFor('frozen'), 'select count(*) from t'))[0] === '1';
      });
      for (const one of [s, two]) {
        one.start();
        await one.loaded(1);
      }
      const seen = s.states.length;
      // A query may take longer than anybody's patience, as long as the server answers others.
      const client = await connectSource(s.settings, { patienceMs: 100 });
      expect(await client.query('SELECT SLEEP(1)', 'test')).toEqual([['0']]);
      await suspend(primary.pid!);
      try {
        await expect(client.query('SELECT 1', 'test')).rejects.toMatchObject({ code: 'source_unreachable' });
        await waitFor('the end of the connection', async () =>
          s.states.slice(seen).some((state) => state.startsWith('starting source_unreachable')),
        );
        // Of a domain of its own: the replica stays one.
        const own = flavour === 'mariadb' ? 'set gtid_domain_id = 7; ' : '';
        const other = await createConnection({ uri: replica.urlFor('frozen'), multipleStatements: true });
        await other.query(`${own}insert into t values (2)`);
        await other.end();
        await two.wait('the row of the second server', async () => (await two.folded('t')).has('["2"]'));
        await two.stop();
      } finally {
        process.kill(primary.pid!, 'SIGCONT');
      }
      await s.run('insert into t values (3)');
      await s.expectEqual('t');
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'goes on at a replica by GTID when the primary is gone, and refuses a foreign server',
    async () => {
      const s = await made(Source.open('moved', primary, nats));
      await s.run('create table t (id int primary key, v int) engine=InnoDB; insert into t values (0, 0)');
      s.start();
      await s.loaded(1);
      for (let i = 1; i <= 50; i++) await s.run(`insert into t values (${i}, 0)`);
      await s.caughtUp();
      await s.stop();
      for (let i = 51; i <= 100; i++) await s.run(`insert into t values (${i}, 0)`);
      await waitFor(
        'the replica to have all rows',
        async () => (await queryRow(replica.urlFor('moved'), 'select count(*) from t'))[0] === '101',
        90_000,
      );
      await primary.kill();
      await queryRow(replica.url, `stop ${word}`);
      const after = await made(Source.at('moved', replica.urlFor('moved'), flavour, nats));
      after.start();
      for (let i = 101; i <= 120; i++) await after.run(`insert into t values (${i}, 0)`);
      await after.expectEqual('t');
      const inserted = (await after.changes()).filter(({ row }) => row[0] === 'i').map(({ row }) => Number(row[2]![0]));
      expect(inserted).toEqual(Array.from({ length: 120 }, (_, i) => i + 1));
      await after.stop();

      const foreign = await startMysql({ flavour, version });
      try {
        const url = await foreign.createDatabase('moved');
        await queryRow(url, 'create table t (id int primary key, v int)');
        const other = await made(Source.at('moved', url, flavour, nats));
        other.start();
        await waitFor('the refusal', async () => other.failure);
        expect(other.failure).toMatchObject({ code: 'source_identity_mismatch' });
      } finally {
        await foreign.dispose();
      }
    },
    timeoutMs,
  );
});

async function replicate(primary: MysqlServer, replica: MysqlServer): Promise<void> {
  await queryRow(primary.url, "create user repl@'%' identified by 'secret'");
  await queryRow(primary.url, "grant replication slave on *.* to repl@'%'");
  const word = primary.flavour === 'mysql' ? 'source' : 'master';
  const source = `${word}_host = '127.0.0.1', ${word}_port = ${primary.port}, ${word}_user = 'repl', ${word}_password = 'secret', ${word}_connect_retry = 1`;
  if (primary.flavour === 'mysql') {
    await queryRow(
      replica.url,
      `change replication source to ${source}, source_auto_position = 1, get_source_public_key = 1`,
    );
    await queryRow(replica.url, 'start replica');
  } else {
    await queryRow(replica.url, `change master to ${source}, master_use_gtid = slave_pos`);
    await queryRow(replica.url, 'start slave');
  }
}
