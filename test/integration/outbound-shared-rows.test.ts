/** Rows of another system that several records meet in: a shop that counts by article what its warehouse counts by place. */
import { describe, expect, it } from 'vitest';
import { outboundFindings } from '../../cli/canonical-flows.ts';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

const PRODUCTS = 'create table products (sku varchar(20) primary key, in_stock int)';
const BY_SKU = `    to: products
    key: { sku: sku }
    set: { in_stock: on_hand }
    gone: delete
`;
const ROWS = 'select sku, in_stock from products order by sku';

/** What is said of a record whose row another one has. */
function has(key: string, first: string): string {
  return `${key}|products: record ${first} has this row; the key of the row does not tell them apart`;
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('in %s', (kind) => {
  it('of records that meet in one row the first has it, until it goes; check says that they may', async () => {
    const scene = await StockToShop.open(servers, kind, PRODUCTS, BY_SKU);
    const { flow, wms } = scene;
    expect((await outboundFindings(flow.config)).map(({ severity, message }) => `${severity} ${message}`)).toEqual([
      `ok mapping ${scene.map} fits the tables of shop`,
      `warning ${scene.map}:6: records that differ only in location, lot, owner meet in one row of products: the first writes it, the others are held`,
    ]);
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 5)`);
    await scene.shows(ROWS, ['A|5']);
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', 9)`);
    await scene.holds(has('["A","WH2","",""]', '["A","WH1","",""]'));
    await wms.run('update stock set qty = 10 where id = 2');
    await wms.run('update stock set qty = 6 where id = 1');
    await scene.shows(ROWS, ['A|6']);
    await flow.stop(scene.apply);
    flow.start(scene.apply);
    // In one batch, too, and where a row refuses what comes with it.
    await wms.run(
      `insert into stock (id, sku, place, qty) values (3, 'B', 'WH1', 1), (4, 'B', 'WH2', 2), (5, 'C', 'WH1', 3)`,
    );
    await scene.shows(ROWS, ['A|6', 'B|1', 'C|3']);
    await scene.holds(has('["A","WH2","",""]', '["A","WH1","",""]'), has('["B","WH2","",""]', '["B","WH1","",""]'));
    // What the first leaves the second has, with its newest state; what a third one leaves alone is not deleted by it.
    await wms.run('delete from stock where id = 1');
    await wms.run('delete from stock where id = 4');
    await scene.shows(ROWS, ['A|10', 'B|1', 'C|3']);
    await scene.holds();
    await wms.run(`update stock set sku = 'D' where id = 2`);
    await scene.shows(ROWS, ['B|1', 'C|3', 'D|10']);
    await wms.run(`insert into stock (id, sku, place, qty) values (6, 'A', 'WH3', 4)`);
    await scene.shows(ROWS, ['A|4', 'B|1', 'C|3', 'D|10']);
  });

  it('a record that "where" keeps out by its key ends nothing when it goes', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      PRODUCTS,
      `    to: products
    where: { all: [{ eq: [location, { const: WH1 }] }, { eq: [lot, { const: '' }] }, { eq: [owner, { const: '' }] }] }
    key: { sku: sku }
    set: { in_stock: on_hand }
    gone: delete
`,
    );
    const { flow, wms } = scene;
    expect((await outboundFindings(flow.config)).map(({ severity }) => severity)).toEqual(['ok']);
    scene.start();
    await wms.run(
      `insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 5), (2, 'A', 'WH2', 9), (3, 'B', 'WH1', 1)`,
    );
    await scene.shows(ROWS, ['A|5', 'B|1']);
    await wms.run('delete from stock where id = 2');
    await wms.run('delete from stock where id = 3');
    await scene.shows(ROWS, ['A|5']);
  });
});
