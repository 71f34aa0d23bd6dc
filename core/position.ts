/**
 * Source positions. A position says how much of a source's log has been taken: it is compared, persisted as text, and
 * never invented. Positions of one source are of one kind, and those that a stream holds are totally ordered.
 */
import { ReplicationError } from './errors.ts';
import type { TransactionEntry } from './frame.ts';
import {
  describeGtidPosition,
  formatGtidPosition,
  gtidEntryLiesBefore,
  gtidEntryPosition,
  gtidPositionAfter,
  isGtidEntry,
  orderGtidPositions,
  parseGtidPosition,
  type GtidPosition,
} from './gtid-position.ts';

/** Before everything: of a stream or a target that has nothing yet. */
export interface OriginPosition {
  readonly kind: 'origin';
}

/**
 * A position in a Postgres log: every transaction whose commit record *starts* before `lsn` is taken whole, and of the
 * transaction whose commit record starts exactly at `lsn`, the first `ordinal` changes. After a transaction is
 * complete its position is the end of its commit record with ordinal 0, which no later commit record can precede. So
 * one comparison (lsn, then ordinal) orders them all, also inside a transaction.
 */
export interface PgPosition {
  readonly kind: 'pg';
  readonly lsn: bigint;
  /** Changes already taken of the transaction that commits at `lsn`; counts every row change that pgoutput sends. */
  readonly ordinal: number;
}

export type Position = OriginPosition | PgPosition | GtidPosition;

export const ORIGIN: OriginPosition = { kind: 'origin' };

/** Builds a Postgres position. */
export function pgPosition(lsn: bigint, ordinal = 0): PgPosition {
  return { kind: 'pg', lsn, ordinal };
}

/** A Postgres position, or the origin as one. Throws `source_identity_mismatch` for another kind of source. */
export function asPgPosition(position: Position): PgPosition {
  if (position.kind === 'origin') return pgPosition(0n);
  if (position.kind !== 'pg') throw otherKind(position, 'pg');
  return position;
}

/** A position of MySQL or MariaDB; undefined for the origin. Throws `source_identity_mismatch` for Postgres. */
export function asGtidPosition(position: Position): GtidPosition | undefined {
  if (position.kind === 'origin') return undefined;
  if (position.kind === 'pg') throw otherKind(position, 'mysql or mariadb');
  return position;
}

function otherKind(position: Position, wanted: string): ReplicationError {
  return new ReplicationError(
    'source_identity_mismatch',
    `${describePosition(position)} is a position of kind ${position.kind}, not ${wanted}`,
  );
}

/**
 * -1, 0 or 1 as `a` lies before, at or after `b`. Throws `source_identity_mismatch` for positions of two kinds of
 * source, and `source_diverged` for two that have no order because each has transactions that the other has not.
 */
export function comparePositions(a: Position, b: Position): -1 | 0 | 1 {
  const order = orderPositions(a, b);
  if (order === undefined)
    throw new ReplicationError(
      'source_diverged',
      `${describePosition(a)} and ${describePosition(b)} have no order: each has transactions that the other has not`,
    );
  return order;
}

/** Like `comparePositions`, but gives undefined for two that have no order. */
export function orderPositions(a: Position, b: Position): -1 | 0 | 1 | undefined {
  if (a.kind === 'origin') return isOrigin(b) ? 0 : -1;
  if (b.kind === 'origin') return isOrigin(a) ? 0 : 1;
  if (a.kind !== 'pg') {
    if (b.kind === 'pg') throw otherKind(b, a.kind);
    return orderGtidPositions(a, b);
  }
  if (b.kind !== 'pg') throw otherKind(b, 'pg');
  if (a.lsn !== b.lsn) return a.lsn < b.lsn ? -1 : 1;
  if (a.ordinal !== b.ordinal) return a.ordinal < b.ordinal ? -1 : 1;
  return 0;
}

/**
 * Whether `position` has taken all that lies before `mark`, which need not be a place of the same stream: GTID sets of a
 * server may have no order.
 */
export function hasReached(position: Position, mark: Position): boolean {
  const order = orderPositions(position, mark);
  return order !== undefined && order >= 0;
}

/** LSN 0 is no place in a Postgres log, so that it stands for the origin too. */
function isOrigin(position: Position): boolean {
  return position.kind === 'origin' || (position.kind === 'pg' && position.lsn === 0n && position.ordinal === 0);
}

const ORIGIN_TEXT = 'origin';
const ORDINAL_DIGITS = 12;
const PG_TEXT = /^pg1\/([0-9A-F]{16})\/([0-9A-F]{12})$/;

/**
 * Text with its version in front. For Postgres (`pg1/<lsn, 16 hex>/<ordinal, 12 hex>`) of fixed width, so that it sorts
 * as the position does; for MySQL and MariaDB see `formatGtidPosition`.
 */
export function formatPosition(position: Position): string {
  if (position.kind === 'origin') return ORIGIN_TEXT;
  if (position.kind !== 'pg') return formatGtidPosition(position);
  return `pg1/${formatHexLsn(position.lsn)}/${position.ordinal.toString(16).toUpperCase().padStart(ORDINAL_DIGITS, '0')}`;
}

/** The position that `formatPosition` wrote, or undefined when the text is not one. */
export function parsePosition(text: string): Position | undefined {
  if (text === ORIGIN_TEXT) return ORIGIN;
  const match = PG_TEXT.exec(text);
  if (match === null) return parseGtidPosition(text);
  return pgPosition(BigInt(`0x${match[1]!}`), Number.parseInt(match[2]!, 16));
}

/** Whether the rows of `entry` (a frame's run of one transaction) lie before `at`. */
export function entryLiesBefore(entry: TransactionEntry, at: Position): boolean {
  if (at.kind === 'mysql' || at.kind === 'mariadb') return gtidEntryLiesBefore(entry, at);
  return comparePositions(entryPosition(entry, entry[6]), at) < 0;
}

/**
 * The position behind transaction `index` of a frame that begins at `start`: it and all before it are taken whole.
 * The transaction must end there (part `whole` or `last`).
 */
export function positionAfter(start: Position, transactions: readonly TransactionEntry[], index: number): Position {
  if (isGtidEntry(transactions[index]![1])) return gtidPositionAfter(asGtidPosition(start), transactions, index);
  return pgPosition(BigInt(`0x${transactions[index]![2]}`));
}

/** The position inside a transaction after `ordinal` of its changes. */
export function entryPosition(entry: TransactionEntry, ordinal: number): Position {
  if (isGtidEntry(entry[1])) return gtidEntryPosition(entry, ordinal);
  return pgPosition(BigInt(`0x${entry[1]}`), ordinal);
}

/**
 * Four hexadecimal digits for each 16-bit number, kept when they are first asked for: frames carry two LSNs for every
 * transaction, and most commands write none.
 */
const HEX = Array.from<string | undefined>({ length: 0x1_0000 });

function hexDigits(value: number): string {
  return (HEX[value] ??= value.toString(16).toUpperCase().padStart(4, '0'));
}

/** An LSN as 16 hex digits, as frames carry it. */
export function formatHexLsn(lsn: bigint): string {
  const high = Number(lsn >> 32n);
  const low = Number(lsn & 0xffff_ffffn);
  return hexDigits(high >>> 16) + hexDigits(high & 0xffff) + hexDigits(low >>> 16) + hexDigits(low & 0xffff);
}

/** An LSN as Postgres prints it, `16/B374D848`. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffff_ffffn).toString(16).toUpperCase()}`;
}

/** The LSN in Postgres's own notation, `16/B374D848`; undefined when the text is not one. */
export function parseLsn(text: string): bigint | undefined {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (match === null) return undefined;
  return (BigInt(`0x${match[1]!}`) << 32n) | BigInt(`0x${match[2]!}`);
}

/** A position for people: the LSN in Postgres's notation, and the ordinal where it is inside a transaction. */
export function describePosition(position: Position): string {
  if (position.kind === 'origin') return 'the beginning';
  if (position.kind !== 'pg') return describeGtidPosition(position);
  return position.ordinal === 0 ? formatLsn(position.lsn) : `${formatLsn(position.lsn)}+${position.ordinal}`;
}
