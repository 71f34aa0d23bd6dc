/**
 * Source positions. A position says how much of a source's log has been taken: it is compared, persisted as text that
 * sorts like the position itself, and never invented.
 */

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

export type Position = PgPosition;

export const PG_ORIGIN: PgPosition = { kind: 'pg', lsn: 0n, ordinal: 0 };

/** Builds a Postgres position. */
export function pgPosition(lsn: bigint, ordinal = 0): PgPosition {
  return { kind: 'pg', lsn, ordinal };
}

/** -1, 0 or 1 as `a` lies before, at or after `b`. */
export function comparePositions(a: Position, b: Position): -1 | 0 | 1 {
  if (a.lsn !== b.lsn) return a.lsn < b.lsn ? -1 : 1;
  if (a.ordinal !== b.ordinal) return a.ordinal < b.ordinal ? -1 : 1;
  return 0;
}

const LSN_DIGITS = 16;
const ORDINAL_DIGITS = 12;
const PG_TEXT = /^pg1\/([0-9A-F]{16})\/([0-9A-F]{12})$/;

/** Fixed-width text, version in front (`pg1/<lsn, 16 hex>/<ordinal, 12 hex>`): sorts as the position does. */
export function formatPosition(position: Position): string {
  return `pg1/${formatHexLsn(position.lsn)}/${position.ordinal.toString(16).toUpperCase().padStart(ORDINAL_DIGITS, '0')}`;
}

/** The position that `formatPosition` wrote, or undefined when the text is not one. */
export function parsePosition(text: string): Position | undefined {
  const match = PG_TEXT.exec(text);
  if (match === null) return undefined;
  return pgPosition(BigInt(`0x${match[1]!}`), Number.parseInt(match[2]!, 16));
}

/** An LSN as 16 hex digits, as frames carry it. */
export function formatHexLsn(lsn: bigint): string {
  return lsn.toString(16).toUpperCase().padStart(LSN_DIGITS, '0');
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
  return position.ordinal === 0 ? formatLsn(position.lsn) : `${formatLsn(position.lsn)}+${position.ordinal}`;
}
