/** A flow of canonical records on real servers: from the tables of an ERP and a shop to positions of stock in a target. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { explainFlow } from '../../cli/commands/explain.ts';
import { canonicalStreamName, canonicalSubject } from '../../core/canonical-stream.ts';
import { cdcStreamName, readFrames, readTail } from '../../core/cdc-stream.ts';
import { FramePublisher } from '../../core/frame-publisher.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { decodeFrame } from '../../core/frame.ts';
import { connectNats } from '../../core/nats.ts';
import { ORIGIN } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { HELD_AT_ONCE } from '../../transform/held-teller.ts';
import { requestAnew } from '../../transform/request.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { ODOO_DDL, odooProducts } from '../support/odoo-tables.ts';
import { stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-canonical-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function source(name: string, ddl: string): Promise<{ client: pg.Client; url: string }> {
  const url = await postgres.createDatabase(name);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  cleanups.push(() => client.end());
  await client.query(ddl);
  return { client, url };
}

async function pipeline(
  options: Omit<Parameters<typeof CanonicalPipeline.open>[0], 'nats'>,
): Promise<CanonicalPipeline> {
  const opened = await CanonicalPipeline.open({ nats, ...options });
  cleanups.push(() => opened.close());
  return opened;
}

const STOCK = `select sku, location, on_hand, allocated, available, uom, lineage_source
                 from canonical.inventory_position order by sku, location`;

it('carries stock of an ERP into positions, over restarts of the transform', async () => {
  const wms = await source('odoo1', ODOO_DDL + odooProducts(3));
  await wms.client.query(`insert into stock_quant (product_id, location_id, quantity, reserved_quantity)
    values (1, 1, 5, 1), (1, 1, 2.5, 0), (2, 2, 4, 0), (3, 3, -9, 0)`);
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis1'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } } } },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  await flow.shows(STOCK, ['A-1|WH/Stock|7.5|1|6.5|EA|wms', 'A-2|DC/Stock|4|0|4|EA|wms']);

  await wms.client.query(`update stock_quant set reserved_quantity = 9 where product_id = 2;
    insert into stock_quant (product_id, location_id, quantity) values (3, 1, 1)`);
  await flow.shows(STOCK, ['A-1|WH/Stock|7.5|1|6.5|EA|wms', 'A-2|DC/Stock|4|9|-5|EA|wms', 'A-3|WH/Stock|1|0|1|EA|wms']);

  await flow.stop('transform:stock');
  await wms.client
    .query(`delete from stock_quant where product_id = 3; update stock_quant set quantity = 3 where id = 1;
    update product_product set default_code = 'B-2' where id = 2`);
  flow.start('transform:stock');
  await flow.shows(STOCK, ['A-1|WH/Stock|5.5|1|4.5|EA|wms', 'B-2|DC/Stock|4|9|-5|EA|wms']);
  const { rows } = await flow.target.query(
    `select lineage_table, lineage_key->>'id' as id, lineage_groups from canonical.inventory_position where sku = 'B-2'`,
  );
  expect(rows).toEqual([{ lineage_table: 'public.product_product', id: '2', lineage_groups: null }]);
  await flow.stop('transform:stock', 'apply:stock', 'capture:wms');
  expect(flow.failure).toBeUndefined();
});

const HELD = `select source, key, reason, message, change->'row'->>'quantity', change->'lineage'->>'table'
                from waybill.quarantine where flow = 'stock' order by key`;

it('holds a group of a key that breaks a rule, and lets it go when a good value comes or the mapping is mended', async () => {
  const wms = await source('odoo2', ODOO_DDL + odooProducts(4));
  await wms.client.query(
    `insert into stock_quant (product_id, location_id, quantity) values (1, 1, 5), (2, 1, 7), (3, 1, 8)`,
  );
  const map = join(folder, 'stock.yaml');
  const mapping = (units: string): string =>
    stockMapping({
      from: 'stock_quant',
      block: `    join:
      product: { table: product_product, on: { id: product_id } }
      place: { table: stock_location, on: { id: location_id } }
      template: { table: product_template, on: { id: product.product_tmpl_id } }
`,
      fields: {
        sku: 'product.default_code',
        location: 'place.complete_name',
        uom: `{ lookup: { of: template.tracking, values: ${units} } }`,
        on_hand: 'quantity',
        allocated: 'reserved_quantity',
      },
    });
  await writeFile(map, mapping('{ none: EA }'));
  const outcomes: Record<string, number> = {};
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis2'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
    report: { records: (outcome, count) => (outcomes[outcome] = (outcomes[outcome] ?? 0) + count) },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const onHand = 'select sku, on_hand, allocated, uom from canonical.inventory_position order by sku';
  await flow.shows(onHand, ['A-1|5|0|EA', 'A-2|7|0|EA', 'A-3|8|0|EA']);
  expect(await flow.lines(HELD)).toEqual([]);
  // What is held goes to waybill.quarantine, and nothing else is made for it.
  expect(await flow.lines(`select to_regclass('canonical.quarantine') is null`)).toEqual(['true']);

  // Of A-1 one group is held at its last good value while the other goes on; A-3 goes on as a whole.
  await wms.client.query(`update stock_quant set quantity = 'NaN', reserved_quantity = 1 where product_id = 1;
    update product_template set tracking = 'crate' where id = 2; update stock_quant set quantity = 9 where product_id = 3`);
  await flow.shows(onHand, ['A-1|5|1|EA', 'A-2|7|0|EA', 'A-3|9|0|EA']);
  await flow.shows(HELD, [
    'wms|["A-1/WH/Stock//","on_hand"]|mapping|inventory_position A-1/WH/Stock//: on_hand must be a decimal number (it is letters of 3 characters)|NaN|public.stock_quant',
    'wms|["A-2/WH/Stock//","on_hand"]|mapping|inventory_position A-2/WH/Stock//: uom must be in the look-up table of the mapping (it is letters of 5 characters)|null|public.product_template',
  ]);
  expect(outcomes['rejected']).toBe(2);

  await wms.client.query(`update stock_quant set quantity = 6 where product_id = 1`);
  await flow.shows(onHand, ['A-1|6|1|EA', 'A-2|7|0|EA', 'A-3|9|0|EA']);
  await flow.shows(`select count(*) from waybill.quarantine`, ['1']);

  await writeFile(map, mapping('{ none: EA, crate: KGM }'));
  await requestAnew(flow.config.nats, 'stock');
  await flow.shows(onHand, ['A-1|6|1|EA', 'A-2|7|0|KGM', 'A-3|9|0|EA']);
  await flow.shows(`select count(*) from waybill.quarantine`, ['0']);
  await wms.client.query('delete from stock_quant where product_id = 3');
  await flow.shows(onHand, ['A-1|6|1|EA', 'A-2|7|0|KGM']);
});

it('a burst of ten thousand bad rows holds nothing else up', async () => {
  const wms = await source('odoo3', ODOO_DDL + odooProducts(10_100));
  await wms.client.query(
    `insert into stock_quant (product_id, location_id, quantity) select i, 1, 1 from generate_series(1, 10100) i`,
  );
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis3'),
    // Records that go stay in the store; what is held goes from its quarantine all the same.
    flows: { stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } }, deletes: 'ignore' } },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  await flow.shows('select count(*) from canonical.inventory_position', ['10100']);
  await wms.client.query(`update stock_quant set quantity = 'NaN' where product_id <= 10000`);
  await wms.client.query(`update stock_quant set quantity = 2 where product_id = 10100`);
  await flow.shows(`select on_hand from canonical.inventory_position where sku = 'A-10100'`, ['2']);
  // Behind the good row, of each key its quantity and what is free of it.
  await flow.shows(`select count(*), count(distinct key) from waybill.quarantine`, ['20000|20000']);
  expect(await flow.lines('select sum(on_hand) from canonical.inventory_position')).toEqual(['10101']);
  await wms.client.query(`update stock_quant set quantity = 3 where product_id <= 10000`);
  await flow.shows('select count(*) from waybill.quarantine', ['0']);
  expect(await flow.lines('select sum(on_hand) from canonical.inventory_position')).toEqual(['30101']);
  const transactions = await transactionRows(flow, 'inventory_position');
  // What a transaction of the source did to records stays one; what is held of it, or no longer, comes behind it in pieces.
  expect(Math.max(...transactions.map(({ records }) => records))).toBe(10_000);
  const pieces = transactions.filter(({ held }) => held > 0);
  expect(pieces).toEqual(Array.from({ length: 80 }, () => ({ records: 0, held: HELD_AT_ONCE })));
}, 300_000);

it('explains a record of one block by the change that made each of its groups', async () => {
  const wms = await source(
    'explained',
    `create table stock (id int primary key, sku text not null, quantity int not null, reserved int not null);
     insert into stock values (1, 'A', 5, 1), (2, 'B', 6, 0)`,
  );
  const map = join(folder, 'explained.yaml');
  const fields = { location: '{ const: WH }', on_hand: 'quantity', allocated: 'reserved' };
  await writeFile(map, stockMapping({ fields }));
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis_explained'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const records = 'select sku, on_hand, allocated from canonical.inventory_position order by sku';
  await flow.shows(records, ['A|5|1', 'B|6|0']);
  await wms.client.query('update stock set quantity = 7 where id = 1');
  await wms.client.query('update stock set reserved = 2 where id = 1');
  await wms.client.query('update stock set reserved = 3, quantity = 8 where id = 2');
  await flow.shows(records, ['A|7|2', 'B|8|3']);
  const explained = async (sku: string) => {
    const { fields } = await explainFlow(flow.config, 'inventory_position', [sku, 'WH']);
    const of = (name: string) => fields!.find(({ field }) => field === name)!;
    return of;
  };
  const a = await explained('A');
  expect(a('on_hand').origin.position! < a('allocated').origin.position!).toBe(true);
  expect(a('on_hand')).toMatchObject({ decided: 'owner wms', rule: `own, ${map}:12` });
  expect(a('allocated')).toMatchObject({ decided: 'owner wms', rule: `own, ${map}:13` });
  expect(a('picked')).toMatchObject({ decided: 'nothing supplied', origin: {}, rule: '' });
  expect(a('soft_reserved')).toMatchObject({ decided: 'nothing supplied', origin: {}, rule: '' });
  expect(a('sku')).toMatchObject({ decided: 'key', origin: {}, rule: `own, ${map}:7` });
  const b = await explained('B');
  expect(b('on_hand').origin).toEqual(b('allocated').origin);
});

it('shows rows that wait for a row that they join, until it comes, over a restart', async () => {
  const wms = await source(
    'waits',
    `create table article (id int primary key, sku text not null);
     create table stock (id int primary key, article_id int not null, quantity int not null);
     insert into article values (1, 'A');
     insert into stock values (1, 1, 5), (2, 2, 6), (3, 3, 0)`,
  );
  const map = join(folder, 'waits.yaml');
  const block = `    join: { article: { table: article, on: { id: article_id } } }
    where: { gt: [quantity, 0] }
`;
  const fields = { sku: 'article.sku', location: '{ const: WH }', on_hand: 'quantity' };
  await writeFile(map, stockMapping({ block, fields }));
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis_waits'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const records = 'select sku, on_hand from canonical.inventory_position order by sku';
  const held = `select key, message from waybill.quarantine where flow = 'stock' order by key`;
  const waits = (id: number): string =>
    `["{\\"id\\":\\"${id}\\"}","*"]|inventory_position {"id":"${id}"}: join article must find its row of article (it is not there)`;
  await flow.shows(records, ['A|5']);
  await flow.shows(held, [waits(2)]);
  // A record whose partner goes is gone, and says why.
  await wms.client.query('delete from article where id = 1');
  await flow.shows(held, [waits(1), waits(2)]);
  expect(await flow.lines(records)).toEqual([]);
  await flow.stop('transform:stock');
  await wms.client.query(`insert into article values (1, 'A'); delete from stock where id = 2`);
  flow.start('transform:stock');
  await flow.shows(records, ['A|5']);
  await flow.shows(held, []);
  await wms.client.query(`update stock set quantity = 1, article_id = 4 where id = 3`);
  await flow.shows(held, [waits(3)]);
  await wms.client.query(`insert into article values (4, 'D')`);
  await flow.shows(records, ['A|5', 'D|1']);
  await flow.shows(held, []);
});

it('says again all that is held when a run ended before it had been said', async () => {
  const wms = await source(
    'behind',
    `create table stock (id int primary key, sku text not null, quantity numeric not null);
     insert into stock select i, 'S-' || i, 1 from generate_series(1, 5) i`,
  );
  const map = join(folder, 'behind.yaml');
  await writeFile(map, stockMapping({ fields: { location: '{ const: WH }', on_hand: 'quantity' } }));
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis_behind'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  await flow.shows('select count(*) from canonical.inventory_position', ['5']);
  await wms.client.query(`update stock set quantity = 'NaN' where id < 5`);
  const held = `select key from waybill.quarantine where flow = 'stock' order by key`;
  const all = [1, 2, 3, 4].map((id) => `["S-${id}/WH//","on_hand"]`);
  await flow.shows(held, all);
  await flow.stop('transform:stock');
  // As a run leaves it that was killed: two were not said, and of one it was not said that it is held no longer.
  await flow.target.query(`delete from waybill.quarantine where key like '["S-1/%' or key like '["S-2/%';
    insert into waybill.quarantine (flow, hold, source, table_schema, table_name, key, position, ordinal, op, reason, message, change)
      select flow, 'gone', source, table_schema, table_name, 'gone', position, ordinal, op, reason, message, change from waybill.quarantine limit 1`);
  const connection = await connectNats(flow.config.nats, 'test');
  cleanups.push(() => connection.close());
  const stream = {
    name: canonicalStreamName(flow.config.nats.prefix, 'inventory_position'),
    subject: canonicalSubject(flow.config.nats.prefix, 'inventory_position'),
  };
  const tail = await readTail(connection, stream.name);
  const before = tail.checkpoint!;
  const options = { source: 'inventory_position', origin: 'canonical/stock', epoch: tail.epoch, tail, stream };
  await new FramePublisher(connection, flow.config.nats, options).publish({
    payload: new FrameWriter(1 << 16).finish(),
    start: tail.end,
    end: tail.end,
    rows: 0,
    transactions: 0,
    timeUs: 0,
    checkpoint: { before, after: before.replace(/\}$/, ',"held":"behind"}') },
  });
  flow.start('transform:stock');
  await flow.shows(held, all);
  await flow.stop('transform:stock');
  expect((await readTail(connection, stream.name)).checkpoint).not.toContain('behind');
});

/** Rows of records, and of what is held, of the transactions that a stream of records has, in order; without marks. */
async function transactionRows(flow: CanonicalPipeline, entity: string): Promise<{ records: number; held: number }[]> {
  const connection = await connectNats(flow.config.nats, 'test');
  cleanups.push(() => connection.close());
  const stream = canonicalStreamName(flow.config.nats.prefix, entity);
  const { state } = await connection.manager.streams.info(stream);
  const rows: { records: number; held: number }[] = [];
  const { signal } = new AbortController();
  for await (const received of readFrames(connection, stream, { startSeq: 1, position: ORIGIN, signal })) {
    const frame = decodeFrame(received.payload, received.place);
    let from = 0;
    for (const [, , , , count] of frame.tx) {
      const own = frame.rows.slice(from, (from += count)).filter(([op]) => op !== 's');
      const held = own.filter(([, table]) => frame.tables[table]!.name === 'quarantine').length;
      rows.push({ records: own.length - held, held });
    }
    if (received.seq === state.last_seq) break;
  }
  return rows;
}

it('a burst of rows that break rules of every kind comes in once the mapping is mended', async () => {
  const wms = await source(
    'mended',
    `create table stock (id int primary key, sku text not null, place text, quantity text not null, unit text not null);
     insert into stock select i, 'S-' || i, 'WH', '1', 'pc' from generate_series(0, 9999) i`,
  );
  const map = join(folder, 'burst.yaml');
  const mapping = (block: string, sku: string, place: string, units: string, quantity: string): string =>
    stockMapping({
      block,
      fields: { sku, location: place, uom: `{ lookup: { of: unit, values: ${units} } }`, on_hand: quantity },
    });
  await writeFile(map, mapping('', 'sku', 'place', '{ pc: EA }', '{ decimal: quantity }'));
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis_mended'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const sums = 'select count(*), sum(on_hand) from canonical.inventory_position';
  await flow.shows(sums, ['10000|10000']);
  // A number, a part of the key, a word of a look-up table, and a key that has to be the only one.
  await wms.client.query(`update stock set quantity = case id % 4 when 0 then 'none' else '2' end,
    place = case id % 4 when 1 then null else 'WH' end, unit = case id % 4 when 2 then 'crate' else 'pc' end,
    sku = case id % 4 when 3 then 'S-' || id + 4 * (id / 4 % 2) else sku end`);
  const rules = `select split_part(split_part(message, ': ', 2), ' (', 1), count(*) from waybill.quarantine
                  group by 1 order by 1`;
  await flow.shows(rules, [
    'location must not be empty|2500',
    'on_hand must be a decimal number|2500',
    'sku, location, lot, owner must be unique, and several rows have it|1249',
    'uom must be in the look-up table of the mapping|2500',
  ]);
  // Later changes of what is held, and of all else, go on being taken.
  await wms.client.query(`update stock set quantity = '7' where id < 20 and id % 4 > 0`);
  await wms.client.query(`insert into stock values (10000, 'GOOD', 'WH', '1', 'pc')`);
  await flow.shows(`select on_hand from canonical.inventory_position where sku = 'GOOD'`, ['1']);
  await writeFile(
    map,
    mapping(
      '    group: true\n',
      'sku',
      '{ coalesce: [place, { const: LOST }] }',
      '{ pc: EA, crate: KGM }',
      `{ sum: { decimal: { lookup: { of: quantity, values: { none: '0' }, else: quantity } } } }`,
    ),
  );
  await requestAnew(flow.config.nats, 'stock');
  await flow.shows('select count(*) from waybill.quarantine', ['0']);
  await flow.shows(sums, ['8752|15076']);
  await flow.shows(
    `select sku, location, on_hand, uom from canonical.inventory_position
      where sku in ('S-0', 'S-1', 'S-2', 'S-3', 'S-11') order by sku`,
    ['S-0|WH|0|EA', 'S-1|LOST|7|EA', 'S-11|WH|14|EA', 'S-2|WH|7|KGM', 'S-3|WH|7|EA'],
  );
}, 300_000);

it('passes slow groups on when it is their time, and everything when asked', async () => {
  const wms = await source('odoo4', ODOO_DDL + odooProducts(2));
  await wms.client.query(`insert into stock_quant (product_id, location_id, quantity) values (1, 1, 5)`);
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis4'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: { wms: { pack: 'odoo' } },
        delivery: { allocated: { cron: '0 0 29 2 *' }, in_transit: { every: '1s' } },
      },
    },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const seen = 'select sku, on_hand, allocated, available from canonical.inventory_position order by sku';
  await flow.shows(seen, ['A-1|5|0|5']);
  await wms.client.query('update stock_quant set quantity = 6, reserved_quantity = 2');
  await flow.shows(seen, ['A-1|6|0|6']);
  await flow.stop('transform:stock');
  await wms.client.query(`update stock_quant set quantity = 7;
    insert into stock_quant (product_id, location_id, quantity, reserved_quantity) values (2, 1, 3, 1)`);
  flow.start('transform:stock');
  // What waited before the restart goes on waiting; a record that is new comes whole.
  await flow.shows(seen, ['A-1|7|0|7', 'A-2|3|1|2']);
  await requestAnew(flow.config.nats, 'stock');
  await flow.shows(seen, ['A-1|7|2|5', 'A-2|3|1|2']);
});

it('sends of many changes in an interval the last', async () => {
  const wms = await source('odoo5', ODOO_DDL + odooProducts(1));
  await wms.client.query(`insert into stock_quant (product_id, location_id, quantity) values (1, 1, 0)`);
  let saved = 0;
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis5'),
    flows: {
      stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } }, delivery: { every: '2s' } },
    },
    report: { delayed: ({ savedWrites }) => (saved += savedWrites) },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const seen = 'select sku, on_hand from canonical.inventory_position';
  await flow.shows(seen, ['A-1|0']);
  for (let i = 1; i <= 300; i++) await wms.client.query('update stock_quant set quantity = $1', [i]);
  await flow.shows(seen, ['A-1|300']);
  expect(saved).toBeGreaterThan(100);
});

const QUANTS = `version: 1
name: quants
zone: UTC
entities:
  inventory_position:
    from: stock_quant
    join: { product: { table: product_product, on: { id: product_id } } }
    fields:
      sku: product.default_code
      location: { lookup: { of: location_id, values: { 1: WH } } }
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      on_hand: quantity
      allocated: reserved_quantity
`;

it('goes on from its saved state when the past of a source has expired, also with a mended mapping, and says so when frames behind that are gone', async () => {
  const wms = await source('odoo6', ODOO_DDL + odooProducts(3));
  await wms.client.query(
    `insert into stock_quant (product_id, location_id, quantity) values (1, 1, 5), (2, 1, 6), (3, 9, 7)`,
  );
  const map = join(folder, 'quants.yaml');
  await writeFile(map, QUANTS);
  const states: string[] = [];
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis6'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
    report: { state: (state, detail) => void states.push(`${state} ${detail ?? ''}`) },
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const seen = 'select sku, on_hand from canonical.inventory_position order by sku';
  await flow.shows(seen, ['A-1|5', 'A-2|6']);
  const admin = await connectNats(flow.config.nats, 'test');
  cleanups.push(() => admin.close());
  const records = canonicalStreamName(flow.config.nats.prefix, 'inventory_position');
  const stream = cdcStreamName(flow.config.nats.prefix, 'wms');
  const lastSeq = async (): Promise<number> => (await admin.manager.streams.info(stream)).state.last_seq;
  /** A frame of its own. */
  const change = async (sql: string): Promise<void> => {
    const before = await lastSeq();
    await wms.client.query(sql);
    await waitFor('the change in the stream', async () => (await lastSeq()) > before);
  };
  const idle = async (): Promise<void> => {
    states.length = 0;
    await waitFor('the flow to be idle', async () => states.at(-1)?.startsWith('idle') === true);
  };
  // All that the state was made of expires (not a heartbeat that came after it: that would be a gap), and the records do;
  // then a row that it brought goes.
  const taken = await lastSeq();
  await idle();
  await flow.stop('transform:stock');
  await admin.manager.streams.purge(stream, { seq: taken + 1 });
  await admin.manager.streams.purge(records);
  flow.start('transform:stock');
  await idle();
  await change('delete from stock_quant where product_id = 2; update stock_quant set quantity = 7');
  await flow.shows(seen, ['A-1|7']);
  await requestAnew(flow.config.nats, 'stock');
  await change('update stock_quant set quantity = 8');
  await flow.shows(seen, ['A-1|8']);
  await flow.stop('transform:stock');

  // So it does with a mapping, owners, a tenant and a delivery that are other ones, which need nothing that has not been kept.
  await admin.manager.streams.purge(stream, { seq: await lastSeq() });
  await writeFile(
    map,
    `# Mended.\n${QUANTS.replace('{ 1: WH }', '{ 1: DC, 9: YARD }').replace('allocated:', 'soft_reserved:')}`,
  );
  Object.assign(flow.config.canonicalFlows['stock']!, {
    tenant: 'north',
    owner: { on_hand: 'wms' },
    delivery: { every: 1000 },
  });
  flow.start('transform:stock');
  const all =
    'select sku, location, on_hand, allocated, soft_reserved, tenant from canonical.inventory_position order by sku';
  await flow.shows(all, ['A-1|DC|8|null|0|north', 'A-3|YARD|8|null|0|north']);
  await flow.shows('select count(*) from waybill.quarantine', ['0']);
  await change('insert into stock_quant (product_id, location_id, quantity) values (2, 1, 2)');
  await flow.shows(seen, ['A-1|8', 'A-2|2', 'A-3|8']);
  await change('delete from stock_quant where product_id > 1');
  await flow.shows(seen, ['A-1|8']);
  await flow.stop('transform:stock');
  expect(states.filter((each) => each.startsWith('blocked'))).toEqual([]);

  // What came after it was saved expires.
  await change('insert into stock_quant (product_id, location_id, quantity) values (2, 1, 1)');
  await change('update stock_quant set quantity = 9');
  await admin.manager.streams.purge(stream, { seq: await lastSeq() });
  flow.start('transform:stock');
  await waitFor('the flow to be blocked', async () =>
    states.some((each) => each.startsWith('blocked transform_history')),
  );
  await requestSnapshot(flow.config.nats, 'wms', { reset: true });
  await flow.shows(seen, ['A-1|9', 'A-2|9']);
  await wms.client.query('update stock_quant set quantity = 10');
  await flow.shows(seen, ['A-1|10', 'A-2|10']);
});

it('saves its state again and again while records go on, and goes on from it when the past has expired', async () => {
  const wms = await source('odoo8', ODOO_DDL + odooProducts(2));
  await wms.client.query(`insert into stock_quant (product_id, location_id, quantity) values (1, 1, 5), (2, 1, 6)`);
  let saves = 0;
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis8'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } } } },
    report: { saved: () => void (saves += 1) },
    saveMs: 1,
  });
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  const seen = 'select sku, on_hand from canonical.inventory_position order by sku';
  const admin = await connectNats(flow.config.nats, 'test');
  cleanups.push(() => admin.close());
  const stream = cdcStreamName(flow.config.nats.prefix, 'wms');
  await flow.shows(seen, ['A-1|5', 'A-2|6']);
  let quantity = 10;
  let taken = 0;
  while (saves < 4) {
    quantity += 1;
    taken = (await admin.manager.streams.info(stream)).state.last_seq;
    await wms.client.query('update stock_quant set quantity = $1 where product_id = 1', [quantity]);
    await flow.shows(seen, [`A-1|${quantity}`, 'A-2|6']);
  }
  await flow.stop('transform:stock');
  // Not a heartbeat that came after it was saved: that would be a gap.
  await admin.manager.streams.purge(stream, { seq: taken + 1 });
  await wms.client.query('delete from stock_quant where product_id = 2');
  flow.start('transform:stock');
  await flow.shows(seen, [`A-1|${quantity}`]);
});

it('refuses to keep more than it may', async () => {
  const wms = await source('odoo7', ODOO_DDL + odooProducts(200));
  const states: string[] = [];
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url } },
    targetUrl: await postgres.createDatabase('vis7'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } }, state_bytes: '64KB' } },
    report: { state: (state, detail) => void states.push(`${state} ${detail ?? ''}`) },
  });
  flow.start('capture:wms', 'transform:stock');
  await waitFor('the flow to be blocked', async () =>
    states.some((each) => each.startsWith('blocked transform_state_full')),
  );
  await flow.stop('transform:stock');
  expect((flow.failure as { code?: string }).code).toBe('transform_state_full');
  flow.failure = undefined;
});
