import { describe, expect, it } from 'vitest';
import { alignColumns, type Alignment } from '../../capture/postgres/align-columns.ts';
import { tableOfRow, type CapturedTable, type ColumnType } from '../../capture/postgres/catalog.ts';
import type { RelationMessage } from '../../capture/postgres/pgoutput.ts';

const OIDS = { smallint: 21, integer: 23, bigint: 20, date: 1082, timestamp: 1114 };
type Columns = Readonly<Record<string, keyof typeof OIDS>>;

const typeOf = (type: string): ColumnType => ({ type, portable: type, base: type });

/** Columns as `id name`, with their types. */
function version(columns: Columns, width: number): CapturedTable {
  return tableOfRow({
    oid: '1',
    schema: 'public',
    name: 'items',
    identity: 'd',
    key: null,
    partitioned: false,
    parts: null,
    file: '100',
    width,
    columns: Object.entries(columns).map(([text, type]) => ({
      id: Number(text.split(' ')[0]),
      name: text.split(' ')[1]!,
      ...typeOf(type),
      typeOid: String(OIDS[type]),
      modifier: -1,
      notNull: false,
      default: null,
      existing: null,
      stamp: '700',
    })),
  });
}

function align(message: Columns, known: CapturedTable | undefined, catalog: CapturedTable | undefined): Alignment {
  const columns = Object.entries(message).map(([name, type]) => ({
    name,
    key: false,
    typeOid: OIDS[type],
    typmod: -1,
  }));
  const relation: RelationMessage = { oid: 1, schema: 'public', name: 'items', identity: 'd', columns };
  return alignColumns(relation, known, catalog, Object.values(message).map(typeOf));
}

describe('the columns of a relation message', () => {
  const before = version({ '1 id': 'integer', '2 a': 'timestamp' }, 2);

  it('are those of the version before, or of the catalog, that have their names', () => {
    const after = version({ '1 id': 'integer', '2 b': 'timestamp', '3 c': 'date' }, 3);
    expect(align({ id: 'integer', a: 'timestamp' }, before, after)).toEqual({ ids: [1, 2], sure: true });
    expect(align({ id: 'integer', b: 'timestamp' }, before, after)).toEqual({ ids: [1, 2], sure: true });
    expect(align({ id: 'integer', b: 'timestamp', c: 'date' }, before, after)).toEqual({ ids: [1, 2, 3], sure: true });
  });

  it('is none of the catalog that has its name and a type that it cannot have come to', () => {
    const after = version({ '1 id': 'integer', '3 b': 'date' }, 3);
    expect(align({ id: 'integer', b: 'timestamp' }, before, after)).toEqual({ ids: [1, 2], sure: false });
    expect(align({ id: 'integer', b: 'date' }, before, after)).toEqual({ ids: [1, 3], sure: true });
  });

  it('is none of the version before that has its name and a type that it cannot have come from', () => {
    const after = version({ '1 id': 'integer', '3 b': 'smallint' }, 3);
    expect(align({ id: 'integer', a: 'smallint' }, before, after)).toEqual({ ids: [1, 3], sure: false });
  });

  it('may be one that came and went between the two', () => {
    const after = version({ '1 id': 'integer', '2 a': 'timestamp', '4 x': 'date' }, 4);
    expect(align({ id: 'integer', a: 'timestamp', x: 'integer' }, before, after)).toEqual({
      ids: [1, 2, 3],
      sure: false,
    });
  });

  it('are the same where nothing but a type became another, wider or narrower', () => {
    const wide = version({ '1 id': 'integer', '2 n': 'bigint' }, 2);
    const narrow = version({ '1 id': 'integer', '2 n': 'smallint', '3 c': 'date' }, 3);
    expect(align({ id: 'integer', n: 'integer' }, wide, narrow)).toEqual({ ids: [1, 2], sure: true });
    expect(align({ id: 'integer', n: 'integer' }, undefined, wide)).toEqual({ ids: [1, 2], sure: true });
    const renamed = version({ '1 id': 'integer', '2 m': 'smallint' }, 2);
    expect(align({ id: 'integer', k: 'integer' }, wide, renamed)).toEqual({ ids: [1, 2], sure: true });
  });

  it('with exchanged names are told by their order', () => {
    const known = version({ '1 id': 'integer', '2 a': 'integer', '3 b': 'integer' }, 3);
    const after = version({ '1 id': 'integer', '2 b': 'integer', '3 a': 'integer', '4 c': 'date' }, 4);
    expect(align({ id: 'integer', between: 'integer', a: 'integer' }, known, after)).toEqual({
      ids: [1, 2, 3],
      sure: false,
    });
  });
});
