/** Whose a row of another system is, when records exchange rows, go, are given up, or are no longer let in. */
import { describe, it } from 'vitest';
import { targetOf } from '../../apply/target-kind.ts';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

function has(key: string, first: string): string {
  return `${key}|p: record ${first} has this row; the key of the row does not tell them apart`;
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('in %s', (kind) => {
  it('a record that went with a key that no row could have is done with', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20), n int, q int, primary key (sku, n))',
      `    - { to: p, key: { sku: sku, n: { decimal: location } }, set: { q: on_hand }, gone: delete }\n`,
    );
    const { wms } = scene;
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'X', 1), (2, 'A', '2', 2)`);
    await scene.holds('["A","X","",""]|p.n must be a decimal number (it is letters of 1 character)');
    await wms.run('delete from stock where id = 1');
    await scene.holds();
    await scene.shows('select sku, n, q from p', ['A|2|2']);
  });

  it('a record that went and was given up leaves its row to the next', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      `create table p (sku varchar(20) primary key, n int);
       create table l (sku varchar(20) not null, foreign key (sku) references p (sku));`,
      `    - { to: p, key: { sku: sku }, set: { n: on_hand }, gone: delete }\n`,
    );
    const { flow, wms, shop } = scene;
    const rows = 'select sku, n from p';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1)`);
    await scene.shows(rows, ['A|1']);
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', 2)`);
    const second = has('["A","WH2","",""]', '["A","WH1","",""]');
    await scene.holds(second);
    await shop.run(`insert into l values ('A')`);
    await wms.run('delete from stock where id = 1');
    const entries = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
    await scene.shows(entries, ['2']);
    await flow.stop(scene.apply);
    const target = await targetOf(flow.config.targets['shop']!);
    const desk = servers.closing(await target.openDesk('test'));
    const gone = (await desk.listQuarantine(scene.flowName)).filter(({ key }) => key?.includes('WH1'));
    await desk.discardQuarantine(
      scene.flowName,
      gone.map(({ id }) => id),
    );
    await scene.holds(second);
    flow.start(scene.apply);
    await scene.shows(rows, ['A|2']);
    await scene.holds();
  });

  it('records that want each other’s rows exchange them, also where they come one by one and beside one that is refused', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (slot int primary key, sku varchar(20), check (slot <> 13))',
      '    - { to: p, key: { slot: on_hand }, set: { sku: sku } }\n',
    );
    const { wms } = scene;
    const rows = 'select slot, sku from p order by slot';
    const key = (sku: string): string => `["${sku}","WH1","",""]`;
    const waiting = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
    scene.start();
    await wms.run(
      `insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1), (2, 'B', 'WH1', 2), (3, 'C', 'WH1', 3)`,
    );
    await scene.shows(rows, ['1|A', '2|B', '3|C']);
    await wms.run('update stock set qty = 3 - qty where id < 3');
    await scene.shows(rows, ['1|B', '2|A', '3|C']);
    // Of a chain whose end does not move nothing does.
    await wms.run('update stock set qty = qty + 1 where id < 3');
    await scene.holds(has(key('A'), key('C')), has(key('B'), key('A')));
    await scene.shows(rows, ['1|B', '2|A', '3|C']);
    // The end moves to where the chain began.
    await wms.run('update stock set qty = 1 where id = 3');
    await scene.shows(rows, ['1|C', '2|B', '3|A']);
    await scene.holds();
    await wms.run(`insert into stock (id, sku, place, qty) values (4, 'D', 'WH1', 13)`);
    await scene.shows(waiting, ['1']);
    await wms.run('update stock set qty = 4 - qty where id in (1, 3)');
    await scene.shows(rows, ['1|A', '2|B', '3|C']);
    await scene.shows(waiting, ['1']);
    // Who is refused another row keeps his.
    await wms.run('update stock set qty = 2 * qty + 9 * (id - 1) where id < 3');
    await scene.shows(waiting, ['3']);
    await scene.shows(rows, ['1|A', '2|B', '3|C']);
    await wms.run('update stock set qty = 14 where id = 2');
    await scene.shows(rows, ['1|A', '2|A', '3|C', '14|B']);
    await scene.shows(waiting, ['1']);
  });

  it('a record that an edit lets in no more leaves its row to the next', async () => {
    const block = (places: string): string =>
      `    - { to: p, where: { in: [location, [${places}]] }, key: { sku: sku }, set: { n: on_hand }, gone: delete }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20) primary key, n int)',
      block('WH1, WH2'),
    );
    const { wms } = scene;
    const rows = 'select sku, n from p';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1)`);
    await scene.shows(rows, ['A|1']);
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', 2)`);
    await scene.holds(has('["A","WH2","",""]', '["A","WH1","",""]'));
    await scene.remap(block('WH2'));
    await scene.shows(rows, ['A|2']);
    await scene.holds();
    await wms.run('delete from stock where id = 1; update stock set qty = 3 where id = 2');
    await scene.shows(rows, ['A|3']);
  });

  it('an edit that joins blocks leaves a row to who has the first of its columns, and to no other', async () => {
    const block = (places: string, columns: string): string =>
      `    - { to: p, where: { in: [location, [${places}]] }, key: { sku: sku }, set: { ${columns} }, gone: delete }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20) primary key, a int, b int)',
      block('WH1', 'a: on_hand') + block('WH2', 'b: on_hand'),
    );
    const { wms } = scene;
    const rows = 'select sku, a, b from p';
    const waits = (place: string, first: string): string => has(`["A","${place}","",""]`, `["A","${first}","",""]`);
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1), (2, 'A', 'WH2', 2)`);
    await scene.shows(rows, ['A|1|2']);
    await scene.remap(block('WH1, WH2, WH3', 'a: on_hand, b: on_hand'));
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'A', 'WH3', 3)`);
    await scene.holds(waits('WH3', 'WH1'));
    await scene.shows(rows, ['A|1|2']);
    await wms.run('update stock set qty = 4 where id = 2');
    await scene.holds(waits('WH2', 'WH1'), waits('WH3', 'WH1'));
    await wms.run('update stock set qty = 5 where id = 1');
    await scene.shows(rows, ['A|5|5']);
    await wms.run('delete from stock where id = 1');
    await scene.shows(rows, ['A|4|4']);
    await scene.holds(waits('WH3', 'WH2'));
    await wms.run('delete from stock where id = 2');
    await scene.shows(rows, ['A|3|3']);
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('an edit that adds a block for another column shuts out no record of it, whatever "where" goes by', async () => {
    const block = (where: string, column: string): string =>
      `    - { to: p, where: { ${where}: [on_hand, { const: '0' }] }, key: { sku: sku }, set: { ${column}: on_hand } }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20) primary key, a int, b int)',
      block('gt', 'a'),
    );
    const { wms } = scene;
    const rows = 'select sku, a, b from p';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1)`);
    await scene.shows(rows, ['A|1|']);
    await scene.remap(block('gt', 'a') + block('lt', 'b'));
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', -2), (3, 'A', 'WH3', 3)`);
    await scene.shows(rows, ['A|1|-2']);
    await scene.holds(has('["A","WH3","",""]', '["A","WH1","",""]'));
    await wms.run('update stock set qty = 4 where id = 1');
    await scene.shows(rows, ['A|4|-2']);
    await scene.holds(has('["A","WH3","",""]', '["A","WH1","",""]'));
  });
});

it.each(['postgres', 'mysql'] as const)(
  'in %s records that want each other’s rows exchange them though hundreds wait between them',
  async (kind) => {
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (slot int primary key, sku varchar(20), check (slot <> 13))',
      '    - { to: p, key: { slot: on_hand }, set: { sku: sku } }\n',
    );
    const { wms } = scene;
    const waiting = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1), (2, 'B', 'WH1', 2)`);
    await scene.shows('select slot, sku from p order by slot', ['1|A', '2|B']);
    await wms.run('update stock set qty = 2 where id = 1');
    await scene.shows(waiting, ['1']);
    await wms.run(
      `insert into stock (id, sku, place, qty) select i, 'N' || i, 'WH1', 13 from generate_series(11, 530) as i`,
    );
    await scene.shows(waiting, ['521']);
    await wms.run('update stock set qty = 1 where id = 2');
    await scene.shows('select slot, sku from p order by slot', ['1|B', '2|A']);
    await scene.shows(waiting, ['520']);
  },
);
