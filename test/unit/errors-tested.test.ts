import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ERROR_CODES } from '../../core/errors.ts';

/** Tests that need a real server or real bytes; those of the table of codes itself do not count. */
const OF_THE_TABLE = new Set(['errors.test.ts', 'errors-core.test.ts', 'errors-tested.test.ts']);

describe('the codes of docs/errors.md', () => {
  const tests = readdirSync('test', { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts') && !OF_THE_TABLE.has(file.replace(/^.*\//, '')))
    .map((file) => readFileSync(join('test', file), 'utf8'));

  it.each(ERROR_CODES)('%s is provoked by a test', (code) => {
    expect(tests.some((text) => new RegExp(`\\b${code}\\b`).test(text))).toBe(true);
  });
});
