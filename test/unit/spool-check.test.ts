import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { checkSpool } from '../../capture/postgres/spool-check.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-spool-check-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function check(
  streaming: 'on' | 'off',
  spool_dir = folder,
  spool_bytes = 1,
): Promise<(readonly [string, string, string])[]> {
  const found: [string, string, string][] = [];
  await checkSpool({ streaming, spool_dir, spool_bytes }, (severity, what, message, remedy = '') => {
    found.push([severity, what, `${message}: ${remedy}`]);
  });
  return found;
}

it('says whether transactions in progress can be kept, and leaves nothing there', async () => {
  const inside = join(folder, 'made', 'on', 'demand');
  expect(await check('on', inside)).toEqual([['ok', 'spool_dir', expect.stringContaining(inside)]]);
  expect(await readdir(inside)).toEqual([]);
});

it('says nothing where they are received at their commit', async () => {
  expect(await check('off', '/dev/null/spool')).toEqual([]);
});

it.each([
  ['a folder that cannot be written to', '/dev/null/spool', 1, /\/dev\/null\/spool.*spool_dir/],
  ['a disk that is too small', undefined, 2 ** 60, /bytes free.*spool_bytes/],
] as const)('warns of %s', async (_, path, bytes, text) => {
  expect(await check('on', path, bytes)).toEqual([['warning', 'spool_dir', expect.stringMatching(text)]]);
});
