/** What is loaded before a command has read its configuration: users and tests wait for it at each start. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');

/** Static imports and re-exports of values: those of types alone are not there at run time. */
const IMPORT = /^(?:import|export)\s+(?!type\b)(?:[^;'"]*?\bfrom\s+)?'([^']+)'/gm;

/** What a module loads, and what that loads in turn: packages by name, and files of the repository. */
function loadedBy(entry: string): { packages: string[]; files: string[] } {
  const files = new Set<string>();
  const packages = new Set<string>();
  const visit = (file: string): void => {
    if (files.has(file)) return;
    files.add(file);
    for (const [, specifier] of readFileSync(file, 'utf8').matchAll(IMPORT))
      if (specifier!.startsWith('.')) visit(join(dirname(file), specifier!));
      else if (!specifier!.startsWith('node:')) packages.add(specifier!);
  };
  visit(join(ROOT, entry));
  return { packages: [...packages].toSorted(), files: [...files].map((file) => file.slice(ROOT.length + 1)) };
}

const commands = readdirSync(join(ROOT, 'cli/commands')).filter((name) => name.endsWith('.ts'));

describe('what is loaded', () => {
  it('for the version, for help and for wrong usage: no more than what reads the command line', () => {
    expect(loadedBy('cli/main.ts').packages).toEqual([]);
    expect(loadedBy('cli/program.ts').packages).toEqual(['commander']);
  });

  it('for a check of a configuration that is wrong: what reads it', () => {
    expect(loadedBy('cli/commands/check.ts').packages).toEqual(['yaml', 'zod']);
  });

  it.each(commands)('for %s: no client of a database before it is known which there are', (name) => {
    const { packages } = loadedBy(`cli/commands/${name}`);
    for (const client of ['pg', 'pg-logical-replication', 'pg-copy-streams', 'mysql2', 'mysql2/promise'])
      expect(packages).not.toContain(client);
  });

  it('for stages: not what watches others, unless it is one of them', () => {
    const { files } = loadedBy('cli/commands/run.ts');
    expect(files.filter((file) => /^(?:cli\/console|monitoring\/(?:console|alerts))\//.test(file))).toEqual([]);
  });

  it('for one kind of database: not the client of the other', () => {
    for (const entry of ['capture/postgres/capture.ts', 'capture/postgres/preflight.ts', 'apply/postgres/target.ts'])
      expect(loadedBy(entry).packages).not.toContain('mysql2');
    for (const entry of ['capture/mysql/capture.ts', 'capture/mysql/preflight.ts', 'apply/mysql/target.ts'])
      expect(loadedBy(entry).packages).not.toContain('pg');
  });
});
