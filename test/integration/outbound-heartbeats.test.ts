/** Heartbeats through the whole path of records: from the source, through transform and outbound flow, into another system. */
import { expect, it } from 'vitest';
import { StatusBoard } from '../../cli/status/board.ts';
import { EveryServer } from '../support/every-server.ts';
import { Heartbeats } from '../support/heartbeats.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

it.each(['postgres', 'mysql', 'mariadb'] as const)('arrive in %s, and stay away while the flow is', async (kind) => {
  const scene = await StockToShop.open(
    servers,
    kind,
    'create table products (sku varchar(20) primary key, in_stock int)',
    `    to: products
    where: { eq: [location, { const: WH1 }] }
    key: { sku: sku }
    set: { in_stock: on_hand }
`,
  );
  const { flow } = scene;
  scene.start();
  await scene.wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 5)`);
  await scene.shows('select sku, in_stock from products', ['A|5']);
  const [, name] = scene.apply.split(':');
  const heartbeats = new Heartbeats(flow.config, name!, 'shop');
  try {
    // Nothing is written meanwhile.
    await heartbeats.arrive('wms');
    // Nor does one count that the outbound flow does not bring on.
    await flow.stop(scene.apply);
    await heartbeats.stayAway('wms');
    flow.start(scene.apply);
    await heartbeats.arrive('wms');
    await flow.stop('transform:stock');
    await heartbeats.stayAway('wms');
  } finally {
    await heartbeats.close();
  }
  const board = new StatusBoard(flow.config);
  try {
    const line = (await board.look()).flows.find((each) => each.name === name);
    expect(line).toMatchObject({
      source: 'inventory_position',
      target: 'shop',
      lag: { kind: 'idle' },
      pendingFrames: 0,
    });
  } finally {
    board.close();
  }
});
