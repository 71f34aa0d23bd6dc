/** What sources say of a record: the newest rows of each, and what of it they said themselves. */
import type { Lineage } from '../canonical/envelope.ts';
import type { Violation } from '../canonical/validate.ts';
import type { ContributedValues } from '../mapping/block-state.ts';

/** What one block of one source says of a record. */
export interface Contribution {
  readonly source: string;
  readonly values: ContributedValues;
  /** By group: the change that made its values what they are. */
  readonly lineage: ReadonlyMap<string, Lineage>;
  readonly held: ReadonlyMap<string, readonly Violation[]>;
  /**
   * Of groups that are merged and whose values Waybill wrote: what the source itself said last, if it ever
   * said anything. Groups that are not here are as the source says.
   */
  readonly claims?: ReadonlyMap<string, Claim | undefined>;
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
export function claimOf(contribution: Contribution | undefined, group: string): Claim | undefined {
  if (contribution?.claims?.has(group) === true) return contribution.claims.get(group);
  const lineage = contribution?.lineage.get(group);
  return lineage === undefined ? undefined : { values: contribution!.values, lineage };
}

export function suppliesAny(values: ContributedValues, indexes: readonly number[]): boolean {
  for (const index of indexes) if (values[index] !== undefined) return true;
  return false;
}

export function sameAt(a: ContributedValues, b: ContributedValues, indexes: readonly number[]): boolean {
  for (const index of indexes) if (a[index] !== b[index]) return false;
  return true;
}
