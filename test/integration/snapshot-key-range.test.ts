/** A range of a table's keys read again, on all kinds of sources and targets: that range, and no row outside of it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rereadRows } from '../../capture/reread.ts';
import {
  answers,
  readProgress,
  requestSnapshot,
  type SnapshotProgress,
  type TableProgress,
} from '../../capture/snapshot-request.ts';
import { EXIT } from '../../cli/exit-status.ts';
import { checkedSpan } from '../../cli/key-span.ts';
import { watchCancel, watchSnapshot } from '../../cli/snapshot-watch.ts';
import type { PostgresSourceConfig } from '../../core/config.ts';
import type { Dialect } from '../../core/frame.ts';
import { openBucket } from '../../core/lease.ts';
import type { CrossPipeline } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { Pipeline } from '../support/pipeline.ts';
import { repeat } from '../support/postgres-source.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;

const servers = EveryServer.forThisFile();

async function progressOf(p: Pick<CrossPipeline, 'nats' | 'config'>, source: string): Promise<SnapshotProgress> {
  return (await readProgress(await openBucket(p.nats, p.config.nats), source))!;
}

/** Asks for a range as the command does; gives whether rows that are gone are removed. */
async function ask(
  p: Pick<CrossPipeline, 'nats' | 'config'>,
  source: string,
  table: string,
  from: string | undefined,
  to: string | undefined,
): Promise<{ id: string; removes: boolean }> {
  const { span, removes } = await checkedSpan(p.config.sources[source]!, table, { from, to });
  return { removes, id: await requestSnapshot(p.config.nats, source, { tables: [table], span }) };
}

async function done(p: Pick<CrossPipeline, 'nats' | 'config'>, source: string, id: string): Promise<void> {
  await waitFor(`snapshot ${id}`, async () => {
    const { tables } = await progressOf(p, source);
    const own = tables.filter(({ request }) => request === id);
    return own.length > 0 && own.every(({ state }) => state === 'done');
  });
}

const pairs: readonly (readonly [Dialect, Dialect])[] = [
  ['postgres', 'postgres'],
  ['postgres', 'mysql'],
  ['mysql', 'postgres'],
  ['mysql', 'mariadb'],
  ['mariadb', 'postgres'],
];

describe.each(pairs)('a range of keys from %s to %s', (from, to) => {
  it(
    'is read again, and what the source does not have of it is removed; the rest is left alone',
    async () => {
      const p = await servers.pipeline(from, to);
      const engine = from === 'postgres' ? '' : ' engine=InnoDB';
      await p.source.run(
        `create table stock (w int, item bigint, v varchar(20), primary key (w, item))${engine};
         create table names (name varchar(20) primary key, v varchar(20))${engine};
         create table days (day date primary key, v varchar(20))${engine}`,
      );
      const rows = Array.from({ length: 300 }, (_, i) => `(${1 + (i % 3)}, ${Math.floor(i / 3)}, 'v${i}')`);
      await p.source.run(`insert into stock values ${rows.join(',')}`);
      await p.source.run(`insert into names values ('ash', 'v'), ('Birch', 'v'), ('cedar', 'v'), ('Elm', 'v')`);
      await p.source.run(`insert into days values ('2026-01-01', 'v'), ('2026-02-01', 'v'), ('2026-03-01', 'v')`);
      await p.start();
      await p.settled(['stock', 'names', 'days']);
      const place = (table: string): string => `${p.place}.${table}`;
      const at = async (table: string): Promise<readonly (readonly unknown[])[]> =>
        await p.target.run(
          table === 'stock'
            ? `select w, item, v from ${place(table)} order by w, item`
            : `select ${table === 'days' ? "replace(cast(day as char(10)), ' ', '')" : 'name'}, v from ${place(table)} order by 1`,
        );
      const numbers = (all: readonly (readonly unknown[])[]): string[] =>
        all.map(([w, item, v]) => `${Number(w)}/${Number(item)} ${String(v)}`);
      const source = numbers(await p.source.run('select w, item, v from stock order by w, item'));

      // In the target every row is wrong, some are missing, and some are there that never were.
      await p.target.run(`update ${place('stock')} set v = 'wrong'`);
      await p.target.run(`delete from ${place('stock')} where item in (20, 70)`);
      await p.target.run(
        `insert into ${place('stock')} values (2, 1000, 'extra'), (2, -5, 'extra'), (1, 1000, 'extra')`,
      );
      const before = numbers(await at('stock'));
      const inside = (row: string): boolean => {
        const [w, item] = row.split(/[/ ]/).map(Number) as [number, number];
        return w === 2 && item >= 50;
      };
      const asked = await ask(p, 'one', `${p.schema}.stock`, '[2, 50]', '3');
      expect(asked.removes).toBe(true);
      await done(p, 'one', asked.id);
      const wanted = [...source.filter(inside), ...before.filter((row) => !inside(row))].toSorted();
      await waitFor(
        'the range',
        async () =>
          numbers(await at('stock'))
            .toSorted()
            .join() === wanted.join(),
      );

      // Texts sort by the source's collation. Nobody else knows it for sure, so nothing is removed.
      await p.target.run(`update ${place('names')} set v = 'wrong'`);
      await p.target.run(`insert into ${place('names')} values ('dogwood', 'extra')`);
      const texts = await ask(p, 'one', `${p.schema}.names`, 'Birch', 'e');
      expect(texts.removes).toBe(false);
      await done(p, 'one', texts.id);
      const [read] = await p.source.run(`select count(*) from names where name >= 'Birch' and name < 'e'`);
      await waitFor('the names', async () => {
        const found = new Map((await at('names')).map(([name, v]) => [name, v]));
        return found.get('cedar') === 'v' && [...found.values()].filter((v) => v === 'v').length === Number(read![0]);
      });
      expect((await at('names')).some(([name]) => name === 'dogwood')).toBe(true);

      // A bound may be left out.
      await p.target.run(`insert into ${place('days')} values ('2026-02-15', 'extra'), ('2026-01-15', 'extra')`);
      const days = await ask(p, 'one', `${p.schema}.days`, '2026-02-01', undefined);
      await done(p, 'one', days.id);
      await waitFor('the days', async () => (await at('days')).length === 4);
      expect((await at('days')).map(([day]) => day)).toEqual(['2026-01-01', '2026-01-15', '2026-02-01', '2026-03-01']);
      expect(p.failure).toBeUndefined();
      const left = async (): Promise<readonly unknown[]> =>
        await p.target.run(
          to === 'postgres'
            ? `select relname from pg_class where relname like 'seen%' and relkind = 'r'`
            : `select seen_table from waybill.snapshot_range where flow = '${p.flow}'
               union all select seen_table from waybill.snapshot where flow = '${p.flow}'`,
        );
      expect(await left()).toEqual([]);

      // What is cancelled leaves nothing behind and removes nothing, be it a range or the whole table.
      (p.config.sources['one'] as { snapshot_max_rows_per_second?: number }).snapshot_max_rows_per_second = 2;
      const kept = (await at('stock')).length;
      for (const part of ['range', 'whole'] as const) {
        if (part === 'range') await ask(p, 'one', `${p.schema}.stock`, '1', undefined);
        else await requestSnapshot(p.config.nats, 'one', { tables: [`${p.schema}.stock`] });
        await waitFor(`the ${part} to be under way`, async () => (await left()).length === 1);
        await requestSnapshot(p.config.nats, 'one', { cancel: true });
        await waitFor(`the ${part} to be forgotten`, async () => (await left()).length === 0);
      }
      expect((await progressOf(p, 'one')).tables.every(({ state }) => state === 'done')).toBe(true);
      expect(await at('stock')).toHaveLength(kept);
      expect(p.failure).toBeUndefined();
    },
    timeoutMs,
  );
});

describe('a large range', () => {
  const ROWS = 20_000;
  const openLarge = async (): Promise<Pipeline> => {
    const { postgres, nats } = servers;
    const ddl = `create table t (id int primary key, v text);
       insert into t select i, 'v' || i from generate_series(1, ${ROWS}) i; analyze t`;
    const source = { snapshot_chunk_rows: 500, heartbeat: '500ms' };
    const p = servers.closing(await Pipeline.open(postgres, nats, ddl, {}, postgres, source));
    p.start();
    await p.settled(['t']);
    await waitFor('the first load to end', async () =>
      (await progressOf(p, 'wms')).tables.every(({ state }) => state === 'done'),
    );
    return p;
  };
  const underWay = (p: Pipeline): Promise<unknown> =>
    waitFor('the range to be under way', async () => {
      const table = (await progressOf(p, 'wms')).tables.find(({ span }) => span !== undefined);
      return table?.state === 'running' && table.cursor !== null && table;
    });
  /** Makes the reading of the range take long enough to be met in the middle. */
  const slowed = async (p: Pipeline): Promise<void> => {
    await p.stop(['capture']);
    (
      p.config.sources['wms'] as { -readonly [K in keyof PostgresSourceConfig]: PostgresSourceConfig[K] }
    ).snapshot_max_rows_per_second = 4000;
    p.start(['capture']);
  };

  it(
    'goes on where it was after a restart, beside writes, and ends with both sides the same',
    async () => {
      const p = await openLarge();
      await slowed(p);
      await p.target.query(`delete from t where id % 10 = 0; update t set v = 'wrong' where id % 7 = 0;
        insert into t select i, 'extra' from generate_series(${ROWS + 1}, ${ROWS + 500}) i`);
      const { id } = await ask(p, 'wms', 'public.t', '5000', String(ROWS + 400));
      await underWay(p);
      const writing = repeat(async (step) => {
        const n = 1 + ((step * 7919) % ROWS);
        await p.source.query(
          `update t set v = 'new ${step}' where id between ${n} and ${n + 3}; delete from t where id = ${n + 4};
           insert into t values (${ROWS + 100 + (step % 200)}, 'added') on conflict do nothing`,
        );
      });
      await p.stop();
      const stored = (await progressOf(p, 'wms')).tables.find(({ span }) => span !== undefined)!;
      expect(Number(stored.cursor![0])).toBeGreaterThan(5000);
      expect(stored.estimate).toBeGreaterThan(10_000);
      expect(stored.estimate).toBeLessThan(20_000);
      p.start();
      await done(p, 'wms', id);
      await writing.stop();
      const sql = `select string_agg(id || v, ',' order by id) as all from t where id >= 5000 and id < ${ROWS + 400}`;
      const text = async (client: Pipeline['source']): Promise<string> =>
        (await client.query<{ all: string }>(sql)).rows[0]!.all;
      await waitFor('both sides to be the same', async () => (await text(p.source)) === (await text(p.target)));
      const outside = await p.target.query<{ n: number }>(
        `select count(*)::int as n from t where v = 'extra' and id >= ${ROWS + 400}`,
      );
      expect(outside.rows[0]!.n).toBe(101);
      const read = (await progressOf(p, 'wms')).tables.find(({ request }) => request === id)!;
      expect(read.rows).toBeLessThan(ROWS - 4000);
    },
    timeoutMs,
  );

  it(
    'goes on where it was after a kill',
    async () => {
      const p = await openLarge();
      await p.stop(['capture']);
      const folder = await mkdtemp(join(tmpdir(), 'waybill-range-'));
      const configFile = join(folder, 'waybill.yaml');
      await writeFile(configFile, p.yaml);
      const stage = new Stage({ configFile, only: 'capture:wms', logFile: join(folder, 'log'), leaseTtlMs: 1500 });
      try {
        await p.target.query(`delete from t where id % 10 = 0; insert into t values (${ROWS + 1}, 'extra')`);
        const { id } = await ask(p, 'wms', 'public.t', '101', undefined);
        // With its eighth chunk it has read and not yet published.
        stage.start('capture.mid-snapshot:8');
        await waitFor('the kill', async () => !stage.running);
        stage.start();
        await done(p, 'wms', id);
        await waitFor(
          'the range',
          async () => (await p.target.query('select from t where id > 100')).rowCount === ROWS - 100,
        );
        expect((await p.target.query('select from t where id <= 100')).rowCount).toBe(90);
        expect((await p.target.query(`select from t where v = 'extra'`)).rowCount).toBe(0);
      } finally {
        await stage.end('SIGKILL');
        await rm(folder, { recursive: true, force: true });
      }
    },
    timeoutMs,
  );

  it(
    'is cancelled, and then removes nothing',
    async () => {
      const p = await openLarge();
      await slowed(p);
      await p.target.query(`insert into t values (${ROWS + 1}, 'extra')`);
      await ask(p, 'wms', 'public.t', '1', undefined);
      await underWay(p);
      await requestSnapshot(p.config.nats, 'wms', { cancel: true });
      await waitFor('the end', async () => (await progressOf(p, 'wms')).tables.every(({ state }) => state === 'done'));
      await p.source.query(`insert into t values (${ROWS + 2}, 'after')`);
      await waitFor(
        'what comes after',
        async () => (await p.target.query(`select from t where v = 'after'`)).rowCount === 1,
      );
      expect((await p.target.query(`select from t where v = 'extra'`)).rowCount).toBe(1);
      expect((await p.target.query(`select from pg_class where relname like 'seen%'`)).rowCount).toBe(0);
      const { id } = await ask(p, 'wms', 'public.t', '19990', undefined);
      await done(p, 'wms', id);
      await waitFor(
        'the removal',
        async () => (await p.target.query(`select from t where v = 'extra'`)).rowCount === 0,
      );
      expect((await p.target.query('select from t')).rowCount).toBe(ROWS + 1);
    },
    timeoutMs,
  );
});

describe('beside a table that takes long to be read', () => {
  it(
    'others are read that are asked for meanwhile, no request is lost, and whoever waits for one is told what became of it',
    async () => {
      const { postgres, nats } = servers;
      const ddl = `create table big (id int primary key, v text); create table small (id int primary key, v text);
        insert into big select i, 'v' from generate_series(1, 20000) i; insert into small values (1, 'v')`;
      const settings = { snapshot_max_rows_per_second: 100, heartbeat: '500ms' };
      const p = servers.closing(await Pipeline.open(postgres, nats, ddl, {}, postgres, settings));
      const tables = async (): Promise<readonly TableProgress[]> => (await progressOf(p, 'wms')).tables;
      const bigIs = async (): Promise<TableProgress> =>
        (await tables()).find(({ name, keys }) => name === 'big' && keys === undefined)!;
      const about = { nats: p.nats, config: p.config.nats, source: 'wms', schema: 'public' };
      const wait = (id: string): Promise<number> => watchSnapshot(p.config.nats, 'wms', id);
      p.start();
      await waitFor('the large table to be under way', async () => (await bigIs()).rows > 0);
      const { reading } = await bigIs();
      for (const table of ['big', 'small'])
        await rereadRows({ ...about, table, keys: [['1'], ['-1']], signal: AbortSignal.timeout(60_000) });
      await p.source.query(`create table late (id int primary key, v text); insert into late values (1, 'v')`);
      await waitFor('the new table to be read', async () =>
        (await tables()).some(({ name, state }) => name === 'late' && state === 'done'),
      );
      const asked: Promise<number>[] = [];
      for (const name of ['small', 'late'])
        asked.push(wait(await requestSnapshot(p.config.nats, 'wms', { tables: [`public.${name}`] })));
      expect(await Promise.all(asked)).toEqual([EXIT.good, EXIT.good]);
      expect(await bigIs()).toMatchObject({ state: 'running', reading });

      // One that is asked for again is begun again, also for whoever asked before.
      const whole = await requestSnapshot(p.config.nats, 'wms', {});
      const once = await requestSnapshot(p.config.nats, 'wms', { tables: ['public.big'] });
      await waitFor('the large table to begin again', async () => {
        const now = await bigIs();
        return now.reading !== reading && now.rows > 0 && answers(now, whole) && answers(now, once);
      });
      const both = [wait(whole), wait(once)];
      const none = wait(await requestSnapshot(p.config.nats, 'wms', { tables: ['public.nowhere'] }));
      expect(await none).toBe(EXIT.no);
      await watchCancel(p.config.nats, 'wms', await requestSnapshot(p.config.nats, 'wms', { cancel: true }));
      expect(await Promise.all(both)).toEqual([EXIT.no, EXIT.no]);
      expect((await bigIs()).cancelled).toBe(true);

      await p.stop(['capture']);
      (p.config.sources['wms'] as { snapshot_max_rows_per_second?: number }).snapshot_max_rows_per_second = 1_000_000;
      p.start(['capture']);
      expect(await wait(await requestSnapshot(p.config.nats, 'wms', {}))).toBe(EXIT.good);
      await p.settled(['big', 'small', 'late']);
      const reset = await requestSnapshot(p.config.nats, 'wms', { reset: true });
      expect(await wait(reset)).toBe(EXIT.good);
      await p.settled(['big', 'small', 'late']);
      expect(p.failure).toBeUndefined();
    },
    timeoutMs,
  );
});

describe('a range that cannot be', () => {
  const refusals: readonly (readonly [string, string, string | undefined, string | undefined, RegExp])[] = [
    ['a table that is not there', 'TABLE.stok', '1', '2', /no captured table ".*stok" \(did you mean ".*stock"\?\)/],
    ['a table without a key', 'TABLE.log', '1', '2', /has no key.*leave out --from and --to/],
    ['a value of another type', 'TABLE.stock', 'ten', '20', /do not fit the key of .*stock \(id (?:big)?int.*ten/],
    ['a value out of range', 'TABLE.stock', '1', '99999999999999999999', /do not fit the key/],
    ['bounds the wrong way round', 'TABLE.stock', '20', '10', /the first must be the smaller one/],
    ['equal bounds', 'TABLE.stock', '20', '20', /the first must be the smaller one/],
    ['too many values', 'TABLE.stock', '[1, 2]', undefined, /--from has 2 values, and the key of .* has 1 \(id\)/],
    ['a damaged array', 'TABLE.stock', '[1', undefined, /begins like a JSON array and is none/],
    ['a number that JSON rounds', 'TABLE.stock', '[12345678901234567890]', undefined, /put it into quotes/],
    ['texts the wrong way round for the collation', 'TABLE.names', 'b', 'A', /the first must be the smaller one/],
    ['no date', 'TABLE.days', '2026-02-30', undefined, /do not fit the key of .*days \(day date\)/],
    ['a key that is hashed', 'TABLE.secrets', 'a', 'b', /must not leave the source; read the whole table/],
  ];
  describe.each(['postgres', 'mysql'] as const)('on %s', (dialect) => {
    let p: CrossPipeline;
    beforeAll(async () => {
      p = await servers.openPipeline(dialect, 'postgres');
      await p.source.run(`create table stock (id bigint primary key); create table log (v varchar(20));
        create table names (name varchar(20) primary key); create table days (day date primary key);
        create table secrets (k varchar(20) primary key)`);
    }, timeoutMs);
    afterAll(async () => await p?.close());

    it.each(refusals)('is refused: %s', async (_, table, from, to, message) => {
      const settings = {
        ...p.config.sources['one']!,
        columns: { hash: { columns: [`${p.schema}.secrets.k`], salt: 'a salt of some length' } },
      } as unknown as CrossPipeline['config']['sources'][string];
      const asked = checkedSpan(settings, table.replace('TABLE', p.schema), { from, to });
      await expect(asked).rejects.toMatchObject({
        code: 'config_invalid',
        message: expect.stringMatching(message) as string,
      });
    });
  });

  it.each(['mysql', 'mariadb'] as const)(
    'is refused on %s: a year of two digits, which it reads as a later one',
    async (dialect) => {
      const p = await servers.pipeline(dialect, 'postgres');
      await p.source.run('create table years (y year primary key); insert into years values (1950), (1980)');
      expect(await p.source.run('select y + 0 from years where y >= 70')).toHaveLength(1);
      const asked = (from: string): Promise<{ removes: boolean }> =>
        checkedSpan(p.config.sources['one']!, `${p.schema}.years`, { from, to: undefined });
      for (const year of ['70', '0070']) await expect(asked(year)).rejects.toMatchObject({ code: 'config_invalid' });
      await expect(asked('1970')).resolves.toMatchObject({ removes: true });
    },
    timeoutMs,
  );
});
