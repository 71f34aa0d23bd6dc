/** Changes of parts of JSON documents; that they lead where the server leads is shown in integration/mysql-binlog. */
import { describe, expect, it } from 'vitest';
import { JsonPrinter } from '../../capture/mysql/json-binary.ts';
import { applyJsonDiffs } from '../../capture/mysql/json-diff.ts';

/** `{"a": [1, "x"], "bc": null}` in the small format. */
const DOCUMENT = Buffer.from(
  ['00', '02002900', '1200', '0100', '1300', '0200', '021500', '040000', '61', '6263'].join('') +
    ['02001000', '050100', '0c0a00', '0178', '00000000', '00000000'].join(''),
  'hex',
);
/** 7 as an int16. */
const SEVEN = '050700';
const REPLACE = '00';
const INSERT = '01';
const REMOVE = '02';

function diff(operation: string, path: string, value = ''): string {
  const length = (bytes: number): string => Buffer.of(bytes).toString('hex');
  const text = Buffer.from(path).toString('hex');
  const end = operation === REMOVE ? '' : length(value.length / 2) + value;
  return operation + length(path.length) + text + end;
}

function applied(...diffs: string[]): string {
  const bytes = Buffer.from(diffs.join(''), 'hex');
  const document = applyJsonDiffs(DOCUMENT, bytes, 0, bytes.length);
  const printer = new JsonPrinter();
  return printer.buffer.toString('utf8', 0, printer.print(document, 0, document.length));
}

describe('a document changed in part', () => {
  it('has members in the order of their lengths, and items where they were put', () => {
    expect(applied()).toBe('{"a": [1, "x"], "bc": null}');
    expect(applied(diff(INSERT, '$.b', SEVEN), diff(INSERT, '$.a[1]', SEVEN))).toBe(
      '{"a": [1, 7, "x"], "b": 7, "bc": null}',
    );
    expect(applied(diff(REMOVE, '$.a[0]'), diff(REPLACE, '$."bc"', SEVEN))).toBe('{"a": ["x"], "bc": 7}');
    expect(applied(diff(REPLACE, '$', SEVEN))).toBe('7');
  });

  it.each([
    ['a member that is not there', diff(REPLACE, '$.c', SEVEN)],
    ['an item that is not there', diff(REMOVE, '$.a[2]')],
    ['a member that is there already', diff(INSERT, '$.a', SEVEN)],
    ['a way through what is not there', diff(REPLACE, '$.c.d', SEVEN)],
    ['a member of an array', diff(INSERT, '$.a.b', SEVEN)],
    ['a path that is none', diff(REMOVE, 'a')],
    ['an operation that is not known', diff('03', '$.a', SEVEN)],
    ['bytes that are cut off', diff(REPLACE, '$.a', SEVEN).slice(0, -2)],
    ['a value that is cut off', diff(REPLACE, '$.a', SEVEN.slice(0, 4))],
    ['no bytes of a value', diff(REPLACE, '$.a')],
  ])('is refused with %s', (_, bytes) => {
    expect(() => applied(bytes)).toThrow(expect.objectContaining({ code: 'source_protocol' }));
  });
});
