/** A mirror flow into Postgres tables with constraints that are checked at the end of a transaction. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { listQuarantine } from '../../apply/postgres/quarantine.ts';
import type { RowChange, TableSchema } from '../../core/frame.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, del, ins, tableOf, upd } from '../support/frame-feed.ts';
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

const items = tableOf('items', ['id bigint', 'name text']);
const wider = tableOf('items', ['id bigint', 'name text', 'more text']);
const kids = tableOf('kids', ['id bigint', 'item bigint']);
const widerKids = tableOf('kids', ['id bigint', 'item bigint', 'more text']);
const tables = [items, kids];
const kid = (id: string, item: string | null): RowChange => at(1, ins(id, item));
const truncated: RowChange = ['t', 0, []];
const mark = (id: string, what: string): RowChange => ['s', 0, [id, what]];
const many = (from: number): RowChange[] => Array.from({ length: 40 }, (_, n) => ins(`${from + n}`, 'x'.repeat(1000)));

async function open(flow: Record<string, unknown> = { batch_bytes: '16KB' }): Promise<void> {
  fixture = await PostgresTarget.open(pg, natsServer.url, flow);
  await fixture.client.query(
    `CREATE TABLE items (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'));
     CREATE TABLE kids (id bigint PRIMARY KEY, item bigint REFERENCES items DEFERRABLE INITIALLY DEFERRED)`,
  );
}

/** One transaction in three parts. */
async function inParts(
  of: readonly TableSchema[],
  parts: readonly [RowChange[], RowChange[], RowChange[]],
): Promise<void> {
  const [first, middle, last] = parts;
  await fixture.feed.frame([...of], [first], 'first');
  await fixture.feed.frame([...of], [middle], 'middle', first.length);
  await fixture.feed.frame([...of], [last], 'last', first.length + middle.length);
}

const waiting = async (): Promise<string[]> =>
  (await listQuarantine(fixture.client)).map(({ table, key, reason }) => `${table} ${key} ${reason}`);
const kidRows = (): Promise<unknown[]> => fixture.rows('SELECT id, item FROM kids ORDER BY id');
const itemCount = async (): Promise<unknown> => (await fixture.rows('SELECT count(*)::int FROM items')).flat()[0];

test('a row that breaks a constraint in an early part of its transaction waits, and the flow goes on', async () => {
  await open();
  fixture.feed.start();
  await inParts(tables, [[kid('1', '3000'), kid('2', '99'), ...many(1000)], many(2000), many(3000)]);
  await fixture.feed.frame(tables, [[at(1, upd('2', '1000')), ins('5000', 'a')]]);
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([['1', '3000']]);
  expect(await waiting()).toEqual(['kids ["2"] constraint', 'kids ["2"] held']);
  expect(await itemCount()).toBe(121);
});

test('a row that breaks a constraint in a transaction before one of several parts waits', async () => {
  await open();
  await fixture.feed.frame(tables, [
    [ins('1', 'a'), kid('1', '1')],
    [kid('2', '99'), kid('3', '3000')],
  ]);
  await inParts(tables, [[kid('4', '3000'), ...many(1000)], many(2000), many(3000)]);
  await fixture.feed.frame(tables, [[ins('99', 'late')]]);
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([
    ['1', '1'],
    ['4', '3000'],
  ]);
  expect(await waiting()).toEqual(['kids ["2"] constraint', 'kids ["3"] constraint']);
  expect(await itemCount()).toBe(122);
});

test('a deleted row that others refer to waits, and goes where they go with a later part', async () => {
  await open();
  fixture.feed.start();
  await fixture.feed.frame(tables, [[ins('1', 'a'), ins('2', 'a'), kid('1', '1'), kid('2', '2')]]);
  await inParts(tables, [
    [del('1', null), del('2', null), ...many(1000)],
    many(2000),
    [at(1, del('2', null)), ...many(3000)],
  ]);
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([['1', '1']]);
  expect(await waiting()).toEqual(['items ["1"] constraint']);
  expect(await itemCount()).toBe(121);
});

test('a row whose parent comes in the last part goes in, also beside one that is refused', async () => {
  await open();
  fixture.feed.start();
  await inParts(tables, [[kid('2', '3000'), ins('7', 'bad'), ...many(1000)], many(2000), many(3000)]);
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([['2', '3000']]);
  expect(await waiting()).toEqual(['items ["7"] constraint']);
  expect(await itemCount()).toBe(120);
});

test('values that are exchanged over the parts of a transaction go in', async () => {
  await open();
  await fixture.client.query('ALTER TABLE kids ADD UNIQUE (item) DEFERRABLE INITIALLY DEFERRED');
  fixture.feed.start();
  await fixture.feed.frame(tables, [[ins('1', 'a'), ins('2', 'a'), kid('1', '1'), kid('2', '2')]]);
  await inParts(tables, [
    [at(1, upd('1', '2')), ...many(1000)],
    [ins('7', 'bad'), ...many(2000)],
    [at(1, upd('2', '1')), ...many(3000)],
  ]);
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([
    ['1', '2'],
    ['2', '1'],
  ]);
  expect(await waiting()).toEqual(['items ["7"] constraint']);
});

test('rows that break a constraint, and a change of a table behind them in the transaction', async () => {
  await open({});
  fixture.feed.start();
  await fixture.feed.frame(tables, [[ins('1', 'a')]]);
  await fixture.feed.caughtUp();
  await fixture.feed.frame(
    [items, kids, wider, widerKids],
    [[kid('2', '99'), kid('3', '4'), ins('3', 'a'), at(2, ins('4', 'b', 'c')), at(3, ins('5', '4', 'd'))]],
  );
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT * FROM kids ORDER BY id')).toEqual([
    ['3', '4', null],
    ['5', '4', 'd'],
  ]);
  expect(await waiting()).toEqual(['kids ["2"] constraint']);
  expect(await itemCount()).toBe(3);
});

test.each([
  ['nothing else', []],
  ['a row that needs one that is refused', [at(1, ins('2', '2'))]],
  ['rows that need each other and that one', [ins('3', '3', 'ok'), at(1, ins('3', '2'))]],
])('rows that refer to each other go in beside one that is refused and %s', async (_, others) => {
  fixture = await PostgresTarget.open(pg, natsServer.url);
  await fixture.client.query(
    `CREATE TABLE a (id bigint PRIMARY KEY, b bigint, name text CHECK (name <> 'bad'));
     CREATE TABLE b (id bigint PRIMARY KEY, a bigint REFERENCES a DEFERRABLE INITIALLY DEFERRED);
     ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED`,
  );
  const circular = [tableOf('a', ['id bigint', 'b bigint', 'name text']), tableOf('b', ['id bigint', 'a bigint'])];
  fixture.feed.start();
  await fixture.feed.frame(circular, [[ins('1', '1', 'ok'), at(1, ins('1', '1')), ins('2', null, 'bad'), ...others]]);
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT id, b, name FROM a')).toEqual([['1', '1', 'ok']]);
  expect(await fixture.rows('SELECT id, a FROM b')).toEqual([['1', '1']]);
  expect(await waiting()).toHaveLength(1 + others.length);
});

test('rows that refer to each other over the parts of a transaction go in beside one that is refused', async () => {
  await open();
  await fixture.client.query(
    'ALTER TABLE items ADD kid bigint REFERENCES kids DEFERRABLE INITIALLY DEFERRED; ALTER TABLE items ALTER name DROP NOT NULL',
  );
  const circular = [tableOf('items', ['id bigint', 'kid bigint', 'name text']), kids];
  const filling = (from: number): RowChange[] =>
    Array.from({ length: 40 }, (_, n) => ins(`${from + n}`, null, 'x'.repeat(1000)));
  fixture.feed.start();
  await inParts(circular, [
    [ins('1', '1', 'ok'), ins('2', null, 'bad'), kid('2', '2'), ...filling(1000)],
    filling(2000),
    [kid('1', '1'), ...filling(3000)],
  ]);
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT id, kid FROM items WHERE kid IS NOT NULL')).toEqual([['1', '1']]);
  expect(await kidRows()).toEqual([['1', '1']]);
  expect(await waiting()).toEqual(['items ["2"] constraint', 'kids ["2"] constraint']);
});

test('rows and a TRUNCATE of their table in one batch', async () => {
  await open({});
  await fixture.feed.frame(tables, [[ins('1', 'a')], [kid('1', '1')], [at(1, truncated)], [kid('2', '1')]]);
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([['2', '1']]);
});

test('a row that breaks a constraint, and a TRUNCATE of its table, in one batch and in one transaction', async () => {
  await open({});
  await fixture.feed.frame(tables, [
    [ins('1', 'a'), kid('1', '98')],
    [kid('2', '99'), at(1, truncated), kid('3', '1'), kid('4', '97')],
  ]);
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([['3', '1']]);
  expect(await waiting()).toEqual(['kids ["4"] constraint']);
});

test('a row whose parent comes behind a TRUNCATE of another table in its transaction goes in', async () => {
  await open({});
  const other = tableOf('other', ['id bigint']);
  await fixture.feed.frame(
    [...tables, other],
    [[at(2, ins('1'))], [kid('1', '1'), at(2, truncated), ins('1', 'a'), ins('2', 'bad')]],
  );
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([['1', '1']]);
  expect(await waiting()).toEqual(['items ["2"] constraint']);
});

test('a column becomes NOT NULL where a reading of its table ends in one batch with its rows', async () => {
  await open({});
  const before = tableOf('kids', ['id bigint', 'item bigint']);
  const { columns, ...table } = tableOf('kids', ['id bigint', 'item bigint', 'n bigint']);
  const after = {
    ...table,
    columns: columns.map((column) => (column.name === 'n' ? { ...column, notNull: true } : column)),
  };
  const first = fixture.feed.start();
  await fixture.feed.frame([items, before], [[ins('1', 'a'), kid('1', '1')]]);
  await fixture.feed.caughtUp();
  first.stop.abort();
  await first.done;
  await fixture.feed.frame(
    [items, after],
    [[at(1, mark('x', 'begin'))], [['r', 1, ['1', '1', '7']]], [at(1, ins('2', '1', '8'))], [at(1, mark('x', 'end'))]],
  );
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT * FROM kids ORDER BY id')).toEqual([
    ['1', '1', '7'],
    ['2', '1', '8'],
  ]);
  expect(
    await fixture.rows("SELECT attnotnull FROM pg_attribute WHERE attrelid = 'kids'::regclass AND attname = 'n'"),
  ).toEqual([[true]]);
});

test('a table without a key is read again in one batch with rows of it', async () => {
  await open({});
  await fixture.client.query('CREATE TABLE log (item bigint REFERENCES items DEFERRABLE INITIALLY DEFERRED)');
  const log = tableOf('log', ['item bigint'], { keys: 0 });
  const first = fixture.feed.start();
  await fixture.feed.frame([items, log], [[ins('1', 'a'), ins('2', 'a'), at(1, ins('1'))]]);
  await fixture.feed.caughtUp();
  first.stop.abort();
  await first.done;
  await fixture.feed.frame(
    [items, log],
    [[at(1, ins('2'))], [at(1, mark('x', 'begin'))], [['r', 1, ['2']]], [at(1, mark('x', 'end'))]],
  );
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT item FROM log')).toEqual([['2']]);
});

test('a table is dropped in one batch with rows of it', async () => {
  await open({ dropped_tables: 'drop' });
  const first = fixture.feed.start();
  await fixture.feed.frame(tables, [[ins('1', 'a'), kid('1', '1')]]);
  await fixture.feed.caughtUp();
  first.stop.abort();
  await first.done;
  await fixture.feed.frame(tables, [[kid('2', '1')], [at(1, mark('dropped', 'gone'))], [ins('2', 'a')]]);
  fixture.feed.start();
  await fixture.feed.caughtUp();
  expect(await fixture.rows("SELECT to_regclass('kids')")).toEqual([[null]]);
  expect(await itemCount()).toBe(2);
});

test.each([
  ['whose rows the user may not read', ''],
  [
    'whose rows policies hide from the user',
    'GRANT USAGE ON SCHEMA erp TO copier; GRANT SELECT ON erp.p TO copier; ALTER TABLE erp.p ENABLE ROW LEVEL SECURITY',
  ],
])('a row that breaks a reference waits, and those that keep it go in, to a table %s', async (_, sql) => {
  fixture = await PostgresTarget.open(pg, natsServer.url, {}, 'copier');
  await fixture.client.query(
    `DO $$ BEGIN
       IF to_regrole('copier') IS NULL THEN CREATE ROLE copier LOGIN; END IF;
       EXECUTE format('GRANT CREATE ON DATABASE %I TO copier', current_database());
     END $$;
     CREATE SCHEMA erp; CREATE TABLE erp.p (id bigint PRIMARY KEY); INSERT INTO erp.p VALUES (7);
     CREATE TABLE kids (id bigint PRIMARY KEY, item bigint REFERENCES erp.p DEFERRABLE INITIALLY DEFERRED);
     GRANT ALL ON kids TO copier; ${sql}`,
  );
  fixture.feed.start();
  await fixture.feed.frame([kids], [[ins('1', '7'), ins('2', '99')], [ins('3', '7')]]);
  await fixture.feed.caughtUp();
  expect(await kidRows()).toEqual([
    ['1', '7'],
    ['3', '7'],
  ]);
  expect(await waiting()).toEqual(['kids ["2"] constraint']);
});
