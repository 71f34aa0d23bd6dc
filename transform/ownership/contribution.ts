/** What sources say of a record: the newest rows of each, and what of it they said themselves. */
import type { Lineage } from '../canonical/envelope.ts';
import type { ContributedValues } from '../mapping/contribution-change.ts';

/** What one block of one source says of a record. */
export interface Contribution {
  readonly source: string;
  /** Number of the block in the source's mapping. */
  readonly index: number;
  /** Changed in place: whoever keeps them copies them. */
  readonly values: (string | null | undefined)[];
  /** By number of the group: the change that made its values what they are; undefined where it supplies none. */
  readonly lineage: (Lineage | undefined)[];
  /**
   * Of groups that are merged and whose values Waybill wrote: what the source itself said last, if it ever
   * said anything. Groups that are not here are as the source says. At `beforeEarly` of a group: what it said before its
   * newest values, whose commit time lies too far ahead.
   */
  claims: Map<number, Claim | undefined> | undefined;
}

/** What a source itself said of a group, and when. */
export interface Claim {
  readonly values: ContributedValues;
  readonly lineage: Lineage;
}

export interface Claimed {
  readonly contribution: Contribution;
  readonly claim: Claim;
}

/** What a source itself said last of a group; undefined where it never did. */
export function claimOf({ claims, lineage, values }: Contribution, group: number): Claim | undefined {
  if (claims?.has(group) === true) return claims.get(group);
  const said = lineage[group];
  return said === undefined ? undefined : { values, lineage: said };
}

/** Where `claims` has what was said of a group before values that come too early to count. */
export function beforeEarly(group: number): number {
  return -1 - group;
}

/** `claimOf`, to be kept while the values of the contribution change. */
export function keptClaimOf(contribution: Contribution, group: number): Claim | undefined {
  const claim = claimOf(contribution, group);
  return claim === undefined ? undefined : { values: claim.values.slice(), lineage: claim.lineage };
}

export function suppliesAny(values: ContributedValues, indexes: readonly number[]): boolean {
  for (let i = 0; i < indexes.length; i++) if (values[indexes[i]!] !== undefined) return true;
  return false;
}

export function sameAt(a: ContributedValues, b: ContributedValues, indexes: readonly number[]): boolean {
  for (let i = 0; i < indexes.length; i++) if (a[indexes[i]!] !== b[indexes[i]!]) return false;
  return true;
}

/** What came first must not decide between blocks of one source: a run over the same tables may find another order. */
export function insertInOrder(contributions: Contribution[], added: Contribution): void {
  const behind = contributions.findIndex(({ source, index }) => source === added.source && index > added.index);
  contributions.splice(behind < 0 ? contributions.length : behind, 0, added);
}

/** Whether a change was made after another one; of one moment, the one whose source and position sort last. */
export function isNewer(a: Lineage, b: Lineage): boolean {
  if (a.time !== b.time) return a.time > b.time;
  if (a.source !== b.source) return a.source > b.source;
  return a.position > b.position;
}
