import { describe, expect, it } from 'vitest';
import { FrameWriter, partOf } from '../../core/frame-writer.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';
import { decodeFrame, type FramePayload, type TableSchema } from '../../core/frame.ts';

const TABLE: TableSchema = {
  schema: 'public',
  name: 'orders',
  version: 'abc',
  identity: 'default',
  key: ['id'],
  columns: [
    { name: 'id', type: 'integer', portable: 'integer', notNull: true },
    { name: 'note', type: 'text', portable: 'text', notNull: false },
  ],
};
const OTHER: TableSchema = { ...TABLE, name: 'other "x"\n' };
const FRAME: FramePayload = {
  v: 1,
  rows: [
    ['i', 0, ['1', null]],
    ['u', 0, ['2', 0], 'k', ['1', null]],
    ['u', 0, ['2', 'x'], 'f', ['2', 'y']],
    ['d', 0, null, 'k', ['2', null]],
    ['r', 1, ['1', 'a']],
    ['t', 0, ['cascade']],
    ['s', 1, ['id', 'begin']],
    ['m', -1, ['prefix', 'YWJj']],
  ],
  tx: [
    [7, '0000000000000001', '0000000000000002', 1, 5, 'whole', 0],
    [8, '0000000000000003', '0000000000000004', 1, 3, 'first', 0],
  ],
  tables: [TABLE, OTHER],
};
const encode = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const refusal = (code: string, part: string | RegExp): Error =>
  expect.objectContaining({ name: 'ReplicationError', code, message: expect.stringMatching(part) as string }) as Error;

describe('decodeFrame', () => {
  it('takes every operation', () => {
    expect(decodeFrame(encode(FRAME), 'here')).toEqual(FRAME);
  });

  it('takes a frame without rows, and one with keys that it does not know', () => {
    const empty = { v: 1, rows: [], tx: [], tables: [] };
    expect(decodeFrame(encode(empty), 'here')).toEqual(empty);
    expect(decodeFrame(encode({ ...FRAME, later: 1 }), 'here').rows).toEqual(FRAME.rows);
  });

  it('reads a view on a larger buffer', () => {
    const bytes = encode(FRAME);
    const around = new Uint8Array(bytes.length + 9).fill(0x7b);
    around.set(bytes, 4);
    expect(decodeFrame(around.subarray(4, 4 + bytes.length), 'here')).toEqual(FRAME);
  });

  const one = (row: unknown): unknown => ({
    ...FRAME,
    rows: [row],
    tx: [[1, '1', '1', 1, 1, 'whole', 0]],
  });
  const withTable = (table: unknown): unknown => ({ ...FRAME, tables: [TABLE, table] });

  it.each<[string, Buffer, RegExp]>([
    ['nothing', Buffer.alloc(0), /not JSON/],
    ['bytes that are not JSON', Buffer.from([0, 1, 2]), /not JSON/],
    ['JSON that is cut off', encode(FRAME).subarray(0, -1), /not JSON/],
    ['null', encode(null), /no version/],
    ['a number', encode(1), /no version/],
    ['a list', encode([]), /no version/],
    ['a frame without version', encode({ ...FRAME, v: undefined }), /no version/],
    ['a version that is text', encode({ ...FRAME, v: '1' }), /no version/],
    ['a frame without rows', encode({ ...FRAME, rows: undefined }), /rows, tx or tables/],
    ['a frame without transactions', encode({ ...FRAME, tx: {} }), /rows, tx or tables/],
    ['a frame without tables', encode({ ...FRAME, tables: null }), /rows, tx or tables/],
    ['a table that is null', encode(withTable(null)), /no schema, name or version/],
    ['a table without schema', encode(withTable({ ...TABLE, schema: undefined })), /no schema, name or version/],
    ['a table without name', encode(withTable({ ...TABLE, name: 1 })), /no schema, name or version/],
    ['a table without version', encode(withTable({ ...TABLE, version: null })), /no schema, name or version/],
    ['a table without key list', encode(withTable({ ...TABLE, key: 'id' })), /no key list or no columns/],
    ['a table without columns', encode(withTable({ ...TABLE, columns: [] })), /no key list or no columns/],
    [
      'transactions that count too few rows',
      encode({ ...FRAME, tx: FRAME.tx.slice(1) }),
      /count 3 rows and it holds 8/,
    ],
    ['transactions that count too many rows', encode({ ...FRAME, rows: FRAME.rows.slice(1) }), /count 8 rows .* 7/],
    ['a transaction that is null', encode({ ...FRAME, tx: [...FRAME.tx, null] }), /a transaction is not a list/],
    ['a transaction without a count', encode({ ...FRAME, tx: [[1, '1', '1']] }), /count NaN/],
    ['a row that is null', encode(one(null)), /a row is not a list/],
    ['a row that is not a list', encode(one({ op: 'i' })), /a row is not a list/],
    ['a row of no table', encode(one(['i', 2, ['1', null]])), /names table 2 of 2/],
    ['a row of table -1', encode(one(['i', -1, []])), /names table -1 of 2/],
    ['a row whose table is not a number', encode(one(['i', 'length', []])), /names no table/],
    ['an insert without image', encode(one(['i', 0, null])), /0 of 2 columns/],
    ['an insert that is too narrow', encode(one(['i', 0, ['1']])), /1 of 2 columns/],
    ['an insert that is too wide', encode(one(['i', 0, ['1', null, null]])), /3 of 2 columns/],
    ['an insert whose image is text', encode(one(['i', 0, 'ab'])), /image of a row is not a list/],
    ['a snapshot row that is too narrow', encode(one(['r', 0, []])), /0 of 2 columns/],
    ['an update without image', encode(one(['u', 0, null, 'k', ['1', null]])), /0 of 2 columns/],
    ['an update with a narrow old row', encode(one(['u', 0, ['1', null], 'k', ['1']])), /old row .* wrong width/],
    ['a delete without old row', encode(one(['d', 0, null])), /0 of 2 columns/],
    ['a delete with a narrow old row', encode(one(['d', 0, null, 'k', ['1']])), /1 of 2 columns/],
    ['an unknown operation', encode(one(['x', 0, ['1', null]])), /unknown operation "x"/],
    ['a row without operation', encode(one([null, 0, ['1', null]])), /unknown operation null/],
  ])('refuses %s', (_, bytes, part) => {
    expect(() => decodeFrame(bytes, 'stream 7')).toThrow(refusal('frame_unreadable', part));
    expect(() => decodeFrame(bytes, 'stream 7')).toThrow(/^stream 7/);
  });

  it('refuses a newer version, whatever else it holds', () => {
    expect(() => decodeFrame(encode({ v: 3, other: true }), 'here')).toThrow(
      refusal('frame_version', /format 3; this process reads up to 2/),
    );
  });

  const lines = (entries: readonly unknown[], text: string, rows = 2): Buffer =>
    Buffer.from(
      `${JSON.stringify({ v: 2, rows: entries, tx: [[1, '1', '1', 1, rows, 'whole', 0]], tables: [TABLE] })}\n${text}`,
    );

  it('takes rows that stand as lines behind the JSON, between others', () => {
    const bytes = lines(
      [['s', 0, ['id', 'begin']], ['r', 0, 2, 10], FRAME.rows[0], ['i', 0, 1, 5]],
      '1\ta"\n2\t\\N\n3\té\n',
      5,
    );
    expect(decodeFrame(bytes, 'here').rows).toEqual([
      ['s', 0, ['id', 'begin']],
      ['r', 0, ['1', 'a"']],
      ['r', 0, ['2', null]],
      FRAME.rows[0],
      ['i', 0, ['3', 'é']],
    ]);
  });

  const two = '1\ta\n2\tb\n';
  it.each([
    ['fewer lines than rows', lines([['r', 0, 2, 8]], '1\ta\tbcd\n'), /fewer lines/],
    ['more lines than rows', lines([['r', 0, 2, 12]], `${two}3\tc\n`), /more lines/],
    ['more bytes than are named', lines([['r', 0, 2, 8]], `${two}x`), /9 bytes of lines and names 8/],
    ['fewer bytes than are named', lines([['r', 0, 2, 9]], two), /not the lines that it holds/],
    ['a line without its end', lines([['r', 0, 2, 7]], two.slice(0, -1)), /not the lines that it holds/],
    ['lines of no rows', lines([['r', 0, 0, 8]], two, 0), /not the lines that it holds/],
    ['lines that are updates', lines([['u', 0, 2, 8]], two), /operation "u"/],
    ['lines of an unknown table', lines([['r', 1, 2, 8]], two), /table 1 of 1/],
    ['a line of another width', lines([['r', 0, 2, 6]], '1\ta\n2\n'), /1 of 2 columns/],
    [
      'lines beside a row of another width',
      lines(
        [
          ['i', 0, ['1']],
          ['r', 0, 1, 4],
        ],
        '1\ta\n',
      ),
      /1 of 2 columns/,
    ],
    ['a wrong count of rows', lines([['r', 0, 2, 8]], two, 3), /count 3 rows and it holds 2/],
    [
      'JSON that is not one line',
      Buffer.from(JSON.stringify({ v: 2, rows: [], tx: [], tables: [] }, undefined, 1)),
      /begins with/,
    ],
  ])('refuses %s, also once it is looked into', (_, bytes, part) => {
    expect(() => decodeFrame(bytes, 'stream 7')).toThrow(refusal('frame_unreadable', part));
    const look = (): unknown => {
      const frame = IndexedFrame.open(bytes, 'stream 7');
      return frame.findValue(0, 0);
    };
    expect(look).toThrow(refusal('frame_unreadable', part));
  });
});

describe('FrameWriter', () => {
  const writeRow = (writer: FrameWriter, table: TableSchema, ...values: string[]): void => {
    writer.beginRow('i', table);
    writer.beginTuple();
    for (const [i, value] of values.entries()) {
      if (i > 0) writer.comma();
      const bytes = Buffer.from(value);
      writer.writeText(bytes, 0, bytes.length);
    }
    writer.endTuple();
    writer.endRow();
  };
  const entry = (rows: number): FramePayload['tx'][number] => [1, '0', '0', 1, rows, 'whole', 0];

  it('begins empty, and is empty again after reset', () => {
    const writer = new FrameWriter(64);
    expect([writer.empty, writer.rows, writer.transactions]).toEqual([true, 0, 0]);
    expect(decodeFrame(writer.finish(), 'here')).toEqual({ v: 1, rows: [], tx: [], tables: [] });
    writer.reset();
    writeRow(writer, OTHER, '1', 'a');
    writer.addTransaction(entry(1));
    expect([writer.empty, writer.rows, writer.transactions]).toEqual([false, 1, 1]);
    writer.reset();
    expect(writer.empty).toBe(true);
    writeRow(writer, TABLE, '2', 'b');
    writer.addTransaction(entry(1));
    expect(decodeFrame(writer.finish(), 'here')).toEqual({
      v: 1,
      rows: [['i', 0, ['2', 'b']]],
      tx: [entry(1)],
      tables: [TABLE],
    });
  });

  it('holds each table once, in the order of first use, also beyond ten', () => {
    const tables = Array.from({ length: 120 }, (_, i) => ({ ...TABLE, name: `t${i}` }));
    const writer = new FrameWriter(64);
    for (const table of [...tables, ...tables]) writeRow(writer, table, '1', table.name);
    writer.addTransaction(entry(240));
    const frame = decodeFrame(writer.finish(), 'here');
    expect(frame.tables).toEqual(tables);
    expect(frame.rows.map((row) => frame.tables[row[1]]?.name)).toEqual([...tables, ...tables].map((t) => t.name));
  });

  it('counts its bytes exactly', () => {
    const writer = new FrameWriter(16);
    const before = writer.bytes;
    writeRow(writer, TABLE, 'é"', '\u0001');
    expect(writer.bytes - before).toBe(Buffer.byteLength(String.raw`["i",0,["é\"","\u0001"]]`));
  });

  it('writes a value of 30 MB of control characters', () => {
    const writer = new FrameWriter(64);
    writeRow(writer, TABLE, '1', '\u0001'.repeat(30 << 20));
    writer.addTransaction(entry(1));
    const [row] = decodeFrame(writer.finish(), 'here').rows;
    expect(row?.[2]?.[1] === '\u0001'.repeat(30 << 20)).toBe(true);
  });
});

describe('partOf', () => {
  it.each([
    [true, true, 'whole'],
    [true, false, 'first'],
    [false, false, 'middle'],
    [false, true, 'last'],
  ] as const)('began here %s, ends here %s: %s', (began, ends, part) => {
    expect(partOf(began, ends)).toBe(part);
  });
});
