/** Groups, statements, connection and errors of the binlog client, on real servers of both flavours. */
import { randomInt, randomUUID } from 'node:crypto';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { endsInCommit } from '../../capture/mysql/commit-lookup.ts';
import type { GroupInfo } from '../../capture/mysql/binlog-handler.ts';
import { connectSource, type SqlClient } from '../../capture/mysql/connection.ts';
import { parseConfig, type MysqlSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { compareGtidSets, type GtidSet } from '../../core/gtid-set.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { emptySet, openStream, readLog, Recorder } from '../support/binlog-recorder.ts';
import { waitFor } from '../support/wait.ts';

const TIMEOUT_MS = 120_000;
const BIG_BYTES = 17 * 1024 * 1024;

const opened: Connection[] = [];

async function connect(server: MysqlServer, database = 'shop'): Promise<Connection> {
  const connection = await createConnection({ uri: server.urlFor(database) });
  connection.on('error', () => undefined);
  await connection.query("SET time_zone = '+00:00'");
  opened.push(connection);
  return connection;
}

/** What the server has executed. */
async function executed(server: MysqlServer): Promise<GtidSet> {
  const connection = await connect(server, '');
  const sql = server.flavour === 'mysql' ? 'SELECT @@global.gtid_executed' : 'SELECT @@global.gtid_binlog_pos';
  const [rows] = await connection.query<RowDataPacket[]>({ sql, rowsAsArray: true });
  await connection.end();
  const text = (rows as unknown as string[][])[0]![0]!;
  return server.flavour === 'mysql' ? MysqlGtidSet.parse(text)! : MariadbGtidSet.parse(text)!;
}

async function failure(run: Promise<void>): Promise<ReplicationError> {
  const thrown: unknown = await run.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(ReplicationError);
  return thrown as ReplicationError;
}

describe.each(['mysql', 'mariadb'] as const)('the log of %s', (flavour) => {
  let server: MysqlServer;
  let sql: Connection;

  beforeAll(async () => {
    server = await startMysql({ flavour, version: flavour === 'mysql' ? '9.7' : '10.11' });
    await server.createDatabase('shop');
    sql = await connect(server);
  }, TIMEOUT_MS);

  afterAll(async () => {
    for (const connection of opened.splice(0)) connection.destroy();
    await server.dispose();
  }, TIMEOUT_MS);

  /** Runs statements and gives what the log says of them. */
  async function logOf(...statements: string[]): Promise<string[]> {
    const start = await executed(server);
    for (const statement of statements) await sql.query(statement);
    const recorder = await readLog(server, start);
    expect(compareGtidSets(recorder.cursor.toSet(), await executed(server))).toBe('equal');
    return recorder.lines;
  }

  it('tells transactions, updates of keys and DDL', async () => {
    const lines = await logOf(
      'CREATE TABLE orders (id int PRIMARY KEY, note varchar(20))',
      "INSERT INTO orders VALUES (1, 'a'), (2, NULL)",
      'BEGIN',
      'UPDATE orders SET id = 3 WHERE id = 1',
      'DELETE FROM orders WHERE id = 2',
      'COMMIT',
      'ALTER TABLE orders ADD COLUMN qty int',
      'INSERT INTO orders VALUES (5, "x", 7)',
      'TRUNCATE TABLE `orders`',
      'BEGIN',
      "INSERT INTO orders VALUES (9, 'never', 0)",
      'ROLLBACK',
    );
    expect(lines).toEqual([
      'CREATE',
      'end commit',
      'i orders ["1","a"]',
      'i orders ["2",null]',
      'end commit',
      'u orders ["1","a"] ["3","a"]',
      'd orders ["2",null]',
      'end commit',
      'ALTER',
      'end commit',
      'i orders ["5","x","7"]',
      'end commit',
      'TRUNCATE shop.orders',
      'end commit',
    ]);
  });

  it('tells a table that is made and filled at once', async () => {
    const lines = await logOf('CREATE TABLE copied SELECT 1 AS a, 2 AS b');
    expect(lines).toEqual(['inner CREATE', 'i copied ["1","2"]', 'end commit']);
  });

  it('tells savepoints', async () => {
    const lines = await logOf(
      'CREATE TABLE plain (id int PRIMARY KEY) ENGINE=MyISAM',
      'CREATE TABLE safe (id int PRIMARY KEY) ENGINE=InnoDB',
      'BEGIN',
      'INSERT INTO safe VALUES (1)',
      'SAVEPOINT one',
      'INSERT INTO safe VALUES (2)',
      'ROLLBACK TO one',
      'INSERT INTO safe VALUES (3)',
      'COMMIT',
    );
    expect(lines.slice(4)).toEqual(['i safe ["1"]', 'savepoint one', 'i safe ["3"]', 'end commit']);
  });

  it('tells rows that were rolled back beside a table without transactions', async () => {
    const statements = ['BEGIN', 'INSERT INTO safe VALUES (10)', 'INSERT INTO plain VALUES (10)', 'ROLLBACK'];
    if (flavour === 'mysql') {
      await expect(logOf(...statements)).rejects.toThrow('GTID consistency');
      await sql.query('ROLLBACK');
      return;
    }
    const lines = await logOf(...statements);
    // What such a table took stays, and is logged in a group of its own.
    expect(lines).toEqual(['i plain ["10"]', 'end commit']);
  });

  it('tells XA transactions, prepared, committed, rolled back and in one phase', async () => {
    const lines = await logOf(
      'CREATE TABLE xa (id int PRIMARY KEY)',
      "XA START 'first','b',7",
      'INSERT INTO xa VALUES (1)',
      "XA END 'first','b',7",
      "XA PREPARE 'first','b',7",
      "XA COMMIT 'first','b',7",
      "XA START 'second'",
      'INSERT INTO xa VALUES (2)',
      "XA END 'second'",
      "XA PREPARE 'second'",
      "XA ROLLBACK 'second'",
      "XA START 'third'",
      'INSERT INTO xa VALUES (3)',
      "XA END 'third'",
      "XA COMMIT 'third' ONE PHASE",
    );
    const [first, second] = ['6669727374,62,7', '7365636f6e64,,1'];
    expect(lines).toEqual([
      'CREATE',
      'end commit',
      'i xa ["1"]',
      `end xa-prepare ${first}`,
      `end xa-commit ${first}`,
      'i xa ["2"]',
      `end xa-prepare ${second}`,
      `end xa-rollback ${second}`,
      'i xa ["3"]',
      'end commit',
    ]);
  });

  it('reads rows beyond sixteen megabytes', async () => {
    const start = await executed(server);
    await sql.query('CREATE TABLE big (id int PRIMARY KEY, body longblob)');
    await sql.query(`INSERT INTO big VALUES (1, REPEAT('x', ${BIG_BYTES})), (2, 'y')`);
    const recorder = await readLog(server, start);
    const body = Buffer.alloc(BIG_BYTES, 'x').toString('base64');
    expect(recorder.lines.length).toBe(5);
    expect(recorder.lines[2] === `i big ["1","${body}"]`).toBe(true);
    expect(recorder.lines[3]).toBe('i big ["2","eQ=="]');
  });

  it('continues over a rotation and a restart of the server', async () => {
    await sql.query('CREATE TABLE rotated (id int PRIMARY KEY)');
    const start = await executed(server);
    await sql.query('INSERT INTO rotated VALUES (1)');
    await sql.query('FLUSH BINARY LOGS');
    await sql.query('INSERT INTO rotated VALUES (2)');
    await server.stop();
    await server.start();
    sql = await connect(server);
    await sql.query('INSERT INTO rotated VALUES (3)');
    const recorder = await readLog(server, start);
    expect(recorder.lines.filter((line) => line.startsWith('i'))).toEqual([1, 2, 3].map((id) => `i rotated ["${id}"]`));
    expect(recorder.cursor.toSet().toString()).toBe((await executed(server)).toString());
  });

  it(
    'resumes after any transaction without loss or repetition',
    async () => {
      const whole = await readLog(server);
      expect(new Set(whole.gtids).size).toBe(whole.gtids.length);
      for (const taken of [1, 5, Math.floor(whole.gtids.length / 2), whole.gtids.length]) {
        const recorder = new Recorder(emptySet(flavour));
        const stream = openStream(server, recorder);
        recorder.onEnd = () => {
          if (recorder.groups === taken) void stream.stop();
        };
        await stream.run();
        expect(recorder.gtids).toEqual(whole.gtids.slice(0, taken));
        const rest = await readLog(server, recorder.cursor.toSet());
        expect(rest.gtids).toEqual(whole.gtids.slice(taken));
      }
    },
    TIMEOUT_MS,
  );

  it(
    'delivers nothing while it is paused or held, and everything after',
    async () => {
      await sql.query('CREATE TABLE pressed (id int PRIMARY KEY, filler varchar(200))');
      const start = await executed(server);
      await sql.query('BEGIN');
      for (let id = 0; id < 4000; id += 100) {
        const rows = Array.from({ length: 100 }, (_, n) => `(${id + n}, REPEAT('f', 200))`);
        await sql.query(`INSERT INTO pressed VALUES ${rows.join(',')}`);
      }
      await sql.query('COMMIT');
      const recorder = new Recorder(start);
      const stream = openStream(server, recorder, { start });
      let blocked = false;
      let calls = 0;
      recorder.onRow = () => {
        calls += 1;
        if (calls % 500 !== 0) return;
        blocked = true;
        const work = new Promise<void>((resolve) => setTimeout(resolve, 5));
        if (calls % 1000 === 0) return stream.holdUntil(work.then(() => void (blocked = false)));
        stream.pause();
        void work.then(() => {
          blocked = false;
          stream.resume();
        });
      };
      const rows = recorder.rows;
      recorder.rows = (reader) => {
        expect(blocked).toBe(false);
        rows(reader);
      };
      await stream.run();
      expect(calls).toBe(4000);
      expect(recorder.groups).toBe(1);
    },
    TIMEOUT_MS,
  );

  it('hears heartbeats of an idle source, and ends when it is told to', async () => {
    const recorder = new Recorder(await executed(server));
    const stream = openStream(server, recorder, {
      start: recorder.cursor.toSet(),
      stopAtEnd: false,
      heartbeatMs: 100,
    });
    const run = stream.run();
    await waitFor('recorder.heartbeats >= 5', async () => recorder.heartbeats >= 5);
    await stream.stop();
    await run;
    expect(recorder.lines).toEqual([]);
    expect(stream.file).toMatch(/^binlog\.\d+$/);
  });

  it('fails with what a handler threw', async () => {
    const recorder = new Recorder(MysqlGtidSet.EMPTY);
    recorder.gtid = () => {
      throw new ReplicationError('internal', 'on purpose');
    };
    expect((await failure(openStream(server, recorder).run())).message).toBe('on purpose');
  });

  it('says that a password is wrong, that a right is missing, that nobody is there', async () => {
    await sql.query("CREATE USER 'reader'@'%' IDENTIFIED BY 'secret'");
    const recorder = new Recorder(emptySet(flavour));
    const as = (user: string, password: string, port = server.port) =>
      failure(openStream(server, recorder, { connection: { host: server.host, port, user, password } }).run());
    expect((await as('reader', 'wrong')).code).toBe('source_auth');
    expect((await as('reader', 'secret')).code).toBe('source_privilege');
    expect((await as('reader', 'secret', 1)).code).toBe('source_unreachable');
    await sql.query("GRANT REPLICATION SLAVE ON *.* TO 'reader'@'%'");
    await openStream(server, recorder, {
      connection: { host: server.host, port: server.port, user: 'reader', password: 'secret' },
    }).run();
    expect(recorder.groups).toBeGreaterThan(10);
  });

  it('gives way to another reader with its id', async () => {
    const start = await executed(server);
    const identity = { serverId: 4_000_000_001, replicaUuid: randomUUID(), start, stopAtEnd: false };
    const [one, two] = [new Recorder(start), new Recorder(start)];
    const first = openStream(server, one, identity);
    const ended = failure(first.run());
    await sql.query('CREATE TABLE IF NOT EXISTS clash (id int PRIMARY KEY)');
    await waitFor('one.groups > 0', async () => one.groups > 0);
    const second = openStream(server, two, identity);
    const run = second.run();
    await waitFor('two.groups > 0', async () => two.groups > 0);
    expect((await ended).code).toBe('source_server_id_clash');
    await second.stop();
    await run;
  });

  it('refuses a source that lacks what was taken', async () => {
    const ahead =
      flavour === 'mysql'
        ? ((await executed(server)) as MysqlGtidSet).add({ kind: 'mysql', source: randomUUID(), gno: 3 })
        : MariadbGtidSet.parse('0-99-10000000')!;
    const { code } = await failure(openStream(server, new Recorder(ahead), { start: ahead }).run());
    expect(code).toBe('source_diverged');
  });

  it('says that the log was purged', async () => {
    const start = await executed(server);
    await sql.query('INSERT INTO rotated VALUES (50)');
    await sql.query('FLUSH BINARY LOGS');
    await sql.query('INSERT INTO rotated VALUES (51)');
    // A file stays as long as the source believes that a reader that has left reads it.
    await waitFor('the log to be purged', async () => {
      const [logs] = await sql.query<RowDataPacket[]>('SHOW BINARY LOGS');
      await sql.query(`PURGE BINARY LOGS TO '${logs.at(-1)!['Log_name']}'`);
      return logs.length === 1;
    });
    const { code } = await failure(openStream(server, new Recorder(start), { start }).run());
    expect(code).toBe('source_log_purged');
  });

  it('stops at statements in place of rows', async () => {
    const start = await executed(server);
    const other = await connect(server);
    await other.query("SET SESSION binlog_format = 'STATEMENT'");
    await other.query('INSERT INTO rotated VALUES (60)');
    const { code, message } = await failure(openStream(server, new Recorder(start), { start }).run());
    expect([code, message]).toEqual(['source_binlog_settings', expect.stringContaining('INSERT')]);
  });

  it('stops at rows whose columns have no names', async () => {
    await sql.query("SET GLOBAL binlog_row_metadata = 'MINIMAL'");
    const start = await executed(server);
    await sql.query('INSERT INTO rotated VALUES (70)');
    await sql.query("SET GLOBAL binlog_row_metadata = 'FULL'");
    const { code } = await failure(openStream(server, new Recorder(start), { start }).run());
    expect(code).toBe('source_binlog_settings');
  });

  it(
    'notices that the server stops, and that it is killed',
    async () => {
      for (const end of ['stop', 'kill'] as const) {
        const start = await executed(server);
        const recorder = new Recorder(start);
        const ended = failure(openStream(server, recorder, { start, stopAtEnd: false, heartbeatMs: 100 }).run());
        await waitFor('recorder.heartbeats > 0', async () => recorder.heartbeats > 0);
        await (end === 'stop' ? server.stop() : server.kill());
        expect((await ended).code).toBe('source_unreachable');
        await server.start();
        sql = await connect(server);
      }
    },
    TIMEOUT_MS,
  );
});

/** Makes documents, and changes parts of them in all ways that a log tells in parts. Gives each row after each change. */
async function partialUpdates(sql: Connection, seed: number): Promise<unknown[][]> {
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return (seed >> 8) % below;
  };
  const filler = JSON.stringify('x'.repeat(300));
  const document = `{"filler": ${filler}, "list": [1, "two", {"deep": [true, null, -70000]}, 3.25], "": 1, "s": "y",
    "a name": {"ü": 18446744073709551615, "big": 12345678901234567890123, "q\\"uote": "\\n"}, "n": -5}`;
  await sql.query('CREATE TABLE documents (id int PRIMARY KEY, a json, n int, b json)');
  for (let id = 1; id <= 3; id++)
    await sql.query('INSERT INTO documents VALUES (?, ?, 0, ?)', [id, document, id === 3 ? null : document]);
  await sql.query("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'");
  const paths = [
    '$.list',
    '$.list[0]',
    '$.list[1]',
    '$.list[2].deep[last]',
    '$.list[last]',
    '$.list[9]',
    '$.s',
    '$.s[0]',
  ];
  paths.push(
    '$."a name"."ü"',
    '$."a name"."q\\\\"uote"',
    '$.""',
    '$.n',
    '$.new',
    '$."new one".x',
    '$."new one"',
    '$.list[2]',
  );
  const values = [
    '1',
    "'text'",
    'NULL',
    '-2147483648',
    '1.5',
    'CAST(\'[1, {"k": 2}]\' AS JSON)',
    'CAST(1.20 AS DECIMAL(5,2))',
  ];
  values.push(
    "CAST('2026-02-03 04:05:06' AS DATETIME)",
    "REPEAT('z', 200)",
    'true',
    "CAST('{}' AS JSON)",
    "_binary'ab'",
  );
  const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
  const seen: unknown[][] = [];
  for (let turn = 0; turn < 200; turn++) {
    const change = (column: string): string => {
      const name = pick(['JSON_SET', 'JSON_REPLACE', 'JSON_REMOVE']);
      const arguments_ = Array.from({ length: 1 + random(3) }, () =>
        name === 'JSON_REMOVE' ? `'${pick(paths)}'` : `'${pick(paths)}', ${pick(values)}`,
      );
      return `${column} = ${name}(${column}, ${arguments_.join(', ')})`;
    };
    const sets = [`n = n + 1`, ...(random(4) > 0 ? [change('a')] : []), ...(random(2) > 0 ? [change('b')] : [])];
    await sql.query(`UPDATE documents SET ${sets.join(', ')} WHERE id <= ${1 + random(3)} ORDER BY id`);
    const [rows] = await sql.query<RowDataPacket[]>({
      sql: `SELECT id, CAST(a AS CHAR) AS a, n, CAST(b AS CHAR) AS b FROM documents WHERE n <> 0 ORDER BY id`,
    });
    await sql.query('SET SESSION sql_log_bin = 0');
    await sql.query('UPDATE documents SET n = 0');
    // Documents that have lost most begin again.
    if (turn % 20 === 19) await sql.query('UPDATE documents SET a = ?', [document]);
    await sql.query('SET SESSION sql_log_bin = 1');
    for (const row of rows) seen.push([String(row['id']), row['a'], String(row['n']), row['b']]);
  }
  return seen;
}

describe('the log of MySQL alone', () => {
  it(
    'has GTIDs with tags, compressed transactions that can be held, and documents of JSON changed in part',
    async () => {
      const server = await startMysql({ flavour: 'mysql', version: '9.7' });
      try {
        await server.createDatabase('shop');
        const sql = await connect(server);
        await sql.query('CREATE TABLE t (id int PRIMARY KEY, doc json, filler varchar(200))');
        await sql.query("SET gtid_next = 'AUTOMATIC:wave_1'");
        await sql.query("INSERT INTO t VALUES (1, '{\"a\": [1, 2]}', '')");
        await sql.query("SET gtid_next = 'AUTOMATIC'");
        await sql.query("INSERT INTO t VALUES (2, NULL, '')");
        const set = (await executed(server)) as MysqlGtidSet;
        expect(set.sources.length).toBe(2);
        expect(set.sources[1]).toMatch(/:wave_1$/);
        const log = await readLog(server);
        expect(log.cursor.toSet().toString()).toBe(set.toString());
        // The tagged set is understood by the server: nothing is sent again.
        expect((await readLog(server, set)).gtids).toEqual([]);

        await sql.query("SET SESSION binlog_transaction_compression = 'ON'");
        await sql.query('BEGIN');
        for (let id = 1000; id < 5000; id += 100)
          await sql.query(
            `INSERT INTO t VALUES ${Array.from({ length: 100 }, (_, n) => `(${id + n}, NULL, REPEAT('${n % 10}', 200))`).join(',')}`,
          );
        await sql.query('COMMIT');
        await sql.query("SET SESSION binlog_transaction_compression = 'OFF'");
        const recorder = new Recorder(set);
        const stream = openStream(server, recorder, { start: set });
        let held = false;
        let calls = 0;
        const infos: GroupInfo[] = [];
        const { gtid, rows } = recorder;
        recorder.gtid = (each, info) => {
          infos.push(info);
          gtid(each, info);
        };
        recorder.rows = (reader) => {
          expect(held).toBe(false);
          calls += 1;
          rows(reader);
          if (calls % 7 !== 0) return;
          held = true;
          stream.holdUntil(
            new Promise((resolve) =>
              setTimeout(() => {
                held = false;
                resolve();
              }, 2),
            ),
          );
        };
        await stream.run();
        expect(calls).toBeGreaterThan(14);
        expect(recorder.lines.length).toBe(4001);
        expect(recorder.lines.at(-1)).toBe('end commit');
        expect(await endsInCommit({} as SqlClient, infos.at(-1)!)).toBe(true);
        expect(recorder.lines[0]).toBe(`i t ["1000",null,"${'0'.repeat(200)}"]`);

        // What changed of documents of JSON: what the server makes of it is what the log is read as.
        const start = await executed(server);
        const seed = randomInt(2 ** 31);
        process.stdout.write(`partial JSON: seed ${seed}\n`);
        const wanted = await partialUpdates(sql, seed);
        const partial = await readLog(server, start);
        const after = partial.lines.flatMap((line) => {
          const images = /^u documents \[.*\] (\[.*\])$/.exec(line)?.[1];
          return images === undefined ? [] : [JSON.parse(images) as unknown];
        });
        expect(after).toEqual(wanted);
        const [events] = await sql.query<RowDataPacket[]>('SHOW BINLOG EVENTS');
        const partialEvents = events.filter((each) => each['Event_type'] === 'Update_rows_partial').length;
        expect(partialEvents).toBeGreaterThan(100);
        // Without the document before, a change of it cannot be made.
        const minimal = await executed(server);
        await sql.query("SET SESSION binlog_row_image = 'MINIMAL'");
        await sql.query("UPDATE documents SET a = JSON_SET(a, '$.new', 5) WHERE id = 1");
        expect(await failure(openStream(server, new Recorder(minimal), { start: minimal }).run())).toMatchObject({
          code: 'source_binlog_settings',
          message: expect.stringContaining('column a of shop.documents') as string,
        });
      } finally {
        await server.dispose();
      }
    },
    TIMEOUT_MS,
  );
});

// From 11.8 on, events inside a group do not tell where they end.
it.each(['10.11', '11.8'] as const)(
  'finds how a group ends of which MariaDB %s does not tell',
  async (version) => {
    const server = await startMysql({ flavour: 'mariadb', version });
    onTestFinished(async () => {
      for (const connection of opened.splice(0)) connection.destroy();
      await server.dispose();
    });
    await server.createDatabase('shop');
    const sql = await connect(server);
    const client = await connectSource(
      parseConfig(
        JSON.stringify({
          version: 1,
          nats: { servers: ['nats://127.0.0.1:1'] },
          sources: { shop: { kind: 'mariadb', url: server.urlFor('shop'), tables: ['shop.*'] } },
        }),
        {},
      ).sources['shop'] as MysqlSourceConfig,
    );
    /** Whether the last group is known to end in a commit. */
    const ends = async (): Promise<boolean> => {
      const [[file]] = (await sql.query<RowDataPacket[]>('SHOW MASTER STATUS')) as unknown as [[{ File: string }]];
      const [events] = await sql.query<RowDataPacket[]>(`SHOW BINLOG EVENTS IN '${file.File}'`);
      const offset = Number(events.findLast((event) => event['Event_type'] === 'Gtid')!['Pos']);
      const unknown = { serverId: 1, commitTimeUs: 0, transactionBytes: undefined, transactional: false };
      return await endsInCommit(client, { ...unknown, file: file.File, offset });
    };
    try {
      await sql.query('CREATE TABLE wide (id int PRIMARY KEY, filler varchar(200)) ENGINE=InnoDB');
      await sql.query('CREATE TABLE beside (id int) ENGINE=MyISAM');
      await sql.query("CREATE TEMPORARY TABLE fillers AS SELECT repeat('x', 200) AS filler");
      // More events than one answer holds.
      await sql.query('INSERT INTO wide SELECT seq, filler FROM seq_1_to_30000, fillers');
      expect(await ends()).toBe(true);
      // A temporary table cannot be rolled back: the transaction that made it is logged with its rollback.
      for (const statement of [
        'BEGIN',
        'INSERT INTO wide VALUES (0, NULL)',
        'CREATE TEMPORARY TABLE made_meanwhile (id int)',
        'INSERT INTO beside VALUES (1)',
        'ROLLBACK',
      ])
        await sql.query(statement);
      expect(await ends()).toBe(false);
      await sql.query('INSERT INTO beside VALUES (2)');
      expect(await ends()).toBe(true);
    } finally {
      client.end();
    }
  },
  TIMEOUT_MS,
);
