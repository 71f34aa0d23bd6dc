/** Looks ahead in the source's log: whether a group that has become large ends in a commit. */
import { asReplicationError } from '../../core/errors.ts';
import type { GroupInfo } from './binlog-handler.ts';
import { quoteLiteral, type SqlClient } from './connection.ts';

/** Bytes of an XID event with and without its checksum. */
const XID_EVENT_BYTES = [31, 27] as const;
/** Events of one answer: few enough that the server is not kept from writing its log for long. */
const PAGE_EVENTS = 500;
const DOING = 'looking for the end of a transaction';

/**
 * True when the group ends in a commit: the log holds a group whole before any of it is sent. False also where the source
 * does not say.
 */
export async function endsInCommit(client: SqlClient, info: GroupInfo): Promise<boolean> {
  if (info.transactional) return true;
  if (info.payload !== undefined) return await info.payload.endsInXid();
  try {
    return await (info.transactionBytes === undefined
      ? findEnd(client, info)
      : endsInXid(client, info, info.transactionBytes));
  } catch (thrown) {
    // The user may not ask: the rows are held to their end then.
    if (isRefusal(thrown)) return false;
    throw thrown;
  }
}

/** Where the size of a group is known (MySQL), its last event is looked at. */
async function endsInXid(client: SqlClient, { file, offset }: GroupInfo, groupBytes: number): Promise<boolean> {
  const end = offset + groupBytes;
  for (const bytes of XID_EVENT_BYTES) {
    try {
      const [row] = await client.query(`SHOW BINLOG EVENTS IN ${quoteFile(file)} FROM ${end - bytes} LIMIT 1`, DOING);
      if (row?.[2] === 'Xid' && Number(row[1]) === end - bytes && Number(row[4]) === end) return true;
    } catch (thrown) {
      // No event begins there.
      if (!isRefusal(thrown)) throw thrown;
    }
  }
  return false;
}

/**
 * MariaDB does not tell the size, nor, of a group that used temporary tables, that it changed transactional tables alone:
 * its events are gone through to the one that ends it.
 */
async function findEnd(client: SqlClient, { file, offset }: GroupInfo): Promise<boolean> {
  let from = offset;
  for (;;) {
    const [, ...rows] = await client.query(
      `SHOW BINLOG EVENTS IN ${quoteFile(file)} FROM ${from} LIMIT ${PAGE_EVENTS}`,
      DOING,
    );
    for (const [, , type, , , text] of rows) {
      if (type === 'Xid') return true;
      if (type === 'Query' && /^(?:COMMIT|ROLLBACK)\b(?!\s+TO\b)/i.test(text ?? '')) return /^COMMIT/i.test(text!);
      // Another group, or the end of the file.
      if (type === 'Gtid' || type === 'Rotate' || type === 'Stop' || type === 'XA_prepare') return false;
    }
    const last = rows.at(-1);
    if (last === undefined) return false;
    // The next answer starts with the event that this one ended with: events inside a group do not tell where they end (MariaDB 11.8).
    from = Number(last[1]);
  }
}

function isRefusal(thrown: unknown): boolean {
  const { code } = asReplicationError(thrown);
  return code === 'source_query' || code === 'source_privilege';
}

/** SHOW BINLOG EVENTS takes a plain literal only. */
function quoteFile(file: string): string {
  return /^[\w.-]+$/.test(file) ? `'${file}'` : quoteLiteral(file);
}
