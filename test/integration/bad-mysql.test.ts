/** What is wrong with MySQL and MariaDB, as sources and targets, on the real command line. */
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FLOW_RIGHTS, OWN_RIGHTS } from '../../apply/mysql/grants.ts';
import { MysqlSession } from '../../apply/mysql/session.ts';
import { connectSource } from '../../capture/mysql/connection.ts';
import { parseConfig, type MysqlSourceConfig, type TlsConfig } from '../../core/config.ts';
import { CompareSession } from '../../monitoring/drift/mysql/session.ts';
import { openReader } from '../../monitoring/sql-reader.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { Certificates } from '../support/certificates.ts';
import { CommandLine } from '../support/command-line.ts';
import { waitFor } from '../support/wait.ts';

let nats: NatsServer;
let cli: CommandLine;
let certificates: Certificates;

beforeAll(async () => {
  [nats, cli, certificates] = await Promise.all([startNats(), CommandLine.open(), Certificates.make()]);
});
afterAll(async () => {
  await Promise.all([nats?.dispose(), cli?.close(), certificates?.dispose()]);
});

describe.each(['mysql', 'mariadb'] as const)('%s', (kind) => {
  let server: MysqlServer;
  let sql: Connection;

  beforeAll(async () => {
    const logged = kind === 'mysql' ? 'log_replica_updates' : 'log_slave_updates';
    const settings = { binlog_ignore_db: 'unlogged', [logged]: 'OFF', ...certificates.settings };
    server = await startMysql({ flavour: kind, version: kind === 'mysql' ? '9.7' : '11.8', settings });
    sql = await createConnection({ uri: server.urlFor(''), multipleStatements: true });
  }, 120_000);
  afterAll(async () => {
    await sql?.end();
    await server?.dispose();
  });

  interface Path {
    readonly database: string;
    readonly text: string;
  }

  /** A database with one row that goes to another one; each `change` may turn a url into a wrong one. */
  async function path(
    change: { source?: (url: URL) => void; target?: (url: URL) => void; kind?: string } = {},
    prefix = `p${cli.next()}`,
  ): Promise<Path> {
    const database = `${prefix}_shop`;
    const [source, target] = [await server.createDatabase(database), await server.createDatabase(`${prefix}_copy`)];
    await sql.query(
      `create table if not exists ${database}.items (id int primary key); replace into ${database}.items values (1)`,
    );
    const [sourceUrl, targetUrl] = [new URL(source), new URL(target)];
    change.source?.(sourceUrl);
    change.target?.(targetUrl);
    const text = `version: 1
nats: { servers: ["${nats.url}"], prefix: ${prefix}, stream: { sync_interval: 0s, max_bytes: 64MB } }
sources: { erp: { kind: ${change.kind ?? kind}, url: "${sourceUrl.href}", tables: ["${database}.*"], heartbeat: 1s } }
targets: { v: { kind: ${kind}, url: "${targetUrl.href}" } }
flows: { f: { mirror: erp, to: v, schema: ${prefix}_copy } }
`;
    return { database, text };
  }

  /** Makes an account and gives it a statement's rights. */
  async function account(...rights: string[]): Promise<(url: URL) => void> {
    const name = `user${cli.next()}`;
    await sql.query(`create user '${name}'@'%' identified by 'right'`);
    for (const right of rights) await sql.query(right.replace('USER', `'${name}'@'%'`));
    return (url) => {
      url.username = name;
      url.password = 'right';
    };
  }

  const sourceAt = (url: string, tls: TlsConfig | undefined): MysqlSourceConfig =>
    parseConfig(JSON.stringify({ version: 1, sources: { erp: { kind, url, tables: ['a.*'], tls } } }), {}).sources[
      'erp'
    ] as MysqlSourceConfig;

  describe('over TLS', () => {
    /** Opens a connection as one of our parts does, and closes it. */
    type Open = (url: string, tls: TlsConfig | undefined) => Promise<void>;
    const openers: readonly (readonly [string, 'source' | 'target', Open])[] = [
      [
        'a capture',
        'source',
        async (url, tls) => {
          const client = await connectSource(sourceAt(url, tls));
          try {
            const [cipher] = await client.query("SHOW STATUS LIKE 'Ssl_cipher'", 'test');
            expect(cipher![1] === '').toBe(tls === undefined);
          } finally {
            client.end();
          }
        },
      ],
      ['a flow', 'target', async (url, tls) => await (await MysqlSession.open({ kind, url, tls }, 'test')).close()],
      [
        'a comparison',
        'source',
        async (url, tls) => (await CompareSession.open('source', { kind, url, tls }, 'test')).close(),
      ],
      [
        'the console',
        'target',
        async (url, tls) => await (await openReader('target', { kind, url, tls }, 'test')).close(),
      ],
    ];
    const at = (host: string): string => `mysql://root@${host}:${server.port}/`;
    const trusting = (ca: string): TlsConfig => ({ ca_file: ca, reject_unauthorized: true });

    it.each(openers)('%s takes the certificate of its authority for its host, and no other', async (_, role, open) => {
      const right = trusting(certificates.ca);
      const refusal = { code: `${role}_auth`, message: expect.stringMatching(/certificate|self-signed/) as string };
      for (const host of ['localhost', '127.0.0.1']) await open(at(host), right);
      // Other names of the same place, of which the certificate says nothing.
      await expect(open(at('127.1'), right)).rejects.toMatchObject(refusal);
      if (role === 'source' && open === openers[0]![2])
        await expect(open(at('[::ffff:127.0.0.1]'), right)).rejects.toMatchObject(refusal);
      await expect(open(at('localhost'), trusting(certificates.strangersCa))).rejects.toMatchObject(refusal);
      await open(at('127.1'), { ca_file: certificates.strangersCa, reject_unauthorized: false });
      await expect(open(at('localhost'), trusting('/nowhere'))).rejects.toMatchObject({ code: 'config_invalid' });
    });

    it.each(openers)('%s says so where it is demanded', async (_, role, open) => {
      await sql.query('set global require_secure_transport = ON');
      try {
        await open(at('127.0.0.1'), trusting(certificates.ca));
        await expect(open(at('127.0.0.1'), undefined)).rejects.toMatchObject({ code: `${role}_auth` });
      } finally {
        await sql.query('set global require_secure_transport = OFF');
      }
    });
  });

  describe('as a source', () => {
    it('nobody listens: it is waited for', async () => {
      const { text } = await path({ source: (url) => void (url.port = '1') });
      await cli.check(text, 'source_unreachable');
      const { status, output } = await cli.run(text, 'source_unreachable', 'capture:erp');
      expect(status, output).toBe(0);
    });

    it('a limit for statements, which is for others', async () => {
      const limit = kind === 'mysql' ? 'max_execution_time' : 'max_statement_time';
      await sql.query(`set global ${limit} = 1`);
      try {
        const [target, comparison, client] = await Promise.all([
          MysqlSession.open({ kind, url: server.url }, 'test'),
          CompareSession.open('source', { kind, url: server.url }, 'test'),
          connectSource(sourceAt(server.url, undefined)),
        ]);
        const asked = `SELECT @@session.${limit} + 0`;
        const rows = await Promise.all([target.rows(asked), comparison.query(asked, 'x'), client.query(asked, 'x')]);
        expect(rows.flat(2).map(Number)).toEqual([0, 0, 0]);
        await target.close();
        comparison.close();
        client.end();
      } finally {
        await sql.query(`set global ${limit} = 0`);
      }
    });

    it('a wrong password, which is not repeated', async () => {
      const login = await account();
      const { text } = await path({
        source: (url) => {
          login(url);
          url.password = 'wrong-hunter2';
        },
      });
      expect(await cli.check(text, 'source_auth')).not.toContain('hunter2');
      const { status, output } = await cli.run(text, 'source_auth', 'capture:erp');
      expect(status, output).toBe(1);
      expect(output).not.toContain('hunter2');
    });

    it('a user who may not replicate', async () => {
      const login = await account('grant select on *.* to USER');
      const { text } = await path({ source: login });
      const checked = await cli.waybill(text, ['check']);
      expect(checked.status).toBe(1);
      expect(checked.output).toMatch(/REPLICATION SLAVE/);
      await cli.run(text, 'source_privilege', 'capture:erp');
    });

    it('the other kind of server than the configuration says', async () => {
      const { text } = await path({ kind: kind === 'mysql' ? 'mariadb' : 'mysql' });
      const { output } = await cli.run(text, 'config_invalid', 'capture:erp');
      expect(output).toContain(`its kind in the configuration is ${kind === 'mysql' ? 'mariadb' : 'mysql'}`);
      expect((await cli.waybill(text, ['check'])).output).toContain('its kind in the configuration');
    });

    it('no table that matches', async () => {
      const { text } = await path();
      await cli.run(
        text.replace(/tables: \["[^"]+"\]/, 'tables: ["nowhere.*"]'),
        'source_table_missing',
        'capture:erp',
      );
    });

    it('a log without whole rows: each setting with the SQL that mends it', async () => {
      const { text } = await path();
      await sql.query(`set global binlog_row_image = 'MINIMAL'; set global binlog_row_metadata = 'MINIMAL'`);
      try {
        const checked = await cli.waybill(text, ['check']);
        expect(checked.status).toBe(1);
        expect(checked.output).toMatch(
          /binlog_row_image: is MINIMAL, not FULL\n +remedy: SET \w+ binlog_row_image = 'FULL'/,
        );
        expect(checked.output).toMatch(/binlog_row_metadata: is MINIMAL, not FULL/);
        const { output } = await cli.run(text, 'source_binlog_settings', 'capture:erp');
        expect(output).toContain('binlog_row_metadata');
      } finally {
        await sql.query(`set global binlog_row_image = 'FULL'; set global binlog_row_metadata = 'FULL'`);
      }
    });

    it('a database of which nothing is logged', async () => {
      const { text } = await path();
      await sql.query('create database unlogged; create table unlogged.t (id int primary key)');
      const other = text.replace(/tables: \["([^"]+)"\]/, 'tables: ["$1", "unlogged.*"]');
      expect((await cli.waybill(other, ['check'])).output).toContain(
        'binlog_ignore_db: binlog_ignore_db keeps changes in database unlogged out of the log',
      );
      const { output } = await cli.run(other, 'source_binlog_settings', 'capture:erp');
      expect(output).toContain('binlog_ignore_db keeps changes in database unlogged out of the log');
    });

    it('a replica that logs nothing of what it replicates', async () => {
      const { text } = await path();
      const [change, start, end] =
        kind === 'mysql'
          ? [
              `change replication source to source_host = '127.0.0.1', source_port = 1, source_user = 'x'`,
              'start replica',
              'stop replica; reset replica all',
            ]
          : [
              `change master to master_host = '127.0.0.1', master_port = 1, master_user = 'x'`,
              'start slave',
              'stop slave; reset slave all',
            ];
      await sql.query(`${change}; ${start}`);
      try {
        expect((await cli.waybill(text, ['check'])).output).toMatch(/log_(?:replica|slave)_updates is off/);
        const { output } = await cli.run(text, 'source_binlog_settings', 'capture:erp');
        expect(output).toContain('the server is a replica, and logs nothing of what it replicates');
      } finally {
        await sql.query(end);
      }
    });

    it('a log that was purged before it was read: until all is read again', async () => {
      const { text, database } = await path();
      const args = ['run', '--listen', '127.0.0.1:0', '--only', 'capture:erp'];
      const first = await cli.waybill(text, args, (log) => log.includes('table read'));
      expect(first.status, first.output).toBe(0);
      await sql.query(`insert into ${database}.items values (2); flush binary logs`);
      // A file stays as long as the source believes that a reader that has left reads it.
      await waitFor('the log to be purged', async () => {
        const [logs] = await sql.query<RowDataPacket[]>('show binary logs');
        await sql.query(`purge binary logs to '${(logs.at(-1) as { Log_name: string }).Log_name}'`);
        return logs.length === 1;
      });
      await cli.run(text, 'source_log_purged', 'capture:erp');
      if (kind === 'mysql') {
        // Which GTIDs a log has lost MariaDB says only to who reads it.
        const { output } = await cli.waybill(text, ['status']);
        expect(output).toMatch(/^erp +slot_lost/m);
        expect(output).toContain('remedy: The source removed binary logs');
      }
      expect((await cli.waybill(text, ['snapshot', 'erp', '--reset'])).status).toBe(0);
      const again = await cli.waybill(text, args, (log) => log.includes('"rows":2'));
      expect(again.status, again.output).toBe(0);
    });

    it('a server that lacks what was captured: a replica is waited for, any other is refused', async () => {
      if (kind === 'mariadb') {
        // By server and number: a server that begins anew is another one. With a target there, its journal would be
        // written at once, under the numbers that the stream holds.
        const { text: whole } = await path();
        const text = whole.replace(/^(?:targets|flows): .*\n/gm, '');
        const args = ['run', '--listen', '127.0.0.1:0', '--only', 'capture:erp'];
        const first = await cli.waybill(text, args, (log) => log.includes('table read'));
        expect(first.status, first.output).toBe(0);
        await sql.query('reset master');
        await cli.run(text, 'source_identity_mismatch', 'capture:erp');
        return;
      }
      const { text, database } = await path();
      const args = ['run', '--listen', '127.0.0.1:0', '--only', 'capture:erp'];
      await sql.query(`insert into ${database}.items values (7)`);
      const first = await cli.waybill(text, args, (log) => log.includes('table read'));
      expect(first.status, first.output).toBe(0);
      const [rows] = await sql.query<RowDataPacket[]>('select @@server_uuid as uuid');
      const { uuid } = rows[0] as { uuid: string };
      // As a replica that has the first transaction only, or a server restored from before the others.
      await sql.query(`reset binary logs and gtids; set global gtid_purged = '${uuid}:1'; set global read_only = 1`);
      const { status, output } = await cli.run(text, 'source_behind', 'capture:erp');
      expect(status, output).toBe(0);
      await sql.query('set global read_only = 0');
      await cli.run(text, 'source_diverged', 'capture:erp');
    });
  });

  describe('as a target', () => {
    it('a wrong password, which is not repeated', async () => {
      const login = await account();
      const { text } = await path({
        target: (url) => {
          login(url);
          url.password = 'wrong-hunter2';
        },
      });
      expect(await cli.check(text, 'target_auth')).not.toContain('hunter2');
      const { output } = await cli.run(text, 'target_auth', 'capture:erp,apply:f');
      expect(output).not.toContain('hunter2');
    });

    it('a user who may not write there', async () => {
      const { text } = await path({ target: await account('grant select on *.* to USER') });
      await cli.run(text, 'target_privilege');
      const checked = await cli.waybill(text, ['check']);
      expect(checked.status).toBe(1);
      expect(checked.output).toContain('waybill grants v');
    });

    it('rights that a role brings, for a name with a wildcard in it: all are needed that `grants` prints', async () => {
      const prefix = `p${cli.next()}`;
      const role = `role_${prefix}`;
      const copy = `\`${prefix}\\_copy\``;
      const login = await account(
        `create role ${role}`,
        `grant ${OWN_RIGHTS.join()} on waybill.* to ${role}`,
        `grant ${FLOW_RIGHTS.join()} on ${copy}.* to ${role}`,
        `grant ${role} to USER`,
        `set default role ${role} ${kind === 'mysql' ? 'to' : 'for'} USER`,
      );
      const { text } = await path({ target: login }, prefix);
      expect((await cli.waybill(text, ['grants', 'v'])).output).toContain(`ON ${copy}.* TO`);
      expect((await cli.waybill(text, ['check'])).output).not.toContain('lacks');
      await sql.query(`revoke alter on ${copy}.* from ${role}`);
      expect((await cli.waybill(text, ['check'])).output).toMatch(/lacks ALTER to write into database/);
    });

    it('nobody listens: it is waited for', async () => {
      const { text } = await path({ target: (url) => void (url.port = '1') });
      await cli.check(text, 'target_unreachable');
      const { status, output } = await cli.run(text, 'target_unreachable');
      expect(status, output).toBe(0);
    });

    it('a user whose rights are taken away: the flow halts, and nothing is passed over', async () => {
      const { text, database } = await path({
        target: await account('grant all on *.* to USER'),
      });
      const copy = database.replace('_shop', '_copy');
      const args = ['run', '--listen', '127.0.0.1:0'];
      const rows = async (): Promise<number> =>
        ((await sql.query<RowDataPacket[]>(`select count(*) as n from ${copy}.items`))[0][0] as { n: number }).n;
      const running = cli.waybill(text, args, () => false);
      await waitFor('the first row', async () => (await rows()) === 1);
      cli.drain();
      await running;
      const user = /mysql:\/\/(user\d+)/.exec(text)?.[1] ?? '';
      await sql.query(`revoke all privileges, grant option from '${user}'@'%'`);
      await sql.query(`grant all on waybill.* to '${user}'@'%'`);
      await sql.query(`insert into ${database}.items values (2)`);
      await cli.run(text, 'target_privilege');
      await sql.query(`grant all on *.* to '${user}'@'%'`);
      const again = cli.waybill(text, args, () => false);
      await waitFor('the second row', async () => (await rows()) === 2);
      cli.drain();
      await again;
    });

    it('a table of another shape', async () => {
      const { text, database } = await path();
      const copy = database.replace('_shop', '_copy');
      await sql.query(`create table ${copy}.items (id int primary key, more int not null)`);
      const stopped = 'items is stopped: ';
      const { output } = await cli.waybill(text, ['run', '--listen', '127.0.0.1:0'], (log) => log.includes(stopped));
      expect(output).toContain(stopped);
      expect(output).toContain('more');
      expect((await cli.waybill(text, ['check'])).status).toBe(1);
    });
  });
});
