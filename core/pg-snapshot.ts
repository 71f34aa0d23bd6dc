/** Which transactions a snapshot of Postgres does not see. */

/** The low 32 bits of transaction ids, as the log and frames have them. */
export interface Transactions {
  has(xid: number): boolean;
}

/** Ids below it are no transactions' (access/transam.h: FirstNormalTransactionId). */
const FIRST_XID = 3;

/**
 * A `pg_snapshot` (PostgreSQL documentation, "Transaction ID and Snapshot Information Functions") as the set of what it
 * does not see: the transactions that it lists, and those from its end on, which it lists never. One of these may have
 * begun, and have its commit in the log, while whoever committed it waits for a standby.
 */
export class PgSnapshot implements Transactions {
  readonly #xmax: number;
  readonly #listed: ReadonlySet<number>;

  private constructor(xmax: number, listed: ReadonlySet<number>) {
    this.#xmax = xmax;
    this.#listed = listed;
  }

  static parse(text: string): PgSnapshot {
    const [, xmax = '', list = ''] = text.split(':');
    return new PgSnapshot(shortXid(xmax), new Set(list === '' ? [] : list.split(',').map(shortXid)));
  }

  has(xid: number): boolean {
    return this.#listed.has(xid) || (xid >= FIRST_XID && ((xid - this.#xmax) | 0) >= 0);
  }
}

export const SNAPSHOT_SQL = 'select pg_current_snapshot()::text as snapshot';

/**
 * The statement that gives the transactions under way, `xid` each: every one holds a lock on its id until others see what
 * it did. A snapshot does not list the newest of them.
 */
export const UNDER_WAY_SQL = `
select transactionid::text as xid from pg_locks where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted`;

function shortXid(text: string): number {
  return Number(BigInt.asUintN(32, BigInt(text)));
}
