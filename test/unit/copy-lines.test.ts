import { describe, expect, it } from 'vitest';
import { LineSplitter, parseCopyLine } from '../../capture/postgres/copy-lines.ts';

const values = (line: string, binary: boolean[] = []): unknown =>
  JSON.parse(parseCopyLine(line, { binary, keyIndexes: [], writes: undefined }).json.toString('utf8'));

describe('parseCopyLine', () => {
  it.each<[line: string, row: (string | null)[]]>([
    ['', ['']],
    ['a', ['a']],
    ['a\tb\t', ['a', 'b', '']],
    [String.raw`\N`, [null]],
    ['\\N\t\\N', [null, null]],
    [String.raw`\\N`, [String.raw`\N`]],
    [String.raw`x\N`, ['xN']],
    [String.raw`\b\f\n\r\t\v\\`, ['\b\f\n\r\t\v\\']],
    [String.raw`\\n\\t`, [String.raw`\n\t`]],
    [String.raw`\\.`, [String.raw`\.`]],
    ['"\u0001\u007f', ['"\u0001\u007f']],
    ['\\\u{1f69a}', ['\u{1f69a}']],
    ['NULL\tnull', ['NULL', 'null']],
  ])('%j', (line, row) => {
    expect(values(line)).toEqual(row);
  });

  it('gives bytea as base64', () => {
    expect(values('\\\\x\t\\\\x00ff\t\\N\t\\\\x00ff', [true, true, true, false])).toEqual([
      '',
      'AP8=',
      null,
      String.raw`\x00ff`,
    ]);
  });

  it('gives the key in key order, unescaped, and bytea as Postgres takes it', () => {
    const { key } = parseCopyLine('a\\tb\t2\t\\\\xff', {
      binary: [false, false, true],
      keyIndexes: [2, 0],
      writes: undefined,
    });
    expect(key).toEqual([String.raw`\xff`, 'a\tb']);
  });
});

describe('LineSplitter', () => {
  it('puts lines together that span buffers, also inside a character', () => {
    const bytes = Buffer.from('first\n\nzwölf 🚚\nlast\n');
    for (let size = 1; size <= bytes.length; size++) {
      const splitter = new LineSplitter();
      const lines: string[] = [];
      for (let at = 0; at < bytes.length; at += size) lines.push(...splitter.push(bytes.subarray(at, at + size)));
      expect(lines, `pieces of ${size}`).toEqual(['first', '', 'zwölf 🚚', 'last']);
    }
  });

  it('does not rely on the buffer it was given', () => {
    const splitter = new LineSplitter();
    const buffer = Buffer.from('abc');
    expect([...splitter.push(buffer)]).toEqual([]);
    buffer.fill('x');
    expect([...splitter.push(Buffer.from('d\n'))]).toEqual(['abcd']);
  });
});
