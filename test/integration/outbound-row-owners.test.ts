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
});
