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
