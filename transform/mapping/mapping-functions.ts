/** The module beside a mapping whose functions `call` may use. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { messageOf, ReplicationError } from '../../core/errors.ts';
import type { MappingFunction } from './evaluate.ts';
import type { Mapping } from './mapping-file.ts';

/** Where the module of a mapping is; undefined where it has none. */
export function functionsPath(mapping: Mapping): string | undefined {
  if (mapping.functions === undefined) return undefined;
  const written = resolve(dirname(mapping.place), mapping.functions);
  // A built installation has the module as JavaScript beside the mapping.
  return existsSync(written) ? written : written.replace(/\.ts$/, '.js');
}

/**
 * Loads the functions that a mapping's module exports. The path is relative to the mapping file. A module of TypeScript
 * needs a Node that strips types (22.18 on); else give its JavaScript. Throws `mapping_invalid`.
 */
export async function loadFunctions(mapping: Mapping): Promise<ReadonlyMap<string, MappingFunction>> {
  const path = functionsPath(mapping);
  if (path === undefined) return new Map();
  let exported: Record<string, unknown>;
  try {
    // Node keeps a module by its address, also when its text has changed.
    const url = pathToFileURL(path);
    url.searchParams.set('text', createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16));
    exported = (await import(url.href)) as Record<string, unknown>;
  } catch (cause) {
    throw new ReplicationError(
      'mapping_invalid',
      `${mapping.place}:${mapping.lineOf(['functions'])}: cannot load ${mapping.functions}: ${messageOf(cause)}`,
      { cause },
    );
  }
  return new Map(
    Object.entries(exported).filter((entry): entry is [string, MappingFunction] => typeof entry[1] === 'function'),
  );
}
