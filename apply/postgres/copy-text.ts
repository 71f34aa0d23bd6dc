/** COPY in text format: rows become text in pieces, written no faster than the server takes them. */
import { pipeline } from 'node:stream/promises';
import type { ClientBase } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { Value } from '../../core/frame.ts';
import { byteaText } from './sql.ts';
import type { TablePlan } from './table-plan.ts';

const PIECE_CHARS = 64 * 1024;
const SPECIAL = /[\\\t\n\r]/;
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };

export function copyField(text: string): string {
  return SPECIAL.test(text) ? text.replace(/[\\\t\n\r]/g, (char) => ESCAPES[char]!) : text;
}

/** One line: `prefix` (empty or ending with a tab), then the given columns of the image. */
export function copyLine(plan: TablePlan, columns: readonly number[], image: readonly Value[], prefix: string): string {
  let line = prefix;
  for (let i = 0; i < columns.length; i++) {
    const index = columns[i]!;
    const value = image[index];
    if (i > 0) line += '\t';
    if (typeof value !== 'string') line += '\\N';
    else if (plan.bytea[index] === true) line += `\\${byteaText(value)}`;
    else if (plan.convert[index] === undefined) line += copyField(value);
    else {
      const text = plan.convert[index](value);
      line += text === null ? '\\N' : copyField(text);
    }
  }
  return `${line}\n`;
}

/** Sends lines to `COPY … FROM STDIN`. */
export async function copyLines(client: ClientBase, sql: string, lines: Iterable<string>): Promise<void> {
  await pipeline(pieces(lines), client.query(copyFrom(sql)));
}

function* pieces(lines: Iterable<string>): Generator<Buffer> {
  let text = '';
  for (const line of lines) {
    text += line;
    if (text.length < PIECE_CHARS) continue;
    yield Buffer.from(text, 'utf8');
    text = '';
  }
  if (text !== '') yield Buffer.from(text, 'utf8');
}
