/** A mirror flow against a real Postgres and a real NATS, fed with frames made by hand. */
import { createHash, randomUUID } from 'node:crypto';
import { jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  discardQuarantine,
  listQuarantine,
  replayQuarantine,
  showQuarantine,
} from '../../apply/postgres/quarantine.ts';
import { advanceSql, readPositions } from '../../apply/postgres/position.ts';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import { cdcSubject, ensureCdcStream } from '../../core/cdc-stream.ts';
import { parseConfig, type Config, type FlowConfig } from '../../core/config.ts';
import { HEADER, type Part, type RowChange, type TableSchema, type Value } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_FLOW_REPORT, type FlowReport } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { formatHexLsn, formatPosition, parsePosition, ORIGIN, pgPosition, type Position } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';

type Pg = PostgresServer;
let pg: Pg;
let natsServer: NatsServer;
let nats: Nats;
let databases = 0;

beforeAll(async () => {
  [pg, natsServer] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterAll(async () => {
  await Promise.all([pg?.dispose(), natsServer?.dispose()]);
});

/** A table `public.<name>`; columns as `name type`, the first `keys` of them its key. */
function table(name: string, columns: readonly string[], keys = 1): TableSchema {
  const parsed = columns.map((text) => {
    const space = text.indexOf(' ');
    return { name: text.slice(0, space), type: text.slice(space + 1) };
  });
  return {
    schema: 'public',
    name,
    version: createHash('sha256').update(columns.join()).digest('hex').slice(0, 12),
    identity: keys === 0 ? 'full' : 'default',
    key: parsed.slice(0, keys).map((column) => column.name),
    columns: parsed.map(({ name: column, type }, index) => ({
      name: column,
      type,
      portable: type.startsWith('"') ? 'text' : type,
      notNull: index < keys,
    })),
  };
}

class Fixture {
  readonly config: Config;
  readonly client: Client;
  readonly #url: string;
  #lsn = 1000n;
  #end: Position = ORIGIN;
  #flows: { stop: AbortController; done: Promise<void> }[] = [];

  constructor(url: string, flow: string) {
    this.#url = url;
    this.config = parseConfig(
      JSON.stringify({
        version: 1,
        nats: {
          servers: [natsServer.url],
          prefix: `p${randomUUID().slice(0, 8).replaceAll('-', '')}`,
          stream: { max_bytes: '256MB' },
        },
        sources: { wms: { kind: 'postgres', url: 'postgresql://nowhere/none' } },
        targets: { vis: { kind: 'postgres', url } },
        flows: { mirror: JSON.parse(flow) as unknown },
      }),
      {},
    );
    this.client = new Client({ connectionString: url });
    this.client.on('error', () => undefined);
  }

  static async open(flow: Record<string, unknown> = {}): Promise<Fixture> {
    const url = await pg.createDatabase(`apply_${++databases}`);
    const fixture = new Fixture(url, JSON.stringify({ mirror: 'wms', to: 'vis', ...flow }));
    nats ??= await connectNats(fixture.config.nats, 'test');
    await ensureCdcStream(nats, fixture.config.nats, 'wms');
    await fixture.client.connect();
    return fixture;
  }

  start(report: Partial<FlowReport> = {}, leaseTtlMs = 1000): { stop: AbortController; done: Promise<void> } {
    const stop = new AbortController();
    const done = runMirrorFlow({
      name: 'mirror',
      settings: this.config.flows['mirror']!,
      store: createPostgresStore({ kind: 'postgres', url: this.#url }),
      nats: this.config.nats,
      holder: randomUUID(),
      leaseTtlMs,
      log: createLogger(process.env['DEBUG_APPLY'] === undefined ? 'silent' : 'debug'),
      signal: stop.signal,
      report: { ...NO_FLOW_REPORT, ...report },
    });
    done.catch(() => undefined);
    const flow = { stop, done };
    this.#flows.push(flow);
    return flow;
  }

  get settings(): FlowConfig {
    return this.config.flows['mirror']!;
  }

  /** Publishes one frame of whole transactions, or of one part of a transaction. */
  async frame(
    tables: TableSchema[],
    transactions: (readonly RowChange[])[],
    part: Part = 'whole',
    ordinal = 0,
  ): Promise<void> {
    const tx: unknown[] = [];
    if (part === 'whole' || part === 'first') this.#lsn += 100n;
    for (const [index, rows] of transactions.entries()) {
      if (index > 0) this.#lsn += 100n;
      const end = this.#lsn + 50n;
      tx.push([1, formatHexLsn(this.#lsn), formatHexLsn(end), Date.now() * 1000, rows.length, part, ordinal]);
    }
    const rows = transactions.flat();
    const whole = part === 'whole' || part === 'last';
    const end = whole ? pgPosition(this.#lsn + 50n) : pgPosition(this.#lsn, ordinal + rows.length);
    await this.publish({ v: 1, rows, tx, tables }, end);
  }

  async publish(payload: unknown, end: Position): Promise<void> {
    const head = headers();
    head.set(HEADER.format, '1');
    head.set(HEADER.source, 'wms');
    head.set(HEADER.origin, 'test/1');
    head.set(HEADER.start, formatPosition(this.#end));
    head.set(HEADER.end, formatPosition(end));
    head.set(HEADER.epoch, '1');
    head.set(HEADER.rows, '0');
    head.set(HEADER.time, new Date().toISOString());
    await jetstream(nats.connection).publish(cdcSubject(this.config.nats.prefix, 'wms'), JSON.stringify(payload), {
      headers: head,
    });
    this.#end = end;
  }

  /** Waits until the target stands where the stream ends. */
  async caughtUp(): Promise<void> {
    const wanted = formatPosition(this.#end);
    await expect
      .poll(async () => (await readPositions(this.client))[0]?.position, { timeout: 15_000, interval: 10 })
      .toBe(wanted);
  }

  async rows(sql: string): Promise<unknown[]> {
    const { rows } = await this.client.query({ text: sql, rowMode: 'array' });
    return rows;
  }

  async stopFlows(): Promise<void> {
    for (const flow of this.#flows) flow.stop.abort();
    await Promise.allSettled(this.#flows.map((flow) => flow.done));
    this.#flows = [];
  }

  async close(): Promise<void> {
    await this.stopFlows();
    await this.client.end().catch(() => undefined);
  }
}

afterAll(async () => nats?.close());

let fixture: Fixture;
const items = table('items', ['id bigint', 'name text', 'doc text']);
const ins = (...values: Value[]): RowChange => ['i', 0, values];
const upd = (...values: Value[]): RowChange => ['u', 0, values];
const del = (...values: Value[]): RowChange => ['d', 0, null, 'k', values];
const at = (index: number, row: RowChange): RowChange => [row[0], index, ...row.slice(2)] as unknown as RowChange;

afterEach(async () => {
  await fixture.close();
});

describe('changes', () => {
  beforeEach(async () => {
    fixture = await Fixture.open();
  });

  test('insert, update, delete arrive, in a table made for them', async () => {
    fixture.start();
    await fixture.frame([items], [[ins('1', "it's \\ a\ttab\nline", null), ins('2', 'b', 'x')]]);
    await fixture.frame([items], [[upd('1', 'A', 'doc')], [del('2', null, null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT * FROM items')).toEqual([['1', 'A', 'doc']]);
    await fixture.frame([items], [[ins('3', "it's \\ a\ttab\nline", null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT name, doc FROM items WHERE id = 3')).toEqual([["it's \\ a\ttab\nline", null]]);
    expect(
      await fixture.rows(`SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = 'items'::regclass AND indisprimary`),
    ).toEqual([['id']]);
  });

  test('many rows through COPY keep special characters, bytes and nulls', async () => {
    const wide = table('wide', [
      'id integer',
      't text',
      'b bytea',
      'n numeric(10,2)',
      'a text[]',
      'j jsonb',
      'ts timestamp with time zone',
    ]);
    fixture.start();
    const row = (id: number, t: string | null): RowChange =>
      ins(
        String(id),
        t,
        Buffer.from([0, 255, 92, 10]).toString('base64'),
        '1.50',
        '{"a,b",NULL,"NULL"}',
        '{"k": "\\n"}',
        'infinity',
      );
    await fixture.frame(
      [wide],
      [Array.from({ length: 500 }, (_, id) => row(id, id % 2 === 0 ? `\\N ${id}\r\n\t\\.` : null))],
    );
    await fixture.frame(
      [wide],
      [Array.from({ length: 500 }, (_, id) => ['u', 0, row(id, `\\.${id}`)[2]!] as RowChange)],
    );
    await fixture.caughtUp();
    expect(
      await fixture.rows(`SELECT count(*)::int, count(*) FILTER (WHERE t = '\\.' || id)::int, min(encode(b, 'hex')),
        min(n)::text, min(a::text), min(j->>'k'), min(ts)::text FROM wide`),
    ).toEqual([[500, 500, '00ff5c0a', '1.50', '{"a,b",NULL,"NULL"}', '\n', 'infinity']]);
  });

  test('the last state of a key counts, and partial images are merged', async () => {
    await fixture.frame(
      [items],
      [
        [ins('1', 'a', 'long'), ins('2', 'b', 'gone')],
        [upd('1', 'a2', 0), del('2', null, null)],
        [ins('2', 'again', 'new'), upd('2', 'again2', 0)],
        [ins('4', 'x', 'y'), del('4', null, null)],
      ],
    );
    fixture.start();
    await fixture.caughtUp();
    await fixture.frame([items], [[upd('1', 'a3', 0)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT * FROM items ORDER BY id')).toEqual([
      ['1', 'a3', 'long'],
      ['2', 'again2', 'new'],
    ]);
  });

  test('many partial updates of different columns through the staging table', async () => {
    fixture.start();
    await fixture.frame([items], [Array.from({ length: 300 }, (_, id) => ins(String(id), `n${id}`, `d${id}`))]);
    await fixture.frame(
      [items],
      [
        Array.from({ length: 300 }, (_, id) =>
          id % 3 === 0 ? upd(String(id), 'N', 0) : id % 3 === 1 ? upd(String(id), 0, 'D') : del(String(id), null, null),
        ),
      ],
    );
    await fixture.caughtUp();
    expect(
      await fixture.rows(`SELECT count(*)::int, count(*) FILTER (WHERE name = 'N' AND doc = 'd' || id)::int,
        count(*) FILTER (WHERE doc = 'D' AND name = 'n' || id)::int FROM items`),
    ).toEqual([[200, 100, 100]]);
  });

  test('a changed key moves the row with its unchanged columns', async () => {
    fixture.start();
    await fixture.frame([items], [[ins('1', 'a', 'toast'), ins('5', 'e', 'f')]]);
    await fixture.caughtUp();
    await fixture.frame(
      [items],
      [[['u', 0, ['10', 'a2', 0], 'k', ['1', null, null]]], [['u', 0, ['50', 'e2', 'f2'], 'k', ['5', null, null]]]],
    );
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT * FROM items ORDER BY id')).toEqual([
      ['10', 'a2', 'toast'],
      ['50', 'e2', 'f2'],
    ]);
  });

  test('foreign keys hold in both directions', async () => {
    await fixture.client.query(`CREATE TABLE parents (id bigint PRIMARY KEY, name text);
      CREATE TABLE a_children (id bigint PRIMARY KEY, parent bigint REFERENCES parents)`);
    const tables = [table('a_children', ['id bigint', 'parent bigint']), table('parents', ['id bigint', 'name text'])];
    fixture.start();
    await fixture.frame(tables, [[at(1, ins('1', 'p')), at(1, ins('2', 'q')), ins('1', '1'), ins('2', '2')]]);
    await fixture.caughtUp();
    await fixture.frame(tables, [
      [del('1', null), at(1, del('1', null)), at(1, ins('3', 'r')), upd('2', '3'), at(1, del('2', null))],
    ]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT c.id, p.id FROM a_children c JOIN parents p ON p.id = parent')).toEqual([
      ['2', '3'],
    ]);
    expect(await fixture.rows('SELECT id FROM parents')).toEqual([['3']]);
    expect(await listQuarantine(fixture.client)).toEqual([]);
  });

  test('a swap of unique values is replayed in source order', async () => {
    await fixture.client.query('CREATE TABLE items (id bigint PRIMARY KEY, name text UNIQUE, doc text)');
    fixture.start();
    await fixture.frame([items], [[ins('1', 'a', null), ins('2', 'b', null)]]);
    await fixture.caughtUp();
    await fixture.frame([items], [[upd('1', 'tmp', null), upd('2', 'a', null), upd('1', 'b', null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items ORDER BY id')).toEqual([
      ['1', 'b'],
      ['2', 'a'],
    ]);
    expect(await listQuarantine(fixture.client)).toEqual([]);
  });

  test('a table without a key is written row by row', async () => {
    const log = table('log', ['a integer', 'b text', 'j json'], 0);
    fixture.start();
    const full = (op: 'u' | 'd', after: Value[] | null, before: Value[]): RowChange =>
      [op, 0, after, 'f', before] as RowChange;
    await fixture.frame([log], [[ins('1', 'x', '{}'), ins('1', 'x', '{}'), ins('2', null, null)]]);
    await fixture.frame([log], [[full('d', null, ['1', 'x', '{}'])], [full('u', ['3', 0, '[1]'], ['2', null, null])]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT a, b, j::text FROM log ORDER BY a')).toEqual([
      [1, 'x', '{}'],
      [3, null, '[1]'],
    ]);
  });

  test('truncate empties the table at its place', async () => {
    fixture.start();
    await fixture.frame([items], [[ins('1', 'a', null)], [ins('2', 'b', null), ['t', 0, []], ins('3', 'c', null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id FROM items')).toEqual([['3']]);
  });

  test('a new source column is added, and a dropped one is left alone', async () => {
    fixture.start();
    await fixture.frame([items], [[ins('1', 'a', 'd')]]);
    await fixture.frame([table('items', ['id bigint', 'name text', 'qty integer'])], [[ins('2', 'b', '7')]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id, name, doc, qty FROM items ORDER BY id')).toEqual([
      ['1', 'a', 'd', null],
      ['2', 'b', null, 7],
    ]);
  });

  test('a frame without rows moves the position', async () => {
    fixture.start();
    await fixture.publish({ v: 1, rows: [], tx: [], tables: [] }, pgPosition(5000n));
    await fixture.caughtUp();
  });

  test('a table of another shape is stopped with both types named, and the others go on', async () => {
    await fixture.client.query('CREATE TABLE items (id bigint PRIMARY KEY, name integer, doc text)');
    const notices: unknown[] = [];
    fixture.start({ tables: (tables) => void notices.splice(0, notices.length, ...tables) });
    const others = table('others', ['id bigint']);
    await fixture.frame([items, others], [[ins('1', 'a', null), ['i', 1, ['7']]]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id FROM others')).toEqual([['7']]);
    expect(await fixture.rows('SELECT id FROM items')).toEqual([]);
    expect(notices).toEqual([
      { schema: 'public', name: 'items', state: 'stopped', reason: expect.stringMatching(/name is integer.*text/) },
    ]);
  });
});

describe('values of another kind of source', () => {
  const days = { ...table('days', ['id int', 'd date']), dialect: 'mysql' as const };
  const rows = Array.from({ length: 400 }, (_, n) => ins(String(n), n === 250 ? '0000-00-00' : '2026-11-24'));

  test.each([
    ['null', 400, null],
    ['epoch', 400, '1970-01-01'],
    ['reject', 399, undefined],
  ])('a date of zeros in the middle of a COPY, zero_dates: %s', async (policy, count, stored) => {
    fixture = await Fixture.open({ zero_dates: policy });
    fixture.start();
    await fixture.frame([days], [rows]);
    await fixture.frame([days], [[upd('1', '2026-11-25')]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM days')).toEqual([[count]]);
    expect(await fixture.rows('SELECT d::text FROM days WHERE id = 250')).toEqual(
      stored === undefined ? [] : [[stored]],
    );
    expect((await listQuarantine(fixture.client, 'mirror')).map((entry) => entry.key)).toEqual(
      policy === 'reject' ? ['["250"]'] : [],
    );
  });
});

describe('quarantine', () => {
  beforeEach(async () => {
    fixture = await Fixture.open();
    await fixture.client.query(
      `CREATE TABLE items (id bigint PRIMARY KEY, name text CONSTRAINT short CHECK (length(name) < 5), doc text)`,
    );
  });

  test('a bad row and what follows it wait; neighbours go on; replay and discard', async () => {
    let reported = 0;
    fixture.start({ quarantined: (_, keys) => (reported += keys) });
    await fixture.frame([items], [[ins('1', 'ok', null), ins('2', 'too long', null), ins('3', 'ok', null)]]);
    await fixture.caughtUp();
    await fixture.frame([items], [[upd('2', 'fine', null)]]);
    await fixture.frame([items], [[upd('2', 'fin2', 'd'), ins('4', 'ok', null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3'], ['4']]);
    const list = await listQuarantine(fixture.client, 'mirror');
    expect(list.map((entry) => [entry.key, entry.op, entry.reason, entry.sqlState])).toEqual([
      ['["2"]', 'i', 'constraint', '23514'],
      ['["2"]', 'u', 'held', null],
      ['["2"]', 'u', 'held', null],
    ]);
    expect(reported).toBe(3);
    expect(list[0]!.message).not.toContain('too long');
    expect((await showQuarantine(fixture.client, list[0]!.id))?.change.change[2]).toEqual(['2', 'too long', null]);

    expect(await replayQuarantine(fixture.client, 'mirror', { all: true })).toMatchObject({
      applied: 0,
      failed: [{ id: list[0]!.id, sqlState: '23514' }],
    });
    await fixture.client.query('ALTER TABLE items DROP CONSTRAINT short');
    expect(await replayQuarantine(fixture.client, 'mirror', { ids: [list[2]!.id] })).toEqual({
      applied: 3,
      failed: [],
    });
    expect(await fixture.rows('SELECT name, doc FROM items WHERE id = 2')).toEqual([['fin2', 'd']]);
    await fixture.frame([items], [[upd('2', 'free', null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT name FROM items WHERE id = 2')).toEqual([['free']]);
  });

  test('held keys survive a restart, and discarding releases them', async () => {
    const first = fixture.start();
    await fixture.frame([items], [[ins('2', 'too long', null)]]);
    await fixture.caughtUp();
    first.stop.abort();
    await first.done;
    fixture.start();
    await fixture.frame([items], [[upd('2', 'b', null)]]);
    await fixture.caughtUp();
    const list = await listQuarantine(fixture.client);
    expect(list.map((entry) => entry.reason)).toEqual(['constraint', 'held']);
    expect(
      await discardQuarantine(
        fixture.client,
        'mirror',
        list.map((entry) => entry.id),
      ),
    ).toBe(2);
    await fixture.frame([items], [[upd('2', 'c', null)]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items')).toEqual([['2', 'c']]);
  });

  test('a bad row among many in COPY is found', async () => {
    fixture.start();
    await fixture.frame(
      [items],
      [Array.from({ length: 400 }, (_, id) => ins(String(id), id === 250 ? 'too long' : 'ok', null))],
    );
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[399]]);
    expect((await listQuarantine(fixture.client)).map((entry) => entry.key)).toEqual(['["250"]']);
  });

  test('a bad row inside a transaction of several batches', async () => {
    await fixture.close();
    fixture = await Fixture.open({ batch_bytes: 2000 });
    await fixture.client.query(
      `CREATE TABLE items (id bigint PRIMARY KEY, name text CHECK (length(name) < 5), doc text)`,
    );
    fixture.start();
    const rows = (from: number): RowChange[] =>
      Array.from({ length: 200 }, (_, id) => ins(String(from + id), from + id === 250 ? 'too long' : 'ok', null));
    await fixture.frame([items], [rows(0)], 'first', 0);
    await fixture.frame([items], [rows(200)], 'middle', 200);
    await fixture.frame([items], [rows(400)], 'last', 400);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[599]]);
    expect((await listQuarantine(fixture.client)).map((entry) => [entry.key, entry.ordinal])).toEqual([
      ['["250"]', 250],
    ]);
  });
});

describe('transactions and restarts', () => {
  test('a transaction of several frames is invisible until its end', async () => {
    fixture = await Fixture.open({ batch_bytes: 3000 });
    fixture.start();
    await fixture.frame([items], [[ins('0', 'before', null)]]);
    await fixture.caughtUp();
    const rows = (from: number): RowChange[] =>
      Array.from({ length: 150 }, (_, id) => ins(String(from + id), 'n', null));
    await fixture.frame([items], [rows(1)], 'first', 0);
    await fixture.frame([items], [rows(151)], 'middle', 150);
    await expect
      .poll(
        () =>
          fixture.rows(
            `SELECT count(*)::int FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()`,
          ),
        { timeout: 5000 },
      )
      .toEqual([[1]]);
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[1]]);
    await fixture.frame([items], [rows(301)], 'last', 300);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[451]]);
  });

  test('a restart applies nothing twice, and what it was in the middle of once', async () => {
    fixture = await Fixture.open({ batch_bytes: 3000 });
    const log = table('log', ['a integer'], 0);
    const first = fixture.start();
    await fixture.frame([log], [[ins('1')], [ins('2')]]);
    await fixture.caughtUp();
    await fixture.frame([log], [Array.from({ length: 400 }, () => ins('3'))], 'first', 0);
    await expect
      .poll(
        () =>
          fixture.rows(
            `SELECT count(*)::int FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()`,
          ),
        { timeout: 5000 },
      )
      .toEqual([[1]]);
    first.stop.abort();
    await first.done;
    fixture.start();
    await fixture.frame([log], [[ins('4')]], 'last', 400);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT a, count(*)::int FROM log GROUP BY a ORDER BY a')).toEqual([
      [1, 1],
      [2, 1],
      [3, 400],
      [4, 1],
    ]);
  });

  test('a position between two transactions of a frame: the first is not applied again', async () => {
    fixture = await Fixture.open();
    const log = table('log', ['a integer'], 0);
    const tx = (lsn: bigint, part: Part, rows: number, ordinal: number) => [
      1,
      formatHexLsn(lsn),
      formatHexLsn(lsn + 50n),
      Date.now() * 1000,
      rows,
      part,
      ordinal,
    ];
    await fixture.publish(
      { v: 1, rows: [ins('1'), ins('2')], tx: [tx(100n, 'whole', 1, 0), tx(200n, 'first', 1, 0)], tables: [log] },
      pgPosition(200n, 1),
    );
    const first = fixture.start();
    await expect
      .poll(async () => (await readPositions(fixture.client))[0]?.position, { timeout: 5000 })
      .toBe(formatPosition(pgPosition(150n)));
    first.stop.abort();
    await first.done;
    fixture.start();
    await fixture.publish({ v: 1, rows: [ins('3')], tx: [tx(200n, 'last', 1, 1)], tables: [log] }, pgPosition(250n));
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT a FROM log ORDER BY a')).toEqual([[1], [2], [3]]);
  });

  test('a writer that was overtaken is fenced and starts again from the position', async () => {
    fixture = await Fixture.open();
    const codes: string[] = [];
    fixture.start({
      state: (state, detail) => {
        if (state === 'waiting') codes.push(detail!.split(':')[0]!);
      },
    });
    await fixture.frame([items], [[ins('1', 'a', null)]]);
    await fixture.caughtUp();
    const [row] = await readPositions(fixture.client);
    const move = (next: bigint) =>
      advanceSql({
        flow: 'mirror',
        source: 'wms',
        expected: parsePosition(row!.position)!,
        next: pgPosition(next),
        stream: row!.stream,
        seq: 1,
        commitTimeUs: 0,
        quarantineVersion: 0,
      });
    // Another writer applies the second frame (with a different outcome, to tell whose it was).
    await fixture.client.query(move(1250n));
    await expect(fixture.client.query(move(1250n))).rejects.toMatchObject({ code: 'WB001' });
    await fixture.frame([items], [[ins('2', 'zombie', null)]]);
    await fixture.frame([items], [[ins('3', 'c', null)]]);
    await fixture.caughtUp();
    expect(codes).toContain('target_fenced');
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3']]);
  });

  test('of two flows one stands by, and takes over', async () => {
    fixture = await Fixture.open();
    const first = fixture.start();
    await fixture.frame([items], [[ins('1', 'a', null)]]);
    await fixture.caughtUp();
    let standby = false;
    fixture.start({
      state: (state) => {
        if (state === 'standby') standby = true;
      },
    });
    await expect.poll(() => standby, { timeout: 5000 }).toBe(true);
    first.stop.abort();
    await first.done;
    await fixture.frame([items], [[ins('2', 'b', null)]]);
    await fixture.caughtUp();
  });

  test('a snapshot removes what it did not see, over a restart', async () => {
    fixture = await Fixture.open();
    const log = table('log', ['a integer'], 0);
    const first = fixture.start();
    const mark = (tableIndex: number, what: string): RowChange => ['s', tableIndex, ['snap-1', what]];
    const read = (...values: Value[]): RowChange => ['r', 0, values];
    const rows = Array.from({ length: 300 }, (_, id) => ins(String(id), 'old', null));
    await fixture.frame([items, log], [[mark(0, 'begin'), ...rows, mark(0, 'end'), at(1, ins('1'))]]);
    await fixture.frame(
      [items, log],
      [
        [mark(0, 'begin'), mark(1, 'begin')],
        [read('1', 'new', null), ['r', 1, ['2']]],
      ],
    );
    await fixture.caughtUp();
    first.stop.abort();
    await first.done;
    fixture.start();
    await fixture.frame(
      [items, log],
      [
        [upd('2', 'streamed', null), ins('900', 'n', null)],
        Array.from({ length: 150 }, (_, id) => read(String(100 + id), 'new', null)),
      ],
    );
    await fixture.frame([items, log], [[mark(0, 'end'), mark(1, 'end')]]);
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int, sum(id)::int FROM items')).toEqual([
      [153, 1 + 2 + 900 + 150 * 100 + (149 * 150) / 2],
    ]);
    expect(await fixture.rows('SELECT a FROM log')).toEqual([[2]]);
    expect(await fixture.rows(`SELECT relname FROM pg_class WHERE relname LIKE 'seen%'`)).toEqual([]);
  });

  test('deletes and truncates can be ignored, and tables left out', async () => {
    fixture = await Fixture.open({
      deletes: 'ignore',
      truncate: 'ignore',
      tables: ['public.*', '!public.log'],
      schema: 'wms',
    });
    fixture.start();
    const log = table('log', ['a integer'], 0);
    await fixture.frame(
      [items, log],
      [
        [ins('1', 'a', null), ins('2', 'a', null), at(1, ins('1'))],
        [del('1', null, null), ['t', 0, []]],
      ],
    );
    await fixture.caughtUp();
    expect(await fixture.rows('SELECT id FROM wms.items ORDER BY id')).toEqual([['1'], ['2']]);
    expect(await fixture.rows(`SELECT to_regclass('wms.log')`)).toEqual([[null]]);
  });

  test('the target may restart', async () => {
    fixture = await Fixture.open();
    fixture.start();
    await fixture.frame([items], [[ins('1', 'a', null)]]);
    await fixture.caughtUp();
    await pg.stop('immediate');
    await fixture.frame([items], [[ins('2', 'b', null)]]);
    await pg.start();
    const client = new Client({ connectionString: fixture.config.targets['vis']!.url });
    client.on('error', () => undefined);
    await client.connect();
    try {
      await expect
        .poll(async () => (await client.query('SELECT count(*)::int AS n FROM items')).rows[0].n as number, {
          timeout: 15_000,
        })
        .toBe(2);
    } finally {
      await client.end();
    }
  });
});
