/** A mirror flow into Postgres: TRUNCATE where a table that is stopped refers to one that is emptied. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { RowChange } from '../../core/frame.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, ins, tableOf } from '../support/frame-feed.ts';
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

const tables = [
  tableOf('items', ['id bigint']),
  tableOf('kids', ['id bigint', 'item bigint']),
  tableOf('other', ['id bigint']),
];
const truncated: RowChange = ['t', 0, []];
const mark = (what: string): RowChange => ['s', 0, ['x', what]];

const PLAIN = `CREATE TABLE items (id bigint PRIMARY KEY);
  CREATE TABLE kids (id bigint PRIMARY KEY, item bigint REFERENCES items, more text NOT NULL)`;

/** Two partitions of a table, for ids from 0 on and from 100 on. */
const partitions = (table: string): string =>
  `CREATE TABLE ${table}_1 PARTITION OF ${table} FOR VALUES FROM (0) TO (100);
   CREATE TABLE ${table}_2 PARTITION OF ${table} FOR VALUES FROM (100) TO (200);`;

/** The target's `kids` has a column that the source does not fill. */
async function open(ddl = PLAIN): Promise<{ notices: () => readonly TableNotice[]; start: () => void }> {
  fixture = await PostgresTarget.open(pg, natsServer.url);
  await fixture.client.query(ddl);
  let notices: readonly TableNotice[] = [];
  const start = (): void => void fixture.feed.start({ tables: (found) => void (notices = found) });
  start();
  await fixture.feed.frame(tables, [[ins('1'), at(1, ins('1', '1')), at(2, ins('1'))]]);
  await fixture.feed.caughtUp();
  return { notices: () => notices, start };
}

test('a table to which no row of the stopped one refers is emptied', async () => {
  const { notices } = await open();
  await fixture.feed.frame(tables, [
    [at(1, truncated), truncated],
    [ins('2'), at(2, ins('2'))],
  ]);
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT id FROM items')).toEqual([['2']]);
  expect(notices().map(({ name, state }) => `${name} ${state}`)).toEqual(['kids stopped']);
});

test('a table to which rows of the stopped one refer is stopped as well, and the others go on', async () => {
  const { notices } = await open();
  await fixture.client.query(`INSERT INTO kids VALUES (1, 1, 'left')`);
  await fixture.feed.frame(tables, [
    [at(1, truncated), truncated, at(2, truncated)],
    [ins('2'), at(2, ins('2'))],
  ]);
  await fixture.feed.frame(tables, [[ins('3'), at(2, ins('3'))]]);
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT id FROM other ORDER BY id')).toEqual([['2'], ['3']]);
  expect(await fixture.rows('SELECT id FROM items')).toEqual([['1']]);
  expect(notices().map(({ name, state }) => `${name} ${state}`)).toEqual(['items stopped', 'kids stopped']);
  expect(notices()[0]?.reason).toMatch(/emptying public\.items.*kids_item_fkey/);
});

test.each([
  [
    'is partitioned',
    `CREATE TABLE items (id bigint PRIMARY KEY);
     CREATE TABLE kids (id bigint PRIMARY KEY, item bigint REFERENCES items, more text NOT NULL) PARTITION BY RANGE (id);
     ${partitions('kids')}`,
  ],
  [
    'has a partition that refers to one of a table which refers to itself, as another partitioned one does',
    `CREATE TABLE items (id bigint PRIMARY KEY, above bigint REFERENCES items) PARTITION BY RANGE (id);
     CREATE TABLE kids (id bigint PRIMARY KEY, item bigint, more text NOT NULL) PARTITION BY RANGE (id);
     CREATE TABLE other (id bigint PRIMARY KEY REFERENCES items) PARTITION BY RANGE (id);
     ${['items', 'kids', 'other'].map(partitions).join(' ')}
     ALTER TABLE kids_1 ADD FOREIGN KEY (item) REFERENCES items_1`,
  ],
])('a table to which a stopped one refers that %s is emptied', async (_, ddl) => {
  const { notices } = await open(ddl);
  await fixture.feed.frame(tables, [
    [truncated, at(1, truncated), at(2, truncated)],
    [ins('2'), at(2, ins('2'))],
  ]);
  await fixture.feed.caughtUp();
  expect(await fixture.rows('SELECT id FROM items')).toEqual([['2']]);
  expect(await fixture.rows('SELECT id FROM other')).toEqual([['2']]);
  expect(notices().map(({ name, state }) => `${name} ${state}`)).toEqual(['kids stopped']);
});

test('rows of a table that is not of the flow stay, also where they refer to a partition of one that is truncated', async () => {
  await open(`CREATE TABLE items (id bigint PRIMARY KEY) PARTITION BY RANGE (id); ${partitions('items')}
    CREATE TABLE kids (id bigint PRIMARY KEY, item bigint, more text NOT NULL);
    CREATE TABLE own (item bigint REFERENCES items_1 ON DELETE CASCADE)`);
  await fixture.client.query('INSERT INTO own VALUES (1)');
  await fixture.feed.stopFlows();
  await fixture.feed.frame(tables, [[truncated]]);
  const refused = new Promise((resolve) => {
    fixture.feed.start({ state: (state, detail) => state === 'waiting' && resolve(detail) });
  });
  expect(await refused).toMatch(/truncate/);
  expect(await fixture.rows('SELECT item FROM own')).toEqual([['1']]);
});

test('a table that a TRUNCATE stopped is followed again where a reading of it begins in the same batch', async () => {
  const { notices, start } = await open();
  await fixture.client.query(`INSERT INTO kids VALUES (1, 1, 'left')`);
  await fixture.feed.stopFlows();
  await fixture.feed.frame(tables.slice(0, 1), [
    [truncated],
    [mark('begin')],
    [['r', 0, ['1']]],
    [ins('5')],
    [mark('end')],
  ]);
  start();
  await fixture.feed.caughtUp();
  expect(notices().map(({ name, state }) => `${name} ${state}`)).toEqual(['kids stopped']);
  expect(await fixture.rows('SELECT id FROM items ORDER BY id')).toEqual([['1'], ['5']]);
});
