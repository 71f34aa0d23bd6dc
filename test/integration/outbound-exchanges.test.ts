/** Records that want each other's rows, among others that cannot have what they want. */
import { describe, expect, it } from 'vitest';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

const SLOTS = 'create table p (slot int primary key, sku varchar(20)';
const BY_SLOT = '    - { to: p, key: { slot: on_hand }, set: { sku: sku } }\n';
const ROWS = 'select slot, sku from p order by slot';

/** What is said of an article whose slot another one has. */
function has(sku: string, other: string): string {
  return `["${sku}","WH1","",""]|p: record ["${other}","WH1","",""] has this row; the key of the row does not tell them apart`;
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('in %s', (kind) => {
  it('an exchange that a constraint refuses does not keep another one out', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      `${SLOTS}, constraint no_d check (not (slot = 3 and sku = 'D')))`,
      BY_SLOT,
    );
    const { wms } = scene;
    scene.start();
    await wms.run(
      `insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1), (2, 'B', 'WH1', 2), (3, 'C', 'WH1', 3), (4, 'D', 'WH1', 4)`,
    );
    await scene.shows(ROWS, ['1|A', '2|B', '3|C', '4|D']);
    await wms.run('update stock set qty = case when id < 3 then 3 - qty else 7 - qty end');
    await scene.shows(ROWS, ['1|B', '2|A', '3|C', '4|D']);
    await scene.holds(has('C', 'D'), has('D', 'C'));
    await scene.shop.run(`alter table p drop constraint no_d`);
    await scene.shows(ROWS, ['1|B', '2|A', '3|D', '4|C']);
    await scene.holds();
  });

  it('nor does a record that wants a row of it, and comes first', async () => {
    const scene = await StockToShop.open(servers, kind, `${SLOTS})`, BY_SLOT);
    const { wms } = scene;
    scene.start();
    await wms.run(
      `insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1), (2, 'B', 'WH1', 2), (3, 'C', 'WH1', 3)`,
    );
    await scene.shows(ROWS, ['1|A', '2|B', '3|C']);
    await wms.run('update stock set qty = case id when 3 then 2 else 3 end');
    await scene.shows(ROWS, ['1|A', '2|C', '3|B']);
    await scene.holds(has('A', 'B'));
  });
});

it('a long chain of records that wait for each other holds nobody up, and moves when its last one does', async () => {
  const scene = await StockToShop.open(servers, 'postgres', `${SLOTS})`, BY_SLOT);
  const { wms, shop } = scene;
  scene.start();
  await wms.run(`insert into stock (id, sku, place, qty) select n, 'S' || n, 'WH1', n from generate_series(1, 2000) n`);
  await scene.shows('select count(*) from p', ['2000']);
  await wms.run('update stock set qty = qty + 1 where id < 2000');
  const held = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
  await scene.shows(held, ['1999']);
  const before = await transactions(shop);
  await wms.run(`insert into stock (id, sku, place, qty) values (9999, 'N', 'WH1', 9999)`);
  await scene.shows('select sku from p where slot = 9999', ['N']);
  // A try of 500 of them is one, and there are few before others come.
  expect((await transactions(shop)) - before).toBeLessThan(40);
  await wms.run('update stock set qty = 2001 where id = 2000');
  await scene.shows(held, ['0']);
  await scene.shows(`select count(*) from p where sku = 'S' || slot - 1`, ['2000']);
});

it('a ring of records that wait far from each other goes round', async () => {
  const scene = await StockToShop.open(servers, 'postgres', `${SLOTS})`, BY_SLOT);
  const { wms } = scene;
  scene.start();
  await wms.run(
    `insert into stock (id, sku, place, qty) select n, 'S' || n, 'WH1', n from generate_series(1, 1600) n;
     insert into stock (id, sku, place, qty) values (2001, 'X', 'WH1', 2001)`,
  );
  await scene.shows('select count(*) from p', ['1601']);
  const held = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
  // One in 400 wants the row of the one 400 before it; the others all want one that is not to be had.
  await wms.run('update stock set qty = case id % 400 when 7 then id - 400 else 2001 end where id <= 1600 and id <> 7');
  await scene.shows(held, ['1599']);
  await wms.run('update stock set qty = 1207 where id = 7');
  await scene.shows(`select slot, sku from p where slot % 400 = 7 and slot <= 1600 order by slot`, [
    '7|S407',
    '407|S807',
    '807|S1207',
    '1207|S7',
  ]);
});

it('records with rows in two tables exchange them all, where each wants the row of another one in each table', async () => {
  const slot = (wanted: string): string =>
    `{ lookup: { of: on_hand, values: { 1: '1', 2: '2', 3: '3', 4: '4', ${wanted} }, else: { const: none } } }`;
  const block = (table: string, wanted: string): string =>
    `    - { to: ${table}, key: { slot: ${slot(wanted)} }, set: { sku: sku } }\n`;
  const scene = await StockToShop.open(
    servers,
    'postgres',
    `create table p (slot varchar(20) primary key, sku varchar(20), check (slot <> 'none'));
     create table q (slot varchar(20) primary key, sku varchar(20))`,
    block('p', `11: '2', 12: '1', 13: '4', 14: '3'`) + block('q', `11: '3', 12: '4', 13: '1', 14: '2'`),
  );
  const { wms } = scene;
  const rows = `select p.slot, p.sku, q.sku from p join q using (slot) order by 1`;
  const held = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
  scene.start();
  await wms.run(
    `insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1), (2, 'B', 'WH1', 2), (3, 'C', 'WH1', 3), (4, 'D', 'WH1', 4)`,
  );
  await scene.shows(rows, ['1|A|A', '2|B|B', '3|C|C', '4|D|D']);
  // One that is refused for good has the others tried by themselves.
  await wms.run(`insert into stock (id, sku, place, qty) values (5, 'E', 'WH1', 5)`);
  for (const id of [1, 2, 3, 4]) {
    await scene.shows(held, [String(id)]);
    await wms.run(`update stock set qty = qty + 10 where id = ${id}`);
  }
  await scene.shows(rows, ['1|B|C', '2|A|D', '3|D|A', '4|C|B']);
  await scene.shows(held, ['1']);
});

/** The number of the newest transaction of a server; one that undoes a part takes several. */
async function transactions(shop: StockToShop['shop']): Promise<number> {
  return Number((await shop.run('select pg_current_xact_id()::text'))[0]![0]);
}
