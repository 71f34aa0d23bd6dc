/**
 * Changes that are larger than a statement may be (max_allowed_packet): `waybill.quarantine_piece` has their text in pieces,
 * and `waybill.quarantine` an empty one. Nothing puts them together on the server: its functions have the same limit.
 */
import type { QuarantinedChange } from '../quarantine-entry.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { waybillTables } from './waybill-database.ts';

/** Characters of a statement, as a part of max_allowed_packet: each takes up to four bytes, and quotes are doubled. */
const PART_OF_PACKET = 16;

/** The text for `waybill.quarantine`, and the statements behind that which store what is left of it. */
export function storedInPieces(json: string, maxPacketBytes: number): { text: string; pieces: string[] } {
  const most = Math.floor(maxPacketBytes / PART_OF_PACKET);
  if (json.length <= most) return { text: json, pieces: [] };
  const pieces: string[] = [];
  for (let at = 0; at < json.length;) {
    let end = Math.min(at + most, json.length);
    // A character of two units stays in one piece.
    if (end < json.length && /[\uD800-\uDBFF]/.test(json[end - 1]!)) end -= 1;
    const piece = quoteLiteral(json.slice(at, end));
    pieces.push(
      `INSERT INTO waybill.quarantine_piece (id, n, piece) VALUES (LAST_INSERT_ID(), ${pieces.length}, ${piece})`,
    );
    at = end;
  }
  return { text: '', pieces };
}

/** How many bytes the change of an entry of `waybill.quarantine` has, also one in pieces, as SQL. */
export async function changeBytesSql(session: MysqlSession): Promise<string> {
  const whole = 'LENGTH(`change`)';
  if (!(await waybillTables(session)).has('quarantine_piece')) return whole;
  const pieces = 'SELECT SUM(LENGTH(piece)) FROM waybill.quarantine_piece p WHERE p.id = quarantine.id';
  return `IF(\`change\` = '', (${pieces}), ${whole})`;
}

/** The change of an entry whose text in `waybill.quarantine` is given. */
export async function readChange(session: MysqlSession, id: string, text: string): Promise<QuarantinedChange> {
  if (text !== '') return JSON.parse(text) as QuarantinedChange;
  const where = `id = ${quoteLiteral(id)}`;
  const rows = await session.rows(`SELECT piece FROM waybill.quarantine_piece WHERE ${where} ORDER BY n`);
  return JSON.parse(rows.map(([piece]) => piece).join('')) as QuarantinedChange;
}

/** Removes the pieces of entries that are gone. */
export const FORGET_PIECES = 'DELETE FROM waybill.quarantine_piece WHERE id NOT IN (SELECT id FROM waybill.quarantine)';

/** The same where the table may be missing: whoever asks need not be a flow, which makes it. */
export async function forgetPieces(session: MysqlSession): Promise<void> {
  if ((await waybillTables(session)).has('quarantine_piece')) await session.run(FORGET_PIECES);
}
