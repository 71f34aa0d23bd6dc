/** LOAD DATA LOCAL: rows become text in pieces. MySQL Reference Manual, "LOAD DATA Statement", field and line handling. */
import type { Value } from '../../core/frame.ts';
import type { TablePlan } from './table-plan.ts';

const PIECE_CHARS = 64 * 1024;
const PIECE_BYTES = 256 * 1024;
const VERTICAL_TAB = Buffer.from(String.raw`\v`, 'latin1');
const FORM_FEED = Buffer.from(String.raw`\f`, 'latin1');
// oxlint-disable-next-line no-control-regex -- NUL is one of them
const SPECIAL = /[\\\t\n\0]/;
const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\0': '\\0' };

function loadField(text: string): string {
  // oxlint-disable-next-line no-control-regex -- NUL is one of them
  return SPECIAL.test(text) ? text.replace(/[\\\t\n\0]/g, (char) => ESCAPES[char]!) : text;
}

/** One line: `prefix` (empty or ending with a tab), then the given columns of the image. Throws `ValueMisfit`. */
export function loadLine(plan: TablePlan, columns: readonly number[], image: readonly Value[], prefix: string): string {
  let line = prefix;
  for (let i = 0; i < columns.length; i++) {
    const index = columns[i]!;
    const value = image[index];
    if (i > 0) line += '\t';
    if (typeof value !== 'string') {
      line += '\\N';
      continue;
    }
    const { convert } = plan.mappings[index]!;
    const text = convert === undefined ? value : convert(value);
    line += text === null ? '\\N' : loadField(text);
  }
  return `${line}\n`;
}

/** The statement that reads lines of `loadLine` into `into`; `first` names a column in front, or is empty. */
export function loadSql(plan: TablePlan, into: string, first: string): string {
  const fields: string[] = first === '' ? [] : [first];
  const sets: string[] = [];
  for (const index of plan.written) {
    const name = plan.names[index]!;
    const { carrier } = plan.mappings[index]!;
    if (carrier === 'text') {
      fields.push(name);
      continue;
    }
    fields.push(`@wb${index}`);
    sets.push(`${name} = ${carrier === 'base64' ? `FROM_BASE64(@wb${index})` : `CAST(@wb${index} AS UNSIGNED)`}`);
  }
  return (
    `LOAD DATA LOCAL INFILE 'waybill' INTO TABLE ${into} CHARACTER SET utf8mb4` +
    ' FIELDS TERMINATED BY 0x09 ESCAPED BY 0x5c LINES TERMINATED BY 0x0a' +
    ` (${fields.join(', ')})${sets.length === 0 ? '' : ` SET ${sets.join(', ')}`}`
  );
}

export function* loadPieces(lines: Iterable<string | Buffer>): Generator<Buffer> {
  let text = '';
  for (const line of lines) {
    if (typeof line === 'string') text += line;
    if (typeof line === 'string' && text.length < PIECE_CHARS) continue;
    if (text !== '') yield Buffer.from(text, 'utf8');
    text = '';
    if (typeof line !== 'string')
      for (let at = 0; at < line.length; at += PIECE_BYTES) yield line.subarray(at, at + PIECE_BYTES);
  }
  if (text !== '') yield Buffer.from(text, 'utf8');
}

/**
 * Whether LOAD DATA reads lines of COPY (docs/frame-format.md, "Lines") as they are meant: it knows no escape for vertical
 * tabs and form feeds.
 */
export function readsLines(lines: Buffer): boolean {
  return !lines.includes(VERTICAL_TAB) && !lines.includes(FORM_FEED);
}
