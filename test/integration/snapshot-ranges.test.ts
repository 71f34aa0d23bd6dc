/** Snapshots of large tables: in ranges of their keys, through restarts, beside writes; their progress and their limit. */
import { KvWatchInclude } from '@nats-io/kv';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readTables } from '../../capture/postgres/read-tables.ts';
import { ChunkWindows } from '../../capture/postgres/chunk-windows.ts';
import { connectSource } from '../../capture/postgres/connection.ts';
import { CopyRows } from '../../capture/postgres/copy-lines.ts';
import { DDL_PREFIX } from '../../capture/postgres/log-marks.ts';
import { waitForOlderTransactions } from '../../capture/postgres/older-transactions.ts';
import { publishTable } from '../../capture/postgres/published-table.ts';
import { readProgress, type TableProgress } from '../../capture/snapshot-request.ts';
import { AppliedTeller } from '../../core/applied.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { markPrefix } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { PgSnapshot, SNAPSHOT_SQL, UNDER_WAY_SQL } from '../../core/pg-snapshot.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { changesOf, configFor, log, repeat, Source, timeoutMs, type Place } from '../support/postgres-source.ts';
import { NobodyStandby } from '../support/nobody-standby.ts';
import { SnapshotByHand } from '../support/snapshot-by-hand.ts';
import { waitFor } from '../support/wait.ts';

const ROWS = 160_000;

let nats: NatsServer;
let server: PostgresServer;
const sources: Source[] = [];

beforeAll(async () => {
  [nats, server] = await Promise.all([startNats(), startPostgres()]);
}, timeoutMs);
afterAll(async () => {
  for (const source of sources) await source.close();
  await Promise.all([nats?.dispose(), server?.dispose()]);
}, timeoutMs);

async function open(name: string, yaml: Record<string, unknown>): Promise<Source> {
  const source = await Source.open(name, await server.createDatabase(name), nats, yaml);
  sources.push(source);
  return source;
}

async function tablesOf(source: Source): Promise<readonly TableProgress[]> {
  const progress = await readProgress(await openBucket(source.nats, source.config), source.name);
  return progress?.tables ?? [];
}

describe('a snapshot of a large table', () => {
  it(
    'reads ranges of its keys at once, goes on in each after a restart, and takes what is written meanwhile',
    async () => {
      const s = await open('ranges', { snapshot_chunk_rows: 1500, snapshot_max_rows_per_second: 60_000 });
      await s.query('create table t (region text, n int, v text, primary key (region, n))');
      await s.query(`insert into t select 'r' || i % 7, i, 'old' from generate_series(1, ${ROWS}) i`);
      await s.query('analyze t');
      s.start();
      // Making a slot waits for transactions that are under way, one after the other.
      await s.wait('the snapshot', async () => s.states.some((state) => state.startsWith('snapshot')));
      const writer = await connectSource(s.settings, 'writer');
      // Rows come, change, go, and move from one range into another.
      const writing = repeat(async (step) => {
        const n = 1 + ((step * 7919) % ROWS);
        await writer.query(
          `begin; update t set v = 'new ${step}' where n between ${n} and ${n + 3}; delete from t where n = ${n + 4};
           update t set region = 'r' || ${step % 9} where n = ${n + 5};
           insert into t values ('r${step % 8}', ${ROWS + step}, 'added'); commit`,
        );
      });
      const ranges = await s.wait('two ranges to be under way', async () => {
        const found = (await tablesOf(s))[0]?.ranges ?? [];
        return found.length >= 2 && found.every(({ cursor, done }) => done === true || cursor !== null) && found;
      });
      const connections = await s.query(
        `select count(*) from pg_stat_activity where datname = 'ranges' and application_name like '%load%'`,
      );
      expect(Number(connections[0]![0])).toBeGreaterThanOrEqual(2);
      await s.stop();
      const stored = (await tablesOf(s))[0]!;
      // What was on its way is left as ranges of its own; the bounds of the sample stay.
      const bounds = stored.ranges!.map(({ upTo }) => JSON.stringify(upTo));
      expect(bounds).toEqual(expect.arrayContaining(ranges.slice(1).map(({ upTo }) => JSON.stringify(upTo))));
      expect(stored.ranges!.at(-1)!.upTo).toBeNull();
      s.start('again');
      await s.wait('the table to be read', async () => (await tablesOf(s)).every(({ state }) => state === 'done'));
      expect(await writing.stop()).toBeGreaterThan(10);
      await writer.end();
      await s.caughtUp();
      const [folded, table] = [await s.folded('public', 't'), await s.table('public', 't')];
      expect(folded.length).toBe(table.length);
      expect(folded.join('\n') === table.join('\n')).toBe(true);
      expect(s.states.some((state) => /0 of 1 table, [\d,]+ of about 1\d\d,\d\d\d rows \(\d+ %\)/.test(state))).toBe(
        true,
      );
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'does not run ahead of a flow that applies the stream, and shows which one it keeps to',
    async () => {
      const s = await open('paced', {});
      await s.query('create table t (id int primary key, v text)');
      await s.query(`insert into t select i, repeat(md5(i::text), 10) from generate_series(1, 20000) i`);
      const flow = new AppliedTeller(s.nats, s.config.prefix, s.stream, 'slow');
      // It writes 2 MB in a second, and stands still.
      let [seq, bytes] = [0, 20_000];
      const telling = repeat(async () => {
        flow.wrote(bytes, 10, seq);
        await s.nats.connection.flush();
      });
      s.start();
      const keepsTo = (): boolean => s.states.at(-1)!.endsWith('; at the pace of slow');
      await s.wait('the snapshot to keep to the flow', async () => keepsTo());
      const { state } = await s.nats.manager.streams.info(s.stream);
      // The table is more than 6 MB.
      expect(state.bytes).toBeLessThan(3 << 20);
      expect((await tablesOf(s))[0]!.state).not.toBe('done');
      // From now on it is as fast as the capture.
      bytes *= 1000;
      await s.wait('the table to be read', async () => {
        ({ seq } = await s.tail());
        return (await tablesOf(s))[0]!.state === 'done';
      });
      await telling.stop();
      await s.caughtUp();
      expect(await s.folded('public', 't')).toEqual(await s.table('public', 't'));
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'keeps to a limit of rows a second',
    async () => {
      const s = await open('limited', { snapshot_max_rows_per_second: 500 });
      for (const name of ['a', 'b']) {
        await s.query(`create table ${name} (id int primary key)`);
        await s.query(`insert into ${name} select generate_series(1, 600)`);
      }
      const startedMs = performance.now();
      s.start();
      await s.loaded(2);
      // 1,200 rows; the last ones read are not waited for.
      expect(performance.now() - startedMs).toBeGreaterThan(1000);
      for (const name of ['a', 'b']) expect(await s.folded('public', name)).toEqual(await s.table('public', name));
      await s.stop();
    },
    timeoutMs,
  );
});

describe('a snapshot of small tables', () => {
  it(
    'reads several between one pair of watermarks, whatever they hold and whatever is written meanwhile',
    async () => {
      const s = await open('small', {});
      const TABLES = 24;
      for (let i = 0; i < TABLES; i++) {
        const key = i % 7 === 3 ? '' : ' primary key';
        const bytes = i % 5 === 0 ? 'bytea' : 'text';
        await s.query(`create table t${i} (id int${key}, v ${bytes})`);
        if (key === '') await s.query(`alter table t${i} replica identity full`);
        await s.query(
          `insert into t${i} select g, repeat('x', g)::${bytes} from generate_series(1, ${(i % 6) * 20}) g`,
        );
      }
      // The catalog takes it for empty: it has more rows than are read of such a table at once.
      await s.query('create table grown (id int primary key, v text)');
      await s.query('analyze');
      await s.query(`insert into grown select g, 'v' from generate_series(1, 5000) g`);
      const writer = await connectSource(s.settings, 'writer');
      const writing = repeat(async (step) => {
        const [a, b] = [step % TABLES, (step * 7) % TABLES];
        await writer.query(
          `begin; insert into t${a} values (${1000 + step}, 'new'); update t${b} set v = 'changed' where id = ${1 + (step % 100)};
           delete from t${b} where id = ${2 + (step % 100)}; update grown set v = '${step}' where id = ${1 + ((step * 37) % 5000)};
           ${step % 50 === 49 ? `truncate t${a};` : ''} commit`,
        );
      });
      s.start();
      await s.loaded(TABLES + 1);
      await writing.stop();
      await writer.end();
      await s.caughtUp();
      const marks = await readings(s);
      for (let i = 0; i < TABLES; i++)
        expect([i, await s.folded('public', `t${i}`)]).toEqual([i, await s.table('public', `t${i}`)]);
      expect(await s.folded('public', 'grown')).toEqual(await s.table('public', 'grown'));
      // Each table begins and ends, and many in the same transaction.
      expect(marks.begun.size).toBe(TABLES + 1);
      expect([...marks.ended].sort()).toEqual([...marks.begun].sort());
      expect(marks.transactions).toBeLessThan(TABLES / 2);
      await s.stop();
    },
    timeoutMs,
  );

  it(
    'reads them one by one where one of them changes its shape meanwhile, and another goes',
    async () => {
      const s = await open('altered', {});
      for (let i = 0; i < 8; i++) await s.query(`create table t${i} (id int primary key, v text)`);
      for (let i = 0; i < 8; i++) await s.query(`insert into t${i} select g, 'v' from generate_series(1, 50) g`);
      await s.query('analyze');
      // Chunks wait for the lock, and find another table behind it.
      const other = await connectSource(s.settings, 'other');
      await other.query('begin; alter table t3 drop column v; alter table t3 add w int default 7; drop table t5');
      s.start();
      await s.wait('a chunk to wait', async () => {
        const [waiting] = await s.query(
          `select count(*) from pg_locks where not granted and relation = 't3'::regclass`,
        );
        return Number(waiting![0]) > 0;
      });
      await other.query('commit');
      await other.end();
      await s.loaded(7);
      await s.wait('all to be done', async () => (await tablesOf(s)).every(({ state }) => state === 'done'));
      await s.caughtUp();
      for (const i of [0, 1, 2, 3, 4, 6, 7])
        expect(await s.folded('public', `t${i}`)).toEqual(await s.table('public', `t${i}`));
      await s.stop();
    },
    timeoutMs,
  );
});

function entry(name: string, more: Partial<TableProgress> = {}): TableProgress {
  return { schema: 'public', name, state: 'pending', cursor: null, rows: 0, ...more };
}

describe('the order in which tables are read', () => {
  it(
    'is that of their sizes, those of partitions counted and those that nobody analysed measured',
    async () => {
      const url = await server.createDatabase('sizes');
      const other = await connectSource(configFor('other', url, nats.url).settings, 'other');
      await other.query(`create table p (id int primary key) partition by range (id);
        create table p1 partition of p for values from (0) to (20000);
        create table p2 partition of p for values from (20000) to (40000);
        insert into p select generate_series(0, 39999);
        create table b (id int primary key); insert into b select generate_series(1, 30000); analyze;
        create table a (id int primary key); insert into a select generate_series(1, 10)`);
      const s = await SnapshotByHand.start(url, [entry('p'), entry('b'), entry('a')], {
        readers: 1,
        chunkRows: 100_000,
      });
      for (let read = 0; s.progress.tables.some(({ state }) => state !== 'done');) {
        const { id, keys } = await s.nextChunk();
        read += keys.length;
        s.decide(id, 'kept');
        if (read === 70_010) break;
      }
      await s.ended;
      const oids = (await s.marks()).flatMap((mark) => (mark.k === 'begin' ? [mark.oid] : []));
      const names = await other.query<{ name: string }>(
        'select o.oid::regclass::text as name from unnest($1::oid[]) with ordinality o(oid, n) order by n',
        [oids],
      );
      expect(names.rows.map(({ name }) => name)).toEqual(['a', 'b', 'p']);
      await s.close();
      await other.end();
    },
    timeoutMs,
  );
});

describe('a table that was dropped and made again while nothing ran', () => {
  it(
    'is asked to be read before it counts as known',
    async () => {
      const s = await open('recreated', {});
      await s.query('create table t (id int primary key); insert into t values (1), (2)');
      s.start();
      await s.loaded(1);
      await s.stop();
      await s.query('drop table t');
      await s.query('create table t (id int primary key); insert into t values (2), (3)');
      const bucket = await openBucket(s.nats, s.config);
      const updates = await bucket.watch({
        key: [`snapshot.${s.name}`, `table.${s.name}.*`],
        include: KvWatchInclude.UpdatesOnly,
      });
      s.start();
      for await (const { key } of updates) {
        expect(key).toBe(`snapshot.${s.name}`);
        break;
      }
      await s.wait('the new rows', async () => {
        const rows = await s.folded('public', 't');
        return JSON.stringify(rows) === JSON.stringify(await s.table('public', 't'));
      });
      await s.stop();
    },
    timeoutMs,
  );
});

describe('messages that others write into the log', () => {
  it(
    'are passed over where they are no marks, and a table that is there is not gone',
    async () => {
      const s = await open('forged', {});
      await s.query('create table t (id int primary key); insert into t values (1)');
      s.start();
      await s.loaded(1);
      const from = await s.caughtUp();
      const write = async (prefix: string, content: string): Promise<void> => {
        await s.query('select pg_logical_emit_message(true, $1, $2::text)', [prefix, content]);
      };
      const prefix = markPrefix(s.name, s.settings, s.config.prefix);
      const [[oid]] = (await s.query(`select 't'::regclass::oid::int8`)) as [[string]];
      for (const content of ['x', '[]', 'null', '{"k":"toString","oid":1}', `{"k":"table","oid":${oid},"row":{}}`])
        for (const each of [DDL_PREFIX, prefix]) await write(each, content);
      await write(DDL_PREFIX, `{"k":"end","oid":${oid},"id":"x"}`);
      await write(DDL_PREFIX, `{"k":"gone","oid":${oid},"why":"somebody said so"}`);
      await s.query('insert into t values (2)');
      await s.wait('the table to be read again', async () => (await marksOf(s, from)).includes('end'));
      await s.caughtUp();
      expect(await marksOf(s, from)).toEqual(['begin', 'end']);
      expect(await s.folded('public', 't')).toEqual(['["1"]', '["2"]']);
      await s.stop();
    },
    timeoutMs,
  );
});

/** What a stream says of tables behind a place. */
async function marksOf(s: Source, from: Place): Promise<unknown[]> {
  return changesOf(await s.frames(from)).flatMap(({ row }) => (row[0] === 's' ? [row[2]?.[1]] : []));
}

describe('a type of a key that is renamed while its table is read', () => {
  it(
    'has the table read on under the new name of the type',
    async () => {
      const s = await open('renamed_type', { snapshot_chunk_rows: 100, snapshot_max_rows_per_second: 400 });
      await s.query('create domain code as int; create table t (id code primary key)');
      await s.query('insert into t select generate_series(1, 1000)');
      s.start();
      await s.wait('rows to be read', async () => (await tablesOf(s)).some(({ cursor }) => cursor !== null));
      await s.query('alter domain code rename to number_of');
      await s.loaded(1);
      expect(await s.folded('public', 't')).toEqual(await s.table('public', 't'));
      expect(s.states.filter((state) => state.includes('slot_missing'))).toEqual([]);
      await s.stop();
    },
    timeoutMs,
  );
});

describe('a table that is not read to its end', () => {
  it(
    'is not said to be, where the snapshot is stopped in one range while the last chunk of another is read',
    async () => {
      const url = await server.createDatabase('stopped_range');
      const other = await connectSource(configFor('other', url, nats.url).settings, 'other');
      await other.query('create table t as select generate_series(1, 10) id; alter table t add primary key (id)');
      await other.query('create table u as select 100 id; alter table u add primary key (id)');
      const ranges = [
        { cursor: null, upTo: ['5'] },
        { cursor: ['5'], upTo: null },
      ];
      const s = await SnapshotByHand.start(url, [entry('t', { state: 'running', ranges }), entry('u')]);
      const chunks = new Map<string, { id: string; end: string | undefined }>();
      const until = async (first: string): Promise<void> => {
        while (!chunks.has(first)) {
          const { keys, ...chunk } = await s.nextChunk();
          if (keys[0] === '100') s.decide(chunk.id, 'kept');
          else chunks.set(keys[0]!, chunk);
        }
      };
      await until('1');
      await until('6');
      await other.query('begin; lock table t in access exclusive mode');
      s.decide(chunks.get('6')!.id, 'again');
      await waitFor('the second range to be read again', async () => {
        const { rows } = await other.query(`select from pg_locks where not granted and relation = 't'::regclass`);
        return rows.length > 0;
      });
      s.cancelled = true;
      s.decide(chunks.get('1')!.id, 'again');
      await waitFor('the first range to be left', async () => (await s.connections()) === 1);
      chunks.delete('6');
      await other.query('commit');
      await until('6');
      expect(chunks.get('6')!.end).toBeUndefined();
      s.decide(chunks.get('6')!.id, 'kept');
      await s.ended;
      expect((await s.marks()).filter(({ k }) => k === 'end')).toEqual([]);
      expect(s.progress.tables[0]!.state).toBe('running');
      await s.close();
      await other.end();
    },
    timeoutMs,
  );

  it(
    'is not said to be, where what is left of a small one is not read any more',
    async () => {
      const url = await server.createDatabase('left_of_small');
      const other = await connectSource(configFor('other', url, nats.url).settings, 'other');
      // The catalog takes it for smaller than a chunk.
      await other.query('create table t (id int primary key); create table u (id int primary key); analyze');
      await other.query('insert into t select generate_series(1, 1500)');
      const s = await SnapshotByHand.start(url, [entry('t'), entry('u')]);
      const chunks = [await s.nextChunk(), await s.nextChunk(), await s.nextChunk()];
      const small = chunks.find(({ keys }) => keys[0] === '1')!;
      const rest = chunks.find(({ keys }) => keys[0] === '1001')!;
      expect([small.end, rest.end]).toEqual([undefined, undefined]);
      const [t] = s.progress.tables;
      const left = s.supersede(t!);
      s.decide(rest.id, 'again');
      await left;
      for (const { id } of chunks) if (id !== rest.id) s.decide(id, 'kept');
      await s.ended;
      expect((await s.marks()).filter(({ k }) => k === 'end')).toEqual([]);
      expect(t!.state).toBe('running');
      await s.close();
      await other.end();
    },
    timeoutMs,
  );
});

describe('a transaction that waits for a synchronous standby, newer than all that have ended', () => {
  it(
    'is waited for before the first chunk, and has a chunk read again that does not see what the log has',
    async () => {
      const url = await server.createDatabase('standby');
      const { settings } = configFor('standby', url, nats.url);
      const [client, marker] = [await connectSource(settings, 'test'), await connectSource(settings, 'marks')];
      await client.query(`create table t (id int primary key, v text); insert into t values (1, 'old')`);
      const table = publishTable((await readTables(client, () => true)).tables[0]!, ColumnRules.compile(undefined));
      const windows = new ChunkWindows();
      const chunk = async (): Promise<ReturnType<ChunkWindows['close']>> => {
        const { rows } = await client.query<{ snapshot: string }>(SNAPSHOT_SQL);
        const read = { table, rows: new CopyRows(table), unseen: PgSnapshot.parse(rows[0]!.snapshot) };
        return windows.close('chunk', read, table);
      };
      // The low watermark's has the id before it, and ends behind it.
      await marker.query('begin; select pg_current_xact_id()');
      const standby = await NobodyStandby.name(url);
      try {
        await standby.commit(`update t set v = 'new'`);
        await marker.query('commit');
        const { rows } = await client.query<{ xid: string }>(UNDER_WAY_SQL);
        expect(rows).toHaveLength(1);
        const committed = [Number(rows[0]!.xid)];
        windows.open('chunk', table.oid, committed);
        expect(await chunk()).toBeUndefined();
        let goesOn = false;
        const waited = waitForOlderTransactions(client, log, new AbortController().signal).finally(
          () => (goesOn = true),
        );
        // Answered behind its questions.
        for (let i = 0; i < 3; i++) await client.query('select 1');
        expect(goesOn).toBe(false);
        await standby.release();
        await waited;
        windows.open('chunk', table.oid, committed);
        expect(await chunk()).toMatchObject({ whole: true });
      } finally {
        await standby.release();
        await client.end();
        await marker.end();
      }
    },
    timeoutMs,
  );

  it(
    'waits for no transaction of another database',
    async () => {
      const elsewhere = await connectSource(
        configFor('e', await server.createDatabase('elsewhere'), nats.url).settings,
        'e',
      );
      const client = await connectSource(configFor('h', await server.createDatabase('here'), nats.url).settings, 'h');
      try {
        const signal = AbortSignal.timeout(20_000);
        await elsewhere.query('begin; select pg_current_xact_id()');
        expect((await client.query(UNDER_WAY_SQL)).rowCount).toBeGreaterThan(0);
        await waitForOlderTransactions(client, log, signal);
        expect(signal.aborted).toBe(false);
        expect((await elsewhere.query('select txid_current_if_assigned() is not null as open')).rows).toEqual([
          { open: true },
        ]);
      } finally {
        await client.end();
        await elsewhere.end();
      }
    },
    timeoutMs,
  );
});

/** The readings that a stream begins and ends, by their tables, and how many transactions hold their marks. */
async function readings(s: Source): Promise<{ begun: Set<string>; ended: Set<string>; transactions: number }> {
  const [begun, ended, transactions] = [new Set<string>(), new Set<string>(), new Set<string>()];
  for (const { payload } of await s.frames()) {
    let row = 0;
    for (const [, commit, , , rows] of payload.tx)
      for (const change of payload.rows.slice(row, (row += rows))) {
        if (change[0] !== 's') continue;
        const { name } = payload.tables[change[1]]!;
        if (change[2]?.[1] === 'begin') begun.add(name);
        else if (change[2]?.[1] === 'end') ended.add(name);
        transactions.add(commit);
      }
  }
  return { begun, ended, transactions: transactions.size };
}
