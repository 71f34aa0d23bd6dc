/** A mirror flow built anew from the frames that its stream has kept, with every kind of source and target. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { requestSnapshot, readProgress } from '../../capture/snapshot-request.ts';
import { rebuild } from '../../cli/commands/rebuild.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Dialect } from '../../core/frame.ts';
import { openBucket } from '../../core/lease.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import type { CrossPipeline } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { Pipeline } from '../support/pipeline.ts';
import { repeat } from '../support/postgres-source.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;

const servers = EveryServer.forThisFile();
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-rebuild-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function command(p: { readonly yaml: string }, flow: string): Promise<number> {
  const file = join(folder, 'waybill.yaml');
  await writeFile(file, p.yaml);
  return await rebuild(flow, { config: file, yes: true });
}

const pairs: readonly (readonly [Dialect, Dialect])[] = [
  ['postgres', 'postgres'],
  ['postgres', 'mysql'],
  ['mysql', 'postgres'],
  ['mariadb', 'mariadb'],
];

describe.each(pairs)('a flow from %s to %s', (from, to) => {
  it(
    'is what its source is, after its tables were damaged and one was dropped',
    async () => {
      const p = await servers.pipeline(from, to);
      const engine = from === 'postgres' ? '' : ' engine=InnoDB';
      await p.source.run(
        `create table a (id int primary key, v varchar(20))${engine};
         create table b (x int, y varchar(20), v varchar(20), primary key (x, y))${engine};
         create table log (v varchar(20))${engine}`,
      );
      if (from === 'postgres') await p.source.run('alter table log replica identity full');
      await p.source.run(`insert into a values ${Array.from({ length: 300 }, (_, i) => `(${i}, 'v${i}')`).join()};
        insert into b values (1, 'x', 'old'), (2, 'y', 'old'); insert into log values ('one'), ('one'), ('two')`);
      await p.start();
      await p.settled(['a', 'b', 'log']);
      // What changes the number of rows comes last: that is waited for, and a transaction may be one statement.
      await p.source.run(`update a set v = 'new' where id < 50; update b set y = 'moved' where x = 1;
        insert into log values ('three'); delete from log where v = 'two'; delete from a where id >= 250`);
      await p.settled(['a', 'b', 'log']);
      const place = (table: string): string => `${p.place}.${table}`;
      await p.target.run(`update ${place('a')} set v = 'wrong'; insert into ${place('a')} values (1000, 'extra');
        delete from ${place('a')} where id % 3 = 0; drop table ${place('b')}; insert into ${place('log')} values ('extra')`);
      expect(await command(p, p.flow)).toBe(0);
      await p.source.run(`insert into a values (5000, 'later'); insert into log values ('later')`);
      await waitFor('the new rows', async () => {
        if (p.failure !== undefined) throw p.failure;
        return (await p.target.run(`select 1 from ${place('a')} where id = 5000`)).length === 1;
      });
      await p.settled(['a', 'b', 'log']);
      const sorted = async (client: CrossPipeline['source'], schema: string, table: string): Promise<string[]> =>
        (await client.run(`select * from ${schema}.${table}`)).map((row) => JSON.stringify(row)).toSorted();
      for (const table of ['a', 'b', 'log'])
        expect(await sorted(p.target, p.place, table), table).toEqual(await sorted(p.source, p.schema, table));
      expect(await p.target.run(`select state from waybill.tables where state <> 'follows'`)).toEqual([]);
      expect(p.failure).toBeUndefined();
    },
    timeoutMs,
  );
});

describe('a flow between PostgreSQL databases', () => {
  const opened = async (ddl: string, flow: Record<string, unknown> = {}): Promise<Pipeline> => {
    const { postgres, nats } = servers;
    const p = servers.closing(await Pipeline.open(postgres, nats, ddl, flow, postgres, { heartbeat: '500ms' }));
    return p;
  };
  const stream = (p: Pipeline): string => cdcStreamName(p.config.nats.prefix, 'wms');
  const position = async (p: Pipeline): Promise<unknown> =>
    (await p.target.query('select position, stream_seq, quarantine_version from waybill.position')).rows;
  const textOf = async (client: Pipeline['source'], table: string): Promise<string> =>
    (await client.query<{ all: string }>(`select string_agg(t::text, ',' order by t::text) as all from ${table} t`))
      .rows[0]!.all;
  const same = (p: Pipeline, table: string): Promise<unknown> =>
    waitFor(`${table} to be the same`, async () => {
      if (p.failure !== undefined) throw p.failure;
      return (await textOf(p.source, table)) === (await textOf(p.target, table));
    });
  const lastSeq = async (p: Pipeline): Promise<number> => (await p.nats.manager.streams.info(stream(p))).state.last_seq;
  const read = async (p: Pipeline, table: string): Promise<void> => {
    const id = await requestSnapshot(p.config.nats, 'wms', { tables: [table] });
    await waitFor(`snapshot ${id}`, async () => {
      const progress = await readProgress(await openBucket(p.nats, p.config.nats), 'wms');
      return progress?.id === id && progress.tables.every(({ state }) => state === 'done');
    });
  };

  it(
    'needs neither source nor capture, goes on after a restart, and tries what was in quarantine again',
    async () => {
      const p = await opened(`create table t (id int primary key, v text);
        insert into t select i, 'v' || i from generate_series(1, 5000) i`);
      p.start();
      await p.settled(['t']);
      await p.target.query(`alter table t add constraint short check (length(v) < 10)`);
      await p.source.query(`insert into t values (6000, 'longer than that')`);
      await waitFor(
        'the quarantine',
        async () => (await p.target.query('select from waybill.quarantine')).rowCount === 1,
      );
      await p.source.query(`update t set v = 'changed' where id <= 2000; delete from t where id > 4500 and id < 6000`);
      await waitFor('the deletes', async () => (await p.target.query('select from t')).rowCount === 4500);
      await p.stop();
      await p.target.query(
        `alter table t drop constraint short; update t set v = 'wrong'; delete from t where id < 500`,
      );
      expect(await command(p, 'mirror')).toBe(0);
      // What is to be written anew stands still until its reading begins in the stream.
      const stopped = await p.target.query<{ state: string; reason: string }>(
        'select state, reason from waybill.tables',
      );
      expect(stopped.rows).toMatchObject([
        { state: 'stopped', reason: expect.stringContaining('being rebuilt') as string },
      ]);
      p.start(['apply']);
      await waitFor(
        'the first rows',
        async () => (await p.target.query(`select from t where v <> 'wrong'`)).rowCount! > 0,
      );
      await p.stop(['apply']);
      p.start(['apply']);
      await same(p, 't');
      expect((await p.target.query('select from waybill.quarantine')).rowCount).toBe(0);
      const log = await p.target.query<{ detail: string }>(`select detail from waybill.audit where action = 'rebuild'`);
      expect(JSON.parse(log.rows[0]!.detail)).toMatchObject({ tables: ['public.t'], discarded: 1 });
    },
    timeoutMs,
  );

  it(
    'comes out right beside writes, readings of tables and of ranges, and restarts',
    async () => {
      const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? Date.now() % 1_000_000);
      process.stdout.write(`seed ${seed}\n`);
      const random = createRandom(seed);
      const p =
        await opened(`create table t (id int primary key, v text); create table pair (a int, b text, v text, primary key (a, b));
        create table keyless (v text); alter table keyless replica identity full;
        insert into t select i, 'v' from generate_series(1, 3000) i;
        insert into pair select i % 50, i::text, 'v' from generate_series(1, 1000) i; insert into keyless select 'v' || i from generate_series(1, 100) i`);
      const tables = ['t', 'pair', 'keyless'];
      p.start();
      await p.settled(tables);
      await waitFor('the first load', async () => {
        const progress = await readProgress(await openBucket(p.nats, p.config.nats), 'wms');
        return progress?.tables.every(({ state }) => state === 'done');
      });
      const writing = repeat(async (step) => {
        const n = 1 + ((step * 7919) % 3000);
        await p.source.query(
          `begin; update t set v = 'u${step}' where id between ${n} and ${n + 2}; delete from t where id = ${n + 3};
           insert into t values (${n + 3001}, 'i${step}') on conflict do nothing;
           update pair set b = b || 'x', v = 'u${step}' where a = ${step % 50} and b = '${n % 1000}';
           delete from keyless where v = 'v${step % 100}'; insert into keyless values ('v${step % 100}'); commit`,
        );
      });
      for (let round = 0; round < 4; round++) {
        if (random.chance(0.6))
          await p.target.query(
            `update t set v = 'wrong' where id % 7 = ${round % 7}; insert into keyless values ('extra')`,
          );
        const range = { columns: [{ name: 'id', type: 'integer' }], from: ['500'], to: ['2500'] };
        const what = random.pick(['table', 'range', 'nothing'] as const);
        if (what !== 'nothing')
          await requestSnapshot(p.config.nats, 'wms', {
            tables: [what === 'range' ? 'public.t' : `public.${random.pick(tables)}`],
            ...(what === 'range' ? { span: range } : {}),
          });
        if (random.chance(0.3)) {
          await p.stop(['capture']);
          p.start(['capture']);
        }
        const before = writing.steps;
        await waitFor('some writes', async () => writing.steps > before + random.between(1, 40));
        expect(await command(p, 'mirror')).toBe(0);
        if (random.chance(0.5)) {
          await p.stop(['apply']);
          p.start(['apply']);
        }
      }
      expect(await writing.stop()).toBeGreaterThan(20);
      for (const table of tables) await same(p, table);
      expect((await p.target.query('select from waybill.quarantine')).rowCount).toBe(0);
    },
    timeoutMs,
  );

  it(
    'is refused, and left as it is, where the stream lacks the reading of a table; a snapshot of it mends that',
    async () => {
      const p = await opened(`create table kept (id int primary key); create table lost (id int primary key);
        insert into kept values (1), (2); insert into lost values (1), (2), (3)`);
      p.start();
      await p.settled(['kept', 'lost']);
      const loaded = await lastSeq(p);
      await read(p, 'public.kept');
      await p.source.query('insert into lost values (4)');
      await p.settled(['lost']);
      await p.nats.manager.streams.purge(stream(p), { seq: loaded + 1 });
      await p.stop();
      const before = await position(p);
      await expect(command(p, 'mirror')).rejects.toMatchObject({
        code: 'rebuild_impossible',
        message: expect.stringMatching(
          /from sequence \d+ on, are not enough: public\.lost: no whole reading of it is kept\. Run: waybill snapshot wms public\.lost$/,
        ) as string,
      });
      expect(await position(p)).toEqual(before);
      expect((await p.target.query(`select from waybill.tables where state <> 'follows'`)).rowCount).toBe(0);
      p.start();
      await read(p, 'public.lost');
      await p.target.query('delete from lost; delete from kept; insert into kept values (99)');
      expect(await command(p, 'mirror')).toBe(0);
      await same(p, 'lost');
      await same(p, 'kept');
    },
    timeoutMs,
  );

  it(
    'is refused where a table got another definition since it was read, until it is read again',
    async () => {
      const p = await opened('create table t (id int primary key); insert into t values (1)');
      p.start();
      await p.settled(['t']);
      await p.source.query('alter table t add column v text; insert into t values (2, $$two$$)');
      await p.settled(['t']);
      await expect(command(p, 'mirror')).rejects.toMatchObject({
        code: 'rebuild_impossible',
        message: expect.stringContaining(
          'public.t: its definition changed since it was read. Run: waybill snapshot wms public.t',
        ) as string,
      });
      await read(p, 'public.t');
      await p.target.query(`update t set v = 'wrong'`);
      expect(await command(p, 'mirror')).toBe(0);
      await same(p, 't');
      const columns = await p.target.query(`select from pg_attribute where attrelid = 't'::regclass and attnum > 0`);
      expect(columns.rowCount).toBe(2);
    },
    timeoutMs,
  );

  it(
    'is refused where it never began, where frames are about to go, and where there is nothing to rebuild from',
    async () => {
      const p = await opened('create table t (id int primary key); insert into t values (1)');
      await expect(command(p, 'mirror')).rejects.toMatchObject({
        code: 'config_invalid',
        message: expect.stringContaining('has written nothing yet') as string,
      });
      await expect(command(p, 'miror')).rejects.toMatchObject({ code: 'config_invalid' });
      p.start();
      await p.settled(['t']);
      await waitFor('the first load', async () => {
        const progress = await readProgress(await openBucket(p.nats, p.config.nats), 'wms');
        return progress?.tables.every(({ state }) => state === 'done');
      });
      await p.stop();
      const before = await position(p);
      const { bytes } = (await p.nats.manager.streams.info(stream(p))).state;
      await p.nats.manager.streams.update(stream(p), { max_bytes: Math.ceil(bytes * 1.05) });
      await expect(command(p, 'mirror')).rejects.toMatchObject({
        code: 'rebuild_impossible',
        message: expect.stringMatching(/^sequence 2 of stream .* is about to be dropped/) as string,
      });
      await p.nats.manager.streams.purge(stream(p));
      await expect(command(p, 'mirror')).rejects.toMatchObject({
        code: 'rebuild_impossible',
        message: expect.stringContaining('holds no whole reading of any table') as string,
      });
      expect(await position(p)).toEqual(before);
    },
    timeoutMs,
  );
});
