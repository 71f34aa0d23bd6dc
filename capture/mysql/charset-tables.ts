/** Asks the server which collation belongs to which character set, and what the bytes of each set mean. */
import type { Flavour } from './binlog-handler.ts';
import { Charsets, type CharsetTable } from './charset.ts';

/** Runs a query and gives its rows as texts. */
export type TextQuery = (sql: string) => Promise<readonly (readonly (string | null)[])[]>;

const COLLATIONS: Readonly<Record<Flavour, string>> = {
  mysql: 'SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS',
  // Collations of the Unicode algorithm exist once for several sets there: their ids stand in the other view only.
  mariadb: `SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL
    UNION SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY`,
};
/** Sets that need no table: they are Unicode, or no text. */
const UNICODE = "'binary', 'ascii', 'utf8', 'utf8mb3', 'utf8mb4', 'ucs2', 'utf16', 'utf16le', 'utf32'";
const SETS = `SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS
  WHERE CHARACTER_SET_NAME NOT IN (${UNICODE})`;
/** Ends every sequence that is asked about, so that an invalid one does not take the next with it. */
const NEWLINE = '0a';
const QUESTION_MARK = '3f';
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

type Range = readonly [first: number, last: number];

/** Ranges of the bytes of a sequence, one list a byte. */
type Shape = readonly (readonly Range[])[];

const ASCII: Shape = [[[0, 0x7f]]];
const ALL_BYTES: Shape = [[[0, 0xff]]];
const HIGH: Range = [0xa1, 0xfe];
const GBK: readonly Shape[] = [
  ASCII,
  [
    [[0x81, 0xfe]],
    [
      [0x40, 0x7e],
      [0x80, 0xfe],
    ],
  ],
];
const SJIS: readonly Shape[] = [
  ASCII,
  [[[0xa1, 0xdf]]],
  [
    [
      [0x81, 0x9f],
      [0xe0, 0xfc],
    ],
    [
      [0x40, 0x7e],
      [0x80, 0xfc],
    ],
  ],
];
const EUC_JAPAN: readonly Shape[] = [
  ASCII,
  [[HIGH], [HIGH]],
  [[[0x8e, 0x8e]], [[0xa1, 0xdf]]],
  [[[0x8f, 0x8f]], [HIGH], [HIGH]],
];
/** The sequences that are well-formed: the server answers NULL when a single one of a text is not. */
const SHAPES: Readonly<Record<string, readonly Shape[]>> = {
  sjis: SJIS,
  cp932: SJIS,
  ujis: EUC_JAPAN,
  eucjpms: EUC_JAPAN,
  gbk: GBK,
  gb18030: GBK,
  gb2312: [ASCII, [[[0xa1, 0xf7]], [HIGH]]],
  big5: [
    ASCII,
    [
      [[0xa1, 0xf9]],
      [
        [0x40, 0x7e],
        [0xa1, 0xfe],
      ],
    ],
  ],
  euckr: [
    ASCII,
    [
      [[0x81, 0xfe]],
      [
        [0x41, 0x5a],
        [0x61, 0x7a],
        [0x81, 0xfe],
      ],
    ],
  ],
};

/** Tables are the same for all servers of a version, and are read once a process for each. */
const known = new Map<string, Promise<Charsets>>();

/** Reads the character sets that columns of this server may have. Throws what `query` throws. */
export async function loadCharsets(query: TextQuery, flavour: Flavour): Promise<Charsets> {
  const [[version] = []] = await query('SELECT VERSION()');
  const key = `${flavour} ${version}`;
  const loading = known.get(key) ?? load(query, flavour);
  known.set(key, loading);
  try {
    return await loading;
  } catch (thrown) {
    known.delete(key);
    throw thrown;
  }
}

async function load(query: TextQuery, flavour: Flavour): Promise<Charsets> {
  const collations = new Map<number, string>();
  for (const [id, name] of await query(COLLATIONS[flavour])) collations.set(Number(id), name!);
  const tables = new Map<string, () => CharsetTable>();
  for (const [name, longest] of await query(SETS))
    if (longest === '1' || SHAPES[name!] !== undefined) tables.set(name!, await askTable(query, name!));
  return new Charsets(collations, tables);
}

/** Asks what the sequences of a set mean; the answer is read when a column first has the set, which most never have. */
async function askTable(query: TextQuery, name: string): Promise<() => CharsetTable> {
  const [[hex] = []] = await query(`SELECT HEX(CONVERT(CONVERT(X'${questionOf(name)}' USING ${name}) USING utf8mb4))`);
  return () => readTable(name, hex ?? '');
}

function shapesOf(name: string): readonly Shape[] {
  return SHAPES[name] ?? [ALL_BYTES];
}

/** All sequences of a set in hexadecimal, each ended. */
function questionOf(name: string): string {
  return [...shapesOf(name).flatMap(sequences), ''].join(NEWLINE);
}

function readTable(name: string, hex: string): CharsetTable {
  const answers = Buffer.from(hex, 'hex').toString('utf8').split('\n');
  const table = new Map<number, string>([[Number.parseInt(NEWLINE, 16), '\n']]);
  for (const [index, code] of shapesOf(name).flatMap(sequences).entries()) {
    const answer = answers[index];
    // The server puts question marks where bytes mean nothing, one or more.
    if (answer === undefined || Array.from(answer).length !== 1) continue;
    if (answer === '?' && code !== QUESTION_MARK) continue;
    table.set(Number.parseInt(code, 16), answer);
  }
  return table;
}

/** All sequences of a shape in hexadecimal, but for the newline that ends them. */
function sequences(shape: Shape): string[] {
  let codes = [''];
  for (const ranges of shape) {
    const bytes: string[] = [];
    for (const [first, last] of ranges) for (let byte = first; byte <= last; byte++) bytes.push(HEX[byte]!);
    codes = codes.flatMap((code) => bytes.map((byte) => code + byte));
  }
  return codes.filter((code) => code !== NEWLINE);
}
