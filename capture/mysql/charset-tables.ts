/** Asks the server which collation belongs to which character set, and what the bytes of each single-byte set mean. */
import { Charsets } from './charset.ts';
import type { Flavour } from './binlog-handler.ts';

/** Runs a query and gives its rows as texts. */
export type TextQuery = (sql: string) => Promise<readonly (readonly (string | null)[])[]>;

const COLLATIONS: Readonly<Record<Flavour, string>> = {
  mysql: 'SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS',
  // Collations of the Unicode algorithm exist once for several sets there: their ids stand in the other view only.
  mariadb: `SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL
    UNION SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY`,
};
const SINGLE_BYTE = `SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS
  WHERE MAXLEN = 1 AND CHARACTER_SET_NAME NOT IN ('binary', 'ascii')`;
const ALL_BYTES = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0')).join('');
const QUESTION_MARK = 0x3f;

/** Reads the character sets that columns of this server may have. Throws what `query` throws. */
export async function loadCharsets(query: TextQuery, flavour: Flavour): Promise<Charsets> {
  const collations = new Map<number, string>();
  for (const [id, name] of await query(COLLATIONS[flavour])) collations.set(Number(id), name!);
  const names = (await query(SINGLE_BYTE)).map(([name]) => name!);
  const columns = names.map((name) => `HEX(CONVERT(CONVERT(X'${ALL_BYTES}' USING ${name}) USING utf32))`);
  const [row] = names.length === 0 ? [[]] : await query(`SELECT ${columns.join(', ')}`);
  const tables = new Map<string, (string | undefined)[]>();
  for (const [index, name] of names.entries()) tables.set(name, parseTable(row?.[index] ?? ''));
  return new Charsets(collations, tables);
}

/** 256 characters as UTF-32; the server puts a question mark where a byte means nothing. */
function parseTable(hex: string): (string | undefined)[] {
  const bytes = Buffer.from(hex, 'hex');
  return Array.from({ length: 256 }, (_, byte) => {
    if (bytes.length !== 1024) return undefined;
    const point = bytes.readUInt32BE(byte * 4);
    return point === QUESTION_MARK && byte !== QUESTION_MARK ? undefined : String.fromCodePoint(point);
  });
}
