import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { asReplicationError, ERROR_CODES, messageOf, policyFor, ReplicationError } from '../../core/errors.ts';

describe('errors', () => {
  const table = new Map(
    readFileSync('docs/errors.md', 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .map((line) => line.split('|').map((cell) => cell.trim()))
      .map(([, code, , action, remedy]) => [code!.replaceAll('`', ''), { action, remedy }]),
  );
  // The formatter writes emphasis its own way; compare words.
  const words = (text: string | undefined): string => (text ?? '').replaceAll(/[\\_*`]/g, '').replaceAll(/\s+/g, ' ');

  it('documents every code, and no other', () => {
    expect([...table.keys()]).toEqual(ERROR_CODES);
  });

  it.each(ERROR_CODES)('%s has the action and remedy that the document says', (code) => {
    expect(table.get(code)?.action).toBe(policyFor(code).action);
    expect(words(table.get(code)?.remedy)).toBe(words(policyFor(code).remedy));
    expect(policyFor(code).remedy.length).toBeGreaterThan(20);
  });

  it('what is unknown halts', () => {
    expect(policyFor(asReplicationError(new TypeError('x')).code).action).toBe('halt');
    const known = new ReplicationError('stream_gap', 'gone');
    expect(asReplicationError(known)).toBe(known);
  });

  it('finds a message in an error that has none', () => {
    expect(messageOf(new AggregateError([new Error('a'), new Error('b')]))).toBe('a; b');
    expect(messageOf(Object.assign(new Error(''), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED');
  });
});
