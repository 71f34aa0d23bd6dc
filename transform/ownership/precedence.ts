/**
 * Whose values of a group count. Owners come first, then what stands in for a silent one, or what a merge makes of all that
 * was said. Who is silent says `silence.ts`.
 */
import { microsOfTimestamp } from '../canonical/timestamp.ts';
import { beforeEarly, claimOf, type Claim, type Claimed, type Contribution } from './contribution.ts';
import type { Entry } from './entry.ts';
import { extreme, highestRank, lastWriter, unionOf, type Candidate } from './merge.ts';
import type { GroupRule, Ownership } from './ownership.ts';
import type { Silence } from './silence.ts';

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
  readonly #silence: Silence;

  /** `silence` is read, and changed by others. */
  constructor(ownership: Ownership, groups: readonly GroupFields[], silence: Silence) {
    this.#ownership = ownership;
    this.#groups = groups;
    this.#silence = silence;
  }

  /** Who is in charge of what at the moment, as a text that is another one when a source became stale or came back. */
  standing(nowUs: number): string {
    return JSON.stringify(
      [...this.#ownership.rules].map(([, rule]) =>
        rule.kind === 'owner'
          ? rule.owners.map((owner) => this.#silence.inCharge(owner.source, owner.fallback, nowUs))
          : '',
      ),
    );
  }

  /** The contribution whose values of a group count, and by which rule. */
  pick(entry: Entry, group: number, rule: GroupRule, nowUs: number): Chosen {
    const suppliers = entry.contributions.filter((item) => item.lineage[group] !== undefined);
    if (suppliers.length === 0 && rule.kind === 'owner') return { winner: undefined, rule: 'nothing supplied' };
    if (rule.kind === 'owner') {
      const keyValues = this.#keyValues(entry);
      const owner = rule.owners.find((candidate) => candidate.matches(keyValues));
      if (owner === undefined) return { winner: undefined, rule: 'owned by nobody in this scope' };
      const charge = this.#silence.inCharge(owner.source, owner.fallback, nowUs);
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
