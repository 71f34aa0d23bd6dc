import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LineSplitter, parseCopyLine } from '../../capture/postgres/copy-lines.ts';

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
  it('gives back rows, however its buffers are cut', () => {
    const check = fc.property(
      fc.array(row, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
      (rows, sizes) => {
        const bytes = Buffer.from(rows.map((values) => `${values.map(copyField).join('\t')}\n`).join(''));
        const splitter = new LineSplitter();
        const lines: string[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = sizes[i % sizes.length]!;
          lines.push(...splitter.push(bytes.subarray(at, at + size)));
          at += size;
        }
        const parsed = lines.map(
          (line) =>
            JSON.parse(
              parseCopyLine(line, { binary: [], keyIndexes: [], writes: undefined }).json.toString('utf8'),
            ) as unknown,
        );
        expect(parsed).toEqual(rows);
      },
    );
    fc.assert(check, { numRuns: 500 });
  });

  it('gives bytea as base64 and as the cursor takes it', () => {
    const check = fc.property(fc.uint8Array({ maxLength: 200 }), text, (bytes, other) => {
      const hex = `\\x${Buffer.from(bytes).toString('hex')}`;
      const { json, key } = parseCopyLine(`${copyField(other)}\t${copyField(hex)}`, {
        binary: [false, true],
        keyIndexes: [1, 0],
        writes: undefined,
      });
      expect(JSON.parse(json.toString('utf8'))).toEqual([other, Buffer.from(bytes).toString('base64')]);
      expect(key).toEqual([hex, other]);
    });
    fc.assert(check);
  });
});
