/** Delayed delivery where the clock of the machine was ahead for a moment. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { AnyClient } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { STOCK_DDL, STOCK_MAP } from '../support/stock-mapping.ts';

const servers = EveryServer.forThisFile();
const HOUR_MS = 3_600_000;
const RECORDS = 'select sku, on_hand from canonical.inventory_position';

let folder: string;
let flow: CanonicalPipeline | undefined;
let wms: AnyClient | undefined;

afterAll(async () => {
  await flow?.close();
  await wms?.close();
  await rm(folder, { recursive: true });
});

it('records that wait for their interval are passed on, also by the transform behind a restart', async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-clock-'));
  const map = join(folder, 'wms.yaml');
  await writeFile(map, STOCK_MAP);
  const url = await servers.postgres.createDatabase('clock_wms');
  flow = await CanonicalPipeline.open({
    nats: servers.nats,
    sources: { wms: { kind: 'postgres', url } },
    targetUrl: await servers.postgres.createDatabase('clock_vis'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { map } }, delivery: { every: '1s' } } },
  });
  wms = await AnyClient.open('postgres', url);
  await wms.run(STOCK_DDL);
  flow.start('capture:wms', 'transform:stock', 'apply:stock');
  await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'W', 1)`);
  await flow.shows(RECORDS, ['A|1']);
  const { now } = Date;
  Date.now = () => now() + HOUR_MS;
  try {
    await wms.run('update stock set qty = 2');
    await flow.shows(RECORDS, ['A|2']);
  } finally {
    Date.now = now;
  }
  await wms.run('update stock set qty = 3');
  await flow.shows(RECORDS, ['A|3']);
  await flow.stop('transform:stock');
  await wms.run('update stock set qty = 4');
  flow.start('transform:stock');
  await flow.shows(RECORDS, ['A|4']);
  expect(flow.failure).toBeUndefined();
});
