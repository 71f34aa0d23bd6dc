import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Unpacked } from './debian.ts';

/** How to run a program: the file to execute, and the arguments that come before its own. */
export interface ProgramCommand {
  readonly file: string;
  readonly args: readonly string[];
}

/**
 * How to run a program of a package that was unpacked with its dependencies. It runs with the C library it was built
 * for, whatever the machine's is: the loader that came with it is told to start it, and where its libraries are.
 *
 * @param path of the program within the package: 'usr/sbin/mysqld'
 * @throws Error if the package was unpacked without a C library
 */
export async function debianProgram({ root }: Unpacked, path: string): Promise<ProgramCommand> {
  const folders = await libraryFolders(root);
  for (const folder of folders) {
    const loader = (await readdir(folder)).find((name) => /^ld-linux.*\.so\.\d+$/.test(name));
    if (loader === undefined) continue;
    return { file: join(folder, loader), args: ['--library-path', folders.join(':'), join(root, path)] };
  }
  throw new Error(`${root} has no loader: the package was unpacked without its dependencies`);
}

/** The folders `lib/x86_64-linux-gnu` and `usr/lib/x86_64-linux-gnu` (after the machine's architecture), those there are. */
async function libraryFolders(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const parent of [join(root, 'lib'), join(root, 'usr', 'lib')]) {
    const names = await readdir(parent).catch(() => []);
    found.push(...names.filter((name) => /-linux-gnu\w*$/.test(name)).map((name) => join(parent, name)));
  }
  return found;
}
