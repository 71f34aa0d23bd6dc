import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../support/check-layout.mjs', import.meta.url));
// Plain JavaScript, of which the compiler knows nothing.
const { checkLayout } = (await import(SCRIPT)) as { checkLayout: (root: string) => string[] };

/** A tree that keeps every rule, and comes close to breaking some. */
const GOOD: Readonly<Record<string, string>> = {
  'package.json': '{}',
  'README.md': '# x',
  'vitest.config.ts': 'export default {};\n',
  'node_modules/Bad/index.js': 'module.exports = require("../src/x");',
  'core/errors.ts': "// process.env is read by cli/ alone\nexport const text = 'process.env.HOME';\n",
  'core/byte-budget.ts': "import { text } from './errors.ts';\nexport const name = `${text} import './x'`;\n",
  'capture/postgres/slot.ts':
    "import {\n  text,\n} from '../../core/errors.ts';\nexport const pattern = /['\"]/g;\nexport const a = text;\n",
  'apply/batch.ts':
    "export { text } from '../core/errors.ts';\nexport const quote = /`/.source;\nexport const two = 4 / 2;\n",
  'cli/main.ts': "import { text } from '../core/errors.ts';\nexport const home = process.env['HOME'] ?? text;\n",
  'sandbox/postgres.ts':
    "import { text } from '../core/errors.ts';\nexport const home = process.env['HOME'] ?? text;\n",
  'test/unit/a.test.ts': "import '../../sandbox/postgres.ts';\nit('is not it.skip', () => {});\nlist.only();\n",
};

/** One broken rule each: the file, its text, and what the check must say. */
const BAD: readonly (readonly [string, string, string])[] = [
  ['scripts/x.ts', 'export const a = 1;\n', 'scripts:1: no such folder'],
  ['notes.txt', '', 'notes.txt:1: no such file'],
  ['core/ByteBudget.ts', 'export const a = 1;\n', 'core/ByteBudget.ts:1: a file name must be kebab-case'],
  ['core/byte_budget.ts', 'export const a = 1;\n', 'core/byte_budget.ts:1: a file name must be kebab-case'],
  ['capture/Postgres/slot-state.ts', 'export const a = 1;\n', 'capture/Postgres:1: a folder name must be kebab-case'],
  ['src/x.ts', 'export const a = 1;\n', 'src:1: a folder may not be called src'],
  ['core/utils/x.ts', 'export const a = 1;\n', 'core/utils:1: a folder may not be called utils'],
  ['capture/common/x.ts', 'export const a = 1;\n', 'capture/common:1: a folder may not be called common'],
  ['apply/helpers/x.ts', 'export const a = 1;\n', 'apply/helpers:1: a folder may not be called helpers'],
  ['core/index.ts', 'export const a = 1;\n', 'core/index.ts:1: no barrel files'],
  [
    'core/all.ts',
    "// all\nexport * from './errors.ts';\nexport { a } from './b.ts';\n",
    'core/all.ts:1: no barrel files',
  ],
  ['core/x.ts', "\nimport { a } from '../capture/postgres/slot.ts';\n", 'core/x.ts:2: core/ may not import capture/'],
  ['core/x.ts', "export type { A } from '../cli/main.ts';\nlet b;\n", 'core/x.ts:1: core/ may not import cli/'],
  ['capture/x.ts', "import {\n  a,\n} from '../apply/x.ts';\n", 'capture/x.ts:3: capture/ may not import apply/'],
  ['apply/x.ts', "const a = await import('../capture/x.ts');\n", 'apply/x.ts:1: apply/ may not import capture/'],
  ['monitoring/x.ts', "import '../apply/x.ts';\n", 'monitoring/x.ts:1: monitoring/ may not import apply/'],
  ['transform/x.ts', "import '../monitoring/x.ts';\n", 'transform/x.ts:1: transform/ may not import monitoring/'],
  ['cli/x.ts', "import { a } from '../sandbox/postgres.ts';\n", 'cli/x.ts:1: cli/ may not import sandbox/'],
  ['core/x.ts', "import { a } from '../test/support/a.ts';\n", 'core/x.ts:1: core/ may not import test/'],
  ['core/x.ts', "import { a } from './errors';\n", 'core/x.ts:1: import ./errors with its .ts extension'],
  ['core/x.ts', 'const a = 1;\nconst b = process.env.HOME;\n', 'core/x.ts:2: only cli/ reads the environment'],
  ['apply/x.ts', 'export const a = `${process.env["A"]}`;\n', 'apply/x.ts:1: only cli/ reads the environment'],
  ['core/x.ts', "import { env } from 'node:process';\n", 'core/x.ts:1: only cli/ reads the environment'],
  ['core/x.ts', 'export const q = /"/;\nexport default q;\n', 'core/x.ts:2: no default exports'],
  ['core/x.ts', 'const a = 1;\nexport { a as default };\n', 'core/x.ts:2: no default exports'],
  ['test/unit/x.test.ts', "\n\nit.skip('x', () => {});\n", 'test/unit/x.test.ts:3: no .skip'],
  ['test/unit/x.test.ts', "describe.only('x', () => {});\n", 'test/unit/x.test.ts:1: no .only'],
  ['test/unit/x.test.ts', "it.concurrent.only('x', () => {});\n", 'test/unit/x.test.ts:1: no .only'],
];

describe('check-layout', () => {
  let root = '';

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'waybill-layout-'));
    for (const [file, text] of Object.entries(GOOD)) write(file, text);
  });
  afterEach(() => rmSync(root, { recursive: true }));

  const write = (file: string, text: string): void => {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  };
  const run = (): { status: number | null; stdout: string; stderr: string } => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, root], { encoding: 'utf8' });
    return { status, stdout, stderr };
  };

  it('accepts a tree that keeps the rules, and as a program refuses one that does not', () => {
    expect(run()).toEqual({ status: 0, stdout: '', stderr: '' });
    write('notes.txt', '');
    expect(run()).toMatchObject({ status: 1, stdout: expect.stringMatching(/^notes.txt:1: .*\n1 violation\(s\)/) });
  });

  it.each(BAD)('refuses %s: %j', (file, text, message) => {
    write(file, text);
    expect(checkLayout(root)).toEqual([expect.stringContaining(message)]);
  });
});
