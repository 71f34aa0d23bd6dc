/** Tables of Postgres that differ from what tables usually are, mirrored from end to end. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isProven } from '../../monitoring/drift/outcome.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from '../support/pipeline.ts';
import { waitFor } from '../support/wait.ts';

const INHERITING = `
create table parent (id int primary key, v text);
create table child (primary key (id)) inherits (parent);`;
const SOURCE = `${INHERITING}
insert into parent values (1, 'parent');
insert into child values (2, 'child');`;

let postgres: PostgresServer;
let nats: NatsServer;
let pipeline: Pipeline;

async function rows(client: pg.Client, sql: string): Promise<unknown[][]> {
  return (await client.query({ text: sql, rowMode: 'array' })).rows as unknown[][];
}

/** Waits until a query has the same rows on both sides, and gives them. */
async function same(sql: string): Promise<unknown[][]> {
  return await waitFor(`the same on both sides: ${sql}`, async () => {
    if (pipeline.failure !== undefined) throw pipeline.failure;
    const [here, there] = [await rows(pipeline.source, sql), await rows(pipeline.target, sql)];
    if (JSON.stringify(here) !== JSON.stringify(there)) throw new Error(JSON.stringify({ here, there }));
    return here;
  });
}

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  pipeline = await Pipeline.open(postgres, nats, SOURCE, { schema: 'public' });
  await pipeline.target.query(INHERITING);
  pipeline.start();
}, 180_000);
afterAll(async () => {
  await pipeline?.close();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

describe('odd tables', () => {
  it('a table that others inherit from has its own rows alone, on both sides', async () => {
    const own = 'select * from only parent order by 1';
    expect(await same(own)).toEqual([[1, 'parent']]);
    expect(await same('select * from child')).toEqual([[2, 'child']]);
    await pipeline.source.query(`insert into parent values (2, 'parent too'), (3, 'third')`);
    await same(own);
    await pipeline.source.query('delete from only parent where id = 2');
    await pipeline.source.query(`update child set v = 'changed'; update only parent set v = 'x'`);
    expect(await same('select v from child')).toEqual([['changed']]);
    await same(own);
    expect(isProven(await pipeline.verify())).toBe(true);
    await pipeline.source.query('truncate only parent');
    await same(own);
    expect(await same('select v from child')).toEqual([['changed']]);
  });
});
