/**
 * Whose values of a group count. Owners come first, then what stands in for a silent one, or what a merge makes of all that
 * was said. Who is silent is measured by the commit times that the streams have reached, never by the clock.
 */
import { microsOfTimestamp } from '../canonical/timestamp.ts';
import { beforeEarly, claimOf, type Claim, type Claimed, type Contribution } from './contribution.ts';
import type { Entry } from './entry.ts';
import { extreme, highestRank, lastWriter, unionOf, type Candidate } from './merge.ts';
import type { GroupRule, Ownership } from './ownership.ts';

/** The contribution whose values of a group count, the rule, and what it said; `value` where the merge makes one. */
export interface Chosen {
  readonly winner: Contribution | undefined;
  readonly rule: string;
  readonly claim?: Claim;
  readonly value?: string | null;
}

/** The fields of a group, by its number. */
export interface GroupFields {
  readonly group: string;
  readonly indexes: readonly number[];
}

export class Precedence {
  readonly #ownership: Ownership;
  readonly #groups: readonly GroupFields[];
  readonly #reached: ReadonlyMap<string, number>;

  /** `reached`: the commit time that each source's stream has reached, in microseconds; read, and changed by others. */
  constructor(ownership: Ownership, groups: readonly GroupFields[], reached: ReadonlyMap<string, number>) {
    this.#ownership = ownership;
    this.#groups = groups;
    this.#reached = reached;
  }

  /** Who is in charge of what at the moment, as a text that is another one when a source became stale or came back. */
  standing(nowUs: number): string {
    return JSON.stringify(
      [...this.#ownership.rules].map(([, rule]) =>
        rule.kind === 'owner' ? rule.owners.map((owner) => this.#inCharge(owner.source, owner.fallback, nowUs)) : '',
      ),
    );
  }

  /**
   * The owner, or the first fallback that stands in for it: who is stale is measured by the newest of these sources. What
   * lies ahead of the clock counts as said now, so that a wrong clock does not make the others stale.
   */
  #inCharge(owner: string, fallback: readonly { source: string; staleAfterUs: number }[], nowUs: number): string {
    const reachedOf = (source: string): number =>
      Math.min(this.#reached.get(source) ?? Number.NEGATIVE_INFINITY, nowUs);
    let newestUs = reachedOf(owner);
    for (const { source } of fallback) newestUs = Math.max(newestUs, reachedOf(source));
    let silent = owner;
    for (const { source, staleAfterUs } of fallback) {
      if (newestUs - reachedOf(silent) <= staleAfterUs) return silent;
      silent = source;
    }
    // The last in line stands in only where something has come from it at all.
    return this.#reached.has(silent) ? silent : owner;
  }

  /** The contribution whose values of a group count, and by which rule. */
  pick(entry: Entry, group: number, rule: GroupRule, nowUs: number): Chosen {
    const suppliers = entry.contributions.filter((item) => item.lineage[group] !== undefined);
    if (suppliers.length === 0 && rule.kind === 'owner') return { winner: undefined, rule: 'nothing supplied' };
    if (rule.kind === 'owner') {
      const keyValues = this.#keyValues(entry);
      const owner = rule.owners.find((candidate) => candidate.matches(keyValues));
      if (owner === undefined) return { winner: undefined, rule: 'owned by nobody in this scope' };
      const charge = this.#inCharge(owner.source, owner.fallback, nowUs);
      const winner = suppliers.find((item) => item.source === charge);
      if (charge === owner.source) return { winner, rule: `owner ${charge}` };
      if (winner !== undefined) return { winner, rule: `fallback ${charge} for ${owner.source}` };
      // Who says nothing of a record does not stand in for anybody: what its owner said last is all that is known.
      const last = suppliers.find((item) => item.source === owner.source);
      return { winner: last, rule: `owner ${owner.source}: fallback ${charge} says nothing` };
    }
    const { merge } = rule;
    const candidates = this.claims(suppliers, group);
    const given = (best: (Candidate & Claimed) | undefined, why: string, value?: string | null): Chosen =>
      best === undefined
        ? { winner: undefined, rule: why }
        : { winner: best.contribution, rule: why, claim: best.claim, ...(value === undefined ? {} : { value }) };
    switch (merge.merge) {
      case 'lww': {
        // A commit time beyond the allowed skew is a wrong clock: it must not win for ever, nor undo what was said before it.
        const limitUs = nowUs + merge.skew * 1000;
        const sane = candidates.flatMap((candidate) => {
          if (candidate.timeUs <= limitUs) return [candidate];
          const { contribution } = candidate;
          const before = contribution.claims?.get(beforeEarly(group));
          return before === undefined ? [] : [this.#candidate(contribution, before, group)];
        });
        return given(lastWriter(sane), 'last writer');
      }
      case 'max':
      case 'min':
        return given(extreme(candidates, merge.merge === 'max' ? 1 : -1), merge.merge);
      case 'rank':
        return given(highestRank(candidates, merge.order), 'highest rank');
      case 'union':
        return given(lastWriter(candidates), 'union', unionOf(candidates));
      default:
        return given(lastWriter(candidates), 'sum of changes', entry.counters?.get(group)?.value ?? null);
    }
  }

  /** What the suppliers of a group say themselves. */
  claims(suppliers: readonly Contribution[], group: number): (Candidate & Claimed)[] {
    return suppliers.flatMap((contribution) => {
      const claim = claimOf(contribution, group);
      return claim === undefined ? [] : [this.#candidate(contribution, claim, group)];
    });
  }

  #candidate(contribution: Contribution, claim: Claim, group: number): Candidate & Claimed {
    const values = this.#groups[group]!.indexes.map((index) => claim.values[index] ?? null);
    return { source: contribution.source, timeUs: microsOfTimestamp(claim.lineage.time), values, contribution, claim };
  }

  #keyValues(entry: Entry): string[] {
    const [contribution] = entry.contributions;
    return this.#ownership.entity.keyIndexes.map((index) => contribution!.values[index] ?? '');
  }
}

/** What a source says of a group. */
export function contributionOf(entry: Entry, source: string, group: number): Contribution | undefined {
  for (const item of entry.contributions) if (item.source === source && item.lineage[group] !== undefined) return item;
  return undefined;
}
