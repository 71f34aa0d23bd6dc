import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { codeOf } from './errors.ts';
import { serverCanReach, serverIdentity } from './identity.ts';

let chosen: Promise<string> | undefined;

/**
 * The folder for what is worth keeping between runs: `WAYBILL_CACHE_DIR`, else `waybill` in the user's cache folder;
 * for root, if servers could not read it there, `/var/cache/waybill`. It is made if absent.
 */
export async function cacheFolder(): Promise<string> {
  chosen ??= chooseCacheFolder();
  return await chosen;
}

async function chooseCacheFolder(): Promise<string> {
  const { WAYBILL_CACHE_DIR: wanted, XDG_CACHE_HOME: xdg } = process.env;
  const folder = wanted || join(xdg || join(homedir(), '.cache'), 'waybill');
  if (await makeReachable(folder)) return folder;
  if (wanted) throw new Error(`WAYBILL_CACHE_DIR=${wanted}: user ${serverIdentity()?.uid} cannot read there`);
  const shared = '/var/cache/waybill';
  if (await makeReachable(shared)) return shared;
  throw new Error(`${shared}: user ${serverIdentity()?.uid} cannot read there, set WAYBILL_CACHE_DIR`);
}

async function makeReachable(folder: string): Promise<boolean> {
  const parent = dirname(folder);
  await mkdir(parent, { recursive: true });
  if (!(await serverCanReach(parent))) return false;
  const made = await mkdir(folder, { recursive: true });
  if (made !== undefined) await chmod(folder, 0o755);
  return await serverCanReach(folder);
}

/**
 * The folder `name` ('a/b') of the cache, made by `build` if it is not there yet. `build` fills a temporary folder that
 * is then renamed: of several processes that build the same at once, the first to finish wins and nobody ever sees a
 * folder half made.
 */
export async function cached(name: string, build: (folder: string) => Promise<void>): Promise<string> {
  const final = join(await cacheFolder(), name);
  if (await exists(final)) return final;
  const parent = dirname(final);
  await mkdir(parent, { recursive: true });
  await removeAbandoned(parent);
  const temporary = await mkdtemp(join(parent, buildPrefix));
  try {
    await chmod(temporary, 0o755);
    await build(temporary);
    await rename(temporary, final).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EEXIST') throw error;
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return final;
}

/** The finished folders within `name` of the cache. */
export async function cachedNames(name: string): Promise<string[]> {
  const names = await readdir(join(await cacheFolder(), name)).catch(() => []);
  return names.filter((entry) => !entry.startsWith(buildPrefix));
}

const buildPrefix = '.building-';
const abandonedAfterMs = 3_600_000;

async function removeAbandoned(parent: string): Promise<void> {
  for (const entry of await readdir(parent)) {
    if (!entry.startsWith(buildPrefix)) continue;
    const path = join(parent, entry);
    const made = await stat(path).catch(() => undefined);
    if (made && Date.now() - made.mtimeMs > abandonedAfterMs) await rm(path, { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
