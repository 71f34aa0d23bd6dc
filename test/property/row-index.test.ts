import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RowIndex, TableStore, type StoredRow } from '../../transform/mapping/table-store.ts';

/** A row of the index under test, and how often its key was looked at. */
function counted(store: TableStore, key: string, looks: { count: number }): StoredRow {
  const row = store.add(key, ['same']);
  return Object.defineProperty({ ...row }, 'key', {
    get: () => {
      looks.count += 1;
      return key;
    },
  });
}

describe('an index of rows', () => {
  it('gives of the rows of a key the one with the smallest primary key, whatever comes and goes', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(30), { maxLength: 200 }), fc.nat(3), (steps, asks) => {
        const index = new RowIndex([0], []);
        const store = new TableStore();
        const rows = Array.from({ length: 31 }, (_, n) => store.add(String(n), ['same']));
        const there = new Set<StoredRow>();
        for (const [at, n] of steps.entries()) {
          const row = rows[n]!;
          if (there.delete(row)) index.remove(row);
          else {
            there.add(row);
            index.add(row);
          }
          if (at % (asks + 1) !== 0) continue;
          const least = [...there].map(({ key }) => key).sort()[0];
          expect(index.rowOf('same')?.key).toBe(least);
          expect(new Set(index.rowsOf('same'))).toEqual(there);
        }
      }),
    );
  });

  it('finds it without looking at all of them, as they come and as they go', () => {
    const store = new TableStore();
    const index = new RowIndex([0], []);
    const looks = { count: 0 };
    const most = 1000;
    const rows = Array.from({ length: most }, (_, n) => counted(store, String(n).padStart(4, '0'), looks));
    for (const row of rows.toReversed()) {
      index.add(row);
      expect(index.rowOf('same')).toBe(row);
    }
    for (const [n, row] of rows.entries()) {
      index.remove(row);
      expect(index.rowOf('same')).toBe(rows[n + 1]);
    }
    // Twice the logarithm for each that comes, and for each that goes.
    expect(looks.count).toBeLessThan(most * 60);
  });
});
