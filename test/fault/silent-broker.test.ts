/** A broker that does not answer for longer than requests and leases last: every stage tries again, none ends. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { suspend } from '../../sandbox/process.ts';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

/** A request takes five seconds at most, a lease ten. */
const SILENT_MS = 13_000;
const servers = EveryServer.forThisFile();

async function silence(): Promise<void> {
  await suspend(servers.nats.pid!);
  try {
    await delay(SILENT_MS);
  } finally {
    process.kill(servers.nats.pid!, 'SIGCONT');
  }
}

it('stages that run, and stages that start, go on once it answers', async () => {
  const scene = await StockToShop.open(
    servers,
    'postgres',
    'create table products (sku varchar(20) primary key, in_stock int)',
    `    to: products
    where: { eq: [location, { const: WH1 }] }
    key: { sku: sku }
    set: { in_stock: on_hand }
`,
  );
  const shown = 'select sku, in_stock from products order by sku';
  scene.start();
  await scene.wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 5)`);
  await scene.shows(shown, ['A|5']);
  await silence();
  await scene.wms.run(`insert into stock (id, sku, place, qty) values (2, 'B', 'WH1', 6)`);
  await scene.shows(shown, ['A|5', 'B|6']);

  await scene.flow.stop('capture:wms', 'transform:stock', scene.apply);
  await scene.wms.run(`insert into stock (id, sku, place, qty) values (3, 'C', 'WH1', 7)`);
  scene.start();
  await silence();
  await scene.shows(shown, ['A|5', 'B|6', 'C|7']);
  expect(scene.flow.failure).toBeUndefined();
});
