/** Records out to the tables of systems that are there: a shop's orders in a warehouse, and what it says of them back. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { tablesOf } from '../../apply/outbound/outbound-shape.ts';
import { createOutboundStatements } from '../../apply/postgres/outbound-statements.ts';
import { readSystemTables } from '../../apply/postgres/system-table.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { outboundFindings } from '../../cli/canonical-flows.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { parseOutboundPlan } from '../../transform/outbound/outbound-file.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { waitFor } from '../support/wait.ts';

let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-outbound-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function system(name: string, ddl: string): Promise<{ client: pg.Client; url: string; lines: Lines }> {
  const url = await postgres.createDatabase(name);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  cleanups.push(() => client.end());
  await client.query(ddl);
  const lines: Lines = async (sql) => {
    const { rows } = await client.query({ text: sql, rowMode: 'array' });
    return (rows as unknown[][]).map((row) => row.join('|'));
  };
  return { client, url, lines };
}

type Lines = (sql: string) => Promise<string[]>;

async function shows(flow: CanonicalPipeline, lines: Lines, sql: string, rows: readonly string[]): Promise<void> {
  let seen: string[] = [];
  await waitFor(sql, async () => {
    if (flow.failure !== undefined) throw flow.failure;
    seen = await lines(sql);
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
create table orders (id serial primary key, number text not null unique, status text not null, customer text,
  placed timestamp not null default '2026-03-01 12:00', internal text);
create table order_lines (id serial primary key, order_id int not null references orders, line int not null, sku text not null,
  qty numeric(12,3) not null, shipped numeric(12,3), unique (order_id, line));`;
const WMS = `
create table wh_order (id bigint generated always as identity primary key, reference varchar(20) not null unique, state varchar(10) not null,
  consignee text, wanted timestamp, priority int not null default 5, remark text, touched timestamptz);
create table wh_order_line (id serial primary key, wh_order bigint not null references wh_order, line_no int not null,
  article varchar(30) not null check (article <> 'FORBIDDEN'), quantity numeric(10,2) not null, despatched numeric(10,2) not null default 0,
  unique (wh_order, line_no));
create function touch() returns trigger language plpgsql as $$ begin new.touched := clock_timestamp(); return new; end $$;
create trigger touch before insert or update on wh_order for each row execute function touch();`;

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
const FROM_WMS = `version: 1
name: wms
entities:
  sales_order:
    from: wh_order
    fields: { number: reference, status: { lookup: { of: state, values: { NEW: placed, PICK: released, GONE: shipped } } } }
  sales_order_line:
    from: wh_order_line
    join: { o: { table: wh_order, on: { id: wh_order } } }
    fields: { number: o.reference, line: line_no, qty_shipped: despatched }
`;
const TO_WMS = `version: 1
name: to_wms
zone: America/New_York
outbound:
  sales_order:
    to: wh_order
    where: { in: [status, [placed, released, shipped]] }
    key: { reference: number }
    set: { consignee: customer, wanted: ordered_at }
    new: { state: { const: NEW } }
    gone: { set: { remark: { const: withdrawn } } }
  sales_order_line:
    to: public.wh_order_line
    key:
      wh_order: { find: wh_order.id, where: { reference: number } }
      line_no: { decimal: line }
    set: { article: sku, quantity: qty_ordered }
    gone: delete
`;
const TO_SHOP = `version: 1
name: to_shop
outbound:
  sales_order:
    to: orders
    key: { number: number }
    set: { status: status }
    missing: ignore
  sales_order_line:
    to: order_lines
    key: { order_id: { find: orders.id, where: { number: number } }, line: { decimal: line } }
    set: { shipped: qty_shipped }
    missing: wait
`;

it('brings orders of a shop to its warehouse and their despatch back, once, and takes neither for the other’s own', async () => {
  const shop = await system('shop1', SHOP);
  const wms = await system('wms1', WMS);
  const [fromShop, fromWms, toWms, toShop] = await Promise.all([
    file('from-shop.yaml', FROM_SHOP),
    file('from-wms.yaml', FROM_WMS),
    file('to-wms.yaml', TO_WMS),
    file('to-shop.yaml', TO_SHOP),
  ]);
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { shop: { kind: 'postgres', url: shop.url }, wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis1'),
    targets: { shop: { kind: 'postgres', url: shop.url }, wms: { kind: 'postgres', url: wms.url } },
    flows: {
      orders: {
        canonical: 'sales_order',
        from: { shop: { map: fromShop }, wms: { map: fromWms } },
        owner: {
          status: { merge: 'rank', order: ['placed', 'released', 'shipped'] },
          customer: 'shop',
          ordered_at: 'shop',
        },
      },
      lines: {
        canonical: 'sales_order_line',
        from: { shop: { map: fromShop }, wms: { map: fromWms } },
        owner: { ordered: 'shop', qty_shipped: 'wms' },
      },
      wms_orders: { outbound: 'sales_order', map: toWms, to: 'wms' },
      wms_lines: { outbound: 'sales_order_line', map: toWms, to: 'wms' },
      shop_orders: { outbound: 'sales_order', map: toShop, to: 'shop' },
      shop_lines: { outbound: 'sales_order_line', map: toShop, to: 'shop' },
    },
  });
  cleanups.push(() => flow.close());
  const stages = ['capture:shop', 'capture:wms', 'transform:orders', 'transform:lines'];
  flow.start(...stages, 'apply:orders', 'apply:wms_orders', 'apply:wms_lines', 'apply:shop_orders', 'apply:shop_lines');
  await shop.client
    .query(`begin; insert into orders (number, status, customer, internal) values ('S-1', 'placed', 'Ada', 'x');
    insert into order_lines (order_id, line, sku, qty) values (1, 1, 'A', 2), (1, 2, 'B', 1.5), (1, 3, 'FORBIDDEN', 1); commit`);
  const lines = 'select line_no, article, quantity, despatched from wh_order_line order by 1';
  await shows(flow, wms.lines, lines, ['1|A|2.00|0.00', '2|B|1.50|0.00']);
  // Noon in Berlin is six in the morning in New York.
  await shows(flow, wms.lines, 'select reference, state, consignee, wanted::text, priority from wh_order', [
    'S-1|NEW|Ada|2026-03-01 06:00:00|5',
  ]);
  // What the warehouse refuses waits, alone, and says why.
  await shows(
    flow,
    wms.lines,
    "select reason, key, change->'row'->>'sku', message like '%wh_order_line_article_check%' from waybill.quarantine",
    ['constraint|["S-1","3"]|FORBIDDEN|true'],
  );
  await shop.client.query(`update order_lines set sku = 'C' where line = 3`);
  await shows(flow, wms.lines, lines, ['1|A|2.00|0.00', '2|B|1.50|0.00', '3|C|1.00|0.00']);
  await shows(flow, wms.lines, 'select count(*) from waybill.quarantine', ['0']);

  // Only the mapped columns are written, and only where they differ: the warehouse's own words stand.
  await wms.client.query(
    `update wh_order set state = 'PICK', priority = 1; update wh_order_line set despatched = quantity where line_no < 3`,
  );
  await shows(flow, shop.lines, 'select status, customer, internal from orders', ['released|Ada|x']);
  const shipped = 'select line, qty, shipped from order_lines order by 1';
  await shows(flow, shop.lines, shipped, ['1|2.000|2.000', '2|1.500|1.500', '3|1.000|0.000']);
  const touched = await wms.lines('select touched::text from wh_order');
  await shop.client.query(`update orders set internal = 'y'; update order_lines set qty = 4 where line = 2`);
  await shows(flow, wms.lines, lines, ['1|A|2.00|2.00', '2|B|4.00|1.50', '3|C|1.00|0.00']);
  expect(await wms.lines('select touched::text from wh_order')).toEqual(touched);

  // A restart in the middle applies nothing twice and leaves nothing out.
  await flow.stop('apply:wms_orders', 'apply:wms_lines', 'transform:lines');
  await shop.client
    .query(`insert into orders (number, status, customer) values ('S-2', 'placed', 'Bo'), ('S-3', 'draft', 'Cy');
    insert into order_lines (order_id, line, sku, qty) values (2, 1, 'D', 3); delete from order_lines where order_id = 1 and line = 3`);
  flow.start('transform:lines', 'apply:wms_lines');
  await shows(flow, wms.lines, `select reason, key from waybill.quarantine where flow = 'wms_lines'`, [
    'waits|["S-2","1"]',
  ]);
  flow.start('apply:wms_orders');
  await shows(flow, wms.lines, lines, ['1|A|2.00|2.00', '1|D|3.00|0.00', '2|B|4.00|1.50']);
  await shop.client.query(`delete from order_lines where order_id = 2; delete from orders where number = 'S-2'`);
  await shows(flow, wms.lines, `select reference, remark from wh_order order by 1`, ['S-1|', 'S-2|withdrawn']);
  expect(await wms.lines('select count(*) from waybill.quarantine')).toEqual(['0']);

  // A constraint that waits for the commit refuses the row that breaks it, and no other.
  await wms.client.query(`create table article (id text primary key); insert into article values ('A'), ('B'), ('D');
    alter table wh_order_line add foreign key (article) references article deferrable initially deferred`);
  await shop.client.query(`insert into order_lines (order_id, line, sku, qty) values (1, 4, 'E', 1), (1, 5, 'D', 2)`);
  await shows(flow, wms.lines, lines, ['1|A|2.00|2.00', '2|B|4.00|1.50', '5|D|2.00|0.00']);
  await shows(flow, wms.lines, "select reason, key, sqlstate from waybill.quarantine where flow = 'wms_lines'", [
    'constraint|["S-1","4"]|23503',
  ]);
  await wms.client.query(`insert into article values ('E')`);
  await shows(flow, wms.lines, lines, ['1|A|2.00|2.00', '2|B|4.00|1.50', '4|E|1.00|0.00', '5|D|2.00|0.00']);
  await shows(flow, wms.lines, 'select count(*) from waybill.quarantine', ['0']);
});

const ITEMS = `create table items (sku text primary key, label text, maker text, state text not null default 'active', note text);`;
const fromItems = `version: 1
name: items
entities:
  product:
    from: items
    fields: { sku: sku, name: label, brand: maker, base_uom: { const: EA }, status: state }
`;
const toItems = `version: 1
name: items
outbound:
  product:
    to: items
    key: { sku: sku }
    set: { label: name, maker: brand, state: status }
`;

it('two systems that both write come to say the same, whatever is killed, and nothing goes round', async () => {
  const map = await file('from-items.yaml', fromItems);
  const out = await file('to-items.yaml', toItems);
  const [a, b] = [await system('two_a', ITEMS), await system('two_b', ITEMS)];
  const last = { merge: 'lww' };
  let mapped = 0;
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { a: { kind: 'postgres', url: a.url }, b: { kind: 'postgres', url: b.url } },
    targetUrl: await postgres.createDatabase('two_vis'),
    targets: {
      a: { kind: 'postgres', url: a.url },
      b: { kind: 'postgres', url: b.url },
      copy: { kind: 'postgres', url: await postgres.createDatabase('two_copy') },
    },
    flows: {
      products: {
        canonical: 'product',
        from: { a: { map }, b: { map } },
        owner: { name: last, brand: last, status: last, base_uom: last },
        delivery: 'realtime',
      },
      to_a: { outbound: 'product', map: out, to: 'a' },
      to_b: { outbound: 'product', map: out, to: 'b' },
      a_copy: { mirror: 'a', to: 'copy' },
    },
    report: { records: (outcome, count) => void (outcome === 'mapped' && (mapped += count)) },
  });
  cleanups.push(() => flow.close());
  const stages = ['capture:a', 'capture:b', 'transform:products', 'apply:products', 'apply:to_a', 'apply:to_b'];
  flow.start(...stages, 'apply:a_copy');
  const random = createRandom(7);
  let edits = 0;
  const edit = async ({ client }: { client: pg.Client }, name: string): Promise<void> => {
    const sku = `K-${random.between(1, 12)}`;
    const column = random.pick(['label', 'maker', 'state']);
    const value =
      column === 'state' ? random.pick(['active', 'inactive', 'archived']) : `${name}${random.between(1, 99)}`;
    edits += 1;
    await client.query(
      `insert into items (sku, ${column}) values ($1, $2) on conflict (sku) do update set ${column} = excluded.${column}`,
      [sku, value],
    );
  };
  const disturb = async (): Promise<void> => {
    const victim = random.pick(['capture', 'transform', 'session']);
    if (victim === 'session') {
      // Whoever applies loses its connection in the middle of whatever it does.
      await a.client.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'waybill apply to_%'`,
      );
      return;
    }
    const stage = victim === 'capture' ? random.pick(['capture:a', 'capture:b']) : 'transform:products';
    await flow.stop(stage);
    flow.start(stage);
  };
  await a.client.query(`insert into items (sku, label) values ('BEGIN', 'x')`);
  await shows(flow, b.lines, 'select label from items', ['x']);
  await b.client.query(`update items set label = 'y'`);
  await shows(flow, a.lines, 'select label from items', ['y']);
  edits += 2;
  for (let round = 0; round < 120; round++) {
    await Promise.all([edit(a, 'a'), edit(b, 'b')]);
    if (round % 25 === 24) await disturb();
  }
  // Behind what both say last, and behind what follows from it, nothing is on its way any more.
  for (const end of ['Y', 'Z']) {
    await a.client.query(`insert into items (sku) values ('${end}-a')`);
    await b.client.query(`insert into items (sku) values ('${end}-b')`);
    for (const { lines } of [a, b])
      await shows(flow, lines, `select sku from items where sku like '${end}%' order by 1`, [`${end}-a`, `${end}-b`]);
  }
  const sql = 'select sku, label, maker, state from items order by sku';
  const said = await a.lines(sql);
  await shows(flow, b.lines, sql, said);
  const records = `select sku, coalesce(name, ''), coalesce(brand, ''), status from canonical.product order by sku`;
  await flow.shows(records, said);
  // Of each own change at most one record comes, and of what Waybill wrote itself none.
  expect(mapped).toBeLessThanOrEqual(edits + 4);
  // The mirror of a system has what Waybill wrote into it, too.
  const copy = new pg.Client({ connectionString: flow.config.targets['copy']!.url });
  await copy.connect();
  cleanups.push(() => copy.end());
  const ofCopy: Lines = async (text) =>
    (await copy.query({ text, rowMode: 'array' })).rows.map((row) => (row as unknown[]).join('|'));
  await shows(flow, ofCopy, sql, said);
  // What Waybill wrote bears its own time, by which lag is told.
  const before = (await b.lines('select clock_timestamp()::text'))[0]!;
  await b.client.query(`insert into items (sku) values ('LAST')`);
  const mirrored = `select commit_time >= '${before}' from waybill.position join items on sku = 'LAST' where flow = 'a_copy'`;
  await shows(flow, ofCopy, mirrored, ['true']);
});

it('without a right to set up an origin a transaction says by itself whose it is; check and the start name what does not fit', async () => {
  const map = await file('items-in.yaml', fromItems);
  const out = await file('items-out.yaml', `${toItems}    gone: delete\n`);
  const [a, c] = [await system('three_a', ITEMS), await system('three_c', ITEMS)];
  await c.client.query(`create role clerk login; grant select, insert, update, delete on items to clerk;
    create schema waybill authorization clerk`);
  const asClerk = new URL(c.url);
  asClerk.username = 'clerk';
  const last = { merge: 'lww' };
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { a: { kind: 'postgres', url: a.url }, c: { kind: 'postgres', url: c.url } },
    targetUrl: await postgres.createDatabase('three_vis'),
    targets: { c: { kind: 'postgres', url: asClerk.href } },
    flows: {
      products: {
        canonical: 'product',
        from: { a: { map }, c: { map } },
        owner: { name: last, brand: last, status: last, base_uom: last },
        delivery: 'realtime',
      },
      to_c: { outbound: 'product', map: out, to: 'c' },
    },
  });
  cleanups.push(() => flow.close());
  expect(await outboundFindings(flow.config)).toEqual([
    { severity: 'ok', subject: 'flow to_c', message: `mapping ${out} fits the tables of c` },
  ]);
  flow.start('capture:a', 'capture:c', 'transform:products', 'apply:products', 'apply:to_c');
  await a.client.query(`insert into items (sku, label) values ('K', 'k')`);
  await shows(flow, c.lines, 'select sku, label from items', ['K|k']);
  await c.client.query(`insert into items (sku, label) values ('OWN', 'own')`);
  await flow.shows('select sku from canonical.product order by sku', ['K', 'OWN']);
  // What is in c is a copy: once a has it no more nobody says it.
  await a.client.query('delete from items');
  await shows(flow, c.lines, 'select sku, label from items', ['OWN|own']);

  // The mapping that reads c does not fit then, either: whoever sees it first would say so.
  await flow.stop('apply:to_c', 'transform:products');
  await c.client.query('alter table items rename column label to title; revoke update on items from clerk');
  const found = (await outboundFindings(flow.config)).map(({ severity, message }) => `${severity} ${message}`);
  expect(found).toEqual([
    `error ${out}:7: table items has no column label`,
    `error ${out}:5: this user may not UPDATE in items`,
  ]);
  flow.start('apply:to_c');
  await waitFor('the flow to say so', async () => flow.failure !== undefined);
  expect(flow.failure).toMatchObject({
    code: 'mapping_invalid',
    message: expect.stringContaining(`${out}:7: `) as string,
  });
});

it('what is left alone where it is not there is not waited for, and a key may hold more than its index', async () => {
  const { client, lines } = await system('four', WMS);
  const write = async (entity: string, block: string, record: Record<string, string>): Promise<number[]> => {
    const plan = parseOutboundPlan(`version: 1\nname: t\noutbound:\n  ${entity}:\n${block}`, 'map.yaml', entity);
    const tables = await readSystemTables(client, tablesOf(plan));
    const [{ write: writing }] = plan.blocks as [(typeof plan.blocks)[number]];
    const cells = writing.cells(plan.fields.map((field) => record[field] ?? null)) as readonly (string | null)[];
    const { rows } = await client.query<{ i: number }>(
      createOutboundStatements(writing, tables, undefined).write([cells]),
    );
    return rows.map(({ i }) => i);
  };
  const line = (missing: string): string => `    to: wh_order_line
    key: { wh_order: { find: wh_order.id, where: { reference: number } }, line_no: { decimal: line } }
    set: { quantity: qty_ordered }
    missing: ${missing}\n`;
  const record = { number: 'S-1', line: '1', qty_ordered: '2' };
  expect(await write('sales_order_line', line('wait'), record)).toEqual([0]);
  expect(await write('sales_order_line', line('ignore'), record)).toEqual([]);

  const order = '    to: wh_order\n    key: { reference: number, consignee: customer }\n    set: { state: status }\n';
  const made = { number: 'S-1', customer: 'Ada', status: 'placed' };
  expect(await write('sales_order', order, made)).toEqual([]);
  expect(await write('sales_order', order, { ...made, status: 'released' })).toEqual([]);
  await expect(write('sales_order', order, { ...made, customer: 'Bob' })).rejects.toMatchObject({ code: '23505' });
  expect(await lines('select reference, consignee, state from wh_order')).toEqual(['S-1|Ada|released']);
});

it('the grants that are printed are enough, and check names each that is missing, by table and column', async () => {
  const shop = await system('grants_shop', SHOP);
  const wms = await system('grants_wms', WMS);
  const [fromShop, toWms] = [await file('from-shop.yaml', FROM_SHOP), await file('to-wms.yaml', TO_WMS)];
  const url = new URL(wms.url);
  url.username = 'packer';
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { shop: { kind: 'postgres', url: shop.url } },
    targetUrl: await postgres.createDatabase('grants_vis'),
    targets: { wms: { kind: 'postgres', url: url.href } },
    flows: {
      orders: { canonical: 'sales_order', from: { shop: { map: fromShop } } },
      lines: { canonical: 'sales_order_line', from: { shop: { map: fromShop } } },
      wms_orders: { outbound: 'sales_order', map: toWms, to: 'wms' },
      wms_lines: { outbound: 'sales_order_line', map: toWms, to: 'wms' },
    },
  });
  cleanups.push(() => flow.close());
  const target = await targetOf(flow.config.targets['wms']!);
  const plans = ['sales_order', 'sales_order_line'].map((entity) => parseOutboundPlan(TO_WMS, 'map.yaml', entity));
  const problems = async (): Promise<string[]> =>
    (await Promise.all(plans.map((plan) => target.checkOutbound(plan))))
      .flatMap((fit) => fit.problems)
      .map(({ line, message }) => `${line}: ${message}`);
  await wms.client.query('create role packer login');
  const sql = target.grantsSql('packer', [], plans);
  expect(sql).toContain(
    'GRANT SELECT, INSERT ("reference", "consignee", "wanted", "state"), UPDATE ("consignee", "wanted", "remark") ON "wh_order" TO "packer"',
  );
  expect(sql).not.toContain('"public" AUTHORIZATION');
  await wms.client.query(sql);
  // An identity gives its numbers to whoever may make a row; a serial column does not.
  expect(await problems()).toEqual([
    '13: this user may not USE wh_order_line_id_seq, from which wh_order_line.id is filled: rows cannot be made',
  ]);
  await wms.client.query('grant usage on sequence wh_order_line_id_seq to packer');
  expect(await problems()).toEqual([]);
  flow.start('capture:shop', 'transform:orders', 'transform:lines', 'apply:wms_orders', 'apply:wms_lines');
  await shop.client.query(`insert into orders (number, status, customer) values ('S-1', 'placed', 'Ada');
    insert into order_lines (order_id, line, sku, qty) values (1, 1, 'A', 2), (1, 2, 'B', 1.5)`);
  const lines = 'select line_no, article, quantity from wh_order_line order by 1';
  await shows(flow, wms.lines, lines, ['1|A|2.00', '2|B|1.50']);
  await shop.client.query(`delete from order_lines; delete from orders`);
  await shows(flow, wms.lines, lines, []);
  await shows(flow, wms.lines, 'select reference, consignee, remark from wh_order', ['S-1|Ada|withdrawn']);

  await wms.client.query(`revoke update (wanted) on wh_order from packer; revoke insert (state) on wh_order from packer;
    revoke delete on wh_order_line from packer; revoke select on wh_order_line from packer;
    grant select (wh_order, line_no, quantity) on wh_order_line to packer`);
  expect(await problems()).toEqual([
    '10: this user may not INSERT column wh_order.state',
    '9: this user may not UPDATE column wh_order.wanted',
    '17: this user may not SELECT column wh_order_line.article',
    '13: this user may not DELETE in wh_order_line',
  ]);
});
