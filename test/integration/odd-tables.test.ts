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
insert into child values (2, 'child');
create table deferred (id int primary key deferrable, v text);
alter table deferred replica identity full;
insert into deferred values (1, 'a'), (2, 'b'), (3, 'c');
create table alike (n numeric, doc jsonb);
alter table alike replica identity full;
insert into alike values (1.00, '{"a": 1}'), (1.0, '{"a": 1}'), (2, '{"a": 1.0}'), (2, '{"a": 1}');
create domain integer_text as text;
create table lists (k int[] primary key, v text);
create table codes (k integer_text primary key, v text);
insert into lists select array[n, n], 'v' from generate_series(1, 9) n;
insert into codes select 'c' || n, 'v' from generate_series(1, 9) n;`;

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

  it('a deferrable key tells no rows apart: two may have the same for a moment', async () => {
    const all = 'select * from deferred order by 1';
    expect(await same(all)).toHaveLength(3);
    await pipeline.source.query('update deferred set id = id + 1');
    expect(await same(all)).toEqual([
      [2, 'a'],
      [3, 'b'],
      [4, 'c'],
    ]);
    expect(isProven(await pipeline.verify())).toBe(true);
  });

  it('of rows without a key that are equal the one goes that went', async () => {
    const all = 'select n::text, doc::text from alike order by 1, 2';
    expect(await same(all)).toHaveLength(4);
    await pipeline.source.query(`delete from alike where n::text = '1.0' or doc::text = '{"a": 1}' and n = 2`);
    expect(await same(all)).toEqual([
      ['1.00', '{"a": 1}'],
      ['2', '{"a": 1.0}'],
    ]);
  });

  it.each(['lists', 'codes'])('keys of a type whose name begins as that of integers: %s', async (table) => {
    const all = `select * from ${table} order by 1`;
    expect(await same(all)).toHaveLength(9);
    await pipeline.source.query(
      `update ${table} set v = 'w'; delete from ${table} where k in (select k from ${table} order by k limit 4)`,
    );
    expect(await same(all)).toHaveLength(5);
  });
});
