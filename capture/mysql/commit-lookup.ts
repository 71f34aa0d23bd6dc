/** Looks ahead in the source's log: whether a group that has become large ends in a commit. */
import { asReplicationError } from '../../core/errors.ts';
import type { GroupInfo } from './binlog-handler.ts';
import { quoteLiteral, type SqlClient } from './connection.ts';

/** Bytes of an XID event with and without its checksum. */
const XID_EVENT_BYTES = [31, 27] as const;

/** True when the group's last event is an XID event. False also where the source does not say. */
export async function endsInCommit(client: SqlClient, info: GroupInfo): Promise<boolean> {
  if (info.transactional) return true;
  if (info.transactionBytes === undefined) return false;
  const end = info.offset + info.transactionBytes;
  for (const bytes of XID_EVENT_BYTES) {
    try {
      const [row] = await client.query(
        `SHOW BINLOG EVENTS IN ${quoteFile(info.file)} FROM ${end - bytes} LIMIT 1`,
        'looking for the end of a transaction',
      );
      if (row?.[2] === 'Xid' && Number(row[1]) === end - bytes && Number(row[4]) === end) return true;
    } catch (thrown) {
      // No event begins there, or the user may not ask: the rows are held to their end then.
      const { code } = asReplicationError(thrown);
      if (code !== 'source_query' && code !== 'source_privilege') throw thrown;
    }
  }
  return false;
}

/** SHOW BINLOG EVENTS takes a plain literal only. */
function quoteFile(file: string): string {
  return /^[\w.-]+$/.test(file) ? `'${file}'` : quoteLiteral(file);
}
