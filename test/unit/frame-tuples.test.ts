import { describe, expect, test } from 'vitest';
import { tupleInFrame, valuesTuple } from '../../apply/postgres/row-statement.ts';
import { createTablePlan, type TargetColumn, type TablePlan } from '../../apply/postgres/table-plan.ts';
import type { TableSchema, Value } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';

const TABLE: TableSchema = {
  schema: 'public',
  name: 'items',
  version: '1',
  identity: 'default',
  key: ['id'],
  columns: [
    { name: 'id', type: 'integer', portable: 'integer', notNull: true },
    { name: 'note', type: 'text', portable: 'text', notNull: false },
    { name: 'place', type: 'text', portable: 'text', notNull: false },
  ],
};

function planOf(table: TableSchema, deletes: 'apply' | 'soft' = 'apply', generated: readonly string[] = []): TablePlan {
  const columns = new Map<string, TargetColumn>(
    table.columns.map(({ name, type }) => [name, { type, generated: generated.includes(name), identityAlways: false }]),
  );
  const target = { oid: 1, schema: 'public', name: table.name, columns, holdsRows: true };
  return createTablePlan(table, target, { deletes, zero_dates: 'null' });
}

function frameOf(table: TableSchema, images: readonly (readonly Value[])[]): IndexedFrame {
  const rows = images.map((image, index) =>
    index % 2 === 0
      ? ['i', 0, image]
      : ['u', 0, image, 'k', image.map((value, at) => (at === 0 ? '7' : value && null))],
  );
  const tx = [[7, '0000000000000001', '0000000000000002', 1, rows.length, 'whole', 0]];
  return IndexedFrame.open(Buffer.from(JSON.stringify({ v: 1, rows, tx, tables: [table] })), 'frame 1');
}

/** As the other way writes it, apart from spaces and capitals. */
function expected(plan: TablePlan, image: readonly Value[]): string {
  return valuesTuple(plan, image)
    .replaceAll(/, (?=NULL|')/g, ',')
    .replaceAll('NULL', 'null');
}

describe('a row of a frame as values of SQL', () => {
  test('is its JSON, with the quotes of SQL', () => {
    const images = [
      ['1', 'a note', null],
      ['2', '', 'null'],
      ['3', 'x","y', 'NULL'],
      ['4', 'Größe 日本 😀', '[1,null]'],
      ['-5', null, null],
      ['6', '0', 'a,b'],
    ];
    const plan = planOf(TABLE);
    const frame = frameOf(TABLE, images);
    for (const [row, image] of images.entries())
      if (!JSON.stringify(image).includes('\\'))
        expect(tupleInFrame(plan, frame, row), String(image)).toBe(
          `(${image.map((value) => (value === null ? 'null' : `'${value}'`)).join()})`,
        );
    expect(tupleInFrame(plan, frame, 0)).toBe(expected(plan, images[0]!));
    expect(tupleInFrame(plan, frame, 3)).toBe(expected(plan, images[3]!));
  });

  test('is left to be decoded where a text holds what either of them escapes', () => {
    const texts = ["it's", "'", 'say "x"', 'a\\b', 'two\nlines', 'tab\t', '\u0000', '\u001f'];
    const plan = planOf(TABLE);
    const frame = frameOf(
      TABLE,
      texts.map((text, index) => [String(index), text, 'x']),
    );
    for (const [row, text] of texts.entries()) expect(tupleInFrame(plan, frame, row), text).toBeUndefined();
  });

  test('is left to be decoded where the target has other columns, or other texts', () => {
    const image = [['1', 'a', 'b']];
    expect(tupleInFrame(planOf(TABLE), frameOf(TABLE, image), 0)).toBe("('1','a','b')");
    expect(tupleInFrame(planOf(TABLE, 'soft'), frameOf(TABLE, image), 0)).toBeUndefined();
    expect(tupleInFrame(planOf(TABLE, 'apply', ['place']), frameOf(TABLE, image), 0)).toBeUndefined();
    const [id, note] = TABLE.columns;
    const binary = {
      ...TABLE,
      columns: [id!, note!, { name: 'place', type: 'bytea', portable: 'binary', notNull: false }],
    };
    expect(tupleInFrame(planOf(binary), frameOf(binary, image), 0)).toBeUndefined();
    const foreign: TableSchema = {
      ...TABLE,
      dialect: 'mysql',
      columns: [id!, note!, { name: 'place', type: 'datetime', portable: 'timestamp', notNull: false }],
    };
    const zero = [['1', 'a', '0000-00-00 00:00:00']];
    expect(tupleInFrame(planOf(foreign), frameOf(foreign, zero), 0)).toBeUndefined();
  });
});
