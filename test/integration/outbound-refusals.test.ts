/** What one record costs that another system refuses, and what of it is there meanwhile. */
import { describe, expect, it } from 'vitest';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

const BY_PLACE = '    - { to: p, key: { sku: sku, place: location }, set: { n: on_hand } }\n';

describe.each(['postgres', 'mysql', 'mariadb'] as const)('in %s', (kind) => {
  it('a record that is refused does not make those that come with it go one by one', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20), place varchar(20), n int, check (n >= 0), primary key (sku, place))',
      BY_PLACE,
    );
    const { wms, shop } = scene;
    const tries = async (): Promise<number> => {
      if (kind !== 'postgres') return Number((await shop.run(`show global status like 'Com_savepoint'`))[0]![1]);
      return Number((await shop.run('select pg_current_xact_id()::text'))[0]![0]);
    };
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (0, 'first', 'W', 1)`);
    await scene.shows('select count(*) from p', ['1']);
    const before = await tries();
    await wms.run(
      `insert into stock (id, sku, place, qty) select n, 'S' || n, 'W', case n when 500 then -1 else n end from generate_series(1, 1000) n`,
    );
    await scene.shows('select count(*) from p', ['1000']);
    expect((await tries()) - before).toBeLessThan(60);
    await scene.shows(`select count(*) from waybill.quarantine where flow = '${scene.flowName}'`, ['1']);
  });

  it('a record one of whose rows has to wait is not there with the others', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      `create table p (sku varchar(20) primary key, n int);
       create table ref (code varchar(20) primary key, id int unique);
       insert into ref values ('B', 2);
       create table q (id int primary key, n int)`,
      `    - { to: p, where: { in: [location, [W]] }, key: { sku: sku }, set: { n: on_hand } }
    - { to: q, key: { id: { find: ref.id, where: { code: sku } } }, set: { n: on_hand } }\n`,
    );
    const { wms, shop } = scene;
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'W', 5), (2, 'B', 'W', 6)`);
    await scene.holds('["A","W","",""]|q: a row that it needs is not there yet');
    const rows = `select 'p', sku, n from p union all select 'q', code, n from q join ref on ref.id = q.id order by 1, 2`;
    await scene.shows(rows, ['p|B|6', 'q|B|6']);
    // Nor is its newer state in the one, and the older one in the other.
    await wms.run(`update stock set sku = 'C' where id = 2`);
    await scene.holds(
      '["A","W","",""]|q: a row that it needs is not there yet',
      '["C","W","",""]|q: a row that it needs is not there yet',
    );
    await wms.run('update stock set qty = 7');
    await shop.run(`insert into ref values ('A', 1), ('C', 3)`);
    await scene.holds();
    await scene.shows(rows, ['p|A|7', 'p|B|6', 'p|C|7', 'q|A|7', 'q|B|6', 'q|C|7']);
  });
});
