/** Reads rows through COPY, so that no more of them is held than a buffer. */
import type pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/** Yields the rows of a query, each column as text or null. */
export async function* copyRows(client: pg.Client, sql: string): AsyncGenerator<(string | null)[], void, void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const data of client.query(copyTo(`copy (${sql}) to stdout`))) {
    const chunk = rest.length === 0 ? (data as Buffer) : Buffer.concat([rest, data as Buffer]);
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      yield parseLine(chunk.toString('utf8', start, end));
      start = end + 1;
    }
    rest = Buffer.from(chunk.subarray(start));
  }
}

function parseLine(line: string): (string | null)[] {
  return line.split('\t').map((field) => {
    if (field === String.raw`\N`) return null;
    if (!field.includes('\\')) return field;
    return field.replaceAll(/\\(.)/gsu, (_, char: string) => ESCAPES[char] ?? char);
  });
}
