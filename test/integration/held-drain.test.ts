/** A transform that is told to stop in the middle of what it holds. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { HELD_AT_ONCE } from '../../transform/held-teller.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { STOCK_DDL, STOCK_MAP } from '../support/stock-mapping.ts';

const ROWS = 10_000;

let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-held-'));
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

it('a drain does not wait until all that is held has been passed on: the next start does that', async () => {
  const url = await postgres.createDatabase('wms');
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const map = join(folder, 'wms.yaml');
  await writeFile(map, STOCK_MAP);
  let passedOn = 0;
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { wms: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('vis'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } } } },
    report: {
      records(outcome, count) {
        if (outcome !== 'rejected') return;
        if (passedOn === 0) stopped = flow.stop('transform:stock');
        passedOn += count;
      },
    },
  });
  let stopped: Promise<void> | undefined;
  try {
    await client.query(STOCK_DDL);
    await client.query(
      `insert into stock (id, sku, place, qty) select i, 'S-' || i, 'WH', 1 from generate_series(1, ${ROWS}) i`,
    );
    flow.start('capture:wms', 'transform:stock', 'apply:stock');
    await flow.shows('select count(*) from canonical.inventory_position', [String(ROWS)]);
    await client.query(`update stock set qty = 'NaN'`);
    await flow.shows('select count(*) > 0 from waybill.quarantine', ['true']);
    await stopped;
    // What is on its way when the signal comes, and no more.
    expect(passedOn).toBeLessThanOrEqual(3 * HELD_AT_ONCE);
    flow.start('transform:stock');
    await flow.shows('select count(*), count(distinct key) from waybill.quarantine', [`${ROWS}|${ROWS}`]);
    await client.query('update stock set qty = 2');
    await flow.shows('select count(*) from waybill.quarantine', ['0']);
    expect(await flow.lines('select sum(on_hand) from canonical.inventory_position')).toEqual([String(2 * ROWS)]);
  } finally {
    await flow.close();
    await client.end();
  }
});
