/** Records that go while all records are written anew, or while nobody looks: in a store, and in the tables of a system. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { requestAnew } from '../../transform/request.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { waitFor } from '../support/wait.ts';

const map = (where: string): string => `version: 1
name: items
entities:
  product:
    from: items
    where: { ne: [sku, { const: ${where} }] }
    fields: { sku: sku, name: label, base_uom: { const: EA } }
`;
const TO = `version: 1
name: items
outbound:
  product: { to: items, key: { sku: sku }, set: { label: name }, gone: delete }
`;
const ITEMS = 'create table items (sku text primary key, label text)';
/** Enough for several frames: what is written anew is on its way for a while. */
const MANY = 4000;

let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-anew-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

interface Scene {
  readonly flow: CanonicalPipeline;
  readonly source: pg.Client;
  readonly shop: pg.Client;
  readonly mapFile: string;
  /** Waits until the store and the shop have exactly these. */
  has(what: string, skus: readonly string[]): Promise<void>;
}

async function scene(name: string, delivery: unknown = 'realtime'): Promise<Scene> {
  const client = async (database: string): Promise<{ client: pg.Client; url: string }> => {
    const url = await postgres.createDatabase(`${name}_${database}`);
    const opened = new pg.Client({ connectionString: url });
    await opened.connect();
    cleanups.push(() => opened.end());
    await opened.query(ITEMS);
    return { client: opened, url };
  };
  const [pim, shop] = [await client('pim'), await client('shop')];
  const [mapFile, out] = [join(folder, `${name}.yaml`), join(folder, `${name}-out.yaml`)];
  await Promise.all([writeFile(mapFile, map('none')), writeFile(out, TO)]);
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { pim: { kind: 'postgres', url: pim.url } },
    targetUrl: await postgres.createDatabase(`${name}_vis`),
    targets: { shop: { kind: 'postgres', url: shop.url } },
    flows: {
      products: { canonical: 'product', from: { pim: { map: mapFile } }, delivery, frame_bytes: '64KB' },
      shop_products: { outbound: 'product', map: out, to: 'shop' },
    },
  });
  cleanups.push(() => flow.close());
  const skus = async (on: pg.Client, table: string): Promise<string[]> =>
    (await on.query<{ sku: string }>(`select sku from ${table} order by sku collate "C"`)).rows.map(({ sku }) => sku);
  const has = async (what: string, wanted: readonly string[]): Promise<void> => {
    for (const [on, table] of [
      [flow.target, 'canonical.product'],
      [shop.client, 'items'],
    ] as const) {
      let seen: string[] = [];
      await waitFor(
        `${what} in ${table}`,
        async () => {
          if (flow.failure !== undefined) throw flow.failure;
          seen = await skus(on, table);
          return seen.join() === wanted.join();
        },
        30_000,
      ).catch((cause: unknown) => {
        throw new Error(
          `${what}: ${table} has ${seen.length} records, ${seen
            .filter((sku) => !wanted.includes(sku))
            .slice(0, 5)
            .join()} too many`,
          { cause },
        );
      });
    }
  };
  flow.start('capture:pim', 'transform:products', 'apply:products', 'apply:shop_products');
  return { flow, source: pim.client, shop: shop.client, mapFile, has };
}

const sku = (n: number): string => `K-${String(n).padStart(5, '0')}`;
const skus = (from: number, to = MANY): string[] => Array.from({ length: to - from + 1 }, (_, i) => sku(from + i));
const fill = (many = MANY): string =>
  `insert into items select 'K-' || lpad(n::text, 5, '0'), repeat('x', 100) from generate_series(1, ${many}) n`;

it('a record that goes while all are written anew goes everywhere, and none comes back', async () => {
  const { flow, source, has } = await scene('during');
  await source.query(fill());
  await has('all', skus(1));
  // Some go before it is asked for, some at that moment, and some while it is written.
  await source.query(`delete from items where sku <= '${sku(100)}'`);
  await requestAnew(flow.config.nats, 'products');
  for (let until = 200; until <= 2000; until += 100)
    await source.query(`delete from items where sku <= '${sku(until)}'`);
  await has('those that are left', skus(2001));
  // And while the transform is not there.
  await flow.stop('transform:products');
  await source.query(`delete from items where sku <= '${sku(2500)}'`);
  await requestAnew(flow.config.nats, 'products');
  flow.start('transform:products');
  await has('those that are left then', skus(2501));
  await source.query(`insert into items values ('${sku(1)}', 'again')`);
  await has('one that is back', [sku(1), ...skus(2501)]);
});

it('records that a mended mapping leaves out, and those that went before a reset, go from a system, too', async () => {
  const { flow, source, mapFile, has } = await scene('mended');
  await source.query(fill(5));
  await has('all', skus(1, 5));
  await writeFile(mapFile, map(sku(2)));
  await requestAnew(flow.config.nats, 'products');
  await has('all but one', [sku(1), ...skus(3, 5)]);
  // After a reset nobody knows what the tables held before it, but what was passed on is known.
  await flow.stop('transform:products', 'capture:pim');
  await source.query(`delete from items where sku = '${sku(4)}'`);
  await requestSnapshot(flow.config.nats, 'pim', { tables: [], cancel: false, reset: true });
  flow.start('capture:pim', 'transform:products');
  await has('what is left', [sku(1), sku(3), sku(5)]);
});

it('a record of which the end waits for its time goes when all are written anew', async () => {
  const { flow, source, shop, has } = await scene('delayed', { every: '2s' });
  await source.query(fill(3));
  await has('all', skus(1, 3));
  await flow.stop('transform:products');
  // From now on nothing is passed on for a day.
  const settings = flow.config.canonicalFlows['products']!;
  Object.assign(settings, { delivery: { every: 86_400_000 } });
  flow.start('transform:products');
  await source.query(`insert into items values ('later', 'x')`);
  await requestAnew(flow.config.nats, 'products');
  await has('what came', [...skus(1, 3), 'later']);
  await source.query(`delete from items where sku = '${sku(3)}'; insert into items values ('LAST', 'x')`);
  const waiting = async (): Promise<number> => (await shop.query(`select from items`)).rowCount!;
  expect(await waiting()).toBe(4);
  await requestAnew(flow.config.nats, 'products');
  await has('what is left', [sku(1), sku(2), 'LAST', 'later']);
});
