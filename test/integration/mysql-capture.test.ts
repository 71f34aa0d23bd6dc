import { createConnection, type Connection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Flavour } from '../../capture/mysql/binlog-handler.ts';
import { runMysqlCapture } from '../../capture/mysql/capture.ts';
import { connectSource, type SqlClient } from '../../capture/mysql/connection.ts';
import { contains, readExecuted } from '../../capture/mysql/executed.ts';
import { chunkSql } from '../../capture/mysql/snapshot.ts';
import { readTable } from '../../capture/mysql/catalog.ts';
import { checkMysqlSource } from '../../capture/mysql/preflight.ts';
import { mysqlSourceStatus } from '../../capture/mysql/status.ts';
import { mysqlGrantsSql } from '../../capture/mysql/grants.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { cdcStreamName, readFrames, readTail } from '../../core/cdc-stream.ts';
import { parseConfig, type MysqlSourceConfig, type NatsConfig } from '../../core/config.ts';
import { decodeFrame, type RowChange, type TableSchema, type TransactionEntry, type Value } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asGtidPosition, ORIGIN } from '../../core/position.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;
const DEADLINE_MS = 40_000;

interface Change {
  readonly table: TableSchema;
  readonly row: RowChange;
  readonly entry: TransactionEntry;
}

class Source {
  readonly name: string;
  readonly database: string;
  readonly settings: MysqlSourceConfig;
  readonly config: NatsConfig;
  readonly sql: Connection;
  readonly client: SqlClient;
  readonly nats: Nats;
  readonly states: string[] = [];
  #stop = new AbortController();
  #running: Promise<void> | undefined;
  failure: unknown;

  private constructor(
    name: string,
    database: string,
    of: { settings: MysqlSourceConfig; config: NatsConfig; sql: Connection; client: SqlClient; nats: Nats },
  ) {
    this.name = name;
    this.database = database;
    this.settings = of.settings;
    this.config = of.config;
    this.sql = of.sql;
    this.client = of.client;
    this.nats = of.nats;
  }

  static async open(
    name: string,
    server: MysqlServer,
    nats: NatsServer,
    yaml: Record<string, unknown> = {},
  ): Promise<Source> {
    const url = await server.createDatabase(name);
    const parsed = parseConfig(
      JSON.stringify({
        version: 1,
        nats: { servers: [nats.url], prefix: `t_${name}` },
        sources: { [name]: { kind: server.flavour, url, tables: [`${name}.*`], heartbeat: '1s', ...yaml } },
      }),
      {},
    );
    const settings = parsed.sources[name] as MysqlSourceConfig;
    const sql = await createConnection({ uri: url, multipleStatements: true, timezone: 'Z' });
    return new Source(name, name, {
      settings,
      config: parsed.nats,
      sql,
      client: await connectSource(settings),
      nats: await connectNats(parsed.nats, 'test'),
    });
  }

  get stream(): string {
    return cdcStreamName(this.config.prefix, this.name);
  }

  start(): void {
    this.#stop = new AbortController();
    this.failure = undefined;
    this.#running = runMysqlCapture({
      name: this.name,
      settings: this.settings,
      nats: this.config,
      holder: 'test',
      leaseTtlMs: 1500,
      log: createLogger((process.env['WAYBILL_TEST_LOG'] as 'debug' | undefined) ?? 'silent'),
      signal: this.#stop.signal,
      report: {
        ...NO_CAPTURE_REPORT,
        state: (state, detail) => void this.states.push(detail === undefined ? state : `${state} ${detail}`),
      },
    }).catch((thrown: unknown) => void (this.failure = thrown));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.failure !== undefined) throw this.failure;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.sql.end();
    this.client.end();
    await this.nats.close();
  }

  async run(sql: string): Promise<void> {
    await this.sql.query(sql);
  }

  async wait<T>(what: string, probe: () => Promise<T | undefined | false>): Promise<T> {
    const found = await waitFor(
      `${what}; last states ${JSON.stringify(this.states.slice(-4))}`,
      async () => {
        if (this.failure !== undefined) return { value: undefined };
        const value = await probe();
        return value === undefined || value === false ? undefined : { value };
      },
      DEADLINE_MS,
    );
    if (this.failure !== undefined) throw this.failure;
    return found.value as T;
  }

  /** Waits until the stream holds all that the source has executed. */
  async caughtUp(): Promise<void> {
    const executed = await readExecuted(this.client, this.settings.kind);
    await this.wait(`the stream holding ${executed.toString()}`, async () => {
      const position = asGtidPosition((await readTail(this.nats, this.stream)).end);
      return position !== undefined && position.open === undefined && contains(position.gtids, executed);
    });
  }

  async loaded(tables: number): Promise<void> {
    await this.wait(`${tables} tables read`, async () => {
      const ends = (await this.changes()).filter(({ row }) => row[0] === 's' && (row[2] as string[])[1] === 'end');
      return ends.length >= tables;
    });
  }

  async changes(): Promise<Change[]> {
    const { state } = await this.nats.manager.streams.info(this.stream).catch(() => ({ state: { last_seq: 0 } }));
    const found: Change[] = [];
    if (state.last_seq === 0) return found;
    const stop = new AbortController();
    for await (const frame of readFrames(this.nats, this.stream, {
      startSeq: 1,
      position: ORIGIN,
      signal: stop.signal,
    })) {
      const payload = decodeFrame(frame.payload, frame.place);
      let at = 0;
      for (const entry of payload.tx)
        for (let i = 0; i < entry[4]; i++) {
          const row = payload.rows[at++]!;
          found.push({ table: payload.tables[row[1]]!, row, entry });
        }
      if (frame.seq >= state.last_seq) break;
    }
    stop.abort();
    return found;
  }

  /** What the stream builds of a table: rows by key, each as its texts. */
  async folded(table: string): Promise<Map<string, readonly Value[]>> {
    const rows = new Map<string, readonly Value[]>();
    for (const { table: schema, row } of await this.changes()) {
      if (schema.name !== table) continue;
      const key = (image: readonly Value[]): string =>
        JSON.stringify(schema.key.map((name) => image[schema.columns.findIndex((column) => column.name === name)]));
      const [op, , after, , before] = row;
      if (op === 't') rows.clear();
      if (before !== undefined) rows.delete(key(before));
      if (op === 'i' || op === 'u' || op === 'r') rows.set(key(after!), after!);
    }
    return rows;
  }

  /** What the server says of the table, in the same texts. */
  async actual(table: string): Promise<Map<string, readonly Value[]>> {
    const captured = await readTable(this.client, this.settings.kind, this.database, table);
    if (captured === undefined || captured === 'absent') throw new Error(`no table ${table}`);
    const indexes = captured.schema.key.map((name) => captured.schema.columns.findIndex((c) => c.name === name));
    const rows = await this.client.query(chunkSql(captured, null, undefined), 'test');
    return new Map(rows.map((row) => [JSON.stringify(indexes.map((index) => row[index])), row as Value[]]));
  }

  async expectEqual(table: string): Promise<void> {
    await this.caughtUp();
    const [folded, actual] = [await this.folded(table), await this.actual(table)];
    const sorted = (rows: Map<string, readonly Value[]>): unknown => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
    expect(sorted(folded)).toEqual(sorted(actual));
  }
}

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
    [server, nats] = await Promise.all([startMysql({ flavour, version }), startNats()]);
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
      s.start();
      for (let i = 0; i < 200; i++) {
        await s.run(`update items set name = 'changed ${i}' where id = ${(i * 37) % 3000}`);
        await s.run(`delete from items where id = ${(i * 53) % 3000}`);
        await s.run(`insert into items (id, name) values (${10_000 + i}, 'new')`);
      }
      await s.loaded(1);
      await s.expectEqual('items');
      await s.stop();
      await s.run("update items set id = id + 100000, name = 'moved' where id >= 10100");
      s.start();
      await s.expectEqual('items');
      const status = await mysqlSourceStatus(s.name, s.settings, s.config);
      expect(status.state).toMatch(/^(idle|streaming)$/);
      expect(status.retainedLogBytes).toBeGreaterThan(0);
      await s.stop();
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
        (await s.changes()).filter(({ table }) => table.name === 'big').map(({ entry }) => entry[5]),
      );
      expect(parts).toEqual(new Set(['first', 'middle', 'last']));
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
    'checks a source, and says what to grant; the least privilege is enough',
    async () => {
      const s = await source('least');
      await s.run('create table t (id int primary key) engine=InnoDB; insert into t values (1)');
      const findings = await checkMysqlSource(s.name, s.settings, 't');
      expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
      const user = `u_${flavour}`;
      await s.run(`create user '${user}'@'%' identified by 'secret'`);
      const refused = {
        ...s.settings,
        url: s.settings.url.replace('root@', `${user}:secret@`).replace(/\/[^/]*$/, '/'),
      };
      expect(
        (await checkMysqlSource(s.name, refused, 't')).some(
          ({ severity, remedy }) => severity === 'error' && remedy?.startsWith('GRANT REPLICATION SLAVE') === true,
        ),
      ).toBe(true);
      await s.run(mysqlGrantsSql(s.name, s.settings, user));
      expect((await checkMysqlSource(s.name, refused, 't')).filter(({ severity }) => severity === 'error')).toEqual([]);
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
