/** Lines of COPY's text format (PostgreSQL documentation, COPY, "Text Format"), without their line feeds, as rows of frames. */

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const TAB = 0x09;
const UPPER_N = 0x4e;
const LOWER_V = 0x76;
const SPACE = 0x20;
/** What may follow a backslash in COPY and means the same in JSON. */
const SAME_IN_JSON = new Set(Buffer.from('bfnrt\\', 'latin1'));
const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
const NULL = Buffer.from('null', 'latin1');
const CONTROLS = Array.from({ length: SPACE }, (_, code) =>
  Buffer.from(`\\u00${code.toString(16).padStart(2, '0')}`, 'latin1'),
);
/** What a byte may become at most: `\u0001`. */
const MOST_BYTES = 6;
/** Of more than this the bytes are counted: six times as much may be more than a buffer holds. */
const LARGE_BYTES = 16 << 20;

/** Bytes that lines may take as JSON at most. */
export function mostJsonBytes(lines: Uint8Array): number {
  if (lines.length <= LARGE_BYTES) return (lines.length + 1) * MOST_BYTES;
  let most = lines.length + MOST_BYTES;
  for (const byte of lines) {
    if (byte === QUOTE) most += 1;
    // A tab becomes quotes around a comma.
    else if (byte < SPACE || byte === BACKSLASH) most += MOST_BYTES - 1;
  }
  return most;
}

/** The values of a line. */
export function parseCopyLine(line: string): (string | null)[] {
  return line.split('\t').map(copyFieldValue);
}

/** A field's text; null for the mark of NULL. */
export function copyFieldValue(field: string): string | null {
  if (field === String.raw`\N`) return null;
  return field.includes('\\') ? field.replaceAll(/\\(.)/gsu, (_, char: string) => ESCAPES[char] ?? char) : field;
}

/**
 * Writes the line `source[start, end)` at `buffer[to]` as a JSON array of texts and nulls; gives the offset behind it.
 * There must be room for `mostJsonBytes`.
 */
export function writeLineAsJson(source: Buffer, start: number, end: number, buffer: Buffer, offset: number): number {
  let to = offset;
  let at = start;
  buffer[to++] = OPEN;
  for (;;) {
    const next = at + 2;
    if (
      source[at] === BACKSLASH &&
      source[at + 1] === UPPER_N &&
      (next === end || source[next] === TAB) &&
      next <= end
    ) {
      to += NULL.copy(buffer, to);
      at = next;
    } else {
      buffer[to++] = QUOTE;
      for (; at < end; at++) {
        const byte = source[at]!;
        if (byte >= SPACE && byte !== QUOTE && byte !== BACKSLASH) buffer[to++] = byte;
        else if (byte === TAB) break;
        else if (byte === BACKSLASH) to = writeEscape(buffer, to, source[++at]!);
        else to = writeByte(buffer, to, byte);
      }
      buffer[to++] = QUOTE;
    }
    if (at === end) break;
    buffer[to++] = COMMA;
    at += 1;
  }
  buffer[to++] = CLOSE;
  return to;
}

/** What stands behind a backslash. */
function writeEscape(buffer: Buffer, to: number, byte: number): number {
  if (byte === LOWER_V) return writeByte(buffer, to, 0x0b);
  if (!SAME_IN_JSON.has(byte)) return writeByte(buffer, to, byte);
  buffer[to] = BACKSLASH;
  buffer[to + 1] = byte;
  return to + 2;
}

function writeByte(buffer: Buffer, to: number, byte: number): number {
  if (byte < SPACE) return to + CONTROLS[byte]!.copy(buffer, to);
  if (byte === QUOTE) buffer[to++] = BACKSLASH;
  buffer[to] = byte;
  return to + 1;
}
