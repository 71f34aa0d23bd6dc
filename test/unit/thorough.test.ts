import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { THOROUGH } from '../thorough.ts';

it('what only the whole suite runs is there, each once', () => {
  expect(THOROUGH.filter((file) => !existsSync(resolve(import.meta.dirname, '..', `${file}.test.ts`)))).toEqual([]);
  expect(new Set(THOROUGH).size).toBe(THOROUGH.length);
});
