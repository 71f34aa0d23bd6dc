/** Quoting for SQL text. The session runs with `standard_conforming_strings` on, so only the quote itself is special. */

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
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

/** A base64 value of a frame as the hexadecimal text that bytea reads. */
export function byteaText(base64: string): string {
  return `\\x${Buffer.from(base64, 'base64').toString('hex')}`;
}
