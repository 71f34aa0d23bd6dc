/** What a comparison repaired is on record, whatever ends it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { verifyOnce } from '../../cli/verification.ts';
import type { DriftReport } from '../../monitoring/drift/outcome.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from '../support/pipeline.ts';

let postgres: PostgresServer;
let natsServer: NatsServer;
let pipeline: Pipeline;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
  pipeline = await Pipeline.open(
    postgres,
    natsServer,
    `create table a (id int primary key, n int); insert into a select i, i from generate_series(1, 20) i;
     create table b (id int primary key); insert into b values (1)`,
  );
  pipeline.start();
  await pipeline.settled(['a', 'b']);
}, 180_000);
afterAll(async () => {
  await pipeline?.stop();
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});

test('a comparison that fails after it has repaired a table leaves an entry of that', async () => {
  await pipeline.target.query('update a set n = 0 where id = 7');
  const nothing = (): void => undefined;
  const report: DriftReport = {
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
  const comparing = verifyOnce(pipeline.config, 'mirror', {
    nats: pipeline.nats,
    repair: true,
    resume: false,
    turn: { as: 'a test' },
    signal: new AbortController().signal,
    report,
    actor: 'Ada',
  });
  await expect(comparing).rejects.toThrow('the connection broke');
  expect((await pipeline.target.query('select n from a where id = 7')).rows).toEqual([{ n: 7 }]);
  const { rows } = await pipeline.target.query<{ actor: string; detail: string }>(
    `select actor, detail from waybill.audit where action = 'repair'`,
  );
  expect(rows.map(({ actor, detail }) => [actor, JSON.parse(detail)])).toEqual([
    ['Ada', { tables: [{ table: 'public.a', asked: 1, left: 0 }] }],
  ]);
});
