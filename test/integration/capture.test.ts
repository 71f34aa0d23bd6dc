import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectSource } from '../../capture/postgres/connection.ts';
import { ORIGIN, parseLsn } from '../../core/position.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { CaptureTests } from '../support/capture-tests.ts';
import { changesOf, Source, timeoutMs } from '../support/postgres-source.ts';
import { waitFor } from '../support/wait.ts';

const tests = CaptureTests.forThisFile();

describe.each([15, 18] as const)('capture of PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let source: Source;
  const SHAPES = [
    `create schema "Sales Dept"`,
    `create type mood as enum ('sad', 'it''s ok')`,
    `create domain code as varchar(9)`,
    `create domain raw as bytea`,
    `create table kinds (id bigint, part text collate "C", primary key (part, id), n numeric(30,10), f float8, b boolean, t text,
       bin bytea, raw raw, at timestamptz, day date, span interval, j jsonb, list text[], mood mood, code code, u uuid, c char(5),
       twice int generated always as (2) stored)`,
    `insert into kinds select i, 'p''\\' || i, i / 7.0, i / 3.0, i % 2 = 0,
         E'tab\\t lf\\n cr\\r \\\\N \\\\. \\b\\f\\v "q" \\x01 \\x7f é 🚚' || i, decode(md5(i::text), 'hex'), decode('00ff', 'hex'),
         timestamptz '2026-01-02 03:04:05.678901+02' + i * interval '1 h', date '0044-03-15 BC', interval '1 y 2 mon -3 d 4 h', '{"a": [1, "ü"]}',
         array['a', null, 'NULL', 'x,"y"'], 'it''s ok', 'abc', md5(i::text)::uuid, 'ab'
       from generate_series(1, 2500) i`,
    `insert into kinds (id, part) values (0, '')`,
    `create table toast (id int primary key, big text, n int)`,
    `alter table toast alter big set storage external`,
    `insert into toast values (1, repeat('a', 20000), 0)`,
    `create table whole (a int, b text)`,
    `alter table whole replica identity full`,
    `insert into whole values (1, 'x'), (2, null)`,
    `create table uq (id int not null, other text, code text not null)`,
    `create unique index uq_code on uq (code)`,
    `alter table uq replica identity using index uq_code`,
    `create table part (id int, day date, v text, primary key (id, day)) partition by range (day)`,
    `create table part_a partition of part for values from ('2026-01-01') to ('2026-02-01')`,
    `create table part_b partition of part for values from ('2026-02-01') to ('2026-03-01')`,
    `insert into part select i, date '2026-01-01' + i, 'v' || i from generate_series(0, 50) i`,
    `create table "Sales Dept"."Order ""Lines""" ("Order Id" int primary key, "Quote'd" text)`,
    `insert into "Sales Dept"."Order ""Lines""" values (1, 'a')`,
    `create table huge (id int primary key, v text)`,
    `create table grows (id serial primary key, v text)`,
    `create table many (id int primary key, v text)`,
    `create table excluded (id int primary key)`,
    `create table empty (id int primary key)`,
  ];
  const TABLES = 10;

  beforeAll(async () => {
    server = await tests.server({ version });
    const url = await server.createDatabase('shapes');
    source = await Source.open(`shapes${version}`, url, tests.nats, {
      tables: ['public.*', 'Sales Dept.*', '!public.excluded'],
    });
    for (const sql of SHAPES) await source.query(sql);
    source.start();
    await source.loaded(TABLES);
    await source.caughtUp();
  }, timeoutMs);
  afterAll(async () => source?.close(), timeoutMs);

  it.each([
    ['public', 'kinds'],
    ['public', 'toast'],
    ['public', 'whole'],
    ['public', 'part'],
    ['public', 'empty'],
    ['Sales Dept', 'Order "Lines"'],
  ])('reads %s.%s at first as it is', async (schema, name) => {
    const rows = await source.folded(schema, name);
    const expected = await source.table(schema, name);
    // A generated column is computed by whoever holds the table.
    if (name === 'kinds') {
      const stored = expected.map((row) => JSON.stringify((JSON.parse(row) as unknown[]).slice(0, -1))).sort();
      expect(rows).toEqual(stored);
      expect(rows).toHaveLength(2501);
    } else expect(rows).toEqual(expected);
  });

  it('carries what the log says just as it reads', async () => {
    const from = await source.caughtUp();
    await source.query(
      'insert into kinds select id + 10000, part, n, f, b, t, bin, raw, at, day, span, j, list, mood, code, u, c from kinds',
    );
    await source.caughtUp();
    const changes = await source.changes(from);
    expect(new Set(changes.map(({ row }) => row[0]))).toEqual(new Set(['i']));
    const logged = changes.map(({ row }) => JSON.stringify(row[2]?.slice(1))).sort();
    const read = (await source.frames({ seq: 0, end: ORIGIN }))
      .flatMap(({ payload }) => payload.rows.map((row) => ({ row, table: payload.tables[row[1]] })))
      .filter(({ row, table }) => row[0] === 'r' && table?.name === 'kinds')
      .map(({ row }) => JSON.stringify(row[2]?.slice(1)))
      .sort();
    expect(logged).toHaveLength(2501);
    expect(logged).toEqual(read);
    const schema = changes[0]?.table;
    expect(schema?.key).toEqual(['part', 'id']);
    const types = Object.fromEntries(schema!.columns.map((c) => [c.name, [c.type, c.portable]]));
    expect(types).toMatchObject({
      n: ['numeric(30,10)', 'numeric(30,10)'],
      mood: ['mood', 'text'],
      code: ['code', 'character varying(9)'],
      raw: ['raw', 'bytea'],
      c: ['character(5)', 'character(5)'],
    });
  });

  it('marks an unchanged TOAST value with 0', async () => {
    const from = await source.caughtUp();
    await source.query('update toast set n = 1 where id = 1');
    await source.query(`update toast set big = repeat('b', 20000) where id = 1`);
    await source.caughtUp();
    expect((await source.changes(from)).map(({ row }) => [row[0], row[2]])).toEqual([
      ['u', ['1', 0, '1']],
      ['u', ['1', 'b'.repeat(20000), '1']],
    ]);
    expect(await source.folded('public', 'toast')).toEqual(await source.table('public', 'toast'));
  });

  it('carries old keys where the key changes, and whole old rows with identity full', async () => {
    const from = await source.caughtUp();
    await source.query('update toast set id = 2 where id = 1');
    await source.query(`insert into uq values (1, 'x', 'a')`);
    await source.query(`update uq set code = 'b', other = 'y'`);
    await source.query('delete from uq');
    await source.query(`update whole set b = 'y' where a = 1`);
    await source.query('delete from whole where b is null');
    await source.query('delete from toast');
    await source.caughtUp();
    expect(
      (await source.changes(from)).map(({ row, table }) => [
        table?.name,
        table?.identity,
        table?.key,
        row[0],
        ...row.slice(2),
      ]),
    ).toEqual([
      ['toast', 'default', ['id'], 'u', ['2', 0, '1'], 'k', ['1', null, null]],
      ['uq', 'index', ['code'], 'i', ['1', 'x', 'a']],
      ['uq', 'index', ['code'], 'u', ['1', 'y', 'b'], 'k', [null, null, 'a']],
      ['uq', 'index', ['code'], 'd', null, 'k', [null, null, 'b']],
      ['whole', 'full', [], 'u', ['1', 'y'], 'f', ['1', 'x']],
      ['whole', 'full', [], 'd', null, 'f', ['2', null]],
      ['toast', 'default', ['id'], 'd', null, 'k', ['2', null, null]],
    ]);
  });

  it('carries truncations with their options, and nothing of tables that are left out', async () => {
    const from = await source.caughtUp();
    await source.query(
      `begin; insert into excluded values (1); insert into grows (v) values ('a'); truncate excluded, grows, uq restart identity cascade; commit`,
    );
    await source.caughtUp();
    const changes = await source.changes(from);
    expect(changes[0]?.row).toEqual(['i', 0, ['1', 'a']]);
    const truncated = changes.slice(1).map(({ row, table }) => [row[0], table?.name, row[2]]);
    expect(truncated.sort((a, b) => String(a).localeCompare(String(b)))).toEqual([
      ['t', 'grows', ['cascade', 'restart_identity']],
      ['t', 'uq', ['cascade', 'restart_identity']],
    ]);
  });

  it('never shows what was rolled back', async () => {
    const from = await source.caughtUp();
    await source.query(`begin; insert into many select i, 'gone' from generate_series(1, 20000) i; rollback`);
    await source.query(
      `begin; insert into many values (1, 'kept'); savepoint s; insert into many values (2, 'gone'); rollback to s; insert into many values (3, 'kept'); commit`,
    );
    await source.caughtUp();
    expect((await source.changes(from)).map(({ row }) => row[2])).toEqual([
      ['1', 'kept'],
      ['3', 'kept'],
    ]);
    await source.query('delete from many');
  });

  it('shows partitions as their root', async () => {
    const from = await source.caughtUp();
    await source.query(`insert into part values (100, '2026-01-05', 'a')`);
    await source.query(`update part set day = '2026-02-05' where id = 100`);
    await source.query(`create table part_c partition of part for values from ('2026-03-01') to ('2026-04-01')`);
    await source.query(`insert into part values (101, '2026-03-05', 'c')`);
    await source.query(`insert into part_b values (102, '2026-02-06', 'b')`);
    await source.caughtUp();
    const changes = await source.changes(from);
    expect(new Set(changes.map(({ table }) => table?.name))).toEqual(new Set(['part']));
    // A row that moves to another partition is deleted and inserted.
    // A new partition is read, too: it might have come with rows.
    expect(changes.map(({ row }) => row[0]).filter((op) => op !== 'r')).toEqual(['i', 'd', 'i', 'i', 'i']);
    expect(await source.folded('public', 'part')).toEqual(await source.table('public', 'part'));
  });

  it('keeps names as they are', async () => {
    const from = await source.caughtUp();
    await source.query(`update "Sales Dept"."Order ""Lines""" set "Quote'd" = 'b'`);
    await source.caughtUp();
    // What an earlier test attached may be read only now.
    const change = (await source.changes(from)).find(({ table }) => table?.schema === 'Sales Dept');
    expect(change?.row).toEqual(['u', 0, ['1', 'b']]);
    expect(change?.table).toMatchObject({ schema: 'Sales Dept', name: 'Order "Lines"', key: ['Order Id'] });
    expect(change?.table?.columns.map((c) => c.name)).toEqual(['Order Id', "Quote'd"]);
  });

  it('carries a value of 40 MB in pieces', async () => {
    const from = await source.caughtUp();
    await source.query(
      `insert into huge select 1, string_agg(md5(i::text), '' order by i) from generate_series(1, ${(40 << 20) / 32}) i`,
    );
    await source.query(`insert into huge values (2, 'after')`);
    const tail = await source.caughtUp(60_000);
    expect(tail.seq - from.seq).toBeGreaterThan(40);
    const changes = (await source.changes(from)).filter(({ table }) => table?.name === 'huge');
    const [[value]] = (await source.query('select v from huge where id = 1')) as [[string]];
    expect(changes.map(({ row }) => row[2]?.[0])).toEqual(['1', '2']);
    expect(value).toHaveLength(40 << 20);
    expect(changes[0]?.row[2]?.[1] === value).toBe(true);
    expect(changes[1]?.row[2]).toEqual(['2', 'after']);
  });

  it('follows columns that come and go while rows are written', async () => {
    const from = await source.caughtUp();
    const writer = await connectSource(source.settings, 'writer');
    const writing = tests.loop(async (n) => {
      await writer.query(`insert into grows (v) values ('${n}')`);
    });
    const more = async (): Promise<void> => {
      const now = writing.steps;
      await waitFor('more rows', async () => writing.steps > now + 20);
    };
    await more();
    await source.query(`alter table grows add column extra text default 'd'`);
    await more();
    await source.query('alter table grows add column other int');
    await more();
    await source.query('alter table grows rename column other to another');
    await more();
    await source.query('alter table grows drop column extra');
    await more();
    const written = await writing.stop();
    await writer.end();
    await source.caughtUp();
    // A capture that comes late may find a table that has changed more than once, and read it again beside.
    const changes = (await source.changes(from)).filter(({ row }) => row[0] === 'i');
    expect(changes.map(({ row }) => row[2]?.[1])).toEqual(Array.from({ length: written }, (_, n) => String(n)));
    const shapes = changes.map(({ table }) => table!.columns.map((c) => c.name).join());
    const versions = changes.map(({ table }) => table!.version);
    const inTurn = (texts: string[]): string[] => texts.filter((text, i) => i === 0 || text !== texts[i - 1]);
    expect(inTurn(shapes)).toEqual(['id,v', 'id,v,extra', 'id,v,extra,other', 'id,v,extra,another', 'id,v,another']);
    expect(new Set(versions).size).toBeGreaterThanOrEqual(5);
    expect(changes.at(-1)?.table?.columns.at(-1)).toMatchObject({ name: 'another', type: 'integer' });
  });

  it('cuts a transaction of 50,000 rows into parts that join', async () => {
    const from = await source.caughtUp();
    await source.query(`insert into many select i, repeat(md5(i::text), 3) from generate_series(1, 50000) i`);
    await source.caughtUp(60_000);
    const frames = await source.frames(from);
    // A table before this one may be read again meanwhile: rows of their own, which are not cut.
    const parts = frames.flatMap(({ payload }) => payload.tx.filter((entry) => entry[5] !== 'whole'));
    expect(parts.length).toBeGreaterThan(5);
    expect(new Set(parts.map((entry) => entry[0])).size).toBe(1);
    expect(parts.slice(0, -1).map((entry) => entry[5])).toEqual(['first', ...parts.slice(2).map(() => 'middle')]);
    const all = frames.flatMap(({ payload }) => payload.tx.filter((entry) => entry[1] === parts[0]![1]));
    expect(all.at(-1)?.[5]).toBe('last');
    let ordinal = 0;
    for (const entry of all) {
      expect(entry[6]).toBe(ordinal);
      ordinal += entry[4];
    }
    expect(ordinal).toBe(50_000);
    const rows = changesOf(frames).filter(({ table }) => table?.name === 'many');
    expect(rows.map(({ row }) => row[2]?.[0])).toEqual(Array.from({ length: 50_000 }, (_, i) => String(i + 1)));
    expect(await source.folded('public', 'many')).toEqual(await source.table('public', 'many'));
  });

  it('brings the slot of an idle database forward', async () => {
    const confirmed = async (): Promise<bigint> => {
      const [row] = await source.query(
        'select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1',
        [source.slot],
      );
      return parseLsn(row![0]!)!;
    };
    const other = new pg.Client(server.url);
    await other.connect();
    await other.query('create table if not exists elsewhere (v text)');
    for (let round = 0; round < 2; round++) {
      await other.query(`insert into elsewhere select repeat('x', 100) from generate_series(1, 20000)`);
      const { rows } = await other.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
      const written = parseLsn(rows[0]!.lsn)!;
      await waitFor(`the slot to pass ${rows[0]!.lsn}`, async () => (await confirmed()) >= written);
    }
    await other.end();
  });
});
