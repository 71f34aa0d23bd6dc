/** A transaction of the log whose end has not come yet. */

export interface OpenTransaction {
  readonly xid: number;
  readonly commitLsn: bigint;
  readonly timeUs: number;
  /** Changes seen so far, as positions count them. */
  ordinal: number;
  /** Changes at the start that the stream holds already. */
  readonly skip: number;
  /** Set where Waybill wrote it. */
  origin?: string;
  /** Whether its first change lies in the frame being written. */
  beganHere: boolean;
  rowsHere: number;
  firstOrdinal: number;
  /** The table (oid) that its newest changes were all inserts into, 0 for none, and their number. */
  insertsInto: number;
  inserts: number;
  /** Whether these go on as lines of COPY, with nothing else in their frames. */
  asLines: boolean;
}

/**
 * From so many inserts of one table on, those of further frames stand as lines. Frames that hold both kinds of rows are the
 * dearest to read, so that what is short stays rows.
 */
export const LEAST_INSERTS_AS_LINES = 1000;
