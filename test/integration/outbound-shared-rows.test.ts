/** Rows of another system that several records meet in: a shop that counts by article what its warehouse counts by place. */
import { hash } from 'node:crypto';
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

const SITES = `create table sites (id int primary key, code varchar(20) unique);
insert into sites values (1, 'WH1');
create table products (sku varchar(20) primary key, in_stock int, site int references sites (id));`;
const BY_SKU_AT_SITE = `    to: products
    key: { sku: sku }
    set: { in_stock: on_hand, site: { find: sites.id, where: { code: location } } }
    gone: delete
`;
const SITE_ROWS = 'select sku, in_stock, site from products order by sku';

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

  it('a record that waits for another row has not the row that it wants: who can write it does', async () => {
    const scene = await StockToShop.open(servers, kind, SITES, BY_SKU_AT_SITE);
    const { flow, wms } = scene;
    scene.start();
    const waits = (place: string): string => `["A","${place}","",""]|products: a row that it needs is not there yet`;
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH8', 8)`);
    await scene.holds(waits('WH8'));
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH1', 5)`);
    await scene.shows(SITE_ROWS, ['A|5|1']);
    await scene.holds(waits('WH8'));
    // In one batch, too.
    await flow.stop(scene.apply);
    await wms.run(
      `insert into stock (id, sku, place, qty) values (3, 'B', 'WH8', 8), (4, 'B', 'WH9', 9), (5, 'B', 'WH1', 3)`,
    );
    flow.start(scene.apply);
    await scene.shows(SITE_ROWS, ['A|5|1', 'B|3|1']);
    await scene.shop.run(`insert into sites values (8, 'WH8')`);
    await scene.holds(
      has('["A","WH8","",""]', '["A","WH1","",""]'),
      has('["B","WH8","",""]', '["B","WH1","",""]'),
      '["B","WH9","",""]|products: a row that it needs is not there yet',
    );
    // Nor has one whose parent goes while it is written.
    if (kind === 'postgres') {
      await scene.shop.run(`create function close_site() returns trigger language plpgsql as $$ begin
          delete from sites where code = 'WH7'; return null; end $$;
        create trigger close_site after insert on waybill.outbound_rows execute function close_site();
        insert into sites values (7, 'WH7')`);
      await wms.run(`insert into stock (id, sku, place, qty) values (6, 'C', 'WH7', 7)`);
      await scene.shows('select count(*) from waybill.quarantine', ['4']);
      await wms.run(`insert into stock (id, sku, place, qty) values (7, 'C', 'WH1', 1)`);
      await scene.shows(SITE_ROWS, ['A|5|1', 'B|3|1', 'C|1|1']);
      await wms.run('delete from stock where id in (6, 7)');
    }
    // Who goes leaves the row to the one that waited for it.
    await wms.run(`delete from stock where id in (2, 4); update stock set qty = 4 where id = 5`);
    await scene.shows(SITE_ROWS, ['A|8|8', 'B|4|1']);
  });

  it('blocks that fill other columns of a row do not shut each other out, and none deletes what another one fills', async () => {
    const block = (place: string, column: string): string =>
      `    - { to: products, where: { eq: [location, { const: ${place} }] }, key: { sku: sku }, set: { ${column}: on_hand }, gone: delete }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table products (sku varchar(20) primary key, at_wh1 int, at_wh2 int)',
      block('WH1', 'at_wh1') + block('WH2', 'at_wh2'),
    );
    const { flow, wms } = scene;
    const stays = (line: number): string =>
      `warning ${scene.map}:${line}: other records fill other columns of the same row of products: "gone: delete" deletes it with the last of them, and leaves until then what this block set`;
    const meet = (line: number): string =>
      `warning ${scene.map}:${line}: records that differ only in lot, owner meet in one row of products: the first writes it, the others are held`;
    expect((await outboundFindings(flow.config)).map(({ severity, message }) => `${severity} ${message}`)).toEqual([
      `ok mapping ${scene.map} fits the tables of shop`,
      meet(5),
      stays(5),
      meet(6),
      stays(6),
    ]);
    scene.start();
    const rows = 'select sku, at_wh1, at_wh2 from products order by sku';
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 5)`);
    await scene.shows(rows, ['A|5|']);
    await wms.run(
      `insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', 9), (3, 'B', 'WH2', 2), (4, 'B', 'WH1', 1)`,
    );
    await scene.shows(rows, ['A|5|9', 'B|1|2']);
    await scene.holds();
    // Those that differ in what neither block tells apart do meet.
    await wms.run(`insert into stock (id, sku, place, lot, qty) values (5, 'A', 'WH2', 'L', 3)`);
    await scene.holds(
      `["A","WH2","L",""]|products: record ["A","WH2","",""] has this row; the key of the row does not tell them apart`,
    );
    await wms.run('delete from stock where id = 5');
    await wms.run('delete from stock where id = 1');
    await wms.run('update stock set qty = 8 where id = 2');
    await scene.shows(rows, ['A|5|8', 'B|1|2']);
    await wms.run('delete from stock where id = 2');
    await scene.shows(rows, ['B|1|2']);
    // Both at once, too.
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('a block with a place of its own in the key shares rows with one that has the places of its records', async () => {
    const block = (where: string, place: string, column: string): string =>
      `    - { to: stock_at, where: { all: [{ ${where}: [location, { const: RETURNS }] }, { eq: [lot, { const: '' }] }, { eq: [owner, { const: '' }] }] }, key: { sku: sku, place: ${place} }, set: { ${column}: on_hand }, gone: delete }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table stock_at (sku varchar(20), place varchar(20), in_stock int, returned int, primary key (sku, place))',
      block('ne', 'location', 'in_stock') + block('eq', '{ const: WH1 }', 'returned'),
    );
    const { flow, wms } = scene;
    expect((await outboundFindings(flow.config)).map(({ severity, message }) => `${severity} ${message}`)).toEqual([
      `ok mapping ${scene.map} fits the tables of shop`,
      ...[5, 6].map(
        (line) =>
          `warning ${scene.map}:${line}: other records fill other columns of the same row of stock_at: "gone: delete" deletes it with the last of them, and leaves until then what this block set`,
      ),
    ]);
    scene.start();
    const rows = 'select sku, place, in_stock, returned from stock_at order by sku, place';
    await wms.run(
      `insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 5), (2, 'A', 'RETURNS', 2), (3, 'A', 'WH2', 7)`,
    );
    await scene.shows(rows, ['A|WH1|5|2', 'A|WH2|7|']);
    await wms.run('delete from stock where id in (1, 3)');
    await scene.shows(rows, ['A|WH1|5|2']);
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('who has a row has it still when its mapping was edited, or when an earlier version wrote down whose it is', async () => {
    const block = (columns: string, key = '{ sku: sku, lot: lot }', places = 'WH1, WH2'): string =>
      `    - { to: products, where: { in: [location, [${places}]] }, key: ${key}, set: ${columns}, gone: delete }\n`;
    const stock = block('{ in_stock: on_hand }');
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table products (sku varchar(20), lot varchar(20), in_stock int, at_wh9 int, note varchar(20), primary key (sku, lot))',
      stock,
    );
    const { wms, shop } = scene;
    const rows = 'select sku, lot, in_stock, at_wh9 from products order by sku';
    const waits =
      '["A","WH2","L",""]|products: record ["A","WH1","L",""] has this row; the key of the row does not tell them apart';
    let qty = 1;
    const staysWithTheFirst = async (atWh9 = ''): Promise<void> => {
      qty += 2;
      await wms.run(`update stock set qty = ${qty + 1} where id = 2`);
      await wms.run(`update stock set qty = ${qty} where id = 1`);
      await scene.shows(rows, [`A|L|${qty}|${atWh9}`]);
      await scene.holds(waits);
    };
    scene.start();
    await wms.run(`insert into stock (id, sku, place, lot, qty) values (1, 'A', 'WH1', 'L', 1)`);
    await scene.shows(rows, ['A|L|1|']);
    await wms.run(`insert into stock (id, sku, place, lot, qty) values (2, 'A', 'WH2', 'L', 2)`);
    await scene.holds(waits);
    // Ids of a row as they were before blocks could share one, and before the table went by its schema, too.
    const former = [
      ['products', ['sku', 'lot'], ['A', 'L']],
      [2, 'products', ['lot', 'sku'], ['L', 'A']],
    ].map((parts) => hash('sha256', JSON.stringify(parts), 'hex').slice(0, 32));
    const asBefore = async (id: string): Promise<void> => {
      await scene.flow.stop(scene.apply);
      await shop.run(`delete from waybill.outbound_rows where flow = '${scene.flowName}' and row_id = 'columns'`);
      await shop.run(`update waybill.outbound_rows set row_id = '${id}' where flow = '${scene.flowName}'`);
    };
    for (const id of former) {
      await asBefore(id);
      scene.flow.start(scene.apply);
      await staysWithTheFirst();
    }
    await scene.remap(block('{ note: uom, in_stock: on_hand }'));
    await staysWithTheFirst();
    await scene.remap(block('{ in_stock: on_hand, note: uom }', '{ lot: lot, sku: sku }'));
    await staysWithTheFirst();
    await scene.remap(block('{ note: uom }', undefined, 'WH8') + block('{ in_stock: on_hand, note: uom }'));
    await staysWithTheFirst();
    // Another column of the row, and with it another record, before and after the first one is written again.
    const both = block('{ at_wh9: on_hand }', undefined, 'WH9') + stock;
    await asBefore(former[0]!);
    await scene.remap(both);
    await wms.run(`insert into stock (id, sku, place, lot, qty) values (9, 'A', 'WH9', 'L', 9)`);
    await scene.shows(rows, [`A|L|${qty}|9`]);
    await staysWithTheFirst('9');
    await staysWithTheFirst('9');
    await wms.run('delete from stock where id = 9');
    await scene.remap(stock);
    await staysWithTheFirst('9');
    await wms.run('delete from stock where id = 1');
    await scene.shows(rows, [`A|L|${qty + 1}|`]);
    await scene.holds();
  });
});
