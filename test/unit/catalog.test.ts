import { describe, expect, it } from 'vitest';
import { reconcile, tableOfRow, type CapturedTable, type CatalogRow } from '../../capture/postgres/catalog.ts';
import { NO_COLUMN_RULES } from '../../core/column-rules.ts';
import type { RelationMessage } from '../../capture/postgres/pgoutput.ts';
import { untold } from '../../capture/postgres/stored-table.ts';
import { unloggedReason, writtenOf } from '../../capture/postgres/unlogged-values.ts';

const relationOf = (name: string): RelationMessage => ({
  oid: 1,
  schema: 'public',
  name,
  identity: 'd',
  columns: [
    { name: 'id', key: true, typeOid: 23, typmod: -1 },
    { name: 'dropped', key: false, typeOid: 17, typmod: -1 },
  ],
});

const NOTHING = { known: undefined, isAhead: false, catalog: undefined, width: 0, hasCome: true };

it('calls a binary column that the catalog no longer has what its values are', () => {
  const { schema, binary } = reconcile(relationOf('photos'), NOTHING, []).table;
  expect(binary).toEqual([false, true]);
  expect(schema.columns.map((column) => column.type)).toEqual(['text', 'bytea']);
});

describe('what a look at the catalog tells of rows', () => {
  const row = (
    columns: readonly Partial<NonNullable<CatalogRow['columns']>[number]>[],
    more: Partial<CatalogRow> = {},
  ): CapturedTable =>
    tableOfRow({
      oid: '1',
      schema: 'public',
      name: 'items',
      identity: 'd',
      key: null,
      partitioned: false,
      parts: null,
      file: '100',
      width: 3,
      columns: columns.map((column, index) => ({
        id: index + 1,
        name: `c${index + 1}`,
        type: 'integer',
        portable: 'integer',
        base: 'int4',
        typeOid: '23',
        modifier: -1,
        notNull: false,
        default: null,
        existing: null,
        stamp: '700',
        ...column,
      })),
      ...more,
    });
  const before = row([{}, {}]);
  const why = (after: CapturedTable): string | undefined => unloggedReason(writtenOf(before), after, NO_COLUMN_RULES);

  it('nothing, where definitions change and no row is written', () => {
    expect(why(row([{ stamp: '701' }, {}, { id: 4 }], { width: 4 }))).toBeUndefined();
  });
  it('nothing, where rows are written anew or removed and no definition changes', () => {
    expect(why(row([{}, {}], { file: '101' }))).toBeUndefined();
    const preset = row([{ preset: '9' }, {}]);
    const compacted = row([{ preset: '9', stamp: '701' }, {}], { file: '101' });
    expect(unloggedReason(writtenOf(preset), compacted, NO_COLUMN_RULES)).toBeUndefined();
  });
  it('a new column of a table that was written anew', () => {
    expect(why(row([{}, {}, { id: 4 }], { width: 4, file: '101' }))).toMatch(/column c3 has values of its own/);
  });
  it('a column that was a generated one', () => {
    expect(why(row([{}, {}, {}]))).toMatch(/column c3 has values of its own/);
  });
  it('a new column of a partitioned table, with a default', () => {
    const columns = [{}, {}, { id: 4, preset: '9' }];
    expect(why(row(columns, { width: 4 }))).toBeUndefined();
    expect(why(row(columns, { width: 4, partitioned: true }))).toMatch(/column c3 has values of its own/);
  });
  it('values of the same type, and of a wider one', () => {
    expect(why(row([{}, { stamp: '701' }], { file: '101' }))).toMatch(/column c2 has new values/);
    expect(why(row([{}, { type: 'bigint', portable: 'bigint' }]))).toMatch(/column c2 has new values/);
  });
  it('values of a narrower type, and with it of other columns: not every target is stopped by that', () => {
    const narrower = { type: 'smallint', portable: 'smallint', stamp: '701' };
    expect(why(row([{}, narrower], { file: '101' }))).toMatch(/column c2 has new values/);
    expect(why(row([{ stamp: '701' }, narrower, { id: 4 }], { width: 4, file: '101' }))).toMatch(/c1 has new values/);
  });
  it('compares with what an earlier version stored', () => {
    const { written: _, ...stored } = before;
    expect(unloggedReason(writtenOf(stored), row([{}, {}]), NO_COLUMN_RULES)).toBeUndefined();
    expect(unloggedReason(writtenOf(stored), row([{}, { stamp: '701' }]), NO_COLUMN_RULES)).toMatch(/c2/);
  });
});

it('knows a table that is gone, and a name that is left, until the stream is told', () => {
  const stored = { ...reconcile(relationOf('items'), NOTHING, []).table };
  const former = { schema: 'public', name: 'goods' };
  expect(untold(stored, 7n)).toEqual(stored);
  expect(untold({ ...stored, ends: { lsn: '7' } }, 7n)).toEqual(stored);
  expect(untold({ ...stored, ends: { lsn: '7' } }, 8n)).toBeUndefined();
  expect(untold({ ...stored, ends: { lsn: '7', former } }, 7n)).toEqual({ ...stored, former });
  expect(untold({ ...stored, ends: { lsn: '7', former } }, 8n)).toEqual(stored);
});
