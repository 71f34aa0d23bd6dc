import { ReplicationError } from './errors.ts';

/** Decides whether a table belongs to a source or flow, by its `tables` patterns. */
export type TableFilter = (schema: string, name: string) => boolean;

/**
 * Compiles `tables` patterns: `schema.name` with `*` for any run of characters, a leading `!` to take tables out
 * again; the last pattern that matches decides. Throws `config_invalid` on a pattern without a schema.
 */
export function compileTablePatterns(patterns: readonly string[]): TableFilter {
  const rules = patterns.map((text) => {
    const negated = text.startsWith('!');
    const body = negated ? text.slice(1) : text;
    const dot = body.indexOf('.');
    if (dot <= 0 || dot === body.length - 1)
      throw new ReplicationError('config_invalid', `table pattern "${text}" must have the form schema.table`);
    return { negated, schema: globToRegExp(body.slice(0, dot)), name: globToRegExp(body.slice(dot + 1)) };
  });
  return (schema, name) => {
    let included = false;
    for (const rule of rules) if (rule.schema.test(schema) && rule.name.test(name)) included = !rule.negated;
    return included;
  };
}

/** A pattern with `*` for any run of characters, as a regular expression for whole texts. */
export function globToRegExp(glob: string): RegExp {
  const escaped = glob.replace(/[.+?^${}()|[\]\\]/g, String.raw`\$&`).replaceAll('*', '.*');
  return new RegExp(`^${escaped}$`, 'su');
}
