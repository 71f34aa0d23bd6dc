/** Rows that are larger than a message of the broker, and than a statement ought to be. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from '../support/pipeline.ts';
import { waitFor } from '../support/wait.ts';

const TEXT = String.raw`repeat(E'a "quoted" text\twith \\N, \\. and ünïcödé 🚚\n\r\x01', 60000)`;
/** No whole number of groups of base64. */
const BYTES = String.raw`substr(decode(repeat('00ff0a5c', 600000), 'hex'), 1, 2000001)`;

let postgres: PostgresServer;
let natsServer: NatsServer;
let pipeline: Pipeline;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
  pipeline = await Pipeline.open(
    postgres,
    natsServer,
    `create table documents (id int primary key, body text, scan bytea);
     create table notes (body text);
     alter table notes replica identity full;
     insert into documents values (1, ${TEXT}, ${BYTES}), (2, 'short', null);
     insert into notes values (${TEXT})`,
  );
}, 180_000);
afterAll(async () => {
  await pipeline?.stop();
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});

async function equal(): Promise<void> {
  const sums = async (client: Pipeline['source']): Promise<unknown> => {
    const documents = 'select id, md5(body), md5(scan), length(body), length(scan) from documents order by id';
    const notes = 'select md5(body), length(body) from notes order by 1';
    return [(await client.query(documents)).rows, (await client.query(notes)).rows];
  };
  const wanted = await sums(pipeline.source);
  await waitFor('equal rows', async () => {
    if (pipeline.failure !== undefined) throw pipeline.failure;
    const found = await sums(pipeline.target).catch(() => undefined);
    return JSON.stringify(found) === JSON.stringify(wanted);
  });
}

test('they arrive as they are: read, inserted, updated, and with others in a batch', async () => {
  pipeline.start();
  await equal();
  await pipeline.source.query(`insert into documents values (3, ${TEXT} || '!', ${BYTES})`);
  await equal();
  await pipeline.source.query(`update documents set body = ${TEXT} || '?', scan = 'x' where id = 2;
    update documents set scan = 'y' where id = 1; insert into notes values (${TEXT} || '!')`);
  await equal();
  await pipeline.source.query(`begin; delete from documents where id = 1; insert into documents select i, ${TEXT}, null
      from generate_series(4, 6) i; insert into documents select i, 'b', 'c' from generate_series(7, 300) i;
    update documents set id = -3 where id = 3; update notes set body = 'short'; commit`);
  await equal();
  expect(pipeline.notices).toEqual([]);
});
