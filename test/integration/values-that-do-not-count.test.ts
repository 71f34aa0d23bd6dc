/** Values that cannot count, by their time or their unit, leave the last good ones standing: on real servers. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection, type Connection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { stockMapping } from '../support/stock-mapping.ts';

const DDL = `create table stock
  (id int primary key, sku varchar(20) not null, place varchar(20) not null, qty decimal(12, 3) not null, unit varchar(5) not null);`;
const RECORDS = 'select sku, on_hand, allocated, available, uom from canonical.inventory_position order by sku';

let postgres: PostgresServer;
let maria: MysqlServer;
let nats: NatsServer;
let folder: string;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
  [postgres, maria, nats] = await Promise.all([startPostgres(), startMysql({ flavour: 'mariadb' }), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-not-counted-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), maria?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function source(name: string): Promise<{ client: pg.Client; url: string }> {
  const url = await postgres.createDatabase(name);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  cleanups.push(() => client.end());
  await client.query(DDL);
  return { client, url };
}

async function mapping(name: string, fields: Readonly<Record<string, string>>): Promise<{ map: string }> {
  const map = join(folder, `${name}.yaml`);
  await writeFile(map, stockMapping({ name, fields: { uom: 'unit', ...fields } }));
  return { map };
}

async function pipeline(
  options: Omit<Parameters<typeof CanonicalPipeline.open>[0], 'nats'>,
): Promise<CanonicalPipeline> {
  const opened = await CanonicalPipeline.open({ nats, ...options });
  cleanups.push(() => opened.close());
  return opened;
}

it('a commit time that lies too far ahead neither takes a record away nor brings back what another said before', async () => {
  const shop = await source('early_shop');
  await shop.client.query(`insert into stock values (1, 'A', 'W', 5, 'EA')`);
  const url = await maria.createDatabase('early');
  const ahead: Connection = await createConnection({ uri: url });
  cleanups.push(() => ahead.end());
  await ahead.query(DDL);
  await ahead.query(`insert into stock values (1, 'A', 'W', 6, 'EA'), (2, 'B', 'W', 1, 'EA')`);
  const from = await mapping('early', { on_hand: 'qty' });
  const flow = await pipeline({
    sources: { shop: { kind: 'postgres', url: shop.url }, ahead: { kind: 'mariadb', url, tables: ['early.*'] } },
    targetUrl: await postgres.createDatabase('vis_early'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: { shop: from, ahead: from },
        owner: { default: { merge: 'lww' } },
      },
    },
  });
  flow.start('capture:shop', 'capture:ahead', 'transform:stock', 'apply:stock');
  await flow.shows(`select sku from canonical.inventory_position order by sku`, ['A', 'B']);
  // MariaDB tells of commits by the second.
  const past = `select bool_and(lineage_time < date_trunc('second', clock_timestamp())) from canonical.inventory_position`;
  await flow.shows(past, ['true']);
  await ahead.query('update stock set qty = 7 where id = 1');
  await flow.shows(RECORDS, ['A|7|null|7|EA', 'B|1|null|1|EA']);

  // B is known to this source alone.
  await ahead.query('set timestamp = unix_timestamp() + 86400');
  await ahead.query('update stock set qty = 99');
  await ahead.query('set timestamp = default');
  await ahead.query(`insert into stock values (3, 'C', 'W', 3, 'EA')`);
  const standing = ['A|7|null|7|EA', 'B|1|null|1|EA'];
  await flow.shows(RECORDS, [...standing, 'C|3|null|3|EA']);
  await flow.stop('transform:stock');
  flow.start('transform:stock');
  await ahead.query(`update stock set qty = 4 where id = 3`);
  await flow.shows(RECORDS, [...standing, 'C|4|null|4|EA']);
  expect(await flow.lines('select count(*) from waybill.quarantine')).toEqual(['0']);

  // Who writes after what stands wins, and a clock that was set right counts at once.
  await shop.client.query('update stock set qty = 8');
  await ahead.query('update stock set qty = 2 where id = 2');
  await flow.shows(RECORDS, ['A|8|null|8|EA', 'B|2|null|2|EA', 'C|4|null|4|EA']);
  expect(flow.failure).toBeUndefined();
});

it('quantities in another unit than that of their record are converted, or held at their last good values', async () => {
  const [wms, erp] = [await source('units_wms'), await source('units_erp')];
  await wms.client.query(`insert into stock values (1, 'A', 'W', 144, 'EA')`);
  await erp.client.query(`insert into stock values (1, 'A', 'W', 12, 'DZN')`);
  const flow = await pipeline({
    sources: { wms: { kind: 'postgres', url: wms.url }, erp: { kind: 'postgres', url: erp.url } },
    targetUrl: await postgres.createDatabase('vis_units'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: {
          wms: await mapping('wms', { on_hand: 'qty' }),
          erp: await mapping('erp', { allocated: 'qty' }),
        },
        owner: { on_hand: 'wms' },
      },
    },
  });
  flow.start('capture:wms', 'capture:erp', 'transform:stock', 'apply:stock');
  await flow.shows(RECORDS, ['A|144|144|0|EA']);
  await erp.client.query(`update stock set qty = 3, unit = 'KGM'`);
  const held = `select key, message from waybill.quarantine where flow = 'stock'`;
  await flow.shows(held, [
    '["A/W//","allocated"]|inventory_position A/W//: allocated must be in the unit of the record: EA, not KGM (it is digits of 1 character)',
  ]);
  await wms.client.query(`update stock set qty = 150`);
  await flow.shows(RECORDS, ['A|150|144|6|EA']);
  await erp.client.query(`update stock set qty = 10, unit = 'EA'`);
  await flow.shows(RECORDS, ['A|150|10|140|EA']);
  await flow.shows(held, []);
  expect(flow.failure).toBeUndefined();
});
