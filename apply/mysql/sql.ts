/** Quoting for SQL text. The session runs with NO_BACKSLASH_ESCAPES, so only the quote itself is special. */

export function quoteName(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}

export function quoteLiteral(text: string): string {
  return text.includes("'") ? `'${text.replaceAll("'", "''")}'` : `'${text}'`;
}

export function quoteNullable(text: string | null): string {
  return text === null ? 'NULL' : quoteLiteral(text);
}

export function qualifiedName(schema: string, name: string): string {
  return `${quoteName(schema)}.${quoteName(name)}`;
}

const ESCAPED: Readonly<Record<string, string>> = { n: '\n', r: '\r', '0': '\0', Z: '\u001a' };

/** A COLUMN_TYPE as this session reads it: the server prints labels of enums and sets with backslash escapes. */
export function typeForDdl(columnType: string): string {
  return columnType.replaceAll(/\\(.)/gs, (_, char: string) => ESCAPED[char] ?? char);
}

/**
 * A DELETE that foreign keys do not stop, whatever the order in which it comes by the rows. Nothing that stays may refer to
 * what it takes away. The setting is of this one statement, whether it fails or not.
 */
export function uncheckedDelete(sql: string, flavour: 'mysql' | 'mariadb'): string {
  return flavour === 'mariadb'
    ? `SET STATEMENT foreign_key_checks = 0 FOR ${sql}`
    : sql.replace(/^DELETE /, 'DELETE /*+ SET_VAR(foreign_key_checks=OFF) */ ');
}
