/** Records, and what a mapping holds, in a MySQL target. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { runMysqlCapture } from '../../capture/mysql/capture.ts';
import { verifyOnce } from '../../cli/verification.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { parseConfig, recordFlowSettings, type MysqlSourceConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { createLogger } from '../../core/logger.ts';
import { openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { runCanonicalFlow } from '../../transform/canonical-flow.ts';
import { stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

let mysql: MysqlServer;
let nats: NatsServer;
let folder: string;
let db: Connection;
const stop = new AbortController();
const stages: Promise<void>[] = [];

const MAP = stockMapping({
  name: 'shop',
  fields: { location: '{ const: SHOP }', uom: 'unit', on_hand: 'quantity' },
});

beforeAll(async () => {
  [mysql, nats] = await Promise.all([startMysql({ flavour: 'mysql' }), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-canonical-'));
});
afterAll(async () => {
  stop.abort();
  await Promise.all(stages);
  db?.destroy();
  await Promise.all([mysql?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

it('writes records, lists what is held, and lets it go', async () => {
  const [shopUrl, visUrl] = [await mysql.createDatabase('shop'), await mysql.createDatabase('vis')];
  db = await createConnection({ uri: shopUrl });
  await db.query('create table stock (sku varchar(20) primary key, quantity decimal(12,3), unit varchar(5) not null)');
  await db.query(`insert into stock values ('A', 5, 'EA'), ('B', 7.5, 'KGM')`);
  await writeFile(join(folder, 'map.yaml'), MAP);
  const config = parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], stream: { max_bytes: '256MB' } },
      sources: { shop: { kind: 'mysql', url: shopUrl, tables: ['shop.*'] } },
      targets: { vis: { kind: 'mysql', url: visUrl } },
      flows: {
        stock: { canonical: 'inventory_position', from: { shop: { map: join(folder, 'map.yaml') } }, to: 'vis' },
      },
    }),
    {},
  );
  const settings = config.canonicalFlows['stock']!;
  const { store, openDesk } = await targetOf(config.targets['vis']!);
  const common = { nats: config.nats, holder: randomUUID(), leaseTtlMs: 10_000, log: createLogger('silent') };
  const { signal } = stop;
  const source = config.sources['shop'] as MysqlSourceConfig;
  const stream = canonicalStreamName(config.nats.prefix, settings.canonical);
  stages.push(
    runMysqlCapture({ ...common, name: 'shop', settings: source, signal }),
    runCanonicalFlow({ ...common, name: 'stock', settings, signal }),
    runMirrorFlow({ ...common, name: 'stock', settings: recordFlowSettings(settings), store, stream, signal }),
  );
  const shows = async (wanted: string): Promise<void> => {
    let seen = '';
    await waitFor(
      wanted,
      async () => {
        const sql = `select group_concat(concat_ws(' ', sku, uom, on_hand + 0, available + 0) order by sku) as line
          from canonical.inventory_position`;
        const rows = await db.query<RowDataPacket[]>(sql).then(
          ([found]) => found,
          () => [],
        );
        seen = String(rows[0]?.['line']);
        return seen.replaceAll(/\.?0+(?=[ ,]|$)/g, '') === wanted ? true : undefined;
      },
      60_000,
    ).catch((thrown: unknown) => {
      throw new Error(`the target shows ${seen}`, { cause: thrown });
    });
  };
  await shows('A EA 5 5,B KGM 7.5 7.5');

  await db.query(`update stock set unit = 'box' where sku = 'A'`);
  const desk = await openDesk('test');
  const held = async (): Promise<string[]> =>
    (await desk.listQuarantine('stock')).map(
      ({ id, source: from, key, reason }) => `${id.slice(0, 5)} ${from} ${key} ${reason}`,
    );
  await waitFor('what is held', async () => (await held()).length > 0);
  expect(await held()).toEqual(['held- shop ["A/SHOP//","on_hand"] mapping']);
  const client = await connectNats(config.nats, 'test');
  const compare = async (): Promise<FlowOutcome['tables'][number]> =>
    (
      await verifyOnce(config, 'stock', {
        nats: client,
        repair: false,
        resume: false,
        turn: { as: 'a test' },
        maxLoad: 1,
        signal,
      })
    ).tables[0]!;
  const proof = await compare();
  expect(openFindings(proof)).toEqual([]);
  expect(proof.progress.leftOut).toMatchObject([{ what: '*', records: 1, why: expect.stringContaining('held') }]);
  // B is not held.
  await db.query(`update canonical.inventory_position set on_hand = on_hand + 0.000000001 where sku = 'B'`);
  await db.query(`update canonical.inventory_position set on_hand = 77 where sku = 'A'`);
  const drift = await compare();
  expect(openFindings(drift).map(({ kind, key }) => [kind, key![1]])).toEqual([['different', 'B']]);
  await client.close();
  expect((await desk.listQuarantine('stock'))[0]!.createdAt.getTime()).toBeGreaterThan(Date.UTC(2020, 0));
  await db.query(`update stock set unit = 'EA', quantity = 6 where sku = 'A'`);
  await db.query(`delete from stock where sku = 'B'`);
  await shows('A EA 6 6');
  expect(await held()).toEqual([]);
  const row = await desk.readRow('canonical', 'inventory_position', ['uom', 'lineage_source'], [['sku', 'A']]);
  expect(row).toEqual(['EA', 'shop']);
  await desk.close();
});
