import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { firstOf } from './choice.ts';
import { cachedPackages, fetchPackage, type DebianPackage, type Unpacked } from './debian.ts';
import { compareVersions, findPrograms, programFolders } from './path.ts';

/** A Chromium that can be started without a display. */
export interface Chromium {
  readonly file: string;
  /** What its process needs beyond the environment of this one. */
  readonly environment: Readonly<Record<string, string>>;
  /** Where it comes from, for people: 'Debian bookworm chromium 150.0.7871.100-1~deb12u1'. */
  readonly origin: string;
}

const wanted: DebianPackage = { name: 'chromium', suite: 'bookworm', dependencies: true };

/** Chromium of this machine, of the cache, or fetched. */
export async function findChromium(): Promise<Chromium> {
  return await firstOf<Chromium>(
    [
      { name: 'programs on PATH', kind: 'native', find: installed },
      { name: 'the cache of Debian packages', kind: 'native', find: cached },
      { name: "Debian's packages", kind: 'native', find: async () => await programOf(await fetchPackage(wanted)) },
    ],
    'Chromium',
    'Install chromium.',
  );
}

async function installed(): Promise<Chromium | undefined> {
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    const [found] = await findPrograms(name, programFolders());
    if (found !== undefined) return { file: found.path, environment: {}, origin: found.path };
  }
  return undefined;
}

async function cached(): Promise<Chromium | undefined> {
  const [newest] = (await cachedPackages(wanted)).sort((a, b) => compareVersions(b.version, a.version));
  return newest === undefined ? undefined : await programOf(newest);
}

/**
 * It starts copies of itself by its own path, so it cannot be run through the loader of its package as other programs
 * are: it runs with the machine's C library and with all other libraries of its package.
 */
async function programOf({ root, version }: Unpacked): Promise<Chromium> {
  return {
    file: join(root, 'usr/lib/chromium/chromium'),
    environment: {
      LD_LIBRARY_PATH: (await libraryFolders(root)).join(':'),
      FONTCONFIG_SYSROOT: root,
      FONTCONFIG_PATH: '/etc/fonts',
    },
    origin: `Debian ${wanted.suite} chromium ${version}`,
  };
}

/** The folders of libraries, and those within them: `pulseaudio` and its like hold libraries of one program each. */
async function libraryFolders(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const parent of [join(root, 'usr/lib'), join(root, 'lib')])
    for (const folder of (await foldersIn(parent)).filter((path) => /-linux-gnu\w*$/.test(path)))
      found.push(folder, ...(await foldersIn(folder)));
  return found;
}

async function foldersIn(parent: string): Promise<string[]> {
  const entries = await readdir(parent, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(parent, entry.name));
}
