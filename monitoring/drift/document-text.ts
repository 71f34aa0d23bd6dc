/** JSON in one form for all engines: members in order of their names, no spaces, numbers as plain decimals. */
import { plainDecimal } from './canonical-text.ts';

const TOKEN = /\s*(?:([{}[\],:])|("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null))/gy;

/**
 * The canonical text of a document. Numbers keep all their digits, which JSON.parse would not. Of members with one name
 * the last counts, as in jsonb and MySQL. A text that is no document (json of MariaDB may hold one) stays as it is.
 */
export function canonicalDocument(text: string): string {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text))
    if (match[3] !== undefined) tokens.push(plainDecimal(match[3]));
    else if (match[2] !== undefined) tokens.push(JSON.stringify(JSON.parse(match[2])));
    else tokens.push(match[1] ?? match[4]!);
  return readValue(tokens, { at: 0 });
}

function readValue(tokens: readonly string[], reader: { at: number }): string {
  const token = tokens[reader.at++]!;
  if (token === '[') {
    const items: string[] = [];
    while (tokens[reader.at] !== ']') {
      items.push(readValue(tokens, reader));
      if (tokens[reader.at] === ',') reader.at++;
    }
    reader.at++;
    return `[${items.join(',')}]`;
  }
  if (token === '{') {
    const members = new Map<string, string>();
    while (tokens[reader.at] !== '}') {
      const name = tokens[reader.at]!;
      reader.at += 2;
      members.set(name, readValue(tokens, reader));
      if (tokens[reader.at] === ',') reader.at++;
    }
    reader.at++;
    const sorted = [...members].sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${sorted.map(([name, value]) => `${name}:${value}`).join(',')}}`;
  }
  return token;
}
