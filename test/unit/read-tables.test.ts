import type pg from 'pg';
import { expect, it } from 'vitest';
import { readTables } from '../../capture/postgres/read-tables.ts';

/** A catalog that lists these tables, look by look, of which none is there any more when it is read. */
function vanishing(...lists: readonly (readonly string[])[]): { client: pg.Client; listed: () => number } {
  let listed = 0;
  const query = async (sql: string): Promise<unknown> => {
    if (sql.startsWith('set local')) return [{}, { rows: [] }];
    const oids = lists[Math.min(listed++, lists.length - 1)]!;
    return { rows: oids.map((oid) => ({ oid, schema: 'public', name: `t${oid}` })) };
  };
  return { client: { query } as unknown as pg.Client, listed: () => listed };
}

it('the tables are listed again where all of them went while they were read', async () => {
  const gone = vanishing(['1'], ['2'], []);
  expect((await readTables(gone.client, () => true)).tables).toEqual([]);
  expect(gone.listed()).toBe(3);
});

it('but not for ever: of a table without columns nothing is read', async () => {
  const empty = vanishing(['1']);
  expect((await readTables(empty.client, () => true)).tables).toEqual([]);
  expect(empty.listed()).toBe(3);
});

it('and not where there are none', async () => {
  const none = vanishing([]);
  expect((await readTables(none.client, () => true)).tables).toEqual([]);
  expect(none.listed()).toBe(1);
});
