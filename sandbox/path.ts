import { readdir, realpath } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { serverCanReach } from './identity.ts';
import { run } from './process.ts';

/** A program on this machine. */
export interface Program {
  /** Where it is. */
  readonly path: string;
  /** What it says its version is: '18.4'. */
  readonly version: string;
}

const usualFolders = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/opt/homebrew/bin'];

/** The folders to look for programs in: those of PATH, then the usual ones, each once. */
export function programFolders(): string[] {
  const own = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...new Set([...own, ...usualFolders])];
}

/** The folders in which Debian and its like keep PostgreSQL's programs, the newest version first. */
export async function postgresFolders(): Promise<string[]> {
  const base = '/usr/lib/postgresql';
  const versions = await readdir(base).catch(() => []);
  return versions.sort((a, b) => Number(b) - Number(a)).map((version) => join(base, version, 'bin'));
}

/** The programs called `name` in `folders` that servers' user can run and that answer `--version`, in their order. */
export async function findPrograms(name: string, folders: readonly string[]): Promise<Program[]> {
  const found = new Map<string, Program>();
  for (const folder of folders) {
    // A link is kept as it is named: what it leads to may be a wrapper that goes by the name it was called by.
    const path = join(folder, name);
    const real = await realpath(path).catch(() => undefined);
    if (real === undefined || found.has(real) || !(await serverCanReach(real))) continue;
    const version = await versionOf(path);
    if (version !== undefined) found.set(real, { path, version });
  }
  return [...found.values()];
}

/** The version that `file --version` prints ('18.4'); undefined if it does not run or prints none. */
export async function versionOf(file: string): Promise<string | undefined> {
  const text = await run(file, ['--version']).catch(() => '');
  return /\d+(?:\.\d+)+/.exec(text)?.[0];
}

/** Compares dotted versions by their numbers: negative if `a` is the older. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split(/[^\d]+/).map(Number)) as [number[], number[]];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
