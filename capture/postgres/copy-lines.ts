/** COPY text format (PostgreSQL documentation, COPY, "Text Format"): lines of a chunk into rows of JSON. */
import { publishedRow, type PublishedTable } from './published-table.ts';

export interface CopyRow {
  /** The row as a JSON array, as frames carry it. */
  readonly json: Buffer;
  /** Values of the key columns as the source has them, unescaped, in key order. */
  readonly key: readonly string[];
}

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/** Parses one line without its line feed: a row of all columns of the table. */
export function parseCopyLine(line: string, table: Pick<PublishedTable, 'binary' | 'keyIndexes' | 'writes'>): CopyRow {
  const fields = line.split('\t');
  const values: (string | null)[] = fields.map((field) =>
    field === String.raw`\N` ? null : field.includes('\\') ? unescape(field) : field,
  );
  const key = table.keyIndexes.map((index) => values[index] ?? '');
  return { json: Buffer.from(JSON.stringify(publishedRow(table, values))), key };
}

function unescape(field: string): string {
  return field.replaceAll(/\\(.)/gsu, (_, char: string) => ESCAPES[char] ?? char);
}

/** Splits a stream of COPY data into lines; a line may span buffers. */
export class LineSplitter {
  #rest: Buffer[] = [];

  *push(chunk: Buffer): Generator<string> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, start);
      if (end < 0) break;
      if (this.#rest.length === 0) yield chunk.toString('utf8', start, end);
      else {
        yield Buffer.concat([...this.#rest, chunk.subarray(start, end)]).toString('utf8');
        this.#rest = [];
      }
      start = end + 1;
    }
    if (start < chunk.length) this.#rest.push(Buffer.from(chunk.subarray(start)));
  }
}
