/** An outbound flow is given up: what it left in the system that it wrote to goes, what it wrote there stays. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createConnection, type Connection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { teardownOutbound } from '../../cli/flow-teardown.ts';
import { canonicalStreamName, canonicalSubject } from '../../core/canonical-stream.ts';
import { ensureFrameStream } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { CommandLine } from '../support/command-line.ts';
import { waitFor } from '../support/wait.ts';

const ITEMS = 'create table items (sku varchar(20) primary key, label varchar(40))';
const FROM = `version: 1
name: items
entities:
  product: { from: items, fields: { sku: sku, name: label, base_uom: { const: EA } } }
`;
const TO = `version: 1
name: items
outbound:
  product: { to: items, key: { sku: sku }, set: { label: name } }
`;

let postgres: PostgresServer;
let mariadb: MysqlServer;
let nats: NatsServer;
let cli: CommandLine;
let flow: CanonicalPipeline;
let source: pg.Client;
let shop: pg.Client;
let erp: Connection;

beforeAll(async () => {
  [postgres, mariadb, nats, cli] = await Promise.all([
    startPostgres(),
    startMysql({ flavour: 'mariadb' }),
    startNats(),
    CommandLine.open(),
  ]);
  const [sourceUrl, shopUrl] = [await postgres.createDatabase('pim'), await postgres.createDatabase('shop')];
  const erpUrl = await mariadb.createDatabase('erp');
  source = new pg.Client({ connectionString: sourceUrl });
  shop = new pg.Client({ connectionString: shopUrl });
  erp = await createConnection({ uri: erpUrl, multipleStatements: true });
  await Promise.all([source.connect(), shop.connect()]);
  for (const system of [source, shop]) await system.query(ITEMS);
  await erp.query(ITEMS);
  await shop.query(`create role clerk login; grant select, insert, update on items to clerk; create schema waybill authorization clerk;
    grant select on pg_replication_origin to clerk; grant execute on function pg_replication_origin_create(text) to clerk;
    grant execute on function pg_replication_origin_session_setup(text) to clerk;
    grant execute on function pg_replication_origin_xact_setup(pg_lsn, timestamptz) to clerk`);
  const asClerk = new URL(shopUrl);
  asClerk.username = 'clerk';
  const [map, out] = [join(cli.folder, 'from.yaml'), join(cli.folder, 'to.yaml')];
  await Promise.all([writeFile(map, FROM), writeFile(out, TO)]);
  flow = await CanonicalPipeline.open({
    nats,
    sources: { pim: { kind: 'postgres', url: sourceUrl } },
    targetUrl: await postgres.createDatabase('vis'),
    targets: { shop: { kind: 'postgres', url: asClerk.href }, erp: { kind: 'mariadb', url: erpUrl } },
    flows: {
      products: { canonical: 'product', from: { pim: { map } }, delivery: 'realtime' },
      shop_products: { outbound: 'product', map: out, to: 'shop' },
      erp_products: { outbound: 'product', map: out, to: 'erp' },
    },
  });
}, 240_000);

afterAll(async () => {
  await flow?.close();
  await Promise.all([source?.end(), shop?.end(), cli?.close()]);
  erp?.destroy();
  await Promise.all([postgres?.dispose(), mariadb?.dispose(), nats?.dispose()]);
});

const inShop = async (sql: string): Promise<number> => (await shop.query(sql)).rowCount ?? 0;
const inErp = async (sql: string): Promise<number> => ((await erp.query(sql))[0] as unknown[]).length;
const ORIGINS = `select from pg_replication_origin where roname like 'waybill shop_products %'`;
const MARKERS = `select 1 from information_schema.tables where table_schema = 'waybill' and table_name like 'origin_%'`;

async function keys(): Promise<string[]> {
  const connection = await connectNats(flow.config.nats, 'test');
  const left: string[] = [];
  for await (const key of await (await openBucket(connection, flow.config.nats)).keys()) left.push(key);
  await connection.close();
  return left.filter((key) => key.endsWith('_products'));
}

it('is not done while the flow runs, and only when told so; then nothing of it is left, and the flow could begin anew', async () => {
  const stages = ['capture:pim', 'transform:products', 'apply:shop_products', 'apply:erp_products'];
  flow.start(...stages);
  await source.query(`insert into items values ('A', 'one')`);
  await waitFor(
    'the product in both',
    async () => (await inShop('select from items')) + (await inErp('select 1 from items')) === 2,
  );
  await expect(teardownOutbound(flow.config, 'shop_products', 300)).rejects.toThrow('stop apply:shop_products first');
  await flow.stop('apply:shop_products', 'apply:erp_products');

  // Another installation that has flows of these names is refused, and its teardown leaves what is not its own.
  const config = JSON.parse(flow.yaml) as { nats: { prefix: string } };
  const other = JSON.stringify({ ...config, nats: { ...config.nats, prefix: `${config.nats.prefix}_other` } });
  const elsewhere = await connectNats(parseConfig(other, {}).nats, 'test');
  const [name, subject] = [canonicalStreamName, canonicalSubject].map((of) =>
    of(`${config.nats.prefix}_other`, 'product'),
  );
  await ensureFrameStream(elsewhere, parseConfig(other, {}).nats, { name: name!, subject: subject!, description: '' });
  await elsewhere.close();
  for (const name of ['shop_products', 'erp_products']) {
    await cli.run(other, 'target_foreign', `apply:${name}`);
    const refused = await cli.waybill(other, ['teardown', name, '--yes']);
    expect(refused.status, refused.output).toBe(1);
    expect(refused.output).toMatch(
      /1 row of waybill\.position: installation \w+ of Waybill has a flow of this name here/,
    );
  }
  expect([await inShop('select from waybill.position'), await inErp('select 1 from waybill.position')]).toEqual([1, 1]);

  const asked = await cli.waybill(flow.yaml, ['teardown', 'shop_products']);
  expect(asked.status, asked.output).toBe(2);
  expect(asked.output).toMatch(
    / {2}- 1 row of waybill\.position\n {2}- replication origin waybill shop_products \w+: this user may not drop it/,
  );
  expect([await inShop('select from waybill.position'), await inShop(ORIGINS)]).toEqual([1, 1]);

  // The origin is a superuser's to drop, unless he lets this one.
  const half = await cli.waybill(flow.yaml, ['teardown', 'shop_products', '--yes']);
  expect(half.status, half.output).toBe(1);
  const sql = /as a superuser: (SELECT pg_replication_origin_drop\('waybill shop_products \w+'\))/.exec(
    half.output,
  )?.[1];
  expect([await inShop('select from waybill.position'), await inShop(ORIGINS)]).toEqual([0, 1]);
  await shop.query(sql!);
  expect(await inShop(ORIGINS)).toBe(0);
  const none = await cli.waybill(flow.yaml, ['teardown', 'shop_products']);
  expect(none).toEqual({ status: 0, output: 'nothing of flow shop_products is left in shop\n' });

  expect(await inErp(MARKERS)).toBe(1);
  const mariadbs = await cli.waybill(flow.yaml, ['teardown', 'erp_products', '--yes']);
  expect(mariadbs.status, mariadbs.output).toBe(0);
  expect(mariadbs.output).toMatch(
    /removed 1 row of waybill\.position\nremoved \d rows? of waybill\.outbound_rows\nremoved 1 row of waybill\.origin_\w+\nremoved table waybill\.origin_/,
  );
  expect(await inErp('select 1 from waybill.position union all select 1 from waybill.outbound_rows')).toBe(0);
  expect(await inErp(MARKERS)).toBe(0);
  expect(await keys()).toEqual([]);
  // What was brought stays.
  expect([await inShop('select from items'), await inErp('select 1 from items')]).toEqual([1, 1]);

  // As earlier versions left it.
  await Promise.all([shop.query('drop table waybill.owner'), erp.query('drop table waybill.owner')]);
  flow.start('apply:shop_products', 'apply:erp_products');
  await source.query(`insert into items values ('B', 'two')`);
  await waitFor(
    'both again',
    async () => (await inShop('select from items')) + (await inErp('select 1 from items')) === 4,
  );
  await flow.stop('apply:shop_products', 'apply:erp_products');
  await shop.query('grant execute on function pg_replication_origin_drop(text) to clerk');
  const whole = await cli.waybill(flow.yaml, ['teardown', 'shop_products', '--yes']);
  expect(whole.status, whole.output).toBe(0);
  expect(whole.output).toContain('removed replication origin waybill shop_products');
  expect(await inShop(ORIGINS)).toBe(0);
  expect(flow.failure).toBeUndefined();
});
