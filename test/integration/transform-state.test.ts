/** The saved state of a transform over kills of its process, and what `waybill explain` says of the records it made. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { formatCheckpoint } from '../../transform/checkpoint.ts';
import { StateStore } from '../../transform/state-store.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { CommandLine } from '../support/command-line.ts';
import { Stage } from '../support/stage.ts';
import { stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

const WMS_MAP = stockMapping({
  name: 'wms',
  block: `    group: true
    join:
      item: { table: item, on: { id: item_id } }
`,
  fields: { sku: 'item.sku', on_hand: '{ sum: quantity }' },
});
const PLAN_MAP = stockMapping({ name: 'plan', from: 'plan', fields: { on_hand: 'guess', on_order: 'supply' } });
const TO_SHOP = `version: 1
name: shop
outbound:
  inventory_position: { to: offers, key: { sku: sku, place: location }, set: { offered: on_hand }, gone: delete }
`;
const RECORDS =
  'select sku, location, on_hand, on_order, available from canonical.inventory_position order by sku, location';

let postgres: PostgresServer;
let nats: NatsServer;
let cli: CommandLine;
let flow: CanonicalPipeline;
let source: pg.Client;
let shop: pg.Client;
let wmsMap: string;
let admin: Nats;
let transform: Stage;

beforeAll(async () => {
  [postgres, nats, cli] = await Promise.all([startPostgres(), startNats(), CommandLine.open()]);
  const url = await postgres.createDatabase('both');
  source = new pg.Client({ connectionString: url });
  await source.connect();
  await source.query(`create table item (id int primary key, sku text not null);
    create table stock (id int primary key, item_id int not null, place text not null, quantity numeric not null);
    create table plan (sku text, place text, guess numeric not null, supply numeric not null, primary key (sku, place));
    insert into item values (1, 'A'), (2, 'B');
    insert into stock values (1, 1, 'N', 5), (2, 1, 'N', 2), (3, 2, 'S', 4);
    insert into plan values ('A', 'N', 99, 10)`);
  const shopUrl = await postgres.createDatabase('shop');
  shop = new pg.Client({ connectionString: shopUrl });
  await shop.connect();
  await shop.query('create table offers (sku text, place text, offered numeric, primary key (sku, place))');
  const files = ['wms.yaml', 'plan.yaml', 'shop.yaml'].map((name) => join(cli.folder, name));
  const [wms, plan, out] = files as [string, string, string];
  wmsMap = wms;
  await Promise.all([writeFile(wms, WMS_MAP), writeFile(plan, PLAN_MAP), writeFile(out, TO_SHOP)]);
  flow = await CanonicalPipeline.open({
    nats,
    sources: {
      // No heartbeats: one that came after a state was saved would be a gap when everything expires.
      wms: { kind: 'postgres', url, tables: ['public.item', 'public.stock'], heartbeat: '1h' },
      plan: { kind: 'postgres', url, tables: ['public.plan'], heartbeat: '1h' },
    },
    targetUrl: await postgres.createDatabase('vis'),
    targets: { shop: { kind: 'postgres', url: shopUrl } },
    flows: {
      offers: { outbound: 'inventory_position', map: out, to: 'shop' },
      stock: {
        canonical: 'inventory_position',
        from: { wms: { map: wms }, plan: { map: plan } },
        owner: { on_hand: 'wms', on_order: 'plan' },
      },
    },
  });
  admin = await connectNats(flow.config.nats, 'test');
  const configFile = await cli.writeConfig(flow.yaml);
  transform = new Stage({
    configFile,
    only: 'transform:stock',
    logFile: join(cli.folder, 'transform.log'),
    leaseTtlMs: 1500,
  });
  flow.start('capture:wms', 'capture:plan', 'apply:stock', 'apply:offers');
});

afterAll(async () => {
  await transform?.end('SIGKILL');
  await flow?.close();
  await admin?.close();
  await Promise.all([source?.end(), shop?.end()]);
  await cli?.close();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

/** Everything that sources said so far is gone from their streams; what comes behind it stays. */
async function expire(): Promise<void> {
  for (const name of ['wms', 'plan']) await admin.manager.streams.purge(cdcStreamName(flow.config.nats.prefix, name));
}

const log = (): string => transform.log();

it('survives being killed while it saves its state, before that and after it', async () => {
  transform.start('transform.mid-snapshot');
  await flow.shows(RECORDS, ['A|N|7|10|7', 'B|S|4|null|4']);
  // It saves its state when it is told to end, and is killed in the middle of that: nothing of it counts.
  expect(await transform.end('SIGTERM')).toBe(null);
  await source.query(`update stock set quantity = 6 where id = 1; delete from stock where id = 3`);
  transform.start('transform.snapshot-saved');
  await flow.shows(RECORDS, ['A|N|8|10|8']);
  expect(log()).toContain('"frames":"all"');
  // Now the whole of it is there, but not what follows: it counts, and with it what came before may expire.
  expect(await transform.end('SIGTERM')).toBe(null);
  await expire();
  await source.query(`update item set sku = 'A2' where id = 1; update plan set supply = 11`);
  transform.start();
  await flow.shows(RECORDS, ['A2|N|8|null|8']);
  expect(log()).toContain('"frames":"those behind the saved state"');
  await source.query(`update item set sku = 'A' where id = 1; insert into stock values (4, 1, 'N', 1)`);
  await flow.shows(RECORDS, ['A|N|9|11|9']);
  await transform.end('SIGKILL');
  await source.query(`update stock set quantity = 3 where id = 4`);
  transform.start();
  await flow.shows(RECORDS, ['A|N|11|11|11']);
  expect(await transform.end('SIGTERM')).toBe(0);
  expect(flow.failure).toBeUndefined();
});

it('of two states that are saved at once one is whole', async () => {
  const config = { prefix: 'both', replicas: 1 };
  const [first, second] = [
    await StateStore.open(admin, config, 'stock'),
    await StateStore.open(admin, config, 'stock'),
  ];
  const checkpoint = formatCheckpoint({
    plan: 'p',
    clockUs: 0,
    sources: new Map(),
    tiers: new Map(),
    heldBehind: false,
  });
  const taken = { checkpoint, recordsSeq: 0, layout: { entity: '', sources: [] } };
  const lines = (of: string, many: number): string[] => Array.from({ length: many }, () => of.repeat(100_000));
  // The one that begins first ends last: by then the other has dropped its beginning.
  const ends = await Promise.allSettled([
    first.save('first', taken, lines('a', 40)),
    second.save('second', taken, lines('b', 4)),
  ]);
  expect(ends.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
  expect((ends[0] as PromiseRejectedResult).reason).toMatchObject({ code: 'stream_conflict' });
  const whole = async (): Promise<string> => {
    const saved = (await first.latest())!;
    let seen = 0;
    expect(await first.read(saved, () => (seen += 1))).toBe(true);
    return `${saved.id} ${seen}`;
  };
  expect(await whole()).toBe('second 4');
  await first.save('third', taken, lines('c', 5));
  expect(await whole()).toBe('third 5');
});

it('explains a record on the command line: values, where each is from, and what lost', async () => {
  const { status, output } = await cli.waybill(flow.yaml, [
    'explain',
    'inventory_position',
    'sku=A',
    'location=N',
    '--json',
  ]);
  expect(status, output).toBe(0);
  const { fields } = JSON.parse(output) as { fields: (Record<string, unknown> & { field: string })[] };
  const of = (name: string): Record<string, unknown> => fields.find(({ field }) => field === name)!;
  const from = { position: expect.stringMatching(/^[0-9A-F/a-z:]+/), time: expect.stringMatching(/^20\d\d-.*Z$/) };
  expect(of('on_hand')).toMatchObject({
    value: '11',
    decided: 'owner wms',
    origin: { source: 'wms', table: 'public.stock', key: '{"id":"4"}', ...from },
    rule: expect.stringMatching(/^wms, .*wms\.yaml:15$/),
    lost: [{ source: 'plan', table: 'public.plan', key: '{"sku":"A","place":"N"}', value: '99', ...from }],
  });
  expect(of('on_order')).toMatchObject({
    value: '11',
    decided: 'owner plan',
    origin: { source: 'plan', table: 'public.plan', ...from },
    rule: expect.stringMatching(/^plan, .*plan\.yaml:13$/),
    lost: [],
  });
  expect(of('available')).toMatchObject({ value: '11', decided: 'computed' });
  const shown = await cli.waybill(flow.yaml, ['explain', 'inventory_position', 'A', 'N']);
  expect(shown.output).toMatch(/^on_hand +11 +owner wms +wms +public\.stock +\{"id":"4"\} +[0-9A-F]+\/[0-9A-F]+ +20/m);
  expect(shown.output).toMatch(/^ +\(99\) +not applied +plan +public\.plan +\{"sku":"A","place":"N"\}/m);
  const missing = await cli.waybill(flow.yaml, ['explain', 'inventory_position', 'sku=Z']);
  expect(missing).toEqual({ status: 1, output: 'there is no inventory_position Z///\n' });
});

it('prints the stream of records as lines of JSON', async () => {
  const tail = async (...args: string[]): Promise<Record<string, unknown>[]> => {
    const { status, output } = await cli.waybill(flow.yaml, ['tail', 'canonical', ...args]);
    expect(status, output).toBe(0);
    return output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  };
  const table = 'canonical.inventory_position';
  const [first, second] = await tail('--table', table, '--limit', '2');
  for (const line of [first, second])
    expect(line!['after'] ?? line!['before'] ?? line!['content'], JSON.stringify(line)).toBeTruthy();
  expect([first!['table'], second!['table']]).toEqual([table, table]);
  const [behind] = await tail('--table', table, '--from', String(first!['position']), '--limit', '1');
  expect(behind).toEqual(second);
  const other = await cli.waybill(flow.yaml, ['tail', 'canonical', '--table', 'canonical.inventory_positions']);
  expect(other.status).toBe(2);
  expect(other.output).toContain('did you mean "canonical.inventory_position"');
});

it('what was made since the state was saved, and that a mended mapping does not make, goes from a system, too', async () => {
  const offers = async (): Promise<string> =>
    (await shop.query<{ sku: string }>('select sku from offers order by sku')).rows.map(({ sku }) => sku).join();
  transform.start();
  await source.query(
    `insert into item values (3, 'C'), (4, 'D'); insert into stock values (5, 3, 'N', 2), (6, 4, 'S', 3)`,
  );
  await waitFor('what is new', async () => (await offers()) === 'A,C,D');
  await transform.end('SIGKILL');
  await writeFile(wmsMap, WMS_MAP.replace('    fields:', `    where: { ne: [place, { const: N }] }\n    fields:`));
  // What came first has expired: the tables are read again.
  await flow.stop('capture:wms', 'capture:plan');
  for (const name of ['wms', 'plan'])
    await requestSnapshot(flow.config.nats, name, { tables: [], cancel: false, reset: true });
  flow.start('capture:wms', 'capture:plan');
  transform.start();
  await waitFor('what is left', async () => (await offers()) === 'D');
  await flow.shows('select sku from canonical.inventory_position', ['D']);
  expect(await transform.end('SIGTERM')).toBe(0);
  expect(flow.failure).toBeUndefined();
});
