import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CapturedTable } from '../../capture/mysql/catalog.ts';
import { ChunkRows, ReadRows } from '../../capture/mysql/chunk-rows.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { decodeFrame, type TableSchema } from '../../core/frame.ts';

const COLUMNS = ['a', 'b', 'c'];
const SCHEMA: TableSchema = {
  schema: 'erp',
  name: 'items',
  version: 'v',
  identity: 'default',
  key: ['b', 'a'],
  columns: COLUMNS.map((name) => ({ name, type: 'text', portable: 'text', notNull: false })),
};
const TABLE = { schema: SCHEMA } as CapturedTable;

/** A row of a text result set (MySQL client/server protocol), behind bytes of others. */
function packet(values: readonly (string | null)[]): Buffer {
  const fields = values.map((value) => {
    if (value === null) return Buffer.of(0xfb);
    const text = Buffer.from(value);
    if (text.length < 0xfb) return Buffer.concat([Buffer.of(text.length), text]);
    const head = Buffer.alloc(text.length > 0xffff ? 4 : 3);
    head[0] = text.length > 0xffff ? 0xfd : 0xfc;
    head.writeUIntLE(text.length, 1, head.length - 1);
    return Buffer.concat([head, text]);
  });
  return Buffer.concat([Buffer.from('xx'), ...fields, Buffer.from('yy')]);
}

const add = (rows: ReadRows | ChunkRows, bytes: Buffer): unknown => rows.add(bytes, 2, bytes.length - 2);

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: fc.constantFrom('\\', 'N', 'n', '\0', '\n', '\t', '\r', '\v', '\f', '🚚'), maxLength: 30 }),
  fc.integer({ min: 1, max: 70_000 }).map((length) => 'ü'.repeat(length)),
);
const row = fc.array(fc.option(text, { freq: 5 }), { minLength: COLUMNS.length, maxLength: COLUMNS.length });

describe('rows of a chunk', () => {
  it('have the bytes of binary columns as base64', () => {
    const columns = SCHEMA.columns.map((column, i) => (i === 1 ? { ...column, type: 'longblob' } : column));
    const check = fc.property(
      fc.array(fc.tuple(fc.uint8Array({ maxLength: 400 }), text), { maxLength: 9 }),
      (given) => {
        const rows = new ReadRows({ schema: { ...SCHEMA, columns } });
        for (const [bytes, value] of given) {
          const [head, before, after] = [
            Buffer.from('xx'),
            packet([value]).subarray(2, -2),
            packet([null]).subarray(2, -2),
          ];
          const length = Buffer.of(0xfc, bytes.length & 255, bytes.length >> 8);
          add(rows, Buffer.concat([head, before, length, bytes, after, head]));
        }
        expect(given.map((_, at) => rows.values(at))).toEqual(
          given.map(([bytes, value]) => [value, Buffer.from(bytes).toString('base64'), null]),
        );
      },
    );
    fc.assert(check, { numRuns: 200 });
  });

  it('are in frames as they came, those that are kept', () => {
    const check = fc.property(fc.array(fc.tuple(row, fc.boolean()), { maxLength: 12 }), fc.nat(200), (given, room) => {
      const rows = new ReadRows(TABLE);
      for (const [values] of given) add(rows, packet(values));
      const kept = given.filter(([, keeps]) => keeps).map(([values]) => values);
      const writer = new FrameWriter(64);
      const keeps = (at: number): boolean => given[at]![1];
      for (let at = 0; at < rows.length;) at = keeps(at) ? rows.writeLines(at, room, keeps, SCHEMA, writer) : at + 1;
      writer.addTransaction([0, 'r:1', 'r:1', 0, kept.length, 'whole', 0]);
      expect(decodeFrame(writer.finish(), 'frame').rows).toEqual(kept.map((values) => ['r', 0, values]));
      expect(given.map((_, at) => rows.values(at))).toEqual(given.map(([values]) => values));
      expect(given.map((_, at) => rows.key(at))).toEqual(given.map(([[a, b]]) => [b ?? '', a ?? '']));
    });
    fc.assert(check, { numRuns: 200 });
  });

  it('are counted, and the last key is known, also when they were taken', () => {
    const chunk = new ChunkRows(TABLE);
    expect(chunk.lastKey).toBeUndefined();
    for (const n of ['1', '2']) expect(add(chunk, packet([n, `key ${n}`, null]))).toBe(false);
    expect(chunk.take().length).toBe(2);
    expect([chunk.count, chunk.lastKey]).toEqual([2, ['key 2', '2']]);
    while (add(chunk, packet(['3', 'key 3', 'x'.repeat(1 << 20)])) === false);
    expect([chunk.count, chunk.lastKey]).toEqual([10, ['key 3', '3']]);
  });

  it('are taken once there are so many of them as may be kept', () => {
    const chunk = new ChunkRows(TABLE, [], 3);
    const full = (): unknown => add(chunk, packet(['1', 'key', null]));
    expect([full(), full(), full(), chunk.take().length, full(), full(), full()]).toEqual([
      false,
      false,
      true,
      3,
      false,
      false,
      true,
    ]);
  });

  it('are refused where they are not what was asked for', () => {
    const whole = packet(['1', 'two', 'three']);
    for (const end of [2, 3, 4, 8, whole.length - 3, whole.length - 1])
      expect(() => new ReadRows(TABLE).add(whole, 2, end)).toThrow(/columns that were asked for/);
    const tooLong = Buffer.from([0xfc, 0xff]);
    expect(() => new ReadRows(TABLE).add(tooLong, 0, 2)).toThrow(/columns that were asked for/);
  });
});
