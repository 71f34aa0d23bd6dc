/** QUERY events: the statement, its default database, and the character set it was sent in. */
import type { ByteReader } from './byte-reader.ts';
import { decodeText, type Charsets } from './charset.ts';
import { inflateEvent } from './compression.ts';

export interface QueryText {
  readonly schema: string;
  readonly sql: string;
}

/** Status variables in front of the character set's, with their sizes (mysql-server `Query_event`). */
const FLAGS2 = 0;
const SQL_MODE = 1;
const CATALOG = 2;
const AUTO_INCREMENT = 3;
const CHARSET = 4;
const CATALOG_NZ = 6;

/** Fixed fields in front of the status variables: thread, time, length of the schema's name, error, their own length. */
const HEAD_BYTES = 13;
const BEGIN = Buffer.from('BEGIN', 'latin1');

/** Whether a QUERY event says `BEGIN` as the servers write it, which is asked for every transaction. */
export function isBegin(buffer: Buffer, start: number, end: number): boolean {
  const from = end - BEGIN.length;
  // Nothing else ends there with a byte of zero before the statement: it parts it from the schema's name.
  const before = HEAD_BYTES + 1;
  if (from - start < before) return false;
  const statusBytes = buffer[start + 11]! | (buffer[start + 12]! << 8);
  if (from !== start + before + statusBytes + buffer[start + 8]!) return false;
  for (let i = 0; i < BEGIN.length; i++) if (buffer[from + i] !== BEGIN[i]) return false;
  return true;
}

/** Decodes QUERY and MariaDB's QUERY_COMPRESSED. */
export function decodeQuery(reader: ByteReader, charsets: Charsets, compressed: boolean): QueryText {
  reader.skip(8);
  const schemaBytes = reader.uint8();
  reader.skip(2);
  const statusBytes = reader.uint16();
  const statusEnd = reader.at + statusBytes;
  const collation = clientCollation(reader, statusEnd);
  reader.skip(statusEnd - reader.at);
  const schema = reader.text(schemaBytes);
  reader.skip(1);
  let sql = reader.bytes(reader.left);
  if (compressed) sql = inflateEvent(sql);
  if (collation === undefined || isPlainAscii(sql)) return { schema, sql: sql.toString('utf8') };
  return { schema, sql: decodeText(charsets.of(collation, 'a logged statement'), sql) };
}

/** The collation of `character_set_client`, where the event says it. */
function clientCollation(reader: ByteReader, end: number): number | undefined {
  while (reader.at < end) {
    switch (reader.uint8()) {
      case FLAGS2:
        reader.skip(4);
        break;
      case SQL_MODE:
        reader.skip(8);
        break;
      case CATALOG:
        reader.skip(reader.uint8() + 1);
        break;
      case AUTO_INCREMENT:
        reader.skip(4);
        break;
      case CATALOG_NZ:
        reader.skip(reader.uint8());
        break;
      case CHARSET:
        return reader.uint16();
      default:
        // Variables are written in a fixed order, and those behind the character set do not matter here.
        return undefined;
    }
  }
  return undefined;
}

function isPlainAscii(bytes: Buffer): boolean {
  for (const byte of bytes) if (byte >= 0x80) return false;
  return true;
}
