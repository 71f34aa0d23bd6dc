/** Records that wait for rows of another system go in when these are there, whatever else goes on. */
import { it } from 'vitest';
import { requestAnew } from '../../transform/request.ts';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

it.each([
  ['postgres', 1],
  ['mysql', 1],
  // More than are tried again at a time.
  ['postgres', 600],
] as const)(
  'in %s a record whose parent has come goes in though others (%i) are refused all the time',
  async (kind, others) => {
    const scene = await StockToShop.open(
      servers,
      kind,
      `create table bins (code varchar(20) primary key, wh int);
     insert into bins values ('A1', 1);
     create table p (sku varchar(20), wh int, n int, primary key (sku, wh), check (n < 1000));`,
      '    - { to: p, key: { sku: sku, wh: { find: bins.wh, where: { code: location } } }, set: { n: on_hand } }\n',
    );
    const { wms, shop } = scene;
    const waiting = `select count(*) from waybill.quarantine where flow = '${scene.flowName}'`;
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'B1', 1)`);
    await scene.shows(waiting, ['1']);
    let going = true;
    const refused = (async () => {
      await wms.run(
        `insert into stock (id, sku, place, qty) select 10 + n, 'S' || n, 'A1', 5000 from generate_series(1, ${others}) n`,
      );
      while (going) await wms.run('update stock set qty = qty + 1 where id > 10');
    })();
    await scene.shows(waiting, [String(1 + others)]);
    await shop.run(`insert into bins values ('B1', 2)`);
    await scene.shows('select sku, wh, n from p', ['A|2|1']).finally(() => (going = false));
    await refused;
  },
);

it.each(['postgres', 'mysql', 'mariadb'] as const)(
  'in %s a record whose row another one has that an edit keeps out by other fields than its key goes in when all are written anew',
  async (kind) => {
    const block = (least: number): string =>
      `    - { to: p, where: { ge: [on_hand, ${least}] }, key: { sku: sku }, set: { n: on_hand }, gone: delete }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20) primary key, n int)',
      block(1),
    );
    const { flow, wms } = scene;
    const rows = 'select sku, n from p order by sku';
    const held =
      '["A","WH2","",""]|p: record ["A","WH1","",""] has this row; the key of the row does not tell them apart';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1)`);
    await scene.shows(rows, ['A|1']);
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', 2)`);
    await scene.holds(held);
    await scene.remap(block(2));
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'B', 'WH1', 3)`);
    await scene.shows(rows, ['A|1', 'B|3']);
    await scene.holds(held);
    await requestAnew(flow.config.nats, 'stock');
    await scene.shows(rows, ['A|2', 'B|3']);
    await scene.holds();
  },
);
