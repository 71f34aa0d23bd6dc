import { describe, expect, test } from 'vitest';
import { decodeTable, type TableSchema } from '../../core/frame.ts';
import { readTables, tableText } from '../../core/table-texts.ts';

const decode = (text: string): TableSchema => decodeTable(text, 'frame 1');

function table(name: string, version = '1', columns = ['id']): TableSchema {
  return {
    schema: 'public',
    name,
    version,
    identity: 'default',
    key: ['id'],
    columns: columns.map((column) => ({ name: column, type: 'text', portable: 'text', notNull: true })),
  };
}

/** As a frame ends, behind something else. */
function tail(tables: readonly TableSchema[]): [Buffer, number] {
  const before = Buffer.from('{"v":1,"rows":[],"tx":[],');
  return [
    Buffer.concat([before, Buffer.from(`"tables":[${tables.map((each) => tableText(each)).join()}]}`)]),
    before.length,
  ];
}

describe('the tables of frames', () => {
  test('come back as they were written', () => {
    const odd = table('a "{quoted}" [name]\\', '7\u0000', ['id', '}],"', '\\', '日本']);
    for (const tables of [[], [table('items')], [odd], [table('items'), odd, table('prices')], [odd, table('items')]])
      expect(readTables(...tail(tables), decode)).toEqual(tables);
  });

  test('are the same objects where they are the same, in whatever order they come', () => {
    const [a, b, c] = [table('one'), table('two'), table('three')];
    const first = readTables(...tail([a, b, c]), decode)!;
    const second = readTables(...tail([c, b, a, c]), decode)!;
    expect(second).toEqual([c, b, a, c]);
    expect(second[0]).toBe(first[2]);
    expect(second[1]).toBe(first[1]);
    expect(second[3]).toBe(second[0]);
    const newer = readTables(...tail([a, table('two', '2'), c]), decode)!;
    expect(newer[1]).toEqual(table('two', '2'));
    expect(newer[2]).toBe(first[2]);
  });

  test('outlive the memory that they came in', () => {
    const [payload, from] = tail([table('kept')]);
    const [kept] = readTables(payload, from, decode)!;
    payload.fill(0);
    expect(readTables(...tail([table('kept')]), decode)![0]).toBe(kept);
  });

  test('are read anew where very many are known', () => {
    const [few] = readTables(...tail([table('few')]), decode)!;
    const many = Array.from({ length: 6000 }, (_, index) => table(`t${index}`, 'v'.repeat(1000)));
    expect(readTables(...tail(many), decode)).toEqual(many);
    const [again] = readTables(...tail([table('few')]), decode)!;
    expect(again).toEqual(few);
    expect(again).not.toBe(few);
  });

  test('are left to others where they are laid out in another way', () => {
    for (const text of [
      '"tables": []}',
      '"tables":[{"schema":"public"} ]}',
      '"tables":[{"a":"}"',
      '"tables":[1]}',
      '"x":[]}',
    ])
      expect(
        readTables(Buffer.from(text), 0, () => table('any')),
        text,
      ).toBeUndefined();
  });

  test('are refused where one is none', () => {
    const refused = (text: string): (() => unknown) => {
      return () => readTables(Buffer.from(`"tables":[${text}]}`), 0, decode);
    };
    expect(refused('{"name":"items"}')).toThrow('frame 1: a table has no schema, name or version');
    expect(refused('{"schema":}')).toThrow(/^frame 1 is not JSON/);
  });
});
