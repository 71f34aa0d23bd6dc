/** Owners with `stale_after` on real servers: who says nothing is stood in for; who was only not read for a while is not. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cdcStreamName, keptSequences } from '../../core/cdc-stream.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { CommandLine } from '../support/command-line.ts';
import { Stage } from '../support/stage.ts';
import { STOCK_DDL, stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

const STALE_MS = 4000;
const ON_HAND = 'select on_hand from canonical.inventory_position';

let postgres: PostgresServer;
let nats: NatsServer;
let cli: CommandLine;
let admin: Nats;
let transform: Stage | undefined;
let flow: CanonicalPipeline;
const clients: pg.Client[] = [];
let wms: pg.Client;
let erp: pg.Client;

beforeAll(async () => {
  [postgres, nats, cli] = await Promise.all([startPostgres(), startNats(), CommandLine.open()]);
  const map = join(cli.folder, 'stock.yaml');
  await writeFile(map, stockMapping({ fields: { on_hand: 'qty' } }));
  const source = async (name: string, quantity: number): Promise<{ url: string; client: pg.Client }> => {
    const url = await postgres.createDatabase(name);
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    clients.push(client);
    await client.query(`${STOCK_DDL} insert into stock (id, sku, place, qty) values (1, 'A', 'W', ${quantity})`);
    return { url, client };
  };
  const [owner, other] = [await source('wms', 1), await source('erp', -1)];
  [wms, erp] = [owner.client, other.client];
  flow = await CanonicalPipeline.open({
    nats,
    sources: {
      wms: { kind: 'postgres', url: owner.url, heartbeat: '1s' },
      erp: { kind: 'postgres', url: other.url, heartbeat: '1s' },
    },
    targetUrl: await postgres.createDatabase('vis'),
    flows: {
      stock: {
        canonical: 'inventory_position',
        from: { wms: { map }, erp: { map } },
        owner: {
          on_hand: ['wms', { source: 'erp', stale_after: `${STALE_MS}ms` }],
        },
      },
    },
  });
  admin = await connectNats(flow.config.nats, 'test');
  // The owner's word is there before its fallback has said anything.
  flow.start('capture:wms', 'transform:stock', 'apply:stock', 'capture:erp');
  await flow.shows(ON_HAND, ['1']);
  await flow.target.query(`create table written (n bigserial, on_hand numeric);
    create function note_written() returns trigger language plpgsql as
      $$ begin insert into written (on_hand) values (new.on_hand); return null; end $$;
    create trigger note_written after insert or update on canonical.inventory_position
      for each row execute function note_written();
    alter table canonical.inventory_position enable always trigger note_written`);
});
afterAll(async () => {
  await transform?.end('SIGKILL');
  await flow?.close();
  await admin?.close();
  await cli?.close();
  await Promise.all(clients.map((client) => client.end()));
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

it('a fallback does not stand in while a transform that was down reads what its owner said meanwhile', async () => {
  await flow.stop('transform:stock');
  const began = Date.now();
  let last = 1;
  // Many frames of the owner, over a time in which it would have been silent, and few of its fallback.
  await waitFor('a backlog', async () => {
    for (let n = 0; n < 20; n++) await wms.query(`update stock set qty = ${++last}`);
    return Date.now() - began > 3 * STALE_MS ? true : undefined;
  });
  await erp.query('update stock set qty = -2');
  flow.start('transform:stock');
  await flow.shows(ON_HAND, [String(last)]);
  expect(await flow.lines('select count(*) > 0 from written')).toEqual(['true']);
  expect(await flow.lines('select distinct on_hand from written where on_hand < 0')).toEqual([]);
  expect(flow.failure).toBeUndefined();
});

it('a fallback stands in for an owner that says nothing, also over a restart, until it is back', async () => {
  const [before] = await flow.lines(ON_HAND);
  await flow.stop('capture:wms');
  await flow.shows(ON_HAND, ['-2']);
  await flow.target.query('truncate written');
  await flow.stop('transform:stock');
  await erp.query('update stock set qty = -3');
  flow.start('transform:stock');
  await flow.shows(ON_HAND, ['-3']);
  expect(await flow.lines('select distinct on_hand from written where on_hand > 0')).toEqual([]);
  flow.start('capture:wms');
  await flow.shows(ON_HAND, [before!]);
  expect(flow.failure).toBeUndefined();
});

it('an owner that comes back after a transform was killed while a fallback stood in has its fields again', async () => {
  const [before] = await flow.lines(ON_HAND);
  await flow.stop('transform:stock');
  const configFile = await cli.writeConfig(flow.yaml);
  const logFile = join(cli.folder, 'transform.log');
  transform = new Stage({ configFile, only: 'transform:stock', logFile, leaseTtlMs: 1500 });
  transform.start();
  await flow.stop('capture:wms');
  await flow.shows(ON_HAND, ['-3']);
  await transform.end('SIGKILL');
  // It says that it is there, and nothing of the record.
  const stream = cdcStreamName(flow.config.nats.prefix, 'wms');
  const { last } = await keptSequences(admin, stream);
  flow.start('capture:wms');
  await waitFor('heartbeats', async () => ((await keptSequences(admin, stream)).last > last + 1 ? true : undefined));
  transform.start();
  await flow.shows(ON_HAND, [before!]);
  expect(await transform.end('SIGTERM'), transform.log()).toBe(0);
  expect(flow.failure).toBeUndefined();
});
