import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameWriter } from '../../core/frame-writer.ts';
import { decodeFrame, type RowChange, type TableSchema } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';
import { copyField, copyRows, imagesOf } from '../support/copy-rows.ts';

/** Postgres has no NUL in text. */
const text = fc
  .oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: fc.constantFrom('\\', 'N', 'n', 't', '.', '\n', '\t', '\r', '\b', '🚚', ''), maxLength: 30 }),
  )
  .map((value) => value.replaceAll('\0', ''));
const row = fc.array(fc.option(text, { freq: 5 }), { minLength: 1, maxLength: 6 });

const TABLE: TableSchema = {
  schema: 'public',
  name: 'items',
  version: 'v',
  identity: 'default',
  key: [],
  columns: ['a', 'b'].map((name) => ({ name, type: 'text', portable: 'text', notNull: false })),
};

/** The rows of a frame as a target that takes lines reads them: lines as they are, other rows one by one. */
function valuesOf(frame: IndexedFrame): unknown[] {
  const values: unknown[] = [];
  for (let row = 0; row < frame.length;) {
    const block = frame.linesAt(row);
    if (block === undefined) values.push(frame.row(row++)[2]);
    else {
      values.push(...imagesOf(copyRows(block.lines.toString('utf8').split('\n').slice(0, -1))));
      row = block.to;
    }
  }
  return values;
}

describe('COPY text', () => {
  it('gives back rows', () => {
    const check = fc.property(fc.array(row, { maxLength: 12 }), fc.boolean(), (rows, plain) => {
      const lines = rows.map((values) => values.map(copyField).join('\t'));
      // A rule for any column takes all of them through values.
      expect(imagesOf(copyRows(lines, plain ? {} : { writes: [] }))).toEqual(rows);
    });
    fc.assert(check, { numRuns: 500 });
  });

  it('gives back rows that a frame holds as lines, whichever way it is read', () => {
    const block = fc.array(fc.tuple(text, fc.option(text)), { minLength: 1, maxLength: 8 });
    const check = fc.property(fc.array(fc.tuple(block, fc.boolean()), { minLength: 1, maxLength: 5 }), (blocks) => {
      const writer = new FrameWriter(64);
      const wanted: RowChange[] = [];
      for (const [values, packed] of blocks) {
        const rows = copyRows(values.map((row) => row.map(copyField).join('\t')));
        wanted.push(...values.map((row): RowChange => ['r', 0, row]));
        for (let at = 0; at < rows.length;)
          if (packed) at = rows.writeLines(at, 40, TABLE, writer);
          else {
            writer.beginRow('r', TABLE);
            rows.write(at++, writer);
            writer.endRow();
          }
      }
      writer.addTransaction([7, '0', 'F', 1, wanted.length, 'whole', 0]);
      expect(writer.version).toBe(blocks.some(([, packed]) => packed) ? 2 : 1);
      const payload = Buffer.from(writer.finish());
      expect(decodeFrame(payload, 'here').rows).toEqual(wanted);
      const frame = IndexedFrame.open(payload, 'here');
      const lines = valuesOf(frame);
      expect(lines).toEqual(wanted.map((row) => row[2]));
      expect(wanted.map((_, row) => frame.row(row))).toEqual(wanted);
      expect(frame.rows(0, frame.length)).toEqual(wanted);
      expect(frame.findValue(frame.length - 1, 0) && frame.valueAsText()).toBe(wanted.at(-1)![2]![0]);
    });
    fc.assert(check);
  });

  it('gives bytea as base64 and as the cursor takes it', () => {
    const check = fc.property(fc.uint8Array({ maxLength: 200 }), text, (bytes, other) => {
      const hex = `\\x${Buffer.from(bytes).toString('hex')}`;
      const rows = copyRows([`${copyField(other)}\t${copyField(hex)}`], { binary: [false, true], keyIndexes: [1, 0] });
      expect(imagesOf(rows)).toEqual([[other, Buffer.from(bytes).toString('base64')]]);
      expect(rows.key(0)).toEqual([hex, other]);
    });
    fc.assert(check);
  });
});
