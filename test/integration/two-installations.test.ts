import { afterAll, beforeAll, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';

let nats: NatsServer;
let postgres: PostgresServer;
const pipelines: CrossPipeline[] = [];

beforeAll(async () => {
  [nats, postgres] = await Promise.all([startNats(), startPostgres()]);
}, 120_000);
afterAll(async () => {
  for (const pipeline of pipelines) await pipeline.close();
  await Promise.all([nats?.dispose(), postgres?.dispose()]);
}, 60_000);

it('two installations that call one database the same do not take the marks of each other for their own', async () => {
  const url = await postgres.createDatabase('shared');
  const open = async (): Promise<CrossPipeline> => {
    const pipeline = await CrossPipeline.open({
      from: { dialect: 'postgres', server: { createDatabase: async () => url } },
      to: { dialect: 'postgres', server: postgres },
      nats,
    });
    pipelines.push(pipeline);
    return pipeline;
  };
  const first = await open();
  await first.source.run(
    `CREATE TABLE stock (id int PRIMARY KEY, qty int); INSERT INTO stock SELECT i, i FROM generate_series(1, 5000) i`,
  );
  await first.start();
  await first.settled(['stock']);

  // Its first load writes marks into the log that both read.
  const second = await open();
  await second.start();
  await second.settled(['stock']);
  await first.source.run('INSERT INTO stock VALUES (9001, 1)');
  for (const pipeline of pipelines) {
    await pipeline.settled(['stock']);
    const rows = await pipeline.target.run(
      'SELECT count(*)::int, count(*) FILTER (WHERE id = 9001)::int FROM mirrored.stock',
    );
    expect(rows).toEqual([[5001, 1]]);
  }
}, 120_000);
