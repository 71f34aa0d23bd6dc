/** What a flow lacks because its tables are still being read is no drift. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { verifyOnce } from '../../cli/verification.ts';
import type { Config } from '../../core/config.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { coverage, isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { Pipeline } from '../support/pipeline.ts';
import { waitFor } from '../support/wait.ts';

/** So slow that a comparison fits in between, however busy the machine is. */
const SLOWLY = { snapshot_max_rows_per_second: 100, snapshot_chunk_rows: 100 };
const ROWS = 1500;
const MOVES = `version: 1
name: wms
entities:
  inventory_movement:
    from: move
    fields:
      id: { concat: [{ const: 'M' }, id] }
      sku: sku
      location: { const: MAIN }
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      delta: quantity
      reason: { const: pick }
      occurred_at: at
`;

let postgres: PostgresServer;
let nats: NatsServer;

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

async function compare(config: Config, client: Nats, flow: string, deliveryMs?: number): Promise<FlowOutcome> {
  const verify = { ...config.monitoring.verify, grace: 200 };
  return await verifyOnce({ ...config, monitoring: { ...config.monitoring, verify } }, flow, {
    nats: client,
    repair: false,
    resume: false,
    turn: { as: 'a test' },
    maxLoad: 1,
    signal: new AbortController().signal,
    ...(deliveryMs === undefined ? {} : { deliveryMs }),
  });
}

it('leaves out tables that are read for the first time, and compares the others', async () => {
  const ddl = `create table small (id int primary key, n int); insert into small select i, i from generate_series(1, 50) i;
    create table large (id int primary key, n int); insert into large select i, i from generate_series(1, ${ROWS}) i`;
  const pipeline = await Pipeline.open(postgres, nats, ddl, {}, postgres, SLOWLY);
  try {
    pipeline.start();
    await pipeline.settled(['small']);
    const compared = (): Promise<FlowOutcome> => compare(pipeline.config, pipeline.nats, 'mirror');
    const leftOut = ({ tables }: FlowOutcome): string[] =>
      tables.filter(({ progress }) => progress.leftOut !== undefined).map(({ name }) => name);
    const during = await waitFor('the end of the small table', async () => {
      const outcome = await compared();
      return leftOut(outcome).includes('small') ? undefined : outcome;
    });
    expect([leftOut(during), during.tables.flatMap(openFindings)]).toEqual([['large'], []]);
    expect(during.tables[0]!.progress.leftOut).toMatchObject([
      { what: '*', why: expect.stringContaining('first time') },
    ]);
    expect([isProven(during), coverage(during.tables) < 1]).toEqual([false, true]);
    await pipeline.target.query('delete from small where id = 7');
    const found = await compared();
    expect(found.tables.flatMap(openFindings)).toMatchObject([{ kind: 'missing', key: ['7'] }]);
    await pipeline.target.query('insert into small values (7, 7)');
    await pipeline.settled(['large']);
    const after = await waitFor('the end of the large table', async () => {
      const outcome = await compared();
      return leftOut(outcome).length > 0 ? undefined : outcome;
    });
    expect(isProven(after)).toBe(true);
  } finally {
    await pipeline.close();
  }
});

it('compares records when the tables they are made of have been read', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'waybill-loading-'));
  await writeFile(join(folder, 'wms.yaml'), MOVES);
  const url = await postgres.createDatabase('moves');
  const flow = await CanonicalPipeline.open({
    nats,
    sources: { wms: { kind: 'postgres', url, ...SLOWLY } },
    targetUrl: await postgres.createDatabase('moved'),
    flows: { moves: { canonical: 'inventory_movement', from: { wms: { map: join(folder, 'wms.yaml') } } } },
  });
  const client = await connectNats(flow.config.nats, 'test');
  const source = new pg.Client({ connectionString: url });
  await source.connect();
  try {
    await source.query(`create table move (id int primary key, sku text not null, quantity numeric not null, at timestamptz not null);
      insert into move select i, 'P-' || i, -1, '2026-01-01'::timestamptz + i * interval '1 second' from generate_series(1, ${ROWS}) i`);
    flow.start('capture:wms', 'transform:moves', 'apply:moves');
    const count = async (): Promise<number> =>
      Number((await flow.target.query('select count(*) from canonical.inventory_movement')).rows[0].count);
    await waitFor('the first records', async () => (await count()) > 0);
    await expect(compare(flow.config, client, 'moves', 300)).rejects.toMatchObject({
      code: 'verify_stalled',
      message: expect.stringContaining('wms public.move'),
    });
    // Whoever has the time waits for it.
    expect(isProven(await compare(flow.config, client, 'moves'))).toBe(true);
    expect(await count()).toBe(ROWS);
  } finally {
    await flow.close();
    await client.close();
    await source.end();
    await rm(folder, { recursive: true, force: true });
  }
});
