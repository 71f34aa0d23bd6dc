/** A flow of canonical records on real servers: from the tables of an ERP and a shop to positions of stock in a target. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { ODOO_DDL, odooProducts } from '../support/odoo-tables.ts';

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
