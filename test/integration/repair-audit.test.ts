/** What a comparison repaired is on record, whatever ends it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { verifyOnce } from '../../cli/verification.ts';
import type { Config } from '../../core/config.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import type { DriftReport } from '../../monitoring/drift/outcome.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { Pipeline } from '../support/pipeline.ts';
import { waitFor } from '../support/wait.ts';

const PARTIES = `version: 1
name: wms
entities:
  party:
    from: party
    fields:
      code: code
      name: name
`;
const nothing = (): void => undefined;
/** Breaks when it is told of the first table that has been compared. */
const BREAKS: DriftReport = {
  standing: nothing,
  compared: () => {
    throw new Error('the connection broke');
  },
  coverage: nothing,
  finished: nothing,
  awaited: nothing,
  proven: nothing,
  left: nothing,
};

let postgres: PostgresServer;
let natsServer: NatsServer;
let nats: Nats;
let folder: string;
let mirror: Pipeline;
let records: CanonicalPipeline;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
  mirror = await Pipeline.open(
    postgres,
    natsServer,
    `create table a (id int primary key, n int); insert into a select i, i from generate_series(1, 20) i;
     create table b (id int primary key); insert into b values (1)`,
  );
  mirror.start();
  await mirror.settled(['a', 'b']);
  folder = await mkdtemp(join(tmpdir(), 'waybill-repairs-'));
  await writeFile(join(folder, 'wms.yaml'), PARTIES);
  const url = await postgres.createDatabase('parties');
  const source = new pg.Client({ connectionString: url });
  await source.connect();
  await source.query(`create table party (code text primary key, name text);
    insert into party select 'C-' || i, 'Party ' || i from generate_series(1, 20) i`);
  await source.end();
  records = await CanonicalPipeline.open({
    nats: natsServer,
    sources: { wms: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('parties_target'),
    flows: {
      parties: { canonical: 'party', from: { wms: { map: join(folder, 'wms.yaml') } }, delivery: 'realtime' },
    },
  });
  records.start('capture:wms', 'transform:parties', 'apply:parties');
  await records.shows('select count(*) from canonical.party', ['20']);
  nats = await connectNats(records.config.nats, 'test');
}, 180_000);
afterAll(async () => {
  await nats?.close();
  await mirror?.stop();
  await records?.close();
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

interface Case {
  readonly flow: string;
  readonly table: string;
  readonly config: () => Config;
  readonly target: () => pg.Client;
  /** Makes one row differ, and tells whether it is as it was. */
  readonly plant: string;
  readonly mended: string;
}

describe.each<Case>([
  {
    flow: 'mirror',
    table: 'public.a',
    config: () => mirror.config,
    target: () => mirror.target,
    plant: 'update a set n = 0 where id = 7',
    mended: 'select 1 from a where id = 7 and n = 7',
  },
  {
    flow: 'parties',
    table: 'canonical.party',
    config: () => records.config,
    target: () => records.target,
    plant: `update canonical.party set name = 'wrong' where code = 'C-7'`,
    mended: `select 1 from canonical.party where code = 'C-7' and name = 'Party 7'`,
  },
])('a repair of $flow', ({ flow, table, config, target, plant, mended }) => {
  beforeEach(async () => void (await target().query(plant)));

  async function repair(graceMs: number, signal: AbortSignal, report?: DriftReport): Promise<void> {
    const { monitoring } = config();
    await verifyOnce(
      { ...config(), monitoring: { ...monitoring, verify: { ...monitoring.verify, grace: graceMs } } },
      flow,
      {
        nats,
        repair: true,
        resume: false,
        turn: { as: 'a test' },
        signal,
        ...(report === undefined ? {} : { report }),
        actor: 'Ada',
      },
    );
  }
  const isMended = async (): Promise<boolean> => (await target().query(mended)).rowCount === 1;

  async function lastRepair(): Promise<unknown> {
    const { rows } = await target().query<{ actor: string; subject: string; detail: string }>(
      `select actor, subject, detail from waybill.audit where action = 'repair' order by id desc limit 1`,
    );
    return rows.map(({ actor, subject, detail }) => [actor, subject, JSON.parse(detail) as unknown])[0];
  }

  it('leaves an entry where the comparison fails after it', async () => {
    await expect(repair(200, new AbortController().signal, BREAKS)).rejects.toThrow('the connection broke');
    expect(await isMended()).toBe(true);
    expect(await lastRepair()).toEqual(['Ada', `flow ${flow}`, { tables: [{ table, asked: 1, left: 0 }] }]);
  });

  it('leaves an entry where it ends before it is known whether it helped', async () => {
    const stop = new AbortController();
    // After the rows are written again they are looked at once more, and not before this has passed.
    const repairing = repair(4000, stop.signal);
    repairing.catch(nothing);
    await waitFor('the row mended', isMended);
    stop.abort();
    await expect(repairing).rejects.toThrow();
    expect(await lastRepair()).toEqual(['Ada', `flow ${flow}`, { tables: [{ table, asked: 1, left: null }] }]);
  });
});
