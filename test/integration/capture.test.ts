import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { connectSource } from '../../capture/postgres/connection.ts';
import { qualifiedName, quoteIdent } from '../../capture/postgres/publication.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { cdcStreamName, readFrames, readTail, type ReceivedFrame } from '../../core/cdc-stream.ts';
import { parseConfig, type NatsConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { decodeFrame, type FramePayload, type RowChange, type TableSchema, type Value } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asPgPosition, ORIGIN, parseLsn, type Position } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 240_000;
const DEADLINE_MS = 30_000;
const log = createLogger('silent');

interface Frame {
  readonly headers: ReceivedFrame;
  readonly payload: FramePayload;
}
interface Place {
  readonly seq: number;
  readonly end: Position;
}
/** A row change with its table, out of its frame. */
interface Change {
  readonly table: TableSchema | undefined;
  readonly row: RowChange;
}

/** One source with its capture, in this process. */
class Source {
  readonly name: string;
  readonly url: string;
  readonly settings: PostgresSourceConfig;
  readonly config: NatsConfig;
  readonly client: pg.Client;
  readonly nats: Nats;
  readonly states: string[] = [];
  #stop = new AbortController();
  #running: Promise<void> | undefined;
  failure: unknown;

  private constructor(
    name: string,
    url: string,
    of: { settings: PostgresSourceConfig; config: NatsConfig; client: pg.Client; nats: Nats },
  ) {
    this.name = name;
    this.url = url;
    this.settings = of.settings;
    this.config = of.config;
    this.client = of.client;
    this.nats = of.nats;
  }

  static async open(name: string, url: string, nats: NatsServer, yaml: Record<string, unknown> = {}): Promise<Source> {
    const { settings, config } = configFor(name, url, nats.url, yaml);
    const client = await connectSource(settings, 'test');
    return new Source(name, url, { settings, config, client, nats: await connectNats(config, 'test') });
  }

  get stream(): string {
    return cdcStreamName(this.config.prefix, this.name);
  }

  get slot(): string {
    return `waybill_${this.name}`;
  }

  start(holder = 'test'): void {
    this.#stop = new AbortController();
    this.failure = undefined;
    this.#running = runPostgresCapture({
      name: this.name,
      settings: this.settings,
      nats: this.config,
      holder,
      leaseTtlMs: 1500,
      log,
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
    await this.client.end();
    await this.nats.close();
  }

  async query(sql: string, values: unknown[] = []): Promise<string[][]> {
    const types = { getTypeParser: () => (text: string) => text };
    const result = await this.client.query({ text: sql, values, rowMode: 'array', types: types as never });
    return result.rows as string[][];
  }

  async tail(): Promise<Place> {
    return readTail(this.nats, this.stream);
  }

  /** Waits for something that this capture brings about; fails at once when it has ended with an error. */
  async wait<T>(what: string, probe: () => Promise<T | undefined | false>, deadlineMs = DEADLINE_MS): Promise<T> {
    const found = await waitFor(
      `${what}; last states ${JSON.stringify(this.states.slice(-4))}`,
      async () => {
        if (this.failure !== undefined) return { value: undefined };
        const value = await probe();
        return value === undefined || value === false ? undefined : { value };
      },
      deadlineMs,
    );
    if (this.failure !== undefined) throw this.failure;
    return found.value as T;
  }

  /** Waits until the stream holds all that is committed now. A message of ours makes it move even where nothing else does. */
  async caughtUp(deadlineMs = DEADLINE_MS): Promise<Place> {
    const [[lsn]] = (await this.query("select pg_logical_emit_message(true, 'test', 'here')::text")) as [[string]];
    const written = parseLsn(lsn)!;
    return this.wait(
      `the stream passing ${lsn}`,
      async () => {
        const tail = await this.tail();
        return asPgPosition(tail.end).lsn >= written && tail;
      },
      deadlineMs,
    );
  }

  /** Waits until every table was read. */
  async loaded(tables: number, deadlineMs = DEADLINE_MS): Promise<void> {
    await this.wait(
      'the end of the snapshot',
      async () => {
        const ends = changesOf(await this.frames()).filter(({ row }) => row[0] === 's' && row[2]?.[1] === 'end');
        return new Set(ends.map(({ table }) => table?.name)).size >= tables;
      },
      deadlineMs,
    );
  }

  /** The frames of the stream after a place, up to where it ends now; readFrames checks that none is missing. */
  async frames(from: Place = { seq: 0, end: ORIGIN }): Promise<Frame[]> {
    const last = await this.tail();
    if (last.seq <= from.seq) return [];
    const stop = new AbortController();
    const frames: Frame[] = [];
    const options = { startSeq: from.seq + 1, position: from.end, signal: stop.signal };
    for await (const headers of readFrames(this.nats, this.stream, options)) {
      frames.push({ headers, payload: decodeFrame(headers.payload, headers.place) });
      if (headers.seq >= last.seq) break;
    }
    stop.abort();
    checkOrder(frames);
    return frames;
  }

  /** Changes after a place, of rows and tables; messages and marks left out. */
  async changes(from?: Place): Promise<Change[]> {
    return changesOf(await this.frames(from)).filter(({ row }) => row[0] !== 'm' && row[0] !== 's');
  }

  /** The rows of a table as frames carry them, sorted. */
  async table(schema: string, name: string): Promise<string[]> {
    const result = await this.client.query({
      text: `select * from ${qualifiedName({ schema, name })}`,
      rowMode: 'array',
      types: { getTypeParser: (oid: number) => (text: string) => (oid === 17 ? base64(text) : text) } as never,
    });
    return result.rows.map((row) => JSON.stringify(row)).sort();
  }

  /** The same rows as the stream leaves them. */
  async folded(schema: string, name: string): Promise<string[]> {
    return [
      ...(fold(await this.frames())
        .get(`${schema}.${name}`)
        ?.values() ?? []),
    ]
      .map((row) => JSON.stringify(row))
      .sort();
  }
}

function base64(hex: string): string {
  return Buffer.from(hex.slice(2), 'hex').toString('base64');
}

function configFor(
  name: string,
  url: string,
  natsUrl: string,
  yaml: Record<string, unknown> = {},
): { settings: PostgresSourceConfig; config: NatsConfig } {
  const config = parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: [natsUrl], stream: { sync_interval: '0s', max_bytes: '1GB' } },
      sources: { [name]: { kind: 'postgres', url, heartbeat: '1s', ...yaml } },
    }),
    {},
  );
  return { settings: config.sources[name] as PostgresSourceConfig, config: config.nats };
}

function changesOf(frames: readonly Frame[]): Change[] {
  return frames.flatMap(({ payload }) => payload.rows.map((row) => ({ table: payload.tables[row[1]], row })));
}

/** Every change stands behind the one before it, by commit and ordinal, and parts of transactions join. */
function checkOrder(frames: readonly Frame[]): void {
  let last: { commit: string; next: number; open: boolean } | undefined;
  for (const { payload, headers } of frames) {
    expect(headers.rows, headers.place).toBe(payload.rows.length);
    for (const [, commit, end, , rows, part, ordinal] of payload.tx) {
      const place = `${headers.place}, transaction at ${commit}, ordinal ${ordinal}, ${part}`;
      expect(end >= commit, place).toBe(true);
      const continues = part === 'middle' || part === 'last';
      if (last !== undefined) {
        if (continues) expect({ commit, ordinal }, place).toEqual({ commit: last.commit, ordinal: last.next });
        else expect(commit > last.commit, place).toBe(true);
        expect(last.open, place).toBe(continues);
      }
      if (!continues) expect(ordinal, place).toBe(0);
      last = { commit, next: ordinal + rows, open: part === 'first' || part === 'middle' };
    }
  }
}

type Row = Value[];

/** What a target would hold after the frames: rows by key, by table. */
function fold(frames: readonly Frame[]): Map<string, Map<string, Row>> {
  const tables = new Map<string, Map<string, Row>>();
  const seen = new Map<string, Set<string>>();
  for (const { table, row } of changesOf(frames)) {
    if (table === undefined) continue;
    const name = `${table.schema}.${table.name}`;
    const rows = tables.get(name) ?? new Map<string, Row>();
    tables.set(name, rows);
    const indexes =
      table.key.length === 0
        ? [...table.columns.keys()]
        : table.key.map((k) => table.columns.findIndex((c) => c.name === k));
    const keyOf = (image: readonly Value[]): string => JSON.stringify(indexes.map((i) => image[i]));
    const [op, , after, , before] = row;
    if (op === 't') rows.clear();
    else if (op === 's') {
      if (after?.[1] === 'begin') seen.set(name, new Set());
      else for (const key of rows.keys()) if (seen.get(name)?.has(key) === false) rows.delete(key);
    } else if (op === 'd') rows.delete(keyOf(before!));
    else {
      const key = keyOf(after!);
      const oldKey = before === undefined ? key : keyOf(before);
      const old = rows.get(oldKey);
      if (oldKey !== key) rows.delete(oldKey);
      rows.set(
        key,
        after!.map((value, i) => (value === 0 ? (old?.[i] ?? 0) : value)),
      );
      seen.get(name)?.add(key);
    }
  }
  return tables;
}

interface Loop {
  readonly steps: number;
  stop(): Promise<number>;
}

/** Repeats `step` until it is stopped, at the latest when the test ends. */
function loop(step: (n: number) => Promise<void>): Loop {
  const state = { going: true, steps: 0 };
  const running = (async () => {
    for (; state.going; state.steps++) await step(state.steps);
    return state.steps;
  })();
  // A failure is met by whoever stops it.
  running.catch(() => {});
  const made: Loop = {
    get steps() {
      return state.steps;
    },
    async stop() {
      state.going = false;
      return running;
    },
  };
  loops.push(made);
  return made;
}

const loops: Loop[] = [];
const disposables: { dispose(): Promise<void> }[] = [];
const sources: Source[] = [];
afterEach(async () => {
  for (const one of loops.splice(0)) await one.stop().catch(() => {});
  for (const source of sources.splice(0)) await source.close();
}, timeoutMs);
afterAll(async () => {
  await Promise.all(disposables.splice(0).map((server) => server.dispose()));
}, timeoutMs);

let nats: NatsServer;
beforeAll(async () => {
  nats = await startNats();
  disposables.push(nats);
}, timeoutMs);

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
    server = await startPostgres({ version });
    disposables.push(server);
    const url = await server.createDatabase('shapes');
    source = await Source.open(`shapes${version}`, url, nats, {
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
    expect(changes.map(({ row }) => row[0])).toEqual(['i', 'd', 'i', 'i', 'i']);
    expect(await source.folded('public', 'part')).toEqual(await source.table('public', 'part'));
  });

  it('keeps names as they are', async () => {
    const from = await source.caughtUp();
    await source.query(`update "Sales Dept"."Order ""Lines""" set "Quote'd" = 'b'`);
    await source.caughtUp();
    const [change] = await source.changes(from);
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
    const writing = loop(async (n) => {
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
    const changes = await source.changes(from);
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
    const parts = frames.flatMap(({ payload }) => payload.tx.filter((entry) => entry[4] > 100));
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

  it('goes on where it was, however often it is stopped', async () => {
    const url = await server.createDatabase('restarts');
    const restarts = await Source.open(`restarts${version}`, url, nats, { frame_bytes: '8KB' });
    sources.push(restarts);
    await restarts.query('create table t (id int primary key, v text)');
    await restarts.query(`insert into t select i, 'old' from generate_series(1, 3000) i`);
    const writer = await connectSource(restarts.settings, 'writer');
    const writing = loop(async (n) => {
      await writer.query(
        `begin; insert into t select i, repeat('x', 100) from generate_series(${100_000 + n * 200}, ${100_199 + n * 200}) i;
         update t set v = '${n}' where id between ${n % 40} and ${(n % 40) + 3}; delete from t where id = ${n + 1};
         delete from t where id < ${100_000 + (n - 50) * 200} and id >= 100000; commit`,
      );
    });
    for (let round = 0; round < 5; round++) {
      const before = writing.steps;
      restarts.start(`round ${round}`);
      const from = await restarts.tail().catch(() => undefined);
      await restarts.wait('the stream to move', async () => {
        const tail = await restarts.tail();
        return writing.steps > before + 5 && tail.seq > (from?.seq ?? 0) + 3;
      });
      await restarts.stop();
    }
    await writing.stop();
    await writer.end();
    restarts.start('last');
    await restarts.loaded(1);
    await restarts.caughtUp();
    expect(await restarts.folded('public', 't')).toEqual(await restarts.table('public', 't'));
  });

  it('reads a long backlog in slices, and the end of it from the stream', async () => {
    const url = await server.createDatabase('behind');
    const behind = await Source.open(`behind${version}`, url, nats, { frame_bytes: '64KB' });
    sources.push(behind);
    await behind.query('create table t (id int primary key, v text)');
    await behind.query(`insert into t select i, repeat('x', 500) from generate_series(1, 20000) i`);
    behind.start();
    await behind.loaded(1);
    await behind.stop();
    // 40 MB of log: a column that appears, one large transaction, many small ones.
    await behind.query('alter table t add column more int');
    await behind.query(`update t set v = repeat('y', 500)`);
    await behind.query(
      `do $$ begin for i in 1..4000 loop update t set more = i, v = repeat('z', 500) where id = 1 + i * 7 % 20000; commit; end loop; end $$`,
    );
    await behind.query('delete from t where id % 50 = 0');
    const before = await behind.tail();
    for (let round = 0; round < 3; round++) {
      behind.start(`round ${round}`);
      const from = await behind.tail();
      await behind.wait('frames of the backlog', async () => (await behind.tail()).seq > from.seq + 20);
      await behind.stop();
    }
    behind.start('last');
    await behind.query('update t set more = -1 where id = 1');
    const end = await behind.caughtUp();
    expect(await behind.folded('public', 't')).toEqual(await behind.table('public', 't'));
    expect(end.seq).toBeGreaterThan(before.seq + 60);
    // The copy of the slot is gone, and the slot itself is read by a walsender again.
    const slots = await behind.query(`select slot_name, active from pg_replication_slots where database = 'behind'`);
    expect(slots).toEqual([[behind.slot, 't']]);
  });

  it('streams a long backlog where no slot can be spared', async () => {
    const url = await server.createDatabase('spare');
    const spare = await Source.open(`spare${version}`, url, nats);
    sources.push(spare);
    await spare.query('create table t (id int primary key, v text)');
    await spare.query(`insert into t select i, repeat('x', 500) from generate_series(1, 20000) i`);
    spare.start();
    await spare.loaded(1);
    await spare.stop();
    await spare.query(`update t set v = repeat('y', 500)`);
    const [[free]] = (await spare.query(
      `select current_setting('max_replication_slots')::int - count(*) from pg_replication_slots`,
    )) as [[string]];
    for (let n = 0; n < Number(free); n++)
      await spare.query(`select pg_create_physical_replication_slot('taken_${n}')`);
    try {
      spare.start('again');
      await spare.caughtUp();
      expect(await spare.folded('public', 't')).toEqual(await spare.table('public', 't'));
    } finally {
      await spare.query(
        `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name ~ '^taken'`,
      );
    }
  });

  it('stops at whatever moment it is asked to', async () => {
    const url = await server.createDatabase('stops');
    const stops = await Source.open(`stops${version}`, url, nats, { frame_bytes: '4KB' });
    sources.push(stops);
    await stops.query('create table t (id int primary key)');
    await stops.query('insert into t select generate_series(1, 1000)');
    let longest = 0;
    for (let round = 0; round < 60; round++) {
      stops.start(`round ${round}`);
      await delay(round * 2);
      const began = performance.now();
      await stops.stop();
      longest = Math.max(longest, performance.now() - began);
    }
    expect(longest).toBeLessThan(15_000);
  });

  it('reads a table that is written to, and both together are the table', async () => {
    const url = await server.createDatabase('concurrent');
    const busy = await Source.open(`concurrent${version}`, url, nats, { snapshot_chunk_rows: 500 });
    sources.push(busy);
    await busy.query('create table t (id int, part text, big text, n int, primary key (part, id))');
    await busy.query('alter table t alter big set storage external');
    await busy.query('create table keyless (a int, b text)');
    await busy.query('alter table keyless replica identity full');
    await busy.query(
      `insert into t select i, 'p' || i % 10, case when i % 50 = 0 then repeat('b', 4000) else '' end, 0 from generate_series(1, 8000) i`,
    );
    await busy.query(`insert into keyless select i, 'k' from generate_series(1, 500) i`);
    const writers = await Promise.all([0, 1].map(() => connectSource(busy.settings, 'writer')));
    const writing = writers.map((writer, who) =>
      loop(async (n) => {
        const id = ((n * 7919) % 4000) * 2 + who;
        await writer.query(
          `begin; update t set n = n + 1 where id = ${id}; delete from t where id = ${id + 400};
           update t set part = 'p' || ${n % 10} where id = ${id + 800};
           insert into t values (${100_000 + n * 2 + who}, 'p${n % 10}', repeat('n', 3000), 0); commit`,
        );
      }),
    );
    busy.start();
    await busy.loaded(2, 60_000);
    await Promise.all(writing.map((one) => one.stop()));
    for (const writer of writers) await writer.end();
    await busy.caughtUp();
    const changes = await busy.changes();
    expect(changes.filter(({ row }) => row[0] === 'u').length, 'written while it read').toBeGreaterThan(50);
    expect(await busy.folded('public', 't')).toEqual(await busy.table('public', 't'));
    expect(await busy.folded('public', 'keyless')).toEqual(await busy.table('public', 'keyless'));
  });

  it('reads a chunk again when a row of it changed meanwhile without all its columns', async () => {
    const url = await server.createDatabase('chunks');
    const chunks = await Source.open(`chunks${version}`, url, nats, { snapshot_chunk_rows: 200 });
    sources.push(chunks);
    // Tables are read from the smallest on: the first keeps the reader busy until the second is locked.
    await chunks.query('create table a (id int primary key)');
    await chunks.query('insert into a select generate_series(1, 60000)');
    await chunks.query('create table b (id int primary key, n int, pad text, big text)');
    await chunks.query('alter table b alter big set storage external, alter pad set storage plain');
    await chunks.query(
      `insert into b select i, 0, repeat('p', 1800), repeat('b', 4000 * (i / 3 % 2)) from generate_series(1, 1500) i`,
    );
    chunks.start();
    await chunks.wait('the first table', async () => (await chunks.tail().catch(() => ({ seq: 0 }))).seq > 4);
    const locker = await connectSource(chunks.settings, 'locker');
    await locker.query('begin; lock table b in access exclusive mode');
    await chunks.wait('the reader to wait for the second table', async () => {
      const waiting = await chunks.query(`select from pg_locks where relation = 'b'::regclass and not granted`);
      return waiting.length === 1;
    });
    // Between the chunk's low mark and its rows: the log has the new row without its large column.
    await locker.query('update b set n = 1 where id = 3; commit');
    await locker.end();
    await chunks.loaded(2);
    await chunks.caughtUp();
    const partial = (await chunks.changes()).filter(({ table, row }) => table?.name === 'b' && row[0] === 'u');
    expect(partial.map(({ row }) => row[2])).toEqual([['3', '1', 'p'.repeat(1800), 0]]);
    expect(await chunks.folded('public', 'b')).toEqual(await chunks.table('public', 'b'));
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
      await waitFor(`the slot to pass ${rows[0]!.lsn}`, async () => (await confirmed()) >= written, DEADLINE_MS);
    }
    await other.end();
  });

  it('waits for a reset when its slot is gone, and then reads everything again', async () => {
    const url = await server.createDatabase('dropped');
    const dropped = await Source.open(`dropped${version}`, url, nats);
    sources.push(dropped);
    await dropped.query('create table t (id int primary key, v text)');
    await dropped.query(`insert into t select i, 'a' from generate_series(1, 100) i`);
    dropped.start();
    await dropped.loaded(1);
    await dropped.caughtUp();
    await dropped.stop();
    await dropped.query('select pg_drop_replication_slot($1)', [dropped.slot]);
    await dropped.query('delete from t where id <= 50');
    await dropped.query(`insert into t values (1000, 'missed')`);
    dropped.start();
    await dropped.wait('slot_missing', async () =>
      dropped.states.some((state) => state.startsWith('slot_missing source_slot_missing')),
    );
    const from = await dropped.tail();
    await dropped.query(`insert into t values (1001, 'missed too')`);
    await requestSnapshot(dropped.config, dropped.name, { reset: true });
    await dropped.wait('the end of the new snapshot', async () => {
      return changesOf(await dropped.frames(from)).some(({ row }) => row[0] === 's' && row[2]?.[1] === 'end');
    });
    await dropped.query(`insert into t values (1002, 'after')`);
    await dropped.caughtUp();
    const frames = await dropped.frames(from);
    expect(frames.map(({ headers }) => headers.reset)[0]).toBe(true);
    expect(await dropped.folded('public', 't')).toEqual(await dropped.table('public', 't'));
  });

  it('notices a slot that was advanced beyond the stream', async () => {
    const url = await server.createDatabase('ahead');
    const ahead = await Source.open(`ahead${version}`, url, nats);
    sources.push(ahead);
    await ahead.query('create table t (id int primary key)');
    ahead.start();
    await ahead.loaded(1);
    await ahead.caughtUp();
    await ahead.stop();
    await ahead.query('insert into t select generate_series(1, 1000)');
    await ahead.query('select pg_replication_slot_advance($1, pg_current_wal_lsn())', [ahead.slot]);
    ahead.start();
    await ahead.wait('source_slot_ahead', async () =>
      ahead.states.some((state) => state.startsWith('blocked source_slot_ahead')),
    );
    await requestSnapshot(ahead.config, ahead.name, { reset: true });
    await ahead.wait('all rows', async () => (await ahead.folded('public', 't')).length === 1000);
    expect(await ahead.folded('public', 't')).toEqual(await ahead.table('public', 't'));
  });
});

describe('capture refuses', () => {
  let server: PostgresServer;
  let made = 0;

  beforeAll(async () => {
    server = await startPostgres({ settings: { max_replication_slots: '2' } });
    disposables.push(server);
  }, timeoutMs);

  const database = async (on: PostgresServer, ...statements: string[]): Promise<string> => {
    const url = await on.createDatabase(`refused_${++made}`);
    const client = new pg.Client(url);
    await client.connect();
    for (const sql of statements) await client.query(sql);
    await client.end();
    return url;
  };
  const refused = async (url: string, code: string, part: RegExp, natsUrl = nats.url): Promise<void> => {
    const name = `refused${made}`;
    const { settings, config } = configFor(name, url, natsUrl);
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const states: string[] = [];
    const report = {
      ...NO_CAPTURE_REPORT,
      state: (state: string, detail = '') => void states.push(`${state} ${detail}`),
    };
    const running = runPostgresCapture({ name, settings, nats: config, holder: 'test', log, signal, report });
    await expect(running, states.join('\n')).rejects.toMatchObject({
      code,
      message: expect.stringMatching(part) as string,
    });
    expect(states.at(-1)).toContain(`blocked ${code}`);
  };
  const TABLE = 'create table t (id int primary key)';

  it('a table without identity, with the SQL that mends it', async () => {
    const url = await database(
      server,
      TABLE,
      'create table "No Key" (a int)',
      'create table n (a int primary key)',
      'alter table n replica identity nothing',
    );
    await refused(url, 'source_table_identity', /public\.No Key.*ALTER TABLE "public"\."No Key" REPLICA IDENTITY FULL/);
  });

  it('a source without tables', async () => {
    await refused(await database(server), 'source_table_missing', /public\.\*/);
  });

  it('a server without logical log', async () => {
    const physical = await startPostgres({ settings: { wal_level: 'replica' } });
    disposables.push(physical);
    await refused(await database(physical, TABLE), 'source_not_logical', /wal_level of the source is replica/);
  });

  it('a wrong password, an unknown user and an unknown database', async ({ skip }) => {
    const file = join(server.dataDir ?? skip('the server is elsewhere'), 'pg_hba.conf');
    const rules = await readFile(file, 'utf8');
    await writeFile(file, `host all guarded 127.0.0.1/32 scram-sha-256\n${rules}`);
    const url = new URL(
      await database(server, TABLE, `create role guarded superuser login password 'right'`, 'select pg_reload_conf()'),
    );
    const as = (user: string, password = ''): string => Object.assign(new URL(url), { username: user, password }).href;
    await waitFor('the new rules', async () => {
      const client = new pg.Client(as('guarded', 'wrong'));
      client.on('error', () => {});
      return client.connect().then(
        () => client.end().then(() => false),
        () => true,
      );
    });
    await refused(as('guarded', 'wrong'), 'source_auth', /password authentication failed.*28P01/);
    await refused(as('nobody'), 'source_auth', /28000/);
    await refused(server.urlFor('not_there'), 'source_auth', /3D000/);
    await writeFile(file, rules);
  });

  it('a user that may not publish, and one that may not replicate', async () => {
    const url = new URL(await database(server, TABLE, 'create role reader login', 'grant select on t to reader'));
    url.username = 'reader';
    await refused(url.href, 'source_publication', /CREATE PUBLICATION .* FOR TABLE "public"\."t"/);
    const admin = new pg.Client(Object.assign(new URL(url), { username: 'postgres' }).href);
    await admin.connect();
    await admin.query(
      `create publication ${quoteIdent(`waybill_refused${made}`)} for table t with (publish_via_partition_root)`,
    );
    await admin.end();
    await refused(url.href, 'source_privilege', /42501/);
  });

  it('a server whose slots are all taken', async () => {
    const url = await database(
      server,
      TABLE,
      `select pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b')`,
    );
    await refused(url, 'source_no_free_slot', /53400/);
    const client = new pg.Client(server.url);
    await client.connect();
    await client.query(`select pg_drop_replication_slot('a'), pg_drop_replication_slot('b')`);
    await client.end();
  });

  it('a slot of another plugin', async () => {
    const url = await database(server, TABLE);
    const client = new pg.Client(url);
    await client.connect();
    const slot = `waybill_refused${made}`;
    await client.query(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    await client.end();
    // The slot belongs to another database than the one that is captured under the same name.
    const other = new pg.Client(server.url);
    await other.connect();
    await other.query(TABLE);
    await other.end();
    await refused(server.url, 'config_invalid', new RegExp(`${slot} belongs to plugin pgoutput in database refused_`));
    const again = new pg.Client(url);
    await again.connect();
    await again.query(`select pg_drop_replication_slot('${slot}')`);
    await again.end();
  });

  it('NATS without JetStream, and with messages that are too small', async () => {
    const url = await database(server, TABLE);
    const plain = await startNats({ jetstream: false });
    disposables.push(plain);
    await refused(url, 'nats_no_jetstream', /./, plain.url);
    const small = await startNats({ config: { maxPayload: 16 * 1024 } });
    disposables.push(small);
    await refused(url, 'nats_payload_too_small', /16384 bytes/, small.url);
  });
});
