/** Records that wait for rows of another system go in when these are there, whatever else goes on. */
import { it } from 'vitest';
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
