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
