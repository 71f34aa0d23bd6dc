/** What must have ended before the first chunk of a snapshot is read. */
import type pg from 'pg';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { currentSnapshot } from './chunk-reader.ts';

/**
 * A transaction that had committed in the log before we began to remember ids could still be invisible to a chunk: resolves
 * when all that are in progress now have ended, or when the signal aborts.
 */
export async function waitForOlderTransactions(client: pg.Client, log: Logger, signal: AbortSignal): Promise<void> {
  const old = new Set((await currentSnapshot(client)).inProgress);
  for (let tries = 0; old.size > 0 && !signal.aborted; tries++) {
    const now = new Set((await currentSnapshot(client)).inProgress);
    for (const xid of old) if (!now.has(xid)) old.delete(xid);
    if (old.size === 0) break;
    if (tries % 100 === 99)
      log.warn({ transactions: [...old] }, 'the snapshot waits for transactions that are older than it');
    await abortableDelay(100, signal);
  }
}
