/** Positions in the logs of MySQL and MariaDB: what has been taken of them, by GTID sets and not by file and offset. */
import type { TransactionEntry } from './frame.ts';
import { compareGtidSets, type GtidSet } from './gtid-set.ts';
import { formatGtid, type Gtid, type MariadbGtid, type MysqlGtid } from './gtid.ts';
import { MariadbGtidSet } from './mariadb-gtid-set.ts';
import { MysqlGtidSet } from './mysql-gtid-set.ts';

/**
 * What has been taken: the transactions of `gtids` whole; the first `reads` reads of tables (parts of chunks, and the
 * marks around a table) that the stream holds; and of the transaction `open.gtid`, which is the next to be finished,
 * the first `open.ordinal` row changes, counted over all tables.
 */
export interface GtidPosition {
  readonly kind: 'mysql' | 'mariadb';
  readonly gtids: GtidSet;
  /** Reads of tables stand in no source's log: the stream counts them, from 1, and never anew. */
  readonly reads: number;
  readonly open?: { readonly gtid: Gtid; readonly ordinal: number };
}

/** Builds a position; `open` with ordinal 0 says only which transaction is meant. */
export function gtidPosition(gtids: GtidSet, reads = 0, open?: GtidPosition['open']): GtidPosition {
  return { kind: gtids.kind, gtids, reads, ...(open === undefined ? {} : { open }) };
}

/** The union of a set and one transaction of the same flavour. */
export function withGtid(gtids: GtidSet, gtid: Gtid): GtidSet {
  if (gtids.kind === 'mysql') return gtids.add(gtid as MysqlGtid);
  return gtids.add(gtid as MariadbGtid);
}

export function containsGtid(gtids: GtidSet, gtid: Gtid): boolean {
  if (gtids.kind !== gtid.kind) return false;
  return gtids.kind === 'mysql' ? gtids.contains(gtid as MysqlGtid) : gtids.contains(gtid as MariadbGtid);
}

export function sameGtid(a: Gtid, b: Gtid): boolean {
  return formatGtid(a) === formatGtid(b);
}

/**
 * -1, 0, 1 as `a` lies before, at or after `b`; undefined when each has something that the other has not. Throws
 * `source_identity_mismatch` for positions of two flavours.
 */
export function orderGtidPositions(a: GtidPosition, b: GtidPosition): -1 | 0 | 1 | undefined {
  const sets = compareGtidSets(a.gtids, b.gtids);
  const within = (sets === 'equal' || sets === 'subset') && a.reads <= b.reads && openWithin(a, b);
  const around = (sets === 'equal' || sets === 'superset') && b.reads <= a.reads && openWithin(b, a);
  if (within) return around ? 0 : -1;
  if (around) return 1;
  // A place in a transaction, as of one entry of a frame: whoever has not taken that far stands before it.
  if (isPlace(a)) return 1;
  return isPlace(b) ? -1 : undefined;
}

/** Whether `b` has taken what `a` has of its unfinished transaction. */
function openWithin(a: GtidPosition, b: GtidPosition): boolean {
  if (a.open === undefined || containsGtid(b.gtids, a.open.gtid)) return true;
  return b.open !== undefined && a.open.ordinal <= b.open.ordinal && sameGtid(a.open.gtid, b.open.gtid);
}

function isPlace(position: GtidPosition): boolean {
  return position.open !== undefined && position.reads === 0 && position.gtids.empty;
}

const TEXT = /^(my|ma)1\/([^/]*)\/(\d+)(?:\/([^/]+)\/(\d+))?$/;

/** `my1/<gtid set>/<reads>`, and `/<gtid>/<ordinal>` behind it inside a transaction; `ma1` for MariaDB. */
export function formatGtidPosition({ kind, gtids, reads, open }: GtidPosition): string {
  const head = `${kind === 'mysql' ? 'my1' : 'ma1'}/${gtids.toString()}/${reads}`;
  return open === undefined ? head : `${head}/${formatGtid(open.gtid)}/${open.ordinal}`;
}

/** The position that `formatGtidPosition` wrote, or undefined when the text is not one. */
export function parseGtidPosition(text: string): GtidPosition | undefined {
  const match = TEXT.exec(text);
  if (match === null) return undefined;
  const kind = match[1] === 'my' ? 'mysql' : 'mariadb';
  const gtids = parseGtidSet(match[2]!, kind);
  const reads = Number(match[3]);
  if (gtids === undefined || !Number.isSafeInteger(reads)) return undefined;
  if (match[4] === undefined) return gtidPosition(gtids, reads);
  const gtid = parseGtid(match[4]);
  const ordinal = Number(match[5]);
  if (gtid?.kind !== kind || !Number.isSafeInteger(ordinal)) return undefined;
  return gtidPosition(gtids, reads, { gtid, ordinal });
}

/** A GTID set of one flavour as its server prints it, or undefined. */
export function parseGtidSet(text: string, kind: 'mysql' | 'mariadb'): GtidSet | undefined {
  return kind === 'mysql' ? MysqlGtidSet.parse(text) : MariadbGtidSet.parse(text);
}

/** One GTID as `formatGtid` writes it, or undefined. */
export function parseGtid(text: string): Gtid | undefined {
  if (!text.includes(':')) {
    const set = MariadbGtidSet.parse(text);
    return set?.domains.length === 1 && !text.includes(',') ? set.last(set.domains[0]!) : undefined;
  }
  const set = MysqlGtidSet.parse(text);
  const source = set?.sources[0];
  if (set?.size !== 1 || source === undefined) return undefined;
  return { kind: 'mysql', source, gno: set.intervals().get(source)![0]! };
}

/** What people read: the set, and where inside a transaction. */
export function describeGtidPosition({ gtids, open }: GtidPosition): string {
  const set = gtids.empty ? '(no transactions)' : gtids.toString();
  if (open === undefined) return set;
  const place = `${formatGtid(open.gtid)}+${open.ordinal}`;
  return gtids.empty ? place : `${set} and ${place}`;
}

const READ = /^read:(\d+)$/;

/** The name of a read of tables where transactions have their GTID. */
export function readName(read: number): string {
  return `read:${read}`;
}

/** Whether an entry holds rows that a capture read, and no transaction of the log. */
export function isReadEntry(entry: TransactionEntry): boolean {
  return READ.test(entry[1]);
}

/** Whether an entry of a frame (its commit field) belongs to MySQL or MariaDB. */
export function isGtidEntry(commit: string): boolean {
  return commit.includes(':') || commit.includes('-');
}

/** Whether the rows of `entry` lie before `at`. */
export function gtidEntryLiesBefore(entry: TransactionEntry, at: GtidPosition): boolean {
  const read = READ.exec(entry[1]);
  if (read !== null) return Number(read[1]) <= at.reads;
  const gtid = parseGtid(entry[1]);
  if (gtid === undefined) return false;
  if (containsGtid(at.gtids, gtid)) return true;
  return at.open !== undefined && sameGtid(at.open.gtid, gtid) && entry[6] < at.open.ordinal;
}

/** The position at `start` and all transactions up to `index`, which ends there. */
export function gtidPositionAfter(
  start: GtidPosition | undefined,
  transactions: readonly TransactionEntry[],
  index: number,
): GtidPosition {
  let gtids = start?.gtids;
  let reads = start?.reads ?? 0;
  for (const entry of transactions.slice(0, index + 1)) {
    const read = READ.exec(entry[1]);
    if (read !== null) {
      reads = Number(read[1]);
      continue;
    }
    const gtid = parseGtid(entry[1]);
    if (gtid === undefined) continue;
    gtids = withGtid(gtids ?? (gtid.kind === 'mysql' ? MysqlGtidSet.EMPTY : MariadbGtidSet.EMPTY), gtid);
  }
  return gtidPosition(gtids ?? MysqlGtidSet.EMPTY, reads);
}

/** The place of an entry's row, on its own: it says nothing of other transactions. */
export function gtidEntryPosition(entry: TransactionEntry, ordinal: number): GtidPosition {
  const gtid = parseGtid(entry[1]);
  if (gtid === undefined) return gtidPosition(MysqlGtidSet.EMPTY, Number(READ.exec(entry[1])?.[1] ?? 0));
  const empty = gtid.kind === 'mysql' ? MysqlGtidSet.EMPTY : MariadbGtidSet.EMPTY;
  return gtidPosition(empty, 0, { gtid, ordinal });
}
