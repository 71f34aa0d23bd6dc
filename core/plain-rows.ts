/**
 * Rows of a frame as `decodeFrame` gives them, read character by character where they are laid out as `FrameWriter` does it,
 * in ASCII without an escape. `JSON.parse` looks up each short text among all texts that it ever met, and puts new ones among
 * the old objects: of updates, most of whose texts are known already and gone at once, that was a third of a transform's time.
 */
import type { BeforeKind, Op, RowChange, TableSchema, Value } from './frame.ts';

const QUOTE = 0x22;
const COMMA = 0x2c;
const ZERO = 0x30;
const NINE = 0x39;
const OPEN = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE = 0x5d;
const LOWER_N = 0x6e;
/** A longer part of a text is no text of its own: it would keep all of it. */
const OWN_TEXT_CHARS = 12;

/** The rows in `bytes[from, to)`, commas between them; undefined where one of them is laid out in another way. */
export function plainRows(
  bytes: Buffer,
  from: number,
  to: number,
  tables: readonly TableSchema[],
): RowChange[] | undefined {
  const text = bytes.toString('latin1', from, to);
  const rows: RowChange[] = [];
  let at = 0;
  let known = -1;
  let blank: readonly Value[] = [];
  for (;;) {
    // `["u",12,`
    if (text.charCodeAt(at) !== OPEN || text.charCodeAt(at + 1) !== QUOTE || text.charCodeAt(at + 3) !== QUOTE)
      return undefined;
    const op = text[at + 2] as Op;
    at += 5;
    let index = 0;
    let digit = text.charCodeAt(at);
    while (digit >= ZERO && digit <= NINE) {
      index = index * 10 + digit - ZERO;
      digit = text.charCodeAt(++at);
    }
    const table = tables[index];
    if (digit !== COMMA || table === undefined) return undefined;
    if (index !== known) {
      known = index;
      blank = table.columns.map(() => null);
    }
    at += 1;
    let after: Value[] | null = null;
    let before: Value[] | undefined;
    let kind: BeforeKind | undefined;
    // The image, and the one before it where there is one.
    for (;;) {
      if (text.charCodeAt(at) !== OPEN) return undefined;
      const image = blank.slice();
      let count = 0;
      do {
        at += 1;
        const first = text.charCodeAt(at);
        if (first === QUOTE) {
          const start = at + 1;
          let end = start;
          let code = text.charCodeAt(end);
          while (code !== QUOTE) {
            // At the end of the text there is no number, which is in no order either.
            if (!(code >= 0x20 && code <= 0x7e) || code === BACKSLASH) return undefined;
            code = text.charCodeAt(++end);
          }
          image[count] =
            end - start > OWN_TEXT_CHARS ? bytes.toString('latin1', from + start, from + end) : text.slice(start, end);
          at = end + 1;
        } else if (first === LOWER_N && text.startsWith('null', at)) at += 4;
        else if (first === ZERO) {
          image[count] = 0;
          at += 1;
        } else return undefined;
        count += 1;
      } while (text.charCodeAt(at) === COMMA);
      if (count !== blank.length || text.charCodeAt(at) !== CLOSE) return undefined;
      at += 1;
      if (kind !== undefined) {
        before = image;
        break;
      }
      after = image;
      if (text.charCodeAt(at) !== COMMA) break;
      // `,"k",`
      const letter = text[at + 2];
      if (text.charCodeAt(at + 1) !== QUOTE || (letter !== 'k' && letter !== 'f')) return undefined;
      if (text.charCodeAt(at + 3) !== QUOTE || text.charCodeAt(at + 4) !== COMMA) return undefined;
      kind = letter;
      at += 5;
    }
    if (text.charCodeAt(at) !== CLOSE) return undefined;
    rows.push(kind === undefined ? [op, index, after] : [op, index, after, kind, before!]);
    at += 1;
    if (at === text.length) return rows;
    if (text.charCodeAt(at) !== COMMA) return undefined;
    at += 1;
  }
}
