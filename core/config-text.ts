/** The text of the configuration: YAML, with variables of the environment and secrets from files put in. */
import { readFileSync } from 'node:fs';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { isSecretName } from './config-json-schema.ts';
import { ReplicationError } from './errors.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** What a file says. Throws `config_invalid` with the place of what is no YAML, and none of its text, which may hold secrets. */
export function readYaml(text: string, place: string): unknown {
  try {
    return parseYaml(text, { prettyErrors: false, logLevel: 'error' });
  } catch (cause) {
    if (cause instanceof YAMLParseError) {
      const before = text.slice(0, cause.pos[0]).split('\n');
      const where = `line ${before.length}, column ${before.at(-1)!.length + 1}`;
      throw new ReplicationError(
        'config_invalid',
        `${place} is not YAML: ${cause.message.replace(/: .*$/s, '')}, at ${where}`,
      );
    }
    if (!(cause instanceof ReferenceError)) throw cause;
    throw new ReplicationError(
      'config_invalid',
      `${place} is not YAML: it refers (*name) to an anchor (&name) that it does not have; quote a text that begins with *`,
    );
  }
}

/** Puts in environment variables and the contents of `…_file` secrets; collects what is missing. */
export function expand(value: unknown, path: string, environment: Environment, problems: string[]): unknown {
  if (typeof value === 'string')
    return value.replaceAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g, (_, key: string, fallback?: string) => {
      const found = environment[key];
      if (found !== undefined && found !== '') return found;
      if (fallback !== undefined) return fallback;
      problems.push(`${path}: environment variable ${key} is not set`);
      return '';
    });
  if (Array.isArray(value)) return value.map((item, index) => expand(item, `${path}[${index}]`, environment, problems));
  if (value === null || typeof value !== 'object') return value;
  const result: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const at = path === '' ? key : `${path}.${key}`;
    const expandedItem = expand(item, at, environment, problems);
    const secret = /^(.+)_file$/.exec(key)?.[1];
    if (secret === undefined || !isSecretName(secret) || typeof expandedItem !== 'string') {
      result[key] = expandedItem;
      continue;
    }
    if (Object.hasOwn(value, secret)) problems.push(`${at}: ${secret} is given as well; one of the two`);
    try {
      result[secret] = readFileSync(expandedItem, 'utf8').trim();
    } catch {
      problems.push(`${at}: cannot read ${expandedItem}`);
      result[secret] = 'unread';
    }
  }
  return result;
}
