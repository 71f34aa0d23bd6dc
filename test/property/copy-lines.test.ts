import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { copyRows, imagesOf } from '../support/copy-rows.ts';

const ESCAPES: Readonly<Record<string, string>> = {
  '\b': String.raw`\b`,
  '\f': String.raw`\f`,
  '\n': String.raw`\n`,
  '\r': String.raw`\r`,
  '\t': String.raw`\t`,
  '\v': String.raw`\v`,
  '\\': '\\\\',
};

/** As CopyAttributeOutText of Postgres writes a value. */
function copyField(value: string | null): string {
  if (value === null) return String.raw`\N`;
  return value.replaceAll(/[\b\f\n\r\t\v\\]/g, (char) => ESCAPES[char]!);
}

/** Postgres has no NUL in text. */
const text = fc
  .oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: fc.constantFrom('\\', 'N', 'n', 't', '.', '\n', '\t', '\r', '\b', '🚚', ''), maxLength: 30 }),
  )
  .map((value) => value.replaceAll('\0', ''));
const row = fc.array(fc.option(text, { freq: 5 }), { minLength: 1, maxLength: 6 });

describe('COPY text', () => {
  it('gives back rows', () => {
    const check = fc.property(fc.array(row, { maxLength: 12 }), fc.boolean(), (rows, plain) => {
      const lines = rows.map((values) => values.map(copyField).join('\t'));
      // A rule for any column takes all of them through values.
      expect(imagesOf(copyRows(lines, plain ? {} : { writes: [] }))).toEqual(rows);
    });
    fc.assert(check, { numRuns: 500 });
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
