import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { cacheFolder } from '../../sandbox/cache.ts';
import { PortTakenError } from '../../sandbox/errors.ts';
import { startMysql, type MysqlOptions, type MysqlServer } from '../../sandbox/mysql.ts';
import { findMysqlTool, type MysqlTool } from '../../sandbox/mysql-tools.ts';
import { isRunning, poll, run } from '../../sandbox/process.ts';

const timeoutMs = 240_000;
const elsewhere = 'its process and folder are not on this machine';
const opened: { dispose(): Promise<void> }[] = [];

afterEach(async () => {
  for (const server of opened.splice(0)) await server.dispose();
}, timeoutMs);

async function mysql(options: MysqlOptions): Promise<MysqlServer> {
  const server = await startMysql(options);
  opened.push(server);
  return server;
}

/** The rows of the last of the statements, all values as text. */
async function rowsOf(url: string, ...statements: string[]): Promise<(string | null)[][]> {
  const connection = await createConnection({ uri: url, rowsAsArray: true, typeCast: (field) => field.string() });
  // What the connection was asked rejects when it breaks, which is enough.
  connection.on('error', () => undefined);
  try {
    let rows: unknown = [];
    for (const sql of statements) [rows] = await connection.query<RowDataPacket[]>(sql);
    return Array.isArray(rows) ? (rows as (string | null)[][]) : [];
  } finally {
    connection.destroy();
  }
}

/** The first column of all rows of the last of the statements. */
async function query(url: string, ...statements: string[]): Promise<(string | null)[]> {
  return (await rowsOf(url, ...statements)).map((row) => row[0] ?? null);
}

const kinds = [
  { flavour: 'mysql', version: '9.7' },
  { flavour: 'mariadb', version: '10.11' },
  { flavour: 'mariadb', version: '11.8' },
] as const;

describe.each(kinds)('$flavour $version', ({ flavour, version }) => {
  const positionOf = flavour === 'mysql' ? 'select @@global.gtid_executed' : 'select @@global.gtid_binlog_pos';

  it(
    'logs rows in full and keeps its data and place through a kill, a stop and a start',
    async () => {
      const lines: string[] = [];
      const server = await mysql({ flavour, version, log: (line) => lines.push(line) });
      const name = flavour === 'mysql' ? 'MySQL' : 'MariaDB';
      expect(lines).toEqual([`${name} ${server.version} on ${server.host}:${server.port}: ${server.origin}`]);
      expect(server.version.startsWith(`${version}.`)).toBe(true);
      const variables = '@@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, @@local_infile';
      expect(await rowsOf(server.url, `select ${variables}, @@server_id`)).toEqual([
        ['1', 'ROW', 'FULL', 'FULL', '1', String(server.serverId)],
      ]);
      if (flavour === 'mysql') {
        expect(await rowsOf(server.url, 'select @@gtid_mode, @@enforce_gtid_consistency')).toEqual([['ON', 'ON']]);
      }
      expect(await query(server.url, positionOf), 'a new server has no history').toEqual(['']);

      const url = await server.createDatabase('odd "na`me"/%');
      expect(url).toBe(server.urlFor('odd "na`me"/%'));
      await query(url, 'create table kept (n int primary key) engine = innodb', 'insert into kept values (1)');
      const identity = flavour === 'mysql' ? 'select @@server_uuid' : 'select @@server_uid';
      const before = await query(server.url, identity);
      const { port } = server;

      await query(url, 'insert into kept values (2)');
      const [position] = await query(server.url, positionOf);
      await server.kill();
      await expect(query(url, 'select 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
      await server.start();
      expect(await query(url, 'select n from kept order by n')).toEqual(['1', '2']);
      expect(await query(server.url, positionOf)).toEqual([position]);

      for (const mode of ['fast', 'immediate'] as const) {
        await server.stop(mode);
        await expect(query(url, 'select 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
        await server.start();
        expect(await query(url, 'select n from kept order by n')).toEqual(['1', '2']);
      }
      expect(await query(server.url, positionOf)).toEqual([position]);
      expect(await query(server.url, identity)).toEqual(before);
      expect(server.port).toBe(port);
    },
    timeoutMs,
  );

  it(
    'runs two at once, of which one replicates the other by GTID and as a user with a password',
    async () => {
      const [primary, replica] = await Promise.all([mysql({ flavour, version }), mysql({ flavour, version })]);
      expect(primary.serverId).not.toBe(replica.serverId);
      const grant = "grant replication slave on *.* to repl@'%'";
      await query(primary.url, "create user repl@'%' identified by 'se''cret'", grant);
      const asRepl = new URL(primary.url);
      asRepl.username = 'repl';
      await expect(query(asRepl.href, 'select 1')).rejects.toMatchObject({ code: 'ER_ACCESS_DENIED_ERROR' });
      asRepl.password = "se'cret";
      expect(await query(asRepl.href, 'select current_user()')).toEqual(['repl@%']);

      const url = await primary.createDatabase('shop');
      await query(url, 'create table t (n int primary key, s text)', "insert into t values (1, 'grüße')");
      const source = (word: 'source' | 'master'): string =>
        `${word}_host = '127.0.0.1', ${word}_port = ${primary.port}, ${word}_user = 'repl', ${word}_password = 'se''cret'`;
      if (flavour === 'mysql') {
        const options = 'source_auto_position = 1, get_source_public_key = 1';
        await query(
          replica.url,
          `change replication source to ${source('source')}, ${options}, source_connect_retry = 1`,
          'start replica',
        );
      } else {
        await query(
          replica.url,
          `change master to ${source('master')}, master_use_gtid = slave_pos, master_connect_retry = 1`,
          'start slave',
        );
      }
      const replicated = async (count: number): Promise<void> => {
        const same = async (): Promise<void> => {
          const there = await query(replica.urlFor('shop'), 'select n from t');
          if (there.length !== count) throw new Error(`it has ${there.length} rows`);
        };
        await poll(same, { what: `${count} rows on the replica`, deadlineMs: 60_000 });
      };
      await replicated(1);
      // Both ends go away and come back, and replication goes on.
      await primary.kill();
      await primary.start();
      await replica.stop();
      await query(url, "insert into t values (2, 'more')");
      await replica.start();
      await replicated(2);
      expect(await rowsOf(replica.urlFor('shop'), 'select n, s from t order by n')).toEqual([
        ['1', 'grüße'],
        ['2', 'more'],
      ]);
      const [position] = await query(primary.url, positionOf);
      expect(position).not.toBe('');
      // The replica has the primary's transactions in a log of its own, under their names: one can go on there.
      expect(await query(replica.url, positionOf)).toEqual([position]);
    },
    timeoutMs,
  );

  it(
    'has client programs that work with it',
    async () => {
      const server = await mysql({ flavour, version });
      const url = await server.createDatabase('shop');
      await query(url, 'create table t (s varchar(20))', "insert into t values ('told once')");
      const [log] = await query(server.url, 'show binary logs');
      const at = ['--no-defaults', `--host=${server.host}`, `--port=${server.port}`, '--user=root'];
      const outputOf = async (name: MysqlTool, args: readonly string[]): Promise<string> => {
        const tool = await findMysqlTool(name, flavour, version);
        return await run(tool.file, [...tool.args, ...at, ...args]);
      };
      expect(await outputOf('mysql', ['--execute=select s from shop.t'])).toBe('s\ntold once\n');
      expect(await outputOf('mysqldump', ['shop'])).toContain('INSERT INTO `t` VALUES');
      const events = await outputOf('mysqlbinlog', ['-vv', '--read-from-remote-server', log ?? '']);
      expect(events).toContain("###   @1='told once'");
    },
    timeoutMs,
  );
});

describe.each(['mysql', 'mariadb'] as const)('%s', (flavour) => {
  let server: MysqlServer;
  beforeAll(async () => {
    server = await startMysql({ flavour });
  }, timeoutMs);
  afterAll(async () => {
    await server?.dispose();
  }, timeoutMs);

  it(
    'takes settings over its own, and says what is wrong with them',
    async () => {
      const settings = { 'max-connections': '17', sql_mode: '', lower_case_table_names: '1' };
      const server = await mysql({ flavour, settings, serverId: 4711 });
      const variables = '@@max_connections, @@global.sql_mode, @@lower_case_table_names, @@server_id';
      expect(await rowsOf(server.url, `select ${variables}`)).toEqual([['17', '', '1', '4711']]);
      expect(server.serverId).toBe(4711);
      await expect(startMysql({ flavour, settings: { no_such_thing: '1' } })).rejects.toThrow(
        /no_such_thing|no-such-thing/,
      );
    },
    timeoutMs,
  );

  it(
    'says so when its port is taken',
    async () => {
      await expect(startMysql({ flavour, port: server.port })).rejects.toBeInstanceOf(PortTakenError);
    },
    timeoutMs,
  );

  it(
    'uses the server of the environment, and drops only what it created there',
    async () => {
      const variable = 'WAYBILL_SANDBOX_TEST_URL';
      process.env[variable] = server.url;
      try {
        const foreign = await mysql({ flavour, env: variable });
        const { url, port, version, serverId } = server;
        expect(foreign).toMatchObject({ url, port, version, serverId, flavour, origin: variable });
        await server.createDatabase('theirs');
        await query(await foreign.createDatabase('ours'), 'select 1');
        await expect(foreign.stop()).rejects.toThrow(variable);
        await foreign.dispose();
        const databases = "select schema_name from information_schema.schemata where schema_name in ('ours', 'theirs')";
        expect(await query(server.url, databases)).toEqual(['theirs']);
        const other = flavour === 'mysql' ? 'mariadb' : 'mysql';
        await expect(startMysql({ flavour: other, env: variable })).rejects.toThrow(`${variable} names a ${flavour}`);
      } finally {
        delete process.env[variable];
      }
    },
    timeoutMs,
  );

  it(
    'leaves no process and no folder after dispose, and starts no more',
    async ({ skip }) => {
      const pid = server.pid ?? skip(elsewhere);
      const dataDir = server.dataDir ?? skip(elsewhere);
      expect(existsSync(dataDir)).toBe(true);
      await Promise.all([server.dispose(), server.dispose()]);
      expect(await isRunning(pid)).toBe(false);
      expect(existsSync(dirname(dataDir))).toBe(false);
      expect(server.pid).toBeUndefined();
      await expect(server.start()).rejects.toThrow('disposed');
    },
    timeoutMs,
  );
});

it('knows which series are of which flavour', async () => {
  await expect(startMysql({ flavour: 'mysql', version: '10.11' })).rejects.toThrow('8.4 and 9.7');
});

/** Starts one server of each flavour in a process of its own, which then waits, and gives what it says of them. */
async function startElsewhere(
  env: NodeJS.ProcessEnv,
  identity: { readonly uid?: number; readonly gid?: number },
): Promise<{ pids: (number | null)[]; folders: (string | null)[]; users: string[]; end(): void }> {
  const module = JSON.stringify(new URL('../../sandbox/mysql.ts', import.meta.url).href);
  const client = JSON.stringify(new URL('../../sandbox/mysql-client.ts', import.meta.url).href);
  const program = `
    const { startMysql } = await import(${module});
    const { queryRow } = await import(${client});
    const servers = await Promise.all(['mysql', 'mariadb'].map((flavour) => startMysql({ flavour })));
    const users = [];
    for (const { url } of servers) users.push((await queryRow(url, 'select user()'))[0]);
    const folders = servers.map(({ dataDir }) => dataDir ?? null);
    console.log(JSON.stringify({ pids: servers.map(({ pid }) => pid ?? null), folders, users }));
    setInterval(() => undefined, 1000);
  `;
  // Its servers do not keep a process alive; a timer does.
  const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env,
    ...identity,
  });
  opened.push({ dispose: async () => void owner.kill('SIGKILL') });
  let line = '';
  for await (line of createInterface(owner.stdout)) break;
  expect(line, 'it names its servers before it ends').not.toBe('');
  const said = JSON.parse(line) as { pids: (number | null)[]; folders: (string | null)[]; users: string[] };
  return { ...said, end: () => void owner.kill('SIGKILL') };
}

describe('another process', () => {
  it(
    'that dies by SIGKILL takes its servers and their folders with it',
    async ({ skip }) => {
      const { pids, folders, end } = await startElsewhere(process.env, {});
      end();
      for (const [i, pid] of pids.entries()) {
        const folder = folders[i] ?? skip(elsewhere);
        const server = pid ?? skip(elsewhere);
        const gone = async (): Promise<void> => {
          if ((await isRunning(server)) || existsSync(dirname(folder)))
            throw new Error(`${server}, ${folder} are there`);
        };
        await poll(gone, { what: 'the end of what the dead process left', deadlineMs: 60_000 });
      }
    },
    timeoutMs,
  );

  it(
    'has servers of its own as an ordinary user, and another one at once from the same fresh cache',
    async () => {
      const cache = await mkdtemp(join(tmpdir(), 'waybill-cache-'));
      const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
      try {
        if (user.uid !== undefined) await chown(cache, user.uid, user.gid);
        // What has been fetched serves all; the data folders made from it do not.
        const fetched = join(await cacheFolder(), 'debian');
        if (existsSync(fetched)) await symlink(fetched, join(cache, 'debian'));
        const env = { ...process.env, WAYBILL_CACHE_DIR: cache, HOME: cache };
        const both = await Promise.all([startElsewhere(env, user), startElsewhere(env, user)]);
        for (const { users } of both)
          expect(users).toEqual([expect.stringMatching(/^root@/), expect.stringMatching(/^root@/)]);
        const servers = both.flatMap(({ pids }) => pids).filter((pid) => pid !== null);
        for (const { end } of both) end();
        for (const pid of servers) {
          const gone = async (): Promise<void> => {
            if (await isRunning(pid)) throw new Error(`process ${pid} runs`);
          };
          await poll(gone, { what: `the end of process ${pid}`, deadlineMs: 60_000 });
        }
      } finally {
        await rm(cache, { recursive: true, force: true });
      }
    },
    timeoutMs,
  );
});
