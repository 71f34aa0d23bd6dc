/** What must have ended before the first chunk of a snapshot is read. */
import type pg from 'pg';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { askSource } from './connection.ts';

/**
 * A transaction that had committed in the log before we began to remember ids could still be invisible to a chunk: resolves
 * when all that are in progress now have ended, or when the signal aborts.
 */
export async function waitForOlderTransactions(client: pg.Client, log: Logger, signal: AbortSignal): Promise<void> {
  const old = await underWay(client);
  for (let tries = 0; old.size > 0 && !signal.aborted; tries++) {
    const now = await underWay(client);
    for (const xid of old) if (!now.has(xid)) old.delete(xid);
    if (old.size === 0) break;
    if (tries % 100 === 99)
      log.warn({ transactions: [...old] }, 'the snapshot waits for transactions that are older than it');
    await abortableDelay(100, signal);
  }
}

/** As `UNDER_WAY_SQL`, without what is under way in other databases, of which the log of this one tells nothing. */
const UNDER_WAY_HERE_SQL = `
select l.transactionid::text as xid from pg_locks l left join pg_stat_activity a on a.pid = l.pid
  left join pg_prepared_xacts p on p.transaction = l.transactionid
 where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted
   and coalesce(a.datname, p.database, current_database()) = current_database()`;

async function underWay(client: pg.Client): Promise<Set<string>> {
  const rows = await askSource<{ xid: string }>(client, UNDER_WAY_HERE_SQL, 'asking for transactions in progress');
  return new Set(rows.map(({ xid }) => xid));
}
