/** A mirror flow into Postgres: rows that the target refuses. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { FollowedTables } from '../../apply/followed-tables.ts';
import {
  discardQuarantine,
  editQuarantine,
  listQuarantine,
  loadHeldKeys,
  replayQuarantine,
  showQuarantine,
} from '../../apply/postgres/quarantine.ts';
import { PAGE_SIZES } from '../../apply/quarantine-entry.ts';
import { type RowChange } from '../../core/frame.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, ins, tableOf, upd } from '../support/frame-feed.ts';
import { PostgresTarget } from '../support/postgres-target.ts';

let pg: PostgresServer;
let natsServer: NatsServer;
let fixture: PostgresTarget;

beforeAll(async () => {
  [pg, natsServer] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterEach(async () => {
  await fixture.close();
});
afterAll(async () => {
  await Promise.all([pg?.dispose(), natsServer?.dispose()]);
});

const items = tableOf('items', ['id bigint', 'name text', 'doc text']);

describe('quarantine', () => {
  beforeEach(async () => {
    fixture = await PostgresTarget.open(pg, natsServer.url);
    await fixture.client.query(
      `CREATE TABLE items (id bigint PRIMARY KEY, name text CONSTRAINT short CHECK (length(name) < 5), doc text)`,
    );
  });

  test('an error that a trigger raises with a SQLSTATE of its own is that of its row', async () => {
    await fixture.client.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.name = 'no' THEN RAISE 'not this one' USING ERRCODE = 'WH001'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()`);
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'ok', null), ins('2', 'no', null), ins('3', 'ok', null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3']]);
    const list = await listQuarantine(fixture.client, 'mirror');
    expect(list.map(({ key, reason, sqlState }) => [key, reason, sqlState])).toEqual([['["2"]', 'raised', 'WH001']]);
  });

  test('a bad row and what follows it wait; neighbours go on; replay and discard', async () => {
    const waiting: Record<string, number> = {};
    fixture.feed.start({ quarantined: (reason, keys) => void (waiting[reason] = keys) });
    await fixture.feed.frame([items], [[ins('1', 'ok', null), ins('2', 'too long', null), ins('3', 'ok', null)]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame([items], [[upd('2', 'fine', null)]]);
    await fixture.feed.frame([items], [[upd('2', 'fin2', 'd'), ins('4', 'ok', null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3'], ['4']]);
    const list = await listQuarantine(fixture.client, 'mirror');
    expect(list.map((entry) => [entry.key, entry.op, entry.reason, entry.sqlState])).toEqual([
      ['["2"]', 'i', 'constraint', '23514'],
      ['["2"]', 'u', 'held', null],
      ['["2"]', 'u', 'held', null],
    ]);
    await expect.poll(() => waiting).toEqual({ constraint: 1, held: 1 });
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
    // Somebody else did that: the flow notices.
    await expect.poll(() => waiting).toEqual({ constraint: 0, held: 0 });
    expect(await fixture.rows('SELECT name, doc FROM items WHERE id = 2')).toEqual([['fin2', 'd']]);
    await fixture.feed.frame([items], [[upd('2', 'free', null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT name FROM items WHERE id = 2')).toEqual([['free']]);
  });

  test('what waits is replayed into its table as that is by now', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'ok', 'a'), ins('2', 'too long', 'b')]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame([tableOf('items', ['id bigint', 'name text'])], [[ins('3', 'ok')]]);
    await fixture.feed.caughtUp();
    await fixture.client.query('ALTER TABLE items DROP CONSTRAINT short, DROP COLUMN doc');
    expect(await replayQuarantine(fixture.client, 'mirror', { all: true })).toEqual({ applied: 1, failed: [] });
    expect(await fixture.rows('SELECT * FROM items ORDER BY id')).toEqual([
      ['1', 'ok'],
      ['2', 'too long'],
      ['3', 'ok'],
    ]);
  });

  test.each(['at once', 'after a restart'])(
    'what comes of a row that waits, waits behind it when the key is another one, %s',
    async (when) => {
      const flow = fixture.feed.start();
      await fixture.feed.frame([items], [[ins('1', 'ok', 'a'), ins('2', 'too long', 'b')]]);
      await fixture.feed.caughtUp();
      const { columns, ...table } = tableOf('items', ['id bigint', 'name text', 'doc text']);
      const keyed = {
        ...table,
        version: 'other',
        key: ['doc'],
        columns: columns.map((column) => ({ ...column, notNull: column.name !== 'name' })),
      };
      await fixture.feed.frame([keyed], [[ins('3', 'ok', 'c')]]);
      await fixture.feed.caughtUp();
      if (when === 'after a restart') {
        flow.stop.abort();
        await flow.done;
        fixture.feed.start();
      }
      await fixture.feed.frame([keyed], [[upd('2', 'new', 'b')]]);
      await fixture.feed.caughtUp();
      expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['3']]);
      const list = await listQuarantine(fixture.client);
      expect(list.map(({ reason }) => reason)).toEqual(['constraint', 'held']);
      await fixture.client.query('ALTER TABLE items DROP CONSTRAINT short');
      expect(await replayQuarantine(fixture.client, 'mirror', { ids: [list[0]!.id] })).toEqual({
        applied: 2,
        failed: [],
      });
      expect(await fixture.rows('SELECT id, name, doc FROM items ORDER BY id')).toEqual([
        ['1', 'ok', 'a'],
        ['2', 'new', 'b'],
        ['3', 'ok', 'c'],
      ]);
    },
  );

  test('changes of two versions of a table are replayed, each with its columns', async () => {
    fixture.feed.start();
    const more = tableOf('items', ['id bigint', 'name text', 'doc text', 'more text']);
    const most = tableOf('items', ['id bigint', 'name text', 'doc text', 'more text', 'most text']);
    await fixture.feed.frame([items], [[ins('1', 'too long', 'a')]]);
    await fixture.feed.frame([more], [[ins('2', 'too long', 'b', 'm')]]);
    await fixture.feed.frame([most], [[ins('3', 'ok', 'c', 'm', 'n')]]);
    await fixture.feed.caughtUp();
    await fixture.client.query('ALTER TABLE items DROP CONSTRAINT short');
    expect(await replayQuarantine(fixture.client, 'mirror', { all: true })).toEqual({ applied: 2, failed: [] });
    expect(await fixture.rows('SELECT doc, more, most FROM items ORDER BY id')).toEqual([
      ['a', null, null],
      ['b', 'm', null],
      ['c', 'm', 'n'],
    ]);
  });

  test('held keys survive a restart, and discarding releases them', async () => {
    const first = fixture.feed.start();
    await fixture.feed.frame([items], [[ins('2', 'too long', null)]]);
    await fixture.feed.caughtUp();
    first.stop.abort();
    await first.done;
    fixture.feed.start();
    await fixture.feed.frame([items], [[upd('2', 'b', null)]]);
    await fixture.feed.caughtUp();
    const list = await listQuarantine(fixture.client);
    expect(list.map((entry) => entry.reason)).toEqual(['constraint', 'held']);
    expect(
      await discardQuarantine(
        fixture.client,
        'mirror',
        list.map((entry) => entry.id),
      ),
    ).toBe(2);
    await fixture.feed.frame([items], [[upd('2', 'c', null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items')).toEqual([['2', 'c']]);
  });

  test('held keys are known of more changes than are looked at together', async () => {
    const flow = fixture.feed.start();
    await fixture.feed.frame([items], [[ins('0', 'too long', null)]]);
    await fixture.feed.caughtUp();
    flow.stop.abort();
    await flow.done;
    await fixture.client.query(
      `INSERT INTO waybill.quarantine (flow, source, table_schema, table_name, key, position, ordinal, op, reason, change)
       SELECT flow, source, table_schema, table_name, key, position, n, op, reason, jsonb_set(change::jsonb, '{change,2,0}', to_jsonb(n::text))
         FROM waybill.quarantine, generate_series(1, $1) n`,
      [PAGE_SIZES + 5],
    );
    const { settings } = fixture.feed;
    const followed = new FollowedTables(settings);
    const held = await loadHeldKeys(fixture.client, { flow: 'mirror', settings, followed });
    for (let n = 0; n <= PAGE_SIZES + 5; n++) expect(held.has('public.items', String(n))).toBe(true);
  });

  test('a bad row among many in COPY is found', async () => {
    fixture.feed.start();
    await fixture.feed.frame(
      [items],
      [Array.from({ length: 400 }, (_, id) => ins(String(id), id === 250 ? 'too long' : 'ok', null))],
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[399]]);
    expect((await listQuarantine(fixture.client)).map((entry) => entry.key)).toEqual(['["250"]']);
  });

  test('a bad row inside a transaction of several batches', async () => {
    await fixture.close();
    fixture = await PostgresTarget.open(pg, natsServer.url, { batch_bytes: 2000 });
    await fixture.client.query(
      `CREATE TABLE items (id bigint PRIMARY KEY, name text CHECK (length(name) < 5), doc text)`,
    );
    fixture.feed.start();
    const rows = (from: number): RowChange[] =>
      Array.from({ length: 200 }, (_, id) => ins(String(from + id), from + id === 250 ? 'too long' : 'ok', null));
    await fixture.feed.frame([items], [rows(0)], 'first', 0);
    await fixture.feed.frame([items], [rows(200)], 'middle', 200);
    await fixture.feed.frame([items], [rows(400)], 'last', 400);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT count(*)::int FROM items')).toEqual([[599]]);
    expect((await listQuarantine(fixture.client)).map((entry) => [entry.key, entry.ordinal])).toEqual([
      ['["250"]', 250],
    ]);
  });

  test('rows that are refused one by one take no more of the server’s locks than one', async () => {
    await fixture.client.query(
      `CREATE FUNCTION transaction_locks() RETURNS bigint LANGUAGE sql AS
         $$ SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid() $$;
       ALTER TABLE items ADD locks bigint DEFAULT transaction_locks()`,
    );
    fixture.feed.start();
    const row = (id: number): RowChange => ins(String(id), id % 2 === 0 ? 'much too long' : 'ok', null);
    await fixture.feed.frame([items], [Array.from({ length: 300 }, (_, i) => row(i + 1))]);
    await fixture.feed.caughtUp();
    const [[rows, locks]] = (await fixture.rows('SELECT count(*)::int, max(locks)::int FROM items')) as [
      [number, number],
    ];
    expect(rows).toBe(150);
    expect(locks).toBeLessThan(5);
  });

  test('a row that broke with a quarantined one is found where the constraint is deferred', async () => {
    await fixture.client.query(
      'CREATE TABLE kids (id bigint PRIMARY KEY, item bigint REFERENCES items DEFERRABLE INITIALLY DEFERRED)',
    );
    const tables = [items, tableOf('kids', ['id bigint', 'item bigint'])];
    fixture.feed.start();
    await fixture.feed.frame(tables, [
      [at(1, ins('1', '1')), ins('1', 'too long', null), ins('2', 'ok', null), at(1, ins('2', '2'))],
    ]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM kids')).toEqual([['2']]);
    expect((await listQuarantine(fixture.client)).map(({ table, key }) => `${table} ${key}`).sort()).toEqual([
      'items ["1"]',
      'kids ["1"]',
    ]);
  });

  test('what is truncated waits no more, and what waits is not taken for gone by a snapshot', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'ok', null), ins('2', 'ok', null)]]);
    await fixture.feed.frame([items], [[upd('1', 'too long', null)]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame([items], [[upd('1', 'old', null)], [['t', 0, []]], [ins('1', 'new', null)]]);
    await fixture.feed.frame([items], [[upd('1', 'new2', null)]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items')).toEqual([['1', 'new2']]);
    expect(await listQuarantine(fixture.client)).toEqual([]);
    await fixture.feed.frame([items], [[upd('1', 'too long', null), ins('5', 'five', null), ins('6', 'six', null)]]);
    await fixture.feed.caughtUp();
    await fixture.feed.frame(
      [items],
      [
        [['s', 0, ['one', 'begin']]],
        [
          ['r', 0, ['1', 'longer still', null]],
          ['r', 0, ['5', 'five', null]],
        ],
        [['s', 0, ['one', 'end']]],
      ],
    );
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id, name FROM items ORDER BY id')).toEqual([
      ['1', 'new2'],
      ['5', 'five'],
    ]);
    expect((await listQuarantine(fixture.client)).map(({ op, key }) => [op, key])).toEqual([
      ['u', '["1"]'],
      ['r', '["1"]'],
    ]);
  });

  test('a text with a NUL is a value that Postgres refuses, in few rows as in many', async () => {
    fixture.feed.start();
    await fixture.feed.frame([items], [[ins('1', 'a\0b', null), ins('2', 'ok', null), ins('3', 'ok', 'd')]]);
    await fixture.feed.frame([items], [[upd('1', 'b', 'e\0f')]]);
    await fixture.feed.caughtUp();
    expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['2'], ['3']]);
    const list = await listQuarantine(fixture.client);
    expect(list.map(({ key, reason }) => [key, reason])).toEqual([
      ['["1"]', 'value'],
      ['["1"]', 'held'],
    ]);
    const shown = await showQuarantine(fixture.client, list[0]!.id);
    expect(shown?.change.change).toEqual(['i', 0, ['1', 'a\0b', null]]);
    await editQuarantine(fixture.client, 'mirror', list[0]!.id, { name: 'ab' });
    await editQuarantine(fixture.client, 'mirror', list[1]!.id, { doc: 'ef' });
    expect(await replayQuarantine(fixture.client, 'mirror', { all: true })).toEqual({ applied: 2, failed: [] });
    expect(await fixture.rows('SELECT name, doc FROM items WHERE id = 1')).toEqual([['b', 'ef']]);
  });
});
