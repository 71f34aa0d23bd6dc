/**
 * Source positions. A position says how much of a source's log has been taken: it is compared, persisted as text, and
 * never invented. Positions of one source are of one kind, and those that a stream holds are totally ordered.
 */
import type { TransactionEntry } from './frame.ts';

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

export type Position = OriginPosition | PgPosition;

export const ORIGIN: OriginPosition = { kind: 'origin' };

/** Builds a Postgres position. */
export function pgPosition(lsn: bigint, ordinal = 0): PgPosition {
  return { kind: 'pg', lsn, ordinal };
}

/** A Postgres position, or the origin as one. Throws `source_identity_mismatch` for another kind of source. */
export function asPgPosition(position: Position): PgPosition {
  if (position.kind === 'origin') return pgPosition(0n);
  return position;
}

/**
 * -1, 0 or 1 as `a` lies before, at or after `b`. Throws `source_identity_mismatch` for positions of two kinds of
 * source, which have no order.
 */
export function comparePositions(a: Position, b: Position): -1 | 0 | 1 {
  if (a.kind === 'origin') return isOrigin(b) ? 0 : -1;
  if (b.kind === 'origin') return isOrigin(a) ? 0 : 1;
  if (a.lsn !== b.lsn) return a.lsn < b.lsn ? -1 : 1;
  if (a.ordinal !== b.ordinal) return a.ordinal < b.ordinal ? -1 : 1;
  return 0;
}

/** LSN 0 is no place in a Postgres log, so that it stands for the origin too. */
function isOrigin(position: Position): boolean {
  return position.kind === 'origin' || (position.lsn === 0n && position.ordinal === 0);
}

const ORIGIN_TEXT = 'origin';
const ORDINAL_DIGITS = 12;
const PG_TEXT = /^pg1\/([0-9A-F]{16})\/([0-9A-F]{12})$/;

/**
 * Text with its version in front. For Postgres (`pg1/<lsn, 16 hex>/<ordinal, 12 hex>`) of fixed width, so that it sorts
 * as the position does.
 */
export function formatPosition(position: Position): string {
  if (position.kind === 'origin') return ORIGIN_TEXT;
  return `pg1/${formatHexLsn(position.lsn)}/${position.ordinal.toString(16).toUpperCase().padStart(ORDINAL_DIGITS, '0')}`;
}

/** The position that `formatPosition` wrote, or undefined when the text is not one. */
export function parsePosition(text: string): Position | undefined {
  if (text === ORIGIN_TEXT) return ORIGIN;
  const match = PG_TEXT.exec(text);
  if (match === null) return undefined;
  return pgPosition(BigInt(`0x${match[1]!}`), Number.parseInt(match[2]!, 16));
}

/** Whether the rows of `entry` (a frame's run of one transaction) lie before `at`. */
export function entryLiesBefore(entry: TransactionEntry, at: Position): boolean {
  return comparePositions(entryPosition(entry, entry[6]), at) < 0;
}

/**
 * The position behind transaction `index` of a frame that begins at `start`: it and all before it are taken whole.
 * The transaction must end there (part `whole` or `last`).
 */
export function positionAfter(_start: Position, transactions: readonly TransactionEntry[], index: number): Position {
  return pgPosition(BigInt(`0x${transactions[index]![2]}`));
}

/** The position inside a transaction after `ordinal` of its changes. */
export function entryPosition(entry: TransactionEntry, ordinal: number): Position {
  return pgPosition(BigInt(`0x${entry[1]}`), ordinal);
}

/** Four hexadecimal digits for each 16-bit number: frames carry two LSNs for every transaction. */
const HEX = Array.from({ length: 0x1_0000 }, (_, n) => n.toString(16).toUpperCase().padStart(4, '0'));

/** An LSN as 16 hex digits, as frames carry it. */
export function formatHexLsn(lsn: bigint): string {
  const high = Number(lsn >> 32n);
  const low = Number(lsn & 0xffff_ffffn);
  return HEX[high >>> 16]! + HEX[high & 0xffff]! + HEX[low >>> 16]! + HEX[low & 0xffff]!;
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
  return position.ordinal === 0 ? formatLsn(position.lsn) : `${formatLsn(position.lsn)}+${position.ordinal}`;
}
