/** Rows of a system in Postgres: what its transactions take there, and what is written in ways of its own. */
import { expect, it } from 'vitest';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

const ALONE = `{ eq: [lot, { const: '' }] }, { eq: [owner, { const: '' }] }`;

it('records that go in one by one take no more of the server’s locks than one', async () => {
  const scene = await StockToShop.open(
    servers,
    'postgres',
    `create function transaction_locks() returns bigint language sql as
       $$ select count(*) from pg_locks where locktype = 'transactionid' and pid = pg_backend_pid() $$;
     create table p (sku varchar(20), place varchar(20), n int check (n <> 13), locks int default transaction_locks(),
       primary key (sku, place));`,
    `    - { to: p, where: { all: [${ALONE}] }, key: { sku: sku, place: location }, set: { n: on_hand } }\n`,
  );
  scene.start();
  await scene.wms.run(
    `insert into stock (id, sku, place, qty) select n, 'S' || n, 'WH1', case when n % 3 = 0 then 13 else 1 end
       from generate_series(1, 300) n`,
  );
  await scene.shows('select count(*) from p', ['200']);
  const [[locks]] = (await scene.shop.run('select max(locks) from p')) as [[number]];
  expect(locks).toBeLessThan(5);
});

it('of a transaction of any size no more is kept at a time than a batch holds: the target gets it in several', async () => {
  const scene = await StockToShop.open(
    servers,
    'postgres',
    'create table p (sku varchar(20), place varchar(20), n int, primary key (sku, place))',
    `    - { to: p, where: { all: [${ALONE}] }, key: { sku: sku, place: location }, set: { n: on_hand } }\n`,
  );
  scene.start();
  await scene.wms.run(`insert into stock (id, sku, place, qty) values (0, 'A', 'WH1', 1)`);
  await scene.shows('select count(*) from p', ['1']);
  await scene.wms.run(
    `insert into stock (id, sku, place, qty) select n, repeat('s', 14) || n, repeat('p', 20), 1 from generate_series(1, 80000) n`,
  );
  await scene.shows('select count(*) from p', ['80001']);
  // A record takes more than 200 bytes of a frame, and a transaction of records no more than 16 MB.
  const [[transactions]] = (await scene.shop.run('select count(distinct xmin::text)::int from p')) as [[number]];
  expect(transactions).toBeGreaterThan(2);
});

it.each([
  ['citext', 'create extension citext', 'citext'],
  [
    'citext of a schema that is not on the search path',
    'create schema ext; create extension citext schema ext',
    'ext.citext',
  ],
  ['a domain over citext', 'create extension citext; create domain code as citext; create domain own as code', 'own'],
  [
    'a domain over citext of another schema',
    'create schema ext; create extension citext schema ext; create domain code as ext.citext',
    'code',
  ],
])('records whose texts are one as %s have one row', async (_, make, type) => {
  const scene = await StockToShop.open(
    servers,
    'postgres',
    `${make}; create table names (code varchar(20) primary key, name varchar(20) unique);
     insert into names values ('x', 'LINE'), ('y', 'line');
     create table p (sku ${type} primary key, n int); create table q (line ${type} primary key, kind ${type});`,
    `    - { to: p, where: { all: [{ eq: [location, { const: WH1 }] }, ${ALONE}] }, key: { sku: sku }, set: { n: on_hand }, gone: delete }
    - { to: q, where: { all: [{ eq: [location, { const: WH2 }] }, ${ALONE}] }, key: { line: { find: names.name, where: { code: sku } } }, set: { kind: { if: { gt: [on_hand, 5] }, then: { const: MUCH }, else: { const: much } } }, gone: delete }\n`,
  );
  const { wms } = scene;
  const rows = 'select sku::text, n from p order by sku::text';
  const found = 'select line::text, kind::text from q';
  scene.start();
  await wms.run(
    `insert into stock (id, sku, place, qty) values (1, 'abc', 'WH1', 1), (2, 'abd', 'WH1', 1), (3, 'x', 'WH2', 3)`,
  );
  await scene.shows(rows, ['abc|1', 'abd|1']);
  await scene.shows(found, ['LINE|much']);
  await wms.run(`insert into stock (id, sku, place, qty) values (4, 'ABC', 'WH1', 2), (5, 'y', 'WH2', 9)`);
  const has = (key: string, table: string, first: string): string =>
    `${key}|${table}: record ${first} has this row; the key of the row does not tell them apart`;
  await scene.holds(
    has('["ABC","WH1","",""]', 'p', '["abc","WH1","",""]'),
    has('["y","WH2","",""]', 'q', '["x","WH2","",""]'),
  );
  await wms.run('delete from stock where id in (4, 5)');
  await scene.holds();
  // What differs in its letters' case alone is written, too.
  await wms.run('update stock set qty = 6 where id in (1, 3)');
  await scene.shows(rows, ['abc|6', 'abd|1']);
  await scene.shows(found, ['LINE|MUCH']);
  await wms.run('delete from stock');
  await scene.shows(rows, []);
  await scene.shows(found, []);
});

it('what is a number, a time or a text of a length is one as a domain, too', async () => {
  const scene = await StockToShop.open(
    servers,
    'postgres',
    `create domain amount as numeric; create domain small_code as varchar(5); create domain wall_clock as timestamp;
     create table p (sku small_code, n amount, q int, at wall_clock, primary key (sku, n));`,
    `    - { to: p, where: { all: [${ALONE}] }, key: { sku: sku, n: { decimal: location } }, set: { q: on_hand, at: { timestamp: { of: { const: '2026-07-01T12:00:00Z' } } } }, gone: delete }\nzone: Europe/Berlin\n`,
  );
  const { wms } = scene;
  const rows = 'select sku, n, q, at::text from p order by sku, n';
  scene.start();
  await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', '1', 1), (2, 'TOO-LONG', '1', 1)`);
  await scene.shows(rows, ['A|1|1|2026-07-01 14:00:00']);
  await wms.run(`insert into stock (id, sku, place, qty) values (3, 'A', '1.0', 2)`);
  await scene.shows(`select key, reason from waybill.quarantine order by 1`, [
    '["A","1.0","",""]|waits',
    '["TOO-LONG","1","",""]|value',
  ]);
  await scene.shows(rows, ['A|1|1|2026-07-01 14:00:00']);
});
