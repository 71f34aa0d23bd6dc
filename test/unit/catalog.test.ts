import { expect, it } from 'vitest';
import { reconcile } from '../../capture/postgres/catalog.ts';
import type { RelationMessage } from '../../capture/postgres/pgoutput.ts';

it('calls a binary column that the catalog no longer has what its values are', () => {
  const relation: RelationMessage = {
    oid: 1,
    schema: 'public',
    name: 'photos',
    identity: 'd',
    columns: [
      { name: 'id', key: true, typeOid: 23, typmod: -1 },
      { name: 'dropped', key: false, typeOid: 17, typmod: -1 },
    ],
  };
  const { schema, binary } = reconcile(relation, undefined, undefined, []).table;
  expect(binary).toEqual([false, true]);
  expect(schema.columns.map((column) => column.type)).toEqual(['text', 'bytea']);
});
