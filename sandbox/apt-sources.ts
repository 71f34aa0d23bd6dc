import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A place that this machine's apt takes packages from. */
export interface AptSource {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** The file of keys that its packages are signed with, if it names one. */
  readonly signedBy: string | undefined;
}

/** Parses the one-line format of sources.list(5): `deb [signed-by=FILE] URI SUITE COMPONENT…`. */
export function parseOneLineSources(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split('\n')) {
    const fields = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)/.exec(line);
    if (!fields) continue;
    const [, options = '', uri = '', suite = '', components = ''] = fields;
    const signedBy = /(?:^|\s)signed-by=(\S+)/.exec(options)?.[1];
    sources.push({ uri, suites: [suite], components: words(components), signedBy });
  }
  return sources;
}

/** Parses the deb822 format of sources.list(5): stanzas of `Field: value`, values going on in indented lines. */
export function parseDeb822Sources(text: string): AptSource[] {
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  return lines
    .join('\n')
    .split(/\n\s*\n/)
    .flatMap((stanza) => {
      const fields = new Map<string, string>();
      for (const field of stanza.replaceAll(/\n[ \t]+/g, ' ').split('\n')) {
        const [, name, value] = /^([\w-]+)\s*:\s*(.*)$/.exec(field) ?? [];
        if (name !== undefined && value !== undefined) fields.set(name.toLowerCase(), value.trim());
      }
      const all = (name: string): string[] => words(fields.get(name) ?? '');
      if (!all('types').includes('deb') || /^(no|false|0|off|without|disable)$/i.test(fields.get('enabled') ?? ''))
        return [];
      // Signed-By may hold the keys themselves instead of the name of a file.
      const signedBy = all('signed-by').find((word) => word.startsWith('/'));
      return all('uris').map((uri) => ({ uri, suites: all('suites'), components: all('components'), signedBy }));
    });
}

/** The apt sources of this machine, those of the distribution's own files first. */
export async function aptSources(): Promise<AptSource[]> {
  const parts = '/etc/apt/sources.list.d';
  const names = (await readdir(parts).catch(() => [])).sort((a, b) => rank(a) - rank(b));
  const sources: AptSource[] = [];
  for (const file of ['/etc/apt/sources.list', ...names.map((name) => join(parts, name))]) {
    const text = await readFile(file, 'utf8').catch(() => '');
    if (file.endsWith('.sources')) sources.push(...parseDeb822Sources(text));
    else if (file.endsWith('.list')) sources.push(...parseOneLineSources(text));
  }
  return sources;
}

function rank(name: string): number {
  return name === 'debian.sources' ? 0 : 1;
}

/**
 * The lines of a sources.list for `suite` at each of the Debian mirrors among `sources`, the likeliest first. A mirror is
 * told from other vendors' archives by its carrying the release that this machine runs.
 */
export function mirrorLines(sources: readonly AptSource[], release: string, suite: string): string[] {
  const lines = sources
    .filter(({ suites, components }) => suites.includes(release) && components.includes('main'))
    .map(({ uri, signedBy }) => {
      const keys = signedBy ?? keyrings.find((file) => existsSync(file));
      return `deb ${keys === undefined ? '' : `[signed-by=${keys}] `}${uri} ${suite} main`;
    });
  return [...new Set(lines)];
}

const keyrings = ['/usr/share/keyrings/debian-archive-keyring.pgp', '/usr/share/keyrings/debian-archive-keyring.gpg'];

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
