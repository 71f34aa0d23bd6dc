import fc from 'fast-check';
import { expect, it } from 'vitest';
import { keyShape } from '../../apply/row-key.ts';
import { TableChanges } from '../../apply/table-changes.ts';
import type { RowChange, TableSchema, Value } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';

const tableOf = (key: readonly string[], type: string): TableSchema => ({
  schema: 'public',
  name: 'stock',
  version: 'v',
  identity: 'default',
  key,
  columns: ['tenant', 'sku', 'place', 'quantity'].map((name) => ({ name, type, portable: type, notNull: true })),
});

const part = fc.constantFrom('a', 'b', 'a","b', 'a"', '\\', 'é', '\t', '');
const image = fc.tuple(part, part, part, fc.nat({ max: 9 }).map(String));
const change: fc.Arbitrary<RowChange> = fc.oneof(
  { weight: 6, arbitrary: image.map((after): RowChange => ['u', 0, after]) },
  { weight: 2, arbitrary: image.map((after): RowChange => ['i', 0, after]) },
  { weight: 1, arbitrary: image.map((before): RowChange => ['d', 0, null, 'k', before]) },
  { weight: 1, arbitrary: fc.tuple(image, image).map(([after, before]): RowChange => ['u', 0, after, 'f', before]) },
);

/** The last state of each key, in the order in which the keys first came. */
function lastStates(table: TableSchema, rows: readonly RowChange[]): unknown[] {
  const keyOf = (values: readonly Value[]): string => JSON.stringify(keyShape(table).key.map((index) => values[index]));
  const states = new Map<string, unknown>();
  for (const [op, , after, , before] of rows) {
    if (before !== undefined && (op === 'd' || keyOf(before) !== keyOf(after!)))
      states.set(keyOf(before), ['delete', before]);
    if (after !== null) states.set(keyOf(after), ['upsert', after]);
  }
  return [...states.values()];
}

it.each([
  ['several columns', ['tenant', 'sku', 'place'], 'text'],
  ['columns that do not follow each other', ['place', 'tenant'], 'text'],
  ['one column', ['sku'], 'text'],
])('the changes of a table come down to the last state of each key: %s', (_, key, type) => {
  const table = tableOf(key, type);
  const plan = { ...keyShape(table), table, written: [0, 1, 2, 3] };
  fc.assert(
    fc.property(fc.array(fc.array(change, { minLength: 1, maxLength: 60 }), { maxLength: 4 }), (frames) => {
      const changes = new TableChanges(plan);
      for (const rows of frames) {
        const tx = [[7, '0'.repeat(16), 'F'.repeat(16), 1, rows.length, 'whole', 0]];
        const bytes = Buffer.from(JSON.stringify({ v: 1, rows, tx, tables: [table] }));
        const frame = IndexedFrame.open(bytes, 'here');
        for (let row = 0; row < frame.length; row++) changes.add(frame, row);
      }
      const rows = frames.flat();
      const wanted = lastStates(table, rows);
      expect(changes.keys).toBe(wanted.length);
      expect([...changes.net()].map(({ kind, image: values }) => [kind, values])).toEqual(wanted);
      expect(changes.size).toBe(rows.length);
    }),
  );
});

it('knows as many keys as come', () => {
  const table = tableOf(['tenant', 'sku', 'place'], 'text');
  const changes = new TableChanges({ ...keyShape(table), table, written: [0, 1, 2, 3] });
  const rows = Array.from({ length: 5000 }, (_, i): RowChange => ['u', 0, ['t', `S${i % 3000}`, `P${i % 7}`, `${i}`]]);
  const tx = [[7, '0'.repeat(16), 'F'.repeat(16), 1, rows.length, 'whole', 0]];
  const frame = IndexedFrame.open(Buffer.from(JSON.stringify({ v: 1, rows, tx, tables: [table] })), 'here');
  for (let row = 0; row < frame.length; row++) changes.add(frame, row);
  expect([...changes.net()].map(({ image: values }) => values)).toEqual(
    lastStates(table, rows).map((state) => (state as [string, Value[]])[1]),
  );
});
