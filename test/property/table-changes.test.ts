import fc from 'fast-check';
import { expect, it } from 'vitest';
import { copyField } from '../../apply/postgres/copy-text.ts';
import { keyShape } from '../../apply/row-key.ts';
import { TableChanges } from '../../apply/table-changes.ts';
import type { RowChange, TableSchema, Value } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';
import { countLines } from '../../core/packed-rows.ts';

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

/** A frame of these rows; new rows that follow each other stand behind its JSON, as lines. */
function frameOf(table: TableSchema, rows: readonly RowChange[], asLines: boolean): IndexedFrame {
  const tx = [[7, '0'.repeat(16), 'F'.repeat(16), 1, rows.length, 'whole', 0]];
  const entries: unknown[] = [];
  let lines = '';
  for (let row = 0; row < rows.length;) {
    const start = row;
    let block = '';
    for (; asLines && rows[row]?.[0] === 'i'; row++)
      block += `${rows[row]![2]!.map((v) => copyField(v as string)).join('\t')}\n`;
    if (block === '') entries.push(rows[row++]);
    else entries.push(['i', 0, row - start, Buffer.byteLength(block)]);
    lines += block;
  }
  const json = JSON.stringify({ v: lines === '' ? 1 : 2, rows: entries, tx, tables: [table] });
  return IndexedFrame.open(Buffer.from(lines === '' ? json : `${json}\n${lines}`), 'here');
}

it.each([
  ['several columns', ['tenant', 'sku', 'place'], 'text'],
  ['columns that do not follow each other', ['place', 'tenant'], 'text'],
  ['one column', ['sku'], 'text'],
])('the changes of a table come down to the last state of each key: %s', (_, key, type) => {
  const table = tableOf(key, type);
  const plan = { ...keyShape(table), table, written: [0, 1, 2, 3], takesLines: true };
  const inserts = fc.array(image.map((after): RowChange => ['i', 0, after]));
  const some = fc.tuple(fc.oneof(inserts, fc.array(change, { minLength: 1, maxLength: 60 })), fc.boolean());
  fc.assert(
    fc.property(fc.array(some, { maxLength: 4 }), (parts) => {
      const changes = new TableChanges(plan);
      for (const [rows, asLines] of parts) {
        const frame = frameOf(table, rows, asLines);
        for (let row = 0; row < frame.length; row++) {
          const block = frame.linesAt(row);
          if (block !== undefined && changes.addLines(frame, block)) row = block.to - 1;
          else changes.add(frame, row);
        }
      }
      const frames = parts.map(([rows]) => rows);
      let fresh = 0;
      for (const each of changes.newRows()) fresh += 'lines' in each ? countLines(each.lines) : 1;
      expect(fresh).toBe(changes.size);
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
