import { execFile } from 'node:child_process';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { SpoolFile } from '../../capture/postgres/spool-file.ts';
import { SpoolSwitch } from '../../capture/postgres/spool-switch.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { timeoutMs } from '../support/postgres-source.ts';
import { writeAtRandom } from '../support/random-sessions.ts';
import { StreamedPair } from '../support/streamed-pair.ts';

const disposables: { dispose(): Promise<void> }[] = [];
const pairs: StreamedPair[] = [];
const clients: pg.Client[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) await client.end().catch(() => {});
  for (const pair of pairs.splice(0)) await pair.close();
}, timeoutMs);
afterAll(async () => {
  await Promise.all(disposables.splice(0).map((server) => server.dispose()));
}, timeoutMs);

/** The most bytes that a file of this process may have: what a full disk refuses, without being root. */
async function limitFiles(bytes: string): Promise<void> {
  await promisify(execFile)('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);
}

let nats: NatsServer;
beforeAll(async () => {
  nats = await startNats();
  disposables.push(nats);
}, timeoutMs);

describe.each([15, 18] as const)('transactions in progress of PostgreSQL %i', (version) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { max_prepared_transactions: '10' } });
    disposables.push(server);
  }, timeoutMs);

  async function open(name: string, ddl: string, settings: Record<string, unknown> = {}): Promise<StreamedPair> {
    const pair = await StreamedPair.open(server, nats, `${name}${version}`, settings);
    pairs.push(pair);
    await pair.plain.query(ddl);
    return pair;
  }
  async function connect(pair: StreamedPair): Promise<(sql: string) => Promise<unknown>> {
    const client = new pg.Client(pair.plain.url);
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    return async (sql) => await client.query(sql);
  }
  const fill = (table: string, from: number, to: number): string =>
    `insert into ${table} select i, repeat('x', 50) || i from generate_series(${from}, ${to}) i`;

  it('come as they do when they are received at their commit', async () => {
    const pair = await open('order', 'create table t (id int primary key, v text); create table u (id int, v text)');
    await pair.plain.query('alter table u replica identity full');
    const from = await pair.start(2);
    const [a, b, c] = [await connect(pair), await connect(pair), await connect(pair)];
    // Two large ones in turns, small ones between them, and one that is rolled back.
    for (const run of [a, b, c]) await run('begin');
    for (let round = 0; round < 4; round++) {
      await a(fill('t', round * 1000, round * 1000 + 999));
      await b(fill('u', round * 1000, round * 1000 + 999));
      await c(fill('t', 100_000 + round * 1000, 100_000 + round * 1000 + 999));
      await pair.plain.query(`insert into t values (${200_000 + round}, 'small')`);
    }
    await pair.decoded();
    await c('rollback');
    await b(`update u set v = v || 'more' where id % 3 = 0`);
    await b('commit');
    await a('update t set id = -id - 1 where id < 1500');
    await a('commit');
    await a('begin');
    await a('truncate u');
    await a(fill('u', 0, 3000));
    await a('commit');
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([1, 1, 1, 1, 4000 + 1334, 4000 + 1500, 3002]);
    await pair.sentInBlocks(4);
    expect(pair.streamed.givenUp).toEqual([]);
    for (const table of ['t', 'u'])
      expect(await pair.streamed.folded('public', table)).toEqual(await pair.plain.table('public', table));
  });

  it('come the same whatever sessions do side by side', async () => {
    const seed = Number(process.env['WAYBILL_STREAMING_SEED'] ?? Math.floor(Math.random() * 1e6));
    process.stdout.write(`streaming: seed ${seed}\n`);
    const pair = await open('random', 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    const log = await writeAtRandom(pair.plain.url, createRandom(seed), 4, 150);
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed, `seed ${seed}\n${log.join('\n')}`).toEqual(plain);
    expect(await pair.streamed.folded('public', 't')).toEqual(await pair.plain.table('public', 't'));
    await pair.sentInBlocks(1);
    expect(pair.streamed.givenUp).toEqual([]);
  });

  it('lack what was rolled back to a savepoint', async () => {
    const pair = await open('savepoints', 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    const run = await connect(pair);
    await run('begin');
    await run(fill('t', 0, 999));
    await run('savepoint kept');
    await run(fill('t', 1000, 1999));
    await run('savepoint in_it');
    await run(fill('t', 2000, 2999));
    await pair.decoded();
    await run('rollback to in_it');
    await run(fill('t', 2000, 2009));
    await run('release kept');
    await run('savepoint around');
    await run('savepoint released');
    await run(fill('t', 3000, 3999));
    await run('release released');
    await run(fill('t', 4000, 4999));
    await pair.decoded();
    await run('rollback to around');
    // Many small ones, of which every third is rolled back.
    await run(`do $$ begin for i in 5000..7999 loop begin
      insert into t values (i, repeat('y', 60)); if i % 3 = 0 then raise exception 'no'; end if;
      exception when raise_exception then null; end; end loop; end $$`);
    await run('commit');
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([2010 + 2000]);
    await pair.sentInBlocks(1);
    expect(await pair.streamed.folded('public', 't')).toEqual(await pair.plain.table('public', 't'));
  });

  it('bring changed definitions at their place, and not those that were rolled back', async () => {
    const pair = await open('ddl', 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    const [a, b] = [await connect(pair), await connect(pair)];
    await a('begin');
    await a(fill('t', 0, 1999));
    await a('alter table t add column kept int');
    await a(`update t set kept = id where id < 1000`);
    await a('savepoint gone');
    await a('alter table t add column gone text');
    await a(`update t set gone = repeat('z', 50) where id < 1000`);
    await pair.decoded();
    await a('rollback to gone');
    await a(`insert into t select i, 'again', i from generate_series(2000, 3999) i`);
    await a('commit');
    await b('begin');
    await b('alter table t add column never int');
    await b('update t set never = 1');
    await pair.decoded();
    await b('rollback');
    await b(`insert into t values (5000, 'small', 1)`);
    await b('begin');
    await b('alter table t alter column kept type bigint');
    await b(`insert into t select i, repeat('w', 50), 5000000000 from generate_series(6000, 7999) i`);
    await b('commit');
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([5000, 1, 2000]);
    await pair.sentInBlocks(3);
    expect(pair.streamed.givenUp).toEqual([]);
  });

  it('are received at their commit where the server fails to send them before', async () => {
    const pair = await open('server_fails', 'create table t (id int primary key, v text)');
    // PostgreSQL 18 needs smaller blocks for it.
    if (version === 18)
      await pair.plain.query(`alter database server_fails18 set debug_logical_replication_streaming = 'immediate'`);
    const from = await pair.start(1);
    const upsert = (first: number): string => `${fill('t', first, first + 999)} on conflict (id) do update set v = 'x'`;
    await pair.streamed.stop();
    // "could not map filenode": of what was written to a new file of a table and rolled back, a definition changes later.
    await pair.plain.query(
      `begin; ${upsert(0)}; savepoint s; truncate t; ${upsert(10_000)}; rollback to s; ${upsert(20_000)};
       alter table t add column more date; commit`,
    );
    pair.streamed.start();
    await pair.caughtUp();
    await pair.plain.query(fill('t (id, v)', 30_000, 30_999));
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([2000, 1000]);
    expect(pair.streamed.givenUp.at(-1)).toBe('source_query');
    expect(pair.streamed.states.filter((state) => /source_query/.test(state))).toEqual([]);
  });

  it('pass beside a snapshot', async () => {
    const pair = await open('chunks', 'create table t (id int primary key, v text)', { snapshot_chunk_rows: 500 });
    await pair.plain.query(fill('t', 0, 19_999));
    const [a, b] = [await connect(pair), await connect(pair)];
    await a('begin');
    await a(`update t set v = 'a' where id % 2 = 0`);
    pair.streamed.start();
    await pair.streamed.wait('the slot', async () => {
      const waiting = await pair.plain.query(`select 1 from pg_locks where not granted and locktype = 'transactionid'`);
      return waiting.length > 0;
    });
    await a('commit');
    for (let round = 0; round < 5; round++) {
      await b('begin');
      await b(`update t set v = repeat('b', 40) || '${round}' where id % 5 = ${round}`);
      await b(`delete from t where id % 100 = ${round}`);
      await b('commit');
    }
    await pair.streamed.loaded(1);
    await pair.streamed.caughtUp();
    await pair.sentInBlocks(1);
    expect(await pair.streamed.folded('public', 't')).toEqual(await pair.plain.table('public', 't'));
  });

  it('are received at their commit where they outgrow the budget, and while that cannot be kept', async () => {
    const pair = await open('budget', 'create table t (id int primary key, v text)', { spool_bytes: '1MB' });
    const from = await pair.start(1);
    const [a, b] = [await connect(pair), await connect(pair)];
    for (const run of [a, b]) await run('begin');
    await a(fill('t', 0, 2999));
    await b(fill('t', 10_000, 29_999));
    await pair.streamed.wait('the budget to be exceeded', async () => pair.streamed.givenUp.length > 0);
    await pair.plain.query(`insert into t values (200000, 'small')`);
    await a('commit');
    await b('commit');
    await a(`begin; ${fill('t', 40_000, 43_000)}; commit`);
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([1, 3000, 20_000, 3001]);
    expect(pair.streamed.givenUp).toEqual(['spool_full']);
    expect(pair.streamed.states.filter((state) => state.startsWith('blocked'))).toEqual([]);
  });

  it('are kept again some time after one could not be', async () => {
    const pair = await open('back_on', 'create table t (id int primary key, v text)', { spool_bytes: '200KB' });
    const from = await pair.start(1);
    await pair.streamed.stop();
    pair.streamed.start('test', new SpoolSwitch({ streaming: 'on' }, 700));
    const run = await connect(pair);
    await run(fill('t', 0, 9999));
    await pair.streamed.wait('the budget to be exceeded', async () => pair.streamed.givenUp.length > 0);
    await pair.caughtUp();
    const before = await pair.blocks();
    // Large enough to be sent in blocks, small enough to be kept.
    let first = 10_000;
    await pair.streamed.wait('another one to be kept', async () => {
      await run(fill('t', first, (first += 1000) - 1));
      return (await pair.blocks()) > before;
    });
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect([...new Set(pair.streamed.givenUp)]).toEqual(['spool_full']);
  });

  it('are received at their commit where the spool cannot be written', async () => {
    const pair = await open('folder', 'create table t (id int primary key, v text)', { spool_dir: '/dev/null/spool' });
    const from = await pair.start(1);
    await pair.plain.query(fill('t', 0, 2999));
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([3000]);
    expect(pair.streamed.givenUp).toEqual(['spool_failed']);
  });

  it('are received at their commit where files have no more room, and kept again once they have', async () => {
    const pair = await open('full', 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    await pair.streamed.stop();
    const ignored = (): void => {};
    process.on('SIGXFSZ', ignored);
    try {
      await limitFiles('1048576');
      const file = new SpoolFile(tmpdir());
      const full = {
        code: 'spool_full',
        message: expect.stringContaining(`in ${tmpdir()}: EFBIG`) as string,
        remedy: expect.stringContaining('free disk') as string,
      };
      await expect(file.write(Buffer.alloc(2 << 20))).rejects.toMatchObject(full);
      await file.close();
      pair.streamed.start('test', new SpoolSwitch({ streaming: 'on' }, 700));
      await pair.plain.query(fill('t', 0, 29_999));
      await pair.streamed.wait('the end of the room', async () => pair.streamed.givenUp.length > 0);
      await pair.caughtUp();
    } finally {
      await limitFiles('unlimited');
      process.off('SIGXFSZ', ignored);
    }
    const [before, givenUp] = [await pair.blocks(), pair.streamed.givenUp.length];
    let first = 30_000;
    await pair.streamed.wait('another one to be kept', async () => {
      await pair.plain.query(fill('t', first, (first += 30_000) - 1));
      return (await pair.blocks()) > before;
    });
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect([...new Set(pair.streamed.givenUp)]).toEqual(['spool_full']);
    expect(pair.streamed.givenUp, 'with room it is kept').toHaveLength(givenUp);
    expect(pair.streamed.states.filter((state) => state.startsWith('blocked'))).toEqual([]);
  });

  it('are received at their commit where they hold messages: one of a savepoint that was rolled back never comes', async () => {
    const pair = await open('messages', 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    const run = await connect(pair);
    await run('begin');
    await run(fill('t', 0, 1999));
    await run('savepoint s');
    await run(`select pg_logical_emit_message(true, 'app', 'rolled back')`);
    await run(fill('t', 3000, 4999));
    await pair.decoded();
    await run('rollback to s');
    await run(`select pg_logical_emit_message(true, 'app', 'committed')`);
    await run(fill('t', 2000, 2999));
    await run('commit');
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([3000]);
    for (const [index, source] of pair.both.entries()) {
      const rows = (await source.frames(from[index])).flatMap(({ payload }) => payload.rows);
      const contents = rows.flatMap(([op, , after]) => (op === 'm' && after?.[0] === 'app' ? [after[1]] : []));
      expect(contents).toEqual([Buffer.from('committed').toString('base64')]);
    }
    expect(pair.streamed.givenUp).toEqual(['spool_unsuited']);
  });

  it.each(['with', 'without'] as const)('may be prepared, %s a restart in between', async (restart) => {
    const pair = await open(`two_phase_${restart}`, 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    const [a, b, c] = [await connect(pair), await connect(pair), await connect(pair)];
    for (const [run, first] of [
      [a, 0],
      [b, 10_000],
      [c, 20_000],
    ] as const) {
      await run('begin');
      await run(fill('t', first, first + 1999));
      await run('savepoint s');
      await run(fill('t', first + 2000, first + 3999));
      await run('rollback to s');
      await run(fill('t', first + 2000, first + 2099));
    }
    await a(`prepare transaction 'kept ${version} ${restart}'`);
    await b(`prepare transaction 'dropped ${version} ${restart}'`);
    await c(`prepare transaction 'kept too ${version} ${restart}'`);
    await pair.plain.query(`insert into t values (50000, 'between')`);
    await pair.caughtUp();
    expect((await pair.transactions(from)).map((all) => all.map(({ rows }) => rows.length))).toEqual([[1], [1]]);
    if (restart === 'with') {
      for (const source of pair.both) await source.stop();
      await pair.plain.query(`commit prepared 'kept too ${version} ${restart}'`);
      for (const source of pair.both) source.start();
    } else await pair.plain.query(`commit prepared 'kept too ${version} ${restart}'`);
    await pair.plain.query(`rollback prepared 'dropped ${version} ${restart}'`);
    await pair.plain.query(`commit prepared 'kept ${version} ${restart}'`);
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([1, 2100, 2100]);
    await pair.sentInBlocks(3);
    expect(await pair.streamed.folded('public', 't')).toEqual(await pair.plain.table('public', 't'));
  });

  it('are kept again by a capture that is stopped while it receives one', async () => {
    const pair = await open('restart', 'create table t (id int primary key, v text)');
    const from = await pair.start(1);
    const run = await connect(pair);
    await run('begin');
    await run(fill('t', 0, 4999));
    await pair.sentInBlocks(1);
    await pair.streamed.stop();
    pair.streamed.start();
    await run(fill('t', 5000, 9999));
    await run('commit');
    await pair.caughtUp();
    const [plain, streamed] = await pair.transactions(from);
    expect(streamed).toEqual(plain);
    expect(plain.map(({ rows }) => rows.length)).toEqual([10_000]);
  });
});
