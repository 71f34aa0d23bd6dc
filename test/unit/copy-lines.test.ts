import { describe, expect, it } from 'vitest';
import { copyRows, imagesOf } from '../support/copy-rows.ts';

describe('rows of COPY', () => {
  it.each<[line: string, row: (string | null)[]]>([
    ['', ['']],
    ['a', ['a']],
    ['a\tb\t', ['a', 'b', '']],
    ['\t', ['', '']],
    [String.raw`\N`, [null]],
    ['\\N\t\\N', [null, null]],
    ['\\N\ta', [null, 'a']],
    [String.raw`\\N`, [String.raw`\N`]],
    [String.raw`x\N`, ['xN']],
    [String.raw`\Nx`, ['Nx']],
    [String.raw`\b\f\n\r\t\v\\`, ['\b\f\n\r\t\v\\']],
    [String.raw`\\n\\t`, [String.raw`\n\t`]],
    [String.raw`\\.`, [String.raw`\.`]],
    [String.raw`\"`, ['"']],
    ['"\u0001\u007f', ['"\u0001\u007f']],
    ['\\\u{1f69a}', ['\u{1f69a}']],
    ['NULL\tnull', ['NULL', 'null']],
  ])('%j', (line, row) => {
    expect(imagesOf(copyRows([line]))).toEqual([row]);
    // The same by way of values, as where a rule concerns the table.
    expect(imagesOf(copyRows([line], { writes: row.map(() => undefined) }))).toEqual([row]);
  });

  it('gives bytea as base64', () => {
    const rows = copyRows(['\\\\x\t\\\\x00ff\t\\N\t\\\\x00ff'], { binary: [true, true, true, false] });
    expect(imagesOf(rows)).toEqual([['', 'AP8=', null, String.raw`\x00ff`]]);
  });

  it('gives the key in key order, unescaped, and bytea as Postgres takes it', () => {
    const rows = copyRows(['a\\tb\t2\t\\\\xff'], { binary: [false, false, true], keyIndexes: [2, 0] });
    expect(rows.key(0)).toEqual([String.raw`\xff`, 'a\tb']);
  });

  it('keeps many rows apart, and does not rely on the buffer it was given', () => {
    const lines = Array.from({ length: 5000 }, (_, n) => `${n}\t${'x'.repeat(n % 50)}`);
    const rows = copyRows(lines, { keyIndexes: [0] });
    expect(rows.length).toBe(5000);
    expect(rows.bytes).toBe(lines.join('').length + lines.length);
    expect(rows.key(4999)).toEqual(['4999']);
    expect(imagesOf(rows)).toEqual(lines.map((line) => line.split('\t')));
  });
});
