/** Rows that are read character by character are those of `JSON.parse`, or are left to it. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { RowChange, TableSchema, Value } from '../../core/frame.ts';
import { plainRows } from '../../core/plain-rows.ts';

const tableOf = (columns: number): TableSchema => ({
  schema: 'public',
  name: `t${columns}`,
  version: 'v',
  identity: 'default',
  key: ['c0'],
  columns: Array.from({ length: columns }, (_, at) => ({
    name: `c${at}`,
    type: 'text',
    portable: 'text',
    notNull: false,
  })),
});
const TABLES = Array.from({ length: 12 }, (_, at) => tableOf(1 + (at % 4)));

const plain = fc.string({ unit: 'grapheme-ascii', maxLength: 30 }).filter((text) => !/["\\]/.test(text));
const odd = fc.string({ unit: fc.constantFrom('"', '\\', '\n', '\0', '\u007f', 'é', '🚚', ']', ',', 'null', '0') });

function rowsOf(text: fc.Arbitrary<string>): fc.Arbitrary<RowChange[]> {
  const value: fc.Arbitrary<Value> = fc.oneof(text, fc.constant(null), fc.constant<Value>(0));
  const row = fc.nat({ max: TABLES.length - 1 }).chain((table): fc.Arbitrary<RowChange> => {
    const { length } = TABLES[table]!.columns;
    const image = fc.array(value, { minLength: length, maxLength: length });
    return fc.oneof(
      image.map((after): RowChange => ['u', table, after]),
      fc
        .tuple(image, fc.constantFrom('k' as const, 'f' as const), image)
        .map(([after, kind, before]): RowChange => ['u', table, after, kind, before]),
    );
  });
  return fc.array(row, { minLength: 1, maxLength: 8 });
}

/** The rows between other bytes, as they stand in a frame. */
function read(rows: readonly unknown[]): RowChange[] | undefined {
  const json = Buffer.from(JSON.stringify(rows).slice(1, -1));
  const bytes = Buffer.concat([Buffer.from('{"rows":['), json, Buffer.from('],"tx":[]}')]);
  return plainRows(bytes, 9, 9 + json.length, TABLES);
}

it('reads rows whose texts need no escape', () => {
  fc.assert(
    fc.property(rowsOf(plain), (rows) => {
      expect(read(rows)).toEqual(rows);
    }),
  );
});

it('reads other rows as they are, or not at all', () => {
  fc.assert(
    fc.property(rowsOf(fc.oneof(plain, odd)), (rows) => {
      const isPlain = !/[^ -~]|\\/.test(JSON.stringify(rows));
      expect(read(rows)).toEqual(isPlain ? rows : undefined);
    }),
  );
});

it.each([
  ['numbers', [['u', 0, [1]]]],
  ['numbers that begin with 0', [['u', 0, [0.5]]]],
  ['true', [['u', 0, [true]]]],
  ['a value too many', [['u', 0, ['a', 'b']]]],
  ['a value too few', [['u', 1, ['a']]]],
  ['a table that is not there', [['u', 99, ['a']]]],
  ['no image', [['d', 0, null, 'k', ['a']]]],
  ['another kind of image', [['u', 0, ['a'], 'x', ['b']]]],
  ['a list in a list', [['u', 0, [['a']]]]],
  ['more behind the images', [['u', 0, ['a'], 'k', ['b'], 'c']]],
])('leaves %s to others', (_, rows) => {
  expect(read(rows)).toBeUndefined();
});

it('leaves damaged and cut rows to others, wherever they end', () => {
  const json = Buffer.from('["u",1,["abc","d"],"k",["e",null]],["u",0,[0]]');
  for (let end = 1; end < json.length; end++) {
    const cut = plainRows(json, 0, end, TABLES);
    // Only where a row ends is there one.
    if (end === json.indexOf('],["u",0') + 1) expect(cut).toEqual([['u', 1, ['abc', 'd'], 'k', ['e', null]]]);
    else expect(cut).toBeUndefined();
  }
});
