import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatHexLsn } from '../../core/position.ts';
import type { TupleRange } from '../../capture/postgres/pgoutput.ts';
import { tupleKey, hasUnchanged, writeTuple } from '../../capture/postgres/tuple-writer.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import {
  decodeFrame,
  type FramePayload,
  type Op,
  type TableSchema,
  type TransactionEntry,
  type Value,
} from '../../core/frame.ts';

/** A column's value with the bytes by which pgoutput sends it. */
interface Cell {
  readonly wire: Buffer;
  readonly value: Value;
  readonly binary: boolean;
  readonly text: string | undefined;
}

const u32 = (value: number): Buffer => {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
};
const sent = (text: string): Buffer => {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from('t'), u32(bytes.length), bytes]);
};

/** Any text at all, with what JSON escapes more often than by chance. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc.string({
    unit: fc.constantFrom('"', '\\', '/', '\0', '\u001f', '\u007f', '\u2028', '\n', '🚚', 'é'),
    maxLength: 40,
  }),
  fc
    .tuple(fc.constantFrom('\u0001', '"', 'é', 'x', '🚚'), fc.integer({ min: 5_000, max: 40_000 }))
    .map(([c, n]) => c.repeat(n)),
);

const cell: fc.Arbitrary<Cell> = fc.oneof(
  { weight: 6, arbitrary: anyText.map((text) => ({ wire: sent(text), value: text, binary: false, text })) },
  fc
    .uint8Array({ maxLength: 300 })
    .map((bytes) => Buffer.from(bytes))
    .map((bytes) => ({
      wire: sent(`\\x${bytes.toString('hex')}`),
      value: bytes.toString('base64'),
      binary: true,
      text: `\\x${bytes.toString('hex')}`,
    })),
  fc.boolean().map((binary) => ({ wire: Buffer.from('n'), value: null, binary, text: undefined })),
  fc.boolean().map((binary) => ({ wire: Buffer.from('u'), value: 0 as const, binary, text: undefined })),
);

/** Lays cells into a buffer with other bytes around them. */
function lay(cells: readonly Cell[]): { buffer: Buffer; tuple: TupleRange; binary: boolean[] } {
  const buffer = Buffer.concat([Buffer.alloc(3, 0x22), ...cells.map((c) => c.wire), Buffer.alloc(3, 0x22)]);
  return { buffer, tuple: { offset: 3, count: cells.length }, binary: cells.map((c) => c.binary) };
}

const table = (name: string, width: number): TableSchema => ({
  schema: 'public',
  name,
  version: name,
  identity: 'default',
  key: [],
  columns: Array.from({ length: width }, (_, i) => ({ name: `c${i}`, type: 'text', portable: 'text', notNull: false })),
});

const change = fc.record({
  op: fc.constantFrom<Op>('i', 'u', 'd', 'r'),
  table: anyText,
  after: fc.array(cell, { minLength: 1, maxLength: 6 }),
  kind: fc.constantFrom('k' as const, 'f' as const, undefined),
});

describe('a frame', () => {
  it('gives back every tuple that was written into it', () => {
    const check = fc.property(
      fc.array(fc.array(change, { maxLength: 8 }), { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 4096 }),
      (frames, sizeBytes) => {
        const writer = new FrameWriter(sizeBytes);
        for (const changes of frames) {
          writer.reset();
          const expected: unknown[] = [];
          const tables: TableSchema[] = [];
          for (const { op, table: name, after, kind } of changes) {
            const schema = table(name, after.length);
            const { buffer, tuple, binary } = lay(after);
            const values = after.map((c) => c.value);
            tables.push(schema);
            writer.beginRow(op, schema);
            if (op === 'd') writer.writeNull();
            else writeTuple(writer, buffer, tuple, binary);
            const beforeKind = op === 'd' ? 'k' : op === 'u' ? kind : undefined;
            if (beforeKind !== undefined) {
              writer.before(beforeKind);
              writeTuple(writer, buffer, tuple, binary);
            }
            writer.endRow();
            const row = [op, tables.length - 1, op === 'd' ? null : values];
            expected.push(beforeKind === undefined ? row : [...row, beforeKind, values]);
          }
          const entry: TransactionEntry = [7, 'A', 'B', 1, changes.length, 'whole', 0];
          writer.addTransaction(entry);
          expect(decodeFrame(writer.finish(), 'here')).toEqual({ v: 1, rows: expected, tx: [entry], tables });
        }
      },
    );
    fc.assert(check, { numRuns: 150 });
  });
});

describe('a tuple', () => {
  it('has unchanged columns or not, and a key where all of it was sent', () => {
    const check = fc.property(
      fc.array(cell, { minLength: 1, maxLength: 6 }).chain((cells) =>
        fc.record({
          cells: fc.constant(cells),
          keyIndexes: fc.shuffledSubarray([...cells.keys()], { minLength: 1 }),
        }),
      ),
      ({ cells, keyIndexes }) => {
        const { buffer, tuple } = lay(cells);
        expect(hasUnchanged(buffer, tuple)).toBe(cells.some((c) => c.value === 0));
        const parts = keyIndexes.map((i) => cells[i]!.text);
        const key = parts.includes(undefined) ? undefined : parts.length === 1 ? parts[0] : JSON.stringify(parts);
        expect(tupleKey(buffer, tuple, keyIndexes)).toBe(key);
      },
    );
    fc.assert(check, { numRuns: 500 });
  });
});

describe('a transaction of a log with LSNs', () => {
  it('is written as its entry is', () => {
    const lsn = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const count = fc.oneof(
      fc.nat(1000),
      fc.nat(Number.MAX_SAFE_INTEGER),
      fc.integer({ min: 0, max: 15 }).map((n) => 10 ** n),
    );
    const part = fc.constantFrom('whole', 'first', 'middle', 'last');
    fc.assert(
      fc.property(fc.array(fc.tuple(count, lsn, lsn, count, count, part, count), { maxLength: 30 }), (entries) => {
        const writer = new FrameWriter(64);
        for (const entry of entries) writer.addLsnTransaction(...entry);
        const { tx } = JSON.parse(writer.finish().toString('utf8')) as FramePayload;
        expect(tx).toEqual(
          entries.map(([xid, commit, end, ...rest]) => [xid, formatHexLsn(commit), formatHexLsn(end), ...rest]),
        );
      }),
    );
  });
});

describe('a transaction that has one name', () => {
  it('is written as its entry is', () => {
    const count = fc.oneof(fc.nat(1000), fc.nat(Number.MAX_SAFE_INTEGER));
    const name = fc.oneof(
      fc.tuple(fc.uuid(), fc.nat()).map(([source, gno]) => `${source}:${gno}`),
      fc.tuple(fc.nat(), fc.nat(), fc.nat()).map((parts) => parts.join('-')),
    );
    const part = fc.constantFrom('whole', 'first', 'middle', 'last');
    fc.assert(
      fc.property(fc.array(fc.tuple(name, count, count, part, count), { maxLength: 30 }), (entries) => {
        const writer = new FrameWriter(64);
        for (const entry of entries) writer.addNamedTransaction(...entry);
        const { tx } = JSON.parse(writer.finish().toString('utf8')) as FramePayload;
        expect(tx).toEqual(entries.map(([of, ...rest]) => [0, of, of, ...rest]));
      }),
    );
  });
});

it('carries images of any texts as they are', () => {
  const value = fc.oneof(anyText, fc.constant(null), fc.constant(0 as const));
  fc.assert(
    fc.property(fc.array(fc.array(value, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 }), (images) => {
      const writer = new FrameWriter(256);
      for (const image of images) {
        const columns = image.map((_, index) => ({
          name: `c${index}`,
          type: 'text',
          portable: 'text',
          notNull: false,
        }));
        const table: TableSchema = { schema: 's', name: 't', version: '1', identity: 'default', key: ['c0'], columns };
        writer.beginRow('i', table);
        writer.writeImage(image);
        writer.endRow();
      }
      writer.addTransaction([0, formatHexLsn(1n), formatHexLsn(2n), 3, images.length, 'whole', 0]);
      expect(decodeFrame(writer.finish(), 'a frame').rows.map((row) => row[2])).toEqual(images);
    }),
  );
});
