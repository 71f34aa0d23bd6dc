import { asReplicationError } from '../../core/errors.ts';
import type { Flavour } from './binlog-handler.ts';
import type { SqlClient } from './connection.ts';

/** Bytes of binary log that the source keeps; undefined without the right to ask (REPLICATION CLIENT, BINLOG MONITOR). */
export async function readRetainedBytes(client: SqlClient, _flavour: Flavour): Promise<number | undefined> {
  try {
    const files = await client.query('SHOW BINARY LOGS', 'reading the size of the log');
    return files.reduce((sum, row) => sum + Number(row[1] ?? 0), 0);
  } catch (thrown) {
    if (asReplicationError(thrown).code === 'source_privilege') return undefined;
    throw thrown;
  }
}
