import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CopyBuffer, copyLine } from '../../apply/postgres/copy-text.ts';
import { createTablePlan, type TablePlan } from '../../apply/postgres/table-plan.ts';
import { copyRows, imagesOf } from '../support/copy-rows.ts';
import { decodeFrame, type RowChange, type TableSchema, type Value } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';
import { formatHexLsn } from '../../core/position.ts';

const TABLE: TableSchema = {
  schema: 'public',
  name: 'items',
  version: 'v',
  identity: 'default',
  key: ['id'],
  columns: ['id integer', 'name text', 'left_out text', 'photo bytea'].map((text) => {
    const [name, type] = text.split(' ') as [string, string];
    return { name, type, portable: type, notNull: name === 'id' };
  }),
};

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({
    unit: fc.constantFrom('"', '\\', '\t', '\n', '\r', '\b', '\f', '\0', '\u000b', 'é', '🚚', ']', '[', ','),
    maxLength: 20,
  }),
);
const photo = fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes).toString('base64'));
const orNull = (value: fc.Arbitrary<Value>): fc.Arbitrary<Value> =>
  fc.oneof({ weight: 4, arbitrary: value }, fc.constant(null));
const image = (free: fc.Arbitrary<Value>): fc.Arbitrary<Value[]> =>
  fc.tuple(fc.integer().map(String), orNull(fc.oneof(text, free)), orNull(text), orNull(fc.oneof(photo, free)));
const row: fc.Arbitrary<RowChange> = fc.oneof(
  image(text).map((after): RowChange => ['i', 0, after]),
  image(fc.constant(0)).map((after): RowChange => ['u', 0, after]),
  fc.tuple(image(text), image(text)).map(([after, before]): RowChange => ['u', 0, after, 'f', before]),
  image(text).map((before): RowChange => ['d', 0, null, 'k', before]),
  fc.constant<RowChange>(['t', 0, ['cascade']]),
  text.map((prefix): RowChange => ['m', -1, [prefix, 'YQ==']]),
);

function payload(rows: readonly RowChange[], indent?: number): Buffer {
  const tx = rows.length === 0 ? [] : [[7, '0'.repeat(16), 'F'.repeat(16), 1, rows.length, 'whole', 0]];
  return Buffer.from(JSON.stringify({ v: 1, rows, tx, tables: [TABLE] }, undefined, indent));
}

/** What COPY makes of lines: `\\f` and a form feed are the same to it. */
function valuesOf(lines: Buffer): unknown[] {
  return imagesOf(copyRows(lines.toString('utf8').split('\n').slice(0, -1)));
}

/** A plan that leaves the third column out, as one with a generated column does. */
function plan(): TablePlan {
  const columns = new Map(
    TABLE.columns.map(({ name, type }) => [name, { type, generated: name === 'left_out', identityAlways: false }]),
  );
  return createTablePlan(
    TABLE,
    { schema: 'public', name: 'items', oid: 1, holdsRows: true, columns },
    { zero_dates: 'reject', deletes: 'apply' },
  );
}

describe('IndexedFrame', () => {
  it('holds what decodeFrame decodes, however it is laid out', () => {
    fc.assert(
      fc.property(fc.array(row, { maxLength: 12 }), fc.constantFrom(undefined, 2), (rows, indent) => {
        const bytes = payload(rows, indent);
        const decoded = decodeFrame(bytes, 'here');
        const frame = IndexedFrame.open(bytes, 'here');
        expect(frame.length).toBe(rows.length);
        expect(frame.tx).toEqual(decoded.tx);
        expect(frame.tables).toEqual(decoded.tables);
        for (const [index, wanted] of decoded.rows.entries()) {
          expect(frame.row(index)).toEqual(wanted);
          expect(frame.op(index)).toBe(wanted[0]);
          expect(frame.tableIndex(index)).toBe(wanted[1]);
          expect(frame.hasBefore(index)).toBe(wanted[4] !== undefined);
          expect(frame.hasUnchanged(index)).toBe(wanted[2]?.includes(0) === true);
          if (wanted[0] !== 'i') continue;
          for (const [column, value] of wanted[2]!.entries()) {
            expect(frame.findValue(index, column)).toBe(value !== null);
            if (value !== null) expect(frame.valueAsText()).toBe(value);
          }
          expect(frame.findValue(index, 0) && frame.valueAsInteger()).toBe(Number(wanted[2]![0]));
        }
      }),
    );
  });

  it('knows of its transactions what their entries say', () => {
    const entry = fc.tuple(
      fc.nat(),
      fc.oneof(
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(formatHexLsn),
        fc.string({ unit: 'binary', maxLength: 40 }),
      ),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(formatHexLsn),
      fc.nat(Number.MAX_SAFE_INTEGER),
      fc.nat(3),
      fc.constantFrom('whole', 'first', 'middle', 'last'),
      fc.nat(),
    );
    const origin = fc.oneof(fc.constant('waybill wms_orders a1b2c3'), fc.string({ unit: 'binary', maxLength: 20 }));
    const entries = fc.array(
      fc.oneof(
        entry,
        fc.tuple(entry, origin).map(([one, name]) => [...one, name] as const),
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(entries, (tx) => {
        const rows = tx.flatMap((one) => Array.from({ length: one[4] }, () => ['i', 0, ['1', null, null, null]]));
        const bytes = Buffer.from(JSON.stringify({ v: 1, rows, tx, tables: [TABLE] }));
        const frame = IndexedFrame.open(bytes, 'here');
        expect(frame.transactions).toBe(tx.length);
        expect(frame.tables).toEqual([TABLE]);
        expect(tx.map((_, i) => [frame.rowsOf(i), frame.partOf(i)])).toEqual(tx.map((one) => [one[4], one[5]]));
        expect(frame.partOf(tx.length)).toBeUndefined();
        expect(frame.newestTime(0, tx.length)).toBe(Math.max(0, ...tx.map((one) => one[3])));
        expect(frame.tx).toEqual(tx);
      }),
    );
  });

  it('gives COPY the values that the decoded row gives', () => {
    const table = plan();
    fc.assert(
      fc.property(fc.array(image(photo), { minLength: 1, maxLength: 8 }), (images) => {
        const frame = IndexedFrame.open(payload(images.map((after): RowChange => ['i', 0, after])), 'here');
        const buffer = new CopyBuffer();
        for (let index = 0; index < frame.length; index++) buffer.frameRow(table, frame, index, '0\t');
        const lines = Buffer.from(images.map((after) => copyLine(table, table.written, after, '0\t')).join(''));
        expect(valuesOf(buffer.take())).toEqual(valuesOf(lines));
      }),
    );
  });

  it('gives one COPY after the other its own lines, whatever became of the one before', () => {
    const table = plan();
    const frameOf = (text: string): IndexedFrame =>
      IndexedFrame.open(payload([['i', 0, ['1', text, null, null]]]), 'here');
    const buffer = new CopyBuffer();
    buffer.frameRow(table, frameOf('x'.repeat(1_000_000)), 0, '');
    expect(buffer.full).toBe(true);
    expect(buffer.take().length).toBeGreaterThan(1_000_000);
    buffer.frameRow(table, frameOf('not taken'), 0, '');
    buffer.clear();
    expect(buffer.empty).toBe(true);
    buffer.frameRow(table, frameOf('a'), 0, '');
    const first = buffer.take();
    buffer.frameRow(table, frameOf('b'), 0, '');
    const second = buffer.take();
    expect([first, second].map((piece) => piece.toString('utf8'))).toEqual(['1\ta\t\\N\n', '1\tb\t\\N\n']);
    // What the large row needed is not kept.
    expect(second.buffer.byteLength).toBeLessThan(100_000);
    expect(first.buffer.byteLength).toBeLessThan(100_000);
  });

  it('reads the escapes of other writers', () => {
    const json = String.raw`{"v":1,"rows":[["i",0,["1","\u00e9\ud83d\ude9a\/\u0009","\u0041",null]]],"tx":[[7,"0","F",1,1,"whole",0]],"tables":[${JSON.stringify(TABLE)}]}`;
    const buffer = new CopyBuffer();
    buffer.frameRow(plan(), IndexedFrame.open(Buffer.from(json), 'here'), 0, '');
    expect(buffer.take().toString('utf8')).toBe('1\té🚚/\\t\t\\N\n');
  });

  it.each([
    [
      'a row too few',
      payload([['i', 0, ['1', 'a', null, null]]])
        .toString()
        .replace(',1,"whole"', ',2,"whole"'),
    ],
    [
      'a row too many',
      payload([['i', 0, ['1', 'a', null, null]]])
        .toString()
        .replace(',1,"whole"', ',0,"whole"'),
    ],
    ['a column too few', payload([['i', 0, ['1', 'a', null]]]).toString()],
    ['an unknown operation', payload([['x' as 'i', 0, ['1', 'a', null, null]]]).toString()],
    ['an unknown table', payload([['i', 1, ['1', 'a', null, null]]]).toString()],
    ['a deleted row without an image', payload([['d', 0, null]]).toString()],
    ['a value that is a number', payload([['i', 0, ['1', 7 as unknown as string, null, null]]]).toString()],
    [
      'a string without an end',
      payload([['i', 0, ['1', 'a', null, null]]])
        .toString()
        .replace('"a",null', '"a,null'),
    ],
  ])('refuses %s', (_, json) => {
    expect(() => IndexedFrame.open(Buffer.from(json), 'sequence 7')).toThrow(
      expect.objectContaining({ code: 'frame_unreadable', message: expect.stringContaining('sequence 7') as string }),
    );
  });

  it('refuses every truncation of a frame', () => {
    const bytes = payload([
      ['i', 0, ['1', 'a"b', null, 'AA==']],
      ['u', 0, ['1', 0, null, 0], 'k', ['1', null, null, null]],
    ]);
    for (let length = 0; length < bytes.length; length++)
      expect(() => IndexedFrame.open(bytes.subarray(0, length), 'cut'), `${length} bytes`).toThrow('cut');
  });
});
