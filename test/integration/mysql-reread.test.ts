/** Rows of MySQL and MariaDB sources that are read again by their keys: what a repair asks for. */
import { createConnection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import type { Flavour } from '../../capture/mysql/binlog-handler.ts';
import { readRequests } from '../../capture/request-queue.ts';
import { rereadRows } from '../../capture/reread.ts';
import {
  answers,
  readProgress,
  requestSnapshot,
  type KeyTexts,
  type TableProgress,
} from '../../capture/snapshot-request.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_FLOW_REPORT } from '../../core/metrics.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Source, type Change } from '../support/mysql-source.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;

describe.each([
  ['mysql', '9.7'],
  ['mariadb', '10.11'],
] as const)('rows of %s %s', (flavour: Flavour, version) => {
  let server: MysqlServer;
  let nats: NatsServer;
  let postgres: PostgresServer;
  const open: Source[] = [];
  const source = async (name: string, yaml: Record<string, unknown> = {}): Promise<Source> => {
    const made = await Source.open(`${name}_${flavour}`, server, nats, yaml);
    open.push(made);
    return made;
  };
  const reread = (s: Source, table: string, keys: readonly KeyTexts[]): Promise<void> =>
    rereadRows({
      nats: s.nats,
      config: s.config,
      source: s.name,
      schema: s.database,
      table,
      keys,
      signal: AbortSignal.timeout(60_000),
    });

  beforeAll(async () => {
    [server, nats, postgres] = await Promise.all([startMysql({ flavour, version }), startNats(), startPostgres()]);
  }, timeoutMs);
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close();
  }, timeoutMs);
  afterAll(async () => {
    await Promise.all([server?.dispose(), nats?.dispose(), postgres?.dispose()]);
  }, timeoutMs);

  it(
    'are published where they are there, and said to be gone where they are not; no others',
    async () => {
      const s = await source('keys');
      await s.run(`create table pair (a int, b varchar(20), v int, primary key (a, b)) engine=InnoDB`);
      await s.run(`create table raw (k varbinary(8) primary key, v int) engine=InnoDB`);
      await s.run(`create table label (k enum('x', 'y', 'z') primary key, v decimal(8,2)) engine=InnoDB`);
      await s.run(`create table at (k datetime(3) primary key) engine=InnoDB`);
      await s.run(
        `insert into pair values (1, 'it''s', 1), (1, 'B', 2), (2, 'c', 3); insert into raw values (x'00ff', 1), (x'01', 2)`,
      );
      await s.run(`insert into label values ('y', 1.5), ('z', 2); insert into at values ('2026-01-02 03:04:05.678')`);
      s.start();
      await s.loaded(4);
      const asked = async (table: string, keys: readonly KeyTexts[]): Promise<unknown[]> => {
        await s.caughtUp();
        const before = (await s.changes()).length;
        await reread(s, table, keys);
        const found: Change[] = (await s.changes()).slice(before);
        expect(new Set(found.map(({ table: { name } }) => name))).toEqual(new Set([table]));
        return found.map(({ row: [op, , after, kind, image] }) => (op === 'd' ? [op, kind, image] : [op, after]));
      };
      // Text keys: the source decides what is the same.
      expect(
        await asked('pair', [
          ['1', "it's"],
          ['1', 'b'],
          ['9', 'c'],
          ['2', 'd'],
        ]),
      ).toEqual([
        ['d', 'k', ['9', 'c', null]],
        ['d', 'k', ['2', 'd', null]],
        ['r', ['1', 'B', '2']],
        ['r', ['1', "it's", '1']],
      ]);
      expect(await asked('raw', [['AP8='], ['AQI=']])).toEqual([
        ['d', 'k', ['AQI=', null]],
        ['r', ['AP8=', '1']],
      ]);
      expect(await asked('label', [['x'], ['y']])).toEqual([
        ['d', 'k', ['x', null]],
        ['r', ['y', '1.50']],
      ]);
      expect(await asked('at', [['2026-01-02 03:04:05.678'], ['2026-01-02 03:04:05.679']])).toEqual([
        ['d', 'k', ['2026-01-02 03:04:05.679']],
        ['r', ['2026-01-02 03:04:05.678']],
      ]);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'are all read in chunks of one, also where labels of their keys differ by case and accents alone',
    async () => {
      const s = await source('labels', { snapshot_chunk_rows: 1 });
      const bin = 'character set utf8mb4 collate utf8mb4_bin';
      await s.run(`create table e (k enum('a', 'A', 'á', 'b') ${bin}, id int, primary key (k, id)) engine=InnoDB`);
      await s.run(`create table f (k set('a', 'A', 'á') ${bin}, id int, primary key (k, id)) engine=InnoDB`);
      await s.run(`insert into e values ('a', 1), ('A', 1), ('á', 1), ('b', 1), ('a', 2), ('A', 2), ('á', 2)`);
      await s.run(`insert into f values ('', 1), ('a', 1), ('A', 1), ('a,A', 1), ('a,á', 1), ('a', 2), ('A,á', 2)`);
      s.start();
      await s.loaded(2);
      for (const table of ['e', 'f']) {
        const rows = (await s.sql.query(`select k, id from ${table}`))[0] as { k: string; id: number }[];
        expect([...(await s.folded(table)).values()].map(String).sort()).toEqual(
          rows.map(({ k, id }) => `${k},${id}`).sort(),
        );
      }
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'are read once and found again where their key is a float',
    async () => {
      const s = await source('floats', { snapshot_chunk_rows: 1 });
      await s.run('create table f (k float, d double, v int, primary key (k, d)) engine=InnoDB');
      await s.run(
        'insert into f values (1.1, 1.1, 1), (0.7, 0.1, 2), (0.7, 0.3, 3), (16777217, 1e20, 4), (1e-20, 5, 5)',
      );
      s.start();
      await s.loaded(1);
      await s.expectEqual('f');
      const before = (await s.changes()).length;
      await reread(s, 'f', [
        ['1.1', '1.1'],
        ['0.7', '0.3'],
        ['16777216', '1e20'],
        ['0.7', '0.2'],
      ]);
      const found = (await s.changes()).slice(before).map(({ row: [op, , after, , image] }) => [op, after ?? image]);
      expect(found.map(String).sort()).toEqual(['d,0.7,0.2,', 'r,0.7,0.3,3', 'r,1.1,1.1,1', 'r,16777216,1e20,4']);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'are right while they are written to',
    async () => {
      const s = await source('busy');
      await s.run('create table t (id int primary key, v int) engine=InnoDB');
      await s.run(`insert into t values ${Array.from({ length: 1500 }, (_, i) => `(${i}, 0)`).join(',')}`);
      s.start();
      await s.loaded(1);
      const other = await createConnection({ uri: s.settings.url });
      let writing = true;
      const writer = (async (): Promise<void> => {
        for (let i = 0; writing; i++) {
          await other.query(`insert into t values (${2000 + (i % 300)}, ${i}) on duplicate key update v = ${i}`);
          await other.query(`delete from t where id in (${2000 + ((i * 7) % 300)}, ${(i * 13) % 1500})`);
          await other.query(`update t set v = ${i} where id = ${(i * 11) % 1500}`);
        }
      })();
      try {
        for (let round = 0; round < 3; round++)
          await reread(
            s,
            't',
            Array.from({ length: 2400 }, (_, i) => [String(i)]),
          );
      } finally {
        writing = false;
        await writer;
        await other.end();
      }
      await s.expectEqual('t');
      expect((await s.changes()).filter(({ row }) => row[0] === 's')).toHaveLength(2);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'are read while a large table is, and so are tables that are asked for meanwhile or read once more',
    async () => {
      const s = await source('beside', { snapshot_max_rows_per_second: 100 });
      const rows = (from: number, count: number): string =>
        Array.from({ length: count }, (_, i) => `(${from + i}, 'v')`).join(',');
      await s.run(`create table big (id int primary key, v varchar(20)) engine=InnoDB;
        create table small (id int primary key, v varchar(20)) engine=InnoDB; insert into small values (1, 'v')`);
      await s.run(`insert into big values ${rows(0, 20_000)}`);
      const bucket = await openBucket(s.nats, s.config);
      const tables = async (): Promise<readonly TableProgress[]> => (await readProgress(bucket, s.name))?.tables ?? [];
      const bigIs = async (): Promise<TableProgress> =>
        (await tables()).find(({ name, keys }) => name === 'big' && !keys)!;
      s.start();
      await s.wait('the large table to be under way', async () => (await bigIs())?.cursor != null);
      const reading = (await bigIs()).reading;
      await reread(s, 'big', [['3'], ['-1']]);
      await reread(s, 'small', [['1']]);
      await s.run(
        `create table late (id int primary key, v varchar(20)) engine=InnoDB; insert into late values ${rows(0, 60)}`,
      );
      await s.wait('the new table to be read', async () =>
        (await tables()).some(({ name, state }) => name === 'late' && state === 'done'),
      );
      // None of those that wait is lost, and each is answered.
      const ids: string[] = [];
      for (const name of ['small', 'late', 'small'])
        ids.push(await requestSnapshot(s.config, s.name, { tables: [`${s.database}.${name}`] }));
      await s.wait('the requests to be answered', async () => {
        const found = await tables();
        const open = found.filter(({ state }) => state !== 'done');
        const waits = open.some((table) => ids.some((id) => answers(table, id)));
        return !waits && (await readRequests(bucket, s.name)).length === 0;
      });
      expect(await bigIs()).toMatchObject({ state: 'running', reading });
      // One that is asked for again is begun again, and what asked for it before is not forgotten.
      const [first, second] = [
        await requestSnapshot(s.config, s.name, { tables: [`${s.database}.big`] }),
        await requestSnapshot(s.config, s.name, { tables: [`${s.database}.big`] }),
      ];
      await s.wait('the large table to begin again', async () => {
        const now = await bigIs();
        return now.reading !== reading && now.cursor !== null && answers(now, first) && answers(now, second);
      });
      await s.stop();
      (s.settings as { snapshot_max_rows_per_second?: number }).snapshot_max_rows_per_second = 1_000_000;
      s.start();
      await s.wait('all to be read', async () => (await tables()).every(({ state }) => state === 'done'));
      for (const name of ['big', 'small', 'late']) await s.expectEqual(name);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'mend a target that has drifted',
    async () => {
      const s = await source('drift');
      await s.run('create table t (id int primary key, v varchar(20)) engine=InnoDB');
      await s.run(`insert into t values ${Array.from({ length: 100 }, (_, i) => `(${i}, 'v${i}')`).join(',')}`);
      s.start();
      const url = await postgres.createDatabase(`drift_${flavour}`);
      const config = parseConfig(
        JSON.stringify({
          version: 1,
          nats: { servers: [nats.url], prefix: s.config.prefix },
          sources: { [s.name]: { kind: flavour, url: s.settings.url, tables: s.settings.tables } },
          targets: { vis: { kind: 'postgres', url } },
          flows: { mirror: { mirror: s.name, to: 'vis', schema: 'public' } },
        }),
        {},
      );
      const target = new pg.Client(url);
      await target.connect();
      const stop = new AbortController();
      const flow = runMirrorFlow({
        name: 'mirror',
        settings: config.flows['mirror']!,
        store: createPostgresStore({ kind: 'postgres', url }),
        nats: config.nats,
        holder: 'test',
        leaseTtlMs: 1000,
        log: createLogger('silent'),
        signal: stop.signal,
        report: NO_FLOW_REPORT,
      });
      const held = async (): Promise<string> =>
        (await target.query<{ text: string }>(`select string_agg(id || ' ' || v, ',' order by id) as text from t`))
          .rows[0]!.text;
      try {
        await s.loaded(1);
        const right = Array.from({ length: 100 }, (_, i) => `${i} v${i}`).join(',');
        await waitFor('the first load', async () => (await held().catch(() => '')) === right);
        await target.query(`delete from t where id = 5; update t set v = 'wrong' where id in (6, 7);
          insert into t values (1000, 'extra')`);
        await reread(s, 't', [['5'], ['6'], ['1000']]);
        const mended = right.replace('7 v7', '7 wrong');
        await waitFor('the repair', async () => (await held()) === mended);
      } finally {
        stop.abort();
        await flow;
        await target.end();
      }
      await s.stop();
    },
    timeoutMs,
  );
});
