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

/** A frame of these rows; new rows that follow each other stand behind its JSON, as lines. Each row is a transaction. */
function frameOf(table: TableSchema, rows: readonly RowChange[], asLines: boolean, firstTime = 1): IndexedFrame {
  const tx = rows.map((_, row) => [7, '0'.repeat(16), 'F'.repeat(16), firstTime + row, 1, 'whole', 0]);
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

/** The same where deleted rows stay: with the time of the delete; undefined where rows must be taken one after the other. */
function markedStates(table: TableSchema, rows: readonly RowChange[]): unknown[] | undefined {
  const keyOf = (values: readonly Value[]): string => JSON.stringify(keyShape(table).key.map((index) => values[index]));
  const states = new Map<string, [kind: string, image: readonly Value[], timeUs?: number | undefined]>();
  for (const [time, [op, , after, , before]] of rows.entries()) {
    if (op === 'd') {
      const earlier = states.get(keyOf(before!));
      if (earlier !== undefined && earlier[0] !== 'upsert') return undefined;
      states.set(keyOf(before!), earlier === undefined ? ['mark', before!, time] : ['buried', earlier[1], time]);
    } else if (before !== undefined && keyOf(before) !== keyOf(after!))
      states.set(keyOf(before), ['delete', before, undefined]);
    if (after !== null) states.set(keyOf(after), ['upsert', after, undefined]);
  }
  return [...states.values()];
}

it('where deleted rows stay, one that came and went is kept whole, and each knows when it went', () => {
  const table = tableOf(['tenant', 'sku'], 'text');
  const plan = { ...keyShape(table), table, written: [0, 1, 2, 3], takesLines: true, marksDeleted: true };
  // Few keys and many deletes: of about every fifth run the rows must be taken one after the other.
  const place = fc.tuple(fc.constantFrom('a', '\\'), fc.constantFrom('b', 'a"'), part, part);
  const step: fc.Arbitrary<RowChange> = fc.oneof(
    place.map((after): RowChange => ['u', 0, after]),
    place.map((after): RowChange => ['i', 0, after]),
    place.map((before): RowChange => ['d', 0, null, 'k', before]),
    fc.tuple(place, place).map(([after, before]): RowChange => ['u', 0, after, 'f', before]),
  );
  const some = fc.tuple(fc.array(step, { minLength: 1, maxLength: 6 }), fc.boolean());
  const reached = { whole: 0, ordered: 0 };
  fc.assert(
    fc.property(fc.array(some, { maxLength: 3 }), (parts) => {
      const changes = new TableChanges(plan);
      let time = 0;
      for (const [rows, asLines] of parts) {
        const frame = frameOf(table, rows, asLines, time);
        time += rows.length;
        for (let row = 0; row < frame.length; row++) {
          const block = frame.linesAt(row);
          if (block !== undefined && changes.addLines(frame, block)) row = block.to - 1;
          else changes.add(frame, row);
        }
      }
      const wanted = markedStates(
        table,
        parts.flatMap(([rows]) => rows),
      );
      expect(changes.ordered).toBe(wanted === undefined);
      reached[wanted === undefined ? 'ordered' : 'whole'] += 1;
      if (wanted === undefined) return;
      expect([...changes.net()].map(({ kind, image: values, deletedAtUs }) => [kind, values, deletedAtUs])).toEqual(
        wanted,
      );
    }),
  );
  expect(Math.min(reached.whole, reached.ordered)).toBeGreaterThan(0);
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
