/** Records out to systems in MySQL and MariaDB, which are sources of them too. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection, type Connection } from 'mysql2/promise';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { targetOf } from '../../apply/target-kind.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { parseOutboundPlan } from '../../transform/outbound/outbound-file.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { waitFor } from '../support/wait.ts';

let mysql: MysqlServer;
let mariadb: MysqlServer;
let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
const connections: Connection[] = [];

beforeAll(async () => {
  [mysql, mariadb, postgres, nats] = await Promise.all([
    startMysql({ flavour: 'mysql' }),
    startMysql({ flavour: 'mariadb' }),
    startPostgres(),
    startNats(),
  ]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-outbound-'));
});
afterAll(async () => {
  for (const connection of connections) connection.destroy();
  await Promise.all([mysql?.dispose(), mariadb?.dispose(), postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

interface System {
  readonly url: string;
  readonly kind: 'mysql' | 'mariadb';
  readonly source: Record<string, unknown>;
  run(sql: string): Promise<void>;
  lines(sql: string): Promise<string[]>;
}

async function system(server: MysqlServer, name: string, ddl: string): Promise<System> {
  const url = await server.createDatabase(name);
  const connection = await createConnection({ uri: url, multipleStatements: true, timezone: 'Z', dateStrings: true });
  connections.push(connection);
  await connection.query(ddl);
  return {
    url,
    kind: server.flavour,
    source: { kind: server.flavour, url, tables: [`${name}.*`] },
    run: async (sql) => void (await connection.query(sql)),
    async lines(sql) {
      const [rows] = await connection.query({ sql, rowsAsArray: true });
      return (rows as unknown[][]).map((row) => row.join('|'));
    },
  };
}

async function shows(flow: CanonicalPipeline, on: System, sql: string, rows: readonly string[]): Promise<void> {
  let seen: string[] = [];
  await waitFor(sql, async () => {
    if (flow.failure !== undefined) throw flow.failure;
    seen = await on.lines(sql);
    return JSON.stringify(seen) === JSON.stringify(rows) ? true : undefined;
  }).catch((cause: unknown) => {
    throw new Error(`shows ${JSON.stringify(seen)}, not ${JSON.stringify(rows)}`, { cause });
  });
}

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

const SHOP = `
create table orders (id int auto_increment primary key, number varchar(20) not null unique, status varchar(10) not null,
  customer varchar(40), placed datetime(6) not null default '2026-03-01 12:00:00.25');
create table order_lines (order_id int not null, line int not null, sku varchar(20) not null, qty decimal(12,3) not null,
  primary key (order_id, line), foreign key (order_id) references orders (id))`;
const WMS = `
create table wh_order (id bigint auto_increment primary key, reference varchar(20) not null unique, state varchar(10) not null,
  consignee varchar(40) character set latin1, wanted datetime(3), priority int not null default 5,
  touched timestamp(6) null on update current_timestamp(6));
create table wh_order_line (id int auto_increment primary key, wh_order bigint not null, line_no int not null,
  article varchar(10) not null, quantity decimal(10,2) not null, unique (wh_order, line_no),
  foreign key (wh_order) references wh_order (id))`;
const FROM_SHOP = `version: 1
name: shop
zone: Europe/Berlin
entities:
  sales_order:
    from: orders
    fields: { number: number, status: status, customer: customer, ordered_at: placed }
  sales_order_line:
    from: order_lines
    join: { o: { table: orders, on: { id: order_id } } }
    fields: { number: o.number, line: line, sku: sku, uom: { const: EA }, qty_ordered: qty }
`;
const TO_WMS = `version: 1
name: to_wms
zone: America/New_York
outbound:
  sales_order:
    to: wh_order
    where: { in: [status, [placed, released]] }
    key: { reference: number }
    set: { consignee: customer, wanted: ordered_at }
    new: { state: { const: NEW } }
  sales_order_line:
    to: wh_order_line
    key:
      wh_order: { find: wh_order.id, where: { reference: number } }
      line_no: { decimal: line }
    set: { article: sku, quantity: qty_ordered }
    gone: delete
`;

it('brings orders into the tables of a warehouse in MariaDB: lines wait for their order, what is refused waits alone', async () => {
  const shop = await system(mysql, 'shop', SHOP);
  const wms = await system(mariadb, 'wms', WMS);
  const [fromShop, toWms] = [await file('from-shop.yaml', FROM_SHOP), await file('to-wms.yaml', TO_WMS)];
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { shop: shop.source },
    targetUrl: await postgres.createDatabase('vis1'),
    targets: { wms: { kind: wms.kind, url: wms.url } },
    flows: {
      orders: { canonical: 'sales_order', from: { shop: { map: fromShop } } },
      lines: { canonical: 'sales_order_line', from: { shop: { map: fromShop } } },
      wms_orders: { outbound: 'sales_order', map: toWms, to: 'wms' },
      wms_lines: { outbound: 'sales_order_line', map: toWms, to: 'wms' },
    },
  });
  try {
    flow.start('capture:shop', 'transform:orders', 'transform:lines', 'apply:wms_lines');
    await shop.run(`insert into orders (number, status, customer) values ('S-1', 'placed', 'Ada');
      insert into order_lines values (1, 1, 'A', 2), (1, 2, 'MUCH-TOO-LONG', 1.5)`);
    const waiting = `select reason, \`key\` from waybill.quarantine where flow = 'wms_lines' order by 2`;
    await shows(flow, wms, waiting, ['waits|["S-1","1"]', 'value|["S-1","2"]']);
    flow.start('apply:wms_orders');
    const lines = 'select line_no, article, quantity from wh_order_line order by 1';
    await shows(flow, wms, lines, ['1|A|2.00']);
    await shows(flow, wms, waiting, ['value|["S-1","2"]']);
    const orders = 'select reference, state, consignee, wanted, priority from wh_order';
    await shows(flow, wms, orders, ['S-1|NEW|Ada|2026-03-01 06:00:00.250|5']);
    await shop.run(`update order_lines set sku = 'B' where line = 2`);
    await shows(flow, wms, lines, ['1|A|2.00', '2|B|1.50']);
    await shows(flow, wms, waiting, []);

    // Only the mapped columns, only where they differ; of texts also where the collation sees no difference.
    await wms.run(`update wh_order set state = 'PICK', priority = 1`);
    const touched = await wms.lines('select touched from wh_order');
    await flow.stop('apply:wms_orders', 'apply:wms_lines');
    await shop.run(`update orders set status = 'released'; delete from order_lines where line = 1`);
    flow.start('apply:wms_orders', 'apply:wms_lines');
    await shows(flow, wms, lines, ['2|B|1.50']);
    expect(await wms.lines('select touched from wh_order')).toEqual(touched);
    await shop.run(`update orders set customer = 'ADA'`);
    await shows(flow, wms, orders, ['S-1|PICK|ADA|2026-03-01 06:00:00.250|1']);

    const misfit = parseOutboundPlan(TO_WMS.replace('wanted:', 'wantd:'), 'map.yaml', 'sales_order');
    const { checkOutbound } = await targetOf(flow.config.targets['wms']!);
    expect((await checkOutbound(misfit)).problems).toEqual([
      { line: 9, message: 'table wh_order has no column wantd (did you mean "wanted"?)' },
    ]);
  } finally {
    await flow.close();
  }
});

const ITEMS = `create table items (sku varchar(20) primary key, label varchar(40), maker varchar(40),
  state enum('active', 'inactive', 'archived') not null default 'active', note text)`;
const FROM_ITEMS = `version: 1
name: items
entities:
  product:
    from: items
    fields: { sku: sku, name: label, brand: maker, base_uom: { const: EA }, status: state }
`;
const TO_ITEMS = `version: 1
name: items
outbound:
  product:
    to: items
    key: { sku: sku }
    set: { label: name, maker: brand, state: status }
`;

it('a system in MySQL and one in MariaDB that both write come to say the same, and nothing goes round', async () => {
  const [map, out] = [await file('from-items.yaml', FROM_ITEMS), await file('to-items.yaml', TO_ITEMS)];
  const [a, b] = [await system(mysql, 'items_a', ITEMS), await system(mariadb, 'items_b', ITEMS)];
  const last = { merge: 'lww' };
  let mapped = 0;
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { a: a.source, b: b.source },
    targetUrl: await postgres.createDatabase('vis2'),
    targets: { a: { kind: a.kind, url: a.url }, b: { kind: b.kind, url: b.url } },
    flows: {
      products: {
        canonical: 'product',
        from: { a: { map }, b: { map } },
        owner: { name: last, brand: last, status: last, base_uom: last },
        delivery: 'realtime',
      },
      to_a: { outbound: 'product', map: out, to: 'a' },
      to_b: { outbound: 'product', map: out, to: 'b' },
    },
    report: { records: (outcome, count) => void (outcome === 'mapped' && (mapped += count)) },
  });
  try {
    flow.start('capture:a', 'capture:b', 'transform:products', 'apply:products', 'apply:to_a', 'apply:to_b');
    await a.run(`insert into items (sku, label) values ('BEGIN', 'x')`);
    await shows(flow, b, 'select label from items', ['x']);
    const random = createRandom(11);
    let edits = 5;
    for (let round = 0; round < 100; round++) {
      const edit = async (on: System, name: string): Promise<void> => {
        const column = random.pick(['label', 'maker', 'state']);
        const text =
          column === 'state' ? random.pick(['active', 'inactive', 'archived']) : `${name}${random.between(1, 99)}`;
        edits += 1;
        await on.run(
          `insert into items (sku, ${column}) values ('K-${random.between(1, 12)}', '${text}') on duplicate key update ${column} = '${text}'`,
        );
      };
      await Promise.all([edit(a, 'a'), edit(b, 'b')]);
      if (round % 30 !== 29) continue;
      const stage = random.pick(['capture:a', 'capture:b', 'transform:products', 'apply:to_a', 'apply:to_b']);
      await flow.stop(stage);
      flow.start(stage);
    }
    // Behind what both say last, and behind what follows from it, nothing is on its way any more.
    for (const end of ['Y', 'Z']) {
      await a.run(`insert into items (sku) values ('${end}-a')`);
      await b.run(`insert into items (sku) values ('${end}-b')`);
      for (const on of [a, b])
        await shows(flow, on, `select sku from items where sku like '${end}%' order by 1`, [`${end}-a`, `${end}-b`]);
    }
    const sql = `select sku, coalesce(label, ''), coalesce(maker, ''), state from items order by sku`;
    const said = await a.lines(sql);
    await shows(flow, b, sql, said);
    const records = `select sku, coalesce(name, ''), coalesce(brand, ''), status from canonical.product order by sku collate "C"`;
    await flow.shows(records, said);
    expect(mapped).toBeLessThanOrEqual(edits);
  } finally {
    await flow.close();
  }
});

it.each(['mysql', 'mariadb'] as const)(
  'the grants that are printed for a system in %s are enough, and check names each that is missing, by table and column',
  async (flavour) => {
    const server = { mysql, mariadb }[flavour];
    const database = `clerk_${flavour}`;
    const shop = await system(mysql, `shop_${flavour}`, SHOP);
    const wms = await system(server, database, WMS);
    const [fromShop, toWms] = [await file('from-shop.yaml', FROM_SHOP), await file('to-wms.yaml', TO_WMS)];
    const url = new URL(wms.url);
    url.username = 'clerk';
    url.password = 'x';
    const flow = await CanonicalPipeline.open({
      nats,
      sources: { shop: shop.source },
      targetUrl: await postgres.createDatabase(`vis_${flavour}`),
      targets: { wms: { kind: wms.kind, url: url.href } },
      flows: {
        orders: { canonical: 'sales_order', from: { shop: { map: fromShop } } },
        lines: { canonical: 'sales_order_line', from: { shop: { map: fromShop } } },
        clerk_orders: { outbound: 'sales_order', map: toWms, to: 'wms' },
        clerk_lines: { outbound: 'sales_order_line', map: toWms, to: 'wms' },
      },
    });
    try {
      const target = await targetOf(flow.config.targets['wms']!);
      const plans = ['sales_order', 'sales_order_line'].map((entity) => parseOutboundPlan(TO_WMS, 'map.yaml', entity));
      const problems = async (): Promise<string[]> =>
        (await Promise.all(plans.map((plan) => target.checkOutbound(plan))))
          .flatMap((fit) => fit.problems)
          .map(({ line, message }) => `${line}: ${message}`);
      // A role is a way to a right, too.
      await wms.run(`create user clerk@'%' identified by 'x'; create role ${database}_reader;
        grant select on ${database}.wh_order to ${database}_reader; grant ${database}_reader to clerk@'%';
        set default role ${database}_reader ${flavour === 'mysql' ? 'to' : 'for'} clerk@'%'`);
      expect(await problems()).toEqual([
        '6: this user may not INSERT in wh_order',
        '6: this user may not UPDATE in wh_order',
        '12: there is no table wh_order_line that this user may use',
      ]);
      const sql = target.grantsSql('clerk', [], plans);
      expect(sql).toContain(
        `GRANT SELECT, INSERT (\`reference\`, \`consignee\`, \`wanted\`, \`state\`), UPDATE (\`consignee\`, \`wanted\`) ON \`${database}\`.\`wh_order\` TO`,
      );
      await wms.run(sql);
      expect(await problems()).toEqual([]);
      expect((await target.check('wms', {}, {})).filter(({ severity }) => severity === 'error')).toEqual([]);
      flow.start('capture:shop', 'transform:orders', 'transform:lines', 'apply:clerk_orders', 'apply:clerk_lines');
      await shop.run(`insert into orders (number, status, customer) values ('S-1', 'placed', 'Ada');
        insert into order_lines values (1, 1, 'A', 2), (1, 2, 'B', 1.5)`);
      const lines = 'select line_no, article, quantity from wh_order_line order by 1';
      await shows(flow, wms, lines, ['1|A|2.00', '2|B|1.50']);
      await shop.run(`update order_lines set sku = 'C' where line = 1; delete from order_lines where line = 2`);
      await shows(flow, wms, lines, ['1|C|2.00']);

      await wms.run(`revoke update (wanted) on ${database}.wh_order from clerk@'%';
        revoke insert (state) on ${database}.wh_order from clerk@'%'; revoke delete on ${database}.wh_order_line from clerk@'%';
        revoke create temporary tables on waybill.* from clerk@'%'`);
      expect(await problems()).toEqual([
        '10: this user may not INSERT column wh_order.state',
        '9: this user may not UPDATE column wh_order.wanted',
        '12: this user may not DELETE in wh_order_line',
      ]);
      expect((await target.check('wms', {}, {})).filter(({ severity }) => severity === 'error')).toMatchObject([
        { message: expect.stringContaining('lacks CREATE TEMPORARY TABLES to keep positions') as string },
      ]);
      // A column of which a user may do nothing is not named to him.
      await wms.run(`revoke select on ${database}.wh_order_line from clerk@'%';
        grant select (id, wh_order, line_no) on ${database}.wh_order_line to clerk@'%';
        revoke insert (article), update (article) on ${database}.wh_order_line from clerk@'%'`);
      expect(await problems()).toContain(
        '16: table wh_order_line has no column article, or none that this user may use',
      );
    } finally {
      await flow.close();
    }
  },
);
