/**
 * Character sets of columns by collation id, and their transcoding to UTF-8. Which collation belongs to which character
 * set, and what the 256 bytes of each single-byte set mean, is asked of the server itself, so that the log is read
 * exactly as a SELECT would convert it.
 */
import { ReplicationError } from '../../core/errors.ts';
import type { FrameWriter } from '../../core/frame-writer.ts';

/** How the bytes of a character set become UTF-8. */
export type Charset = PlainCharset | SingleByteCharset | MultiByteCharset;

interface PlainCharset {
  readonly kind: 'utf8' | 'binary';
  readonly name: string;
}

interface SingleByteCharset {
  readonly kind: 'single';
  readonly name: string;
  /** For each byte its character as it stands inside a JSON string; undefined where the set has none. */
  readonly characters: readonly (Buffer | undefined)[];
}

interface MultiByteCharset {
  readonly kind: 'multi';
  readonly name: string;
  readonly decode: (bytes: Buffer) => string;
}

/** Character sets of the servers that are Unicode already. */
const UTF8 = new Set(['utf8', 'utf8mb3', 'utf8mb4', 'ascii']);
const UTF16: Readonly<Record<string, string>> = { ucs2: 'utf-16be', utf16: 'utf-16be', utf16le: 'utf-16le' };

/** Bytes of the longest character, of sets where that is not one (mysql-server, `mbmaxlen` in strings/ctype-*.cc). */
const MOST_BYTES: Readonly<Record<string, number>> = {
  big5: 2,
  cp932: 2,
  eucjpms: 3,
  euckr: 2,
  gb18030: 4,
  gb2312: 2,
  gbk: 2,
  sjis: 2,
  ucs2: 2,
  ujis: 3,
  utf16: 4,
  utf16le: 4,
  utf32: 4,
  utf8: 3,
  utf8mb3: 3,
  utf8mb4: 4,
};

/** What the byte sequences of a character set mean, by the number that their bytes make, big-endian. */
export type CharsetTable = ReadonlyMap<number, string>;

export class Charsets {
  readonly #names: ReadonlyMap<number, string>;
  readonly #tables: ReadonlyMap<string, () => CharsetTable>;
  /** Sets by name, built when a column first has one; undefined for one that cannot be read. */
  readonly #built = new Map<string, Charset | undefined>();

  /** `collations`: character set by collation id. `tables`: gives what the bytes of sets that are not Unicode mean. */
  constructor(collations: ReadonlyMap<number, string>, tables: ReadonlyMap<string, () => CharsetTable> = new Map()) {
    this.#names = collations;
    this.#tables = tables;
  }

  /** Bytes of the longest character of a collation's set. */
  mostBytes(collation: number): number {
    return MOST_BYTES[this.#names.get(collation) ?? ''] ?? 1;
  }

  /** The character set of a collation. Throws `source_encoding` for one that cannot be read, naming `column`. */
  of(collation: number, column: string): Charset {
    const name = this.#names.get(collation);
    const charset = name === undefined ? undefined : this.#named(name);
    if (charset !== undefined) return charset;
    throw new ReplicationError(
      'source_encoding',
      `${column} has ${name === undefined ? `the unknown collation ${collation}` : `the character set ${name}, which is not supported`}`,
    );
  }

  #named(name: string): Charset | undefined {
    if (!this.#built.has(name)) this.#built.set(name, build(name, this.#tables.get(name)));
    return this.#built.get(name);
  }
}

function build(name: string, readTable: (() => CharsetTable) | undefined): Charset | undefined {
  if (name === 'binary') return { kind: 'binary', name };
  if (UTF8.has(name)) return { kind: 'utf8', name };
  if (name === 'utf32') return { kind: 'multi', name, decode: decodeUtf32 };
  const utf16 = UTF16[name];
  if (utf16 !== undefined) {
    const decoder = new TextDecoder(utf16, { fatal: true, ignoreBOM: true });
    return { kind: 'multi', name, decode: (bytes) => decoder.decode(bytes) };
  }
  if (readTable === undefined) return undefined;
  const table = readTable();
  if ([...table.keys()].some((code) => code > 0xff))
    return { kind: 'multi', name, decode: (bytes) => decodeByTable(table, name, bytes) };
  const characters = Array.from({ length: 256 }, (_, byte) => {
    const character = table.get(byte);
    return character === undefined ? undefined : Buffer.from(JSON.stringify(character).slice(1, -1));
  });
  return { kind: 'single', name, characters };
}

/** Longest sequence first would be wrong for lead bytes that also stand alone; none does, so the shortest wins. */
function decodeByTable(table: CharsetTable, name: string, bytes: Buffer): string {
  let text = '';
  let at = 0;
  while (at < bytes.length) {
    let code = 0;
    let length = 0;
    let character: string | undefined;
    while (character === undefined && length < 4 && at + length < bytes.length) {
      code = code * 256 + bytes[at + length]!;
      length += 1;
      character = table.get(code);
    }
    if (character === undefined && name === 'gb18030' && length === 4) character = gb18030Character(bytes, at);
    if (character === undefined) throw new RangeError(`no character at byte ${at}`);
    text += character;
    at += length;
  }
  return text;
}

const gb18030 = new TextDecoder('gb18030', { fatal: true, ignoreBOM: true });

/** Sequences of four bytes follow a rule instead of a table of a million. */
function gb18030Character(bytes: Buffer, at: number): string {
  return gb18030.decode(bytes.subarray(at, at + 4));
}

function decodeUtf32(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4) text += String.fromCodePoint(bytes.readUInt32BE(at));
  return text;
}

/** Writes text of any character set as a JSON string. Throws `source_encoding` for bytes that the set does not have. */
export function writeCharset(writer: FrameWriter, charset: Charset, source: Buffer, start: number, end: number): void {
  if (charset.kind === 'utf8') writer.writeText(source, start, end);
  else if (charset.kind === 'binary') writer.writeBase64(source, start, end);
  else if (charset.kind === 'multi') writer.writeString(decodeMulti(charset, source.subarray(start, end)));
  else if (charset.kind === 'single') writeSingle(writer, charset.characters, charset.name, source, start, end);
}

/** The text of bytes of a character set. */
export function decodeText(charset: Charset, bytes: Buffer): string {
  if (charset.kind === 'multi') return decodeMulti(charset, bytes);
  if (charset.kind === 'single') {
    let json = '';
    for (const byte of bytes) json += (charset.characters[byte] ?? unmapped(charset.name, byte)).toString('utf8');
    return JSON.parse(`"${json}"`) as string;
  }
  return bytes.toString(charset.kind === 'utf8' ? 'utf8' : 'latin1');
}

function decodeMulti(charset: MultiByteCharset, bytes: Buffer): string {
  try {
    return charset.decode(bytes);
  } catch (cause) {
    throw new ReplicationError('source_encoding', `a value of ${bytes.length} bytes is not valid ${charset.name}`, {
      cause,
    });
  }
}

function writeSingle(
  writer: FrameWriter,
  characters: readonly (Buffer | undefined)[],
  name: string,
  source: Buffer,
  start: number,
  end: number,
): void {
  // A control character takes six bytes; a character beyond ASCII at most four.
  const out = writer.claim((end - start) * 6 + 2);
  let at = writer.bytes;
  out[at++] = 0x22;
  for (let i = start; i < end; i++) {
    const byte = source[i]!;
    const character = characters[byte] ?? unmapped(name, byte);
    for (let n = 0; n < character.length; n++) out[at++] = character[n]!;
  }
  out[at++] = 0x22;
  writer.moveTo(at);
}

function unmapped(name: string, byte: number): never {
  throw new ReplicationError('source_encoding', `byte 0x${byte.toString(16)} has no character in ${name}`);
}
