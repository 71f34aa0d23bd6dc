/**
 * What of a record follows from the rows that its sources have now, and what only their history tells. A group of fields
 * is open where the rows allow several values, of which the order or the time of past changes has chosen one. Of what is
 * open nothing is claimed.
 */
import type { Entity } from '../canonical/entity.ts';
import { WHOLE_RECORD } from '../mapping/contribution-change.ts';
import type { Contribution } from '../ownership/contribution.ts';
import type { GroupRule, Ownership } from '../ownership/ownership.ts';
import type { Entry } from '../ownership/entry.ts';

/** Why something is not proven. */
export type OpenReason = 'changes' | 'writer' | 'fallback' | 'written' | 'held' | 'broken' | 'encrypted' | 'tier';

/** For people: what of records was left out, and why. */
export const OPEN_REASONS: Readonly<Record<OpenReason, string>> = {
  changes: 'it is a sum of changes, and a scan shows no changes',
  writer: 'the last writer wins, and a scan does not show who that was',
  fallback: 'a fallback may stand in, and a scan does not show how long the owner has been silent',
  written: 'Waybill writes it back into sources, whose own word is no longer in their tables',
  held: 'it is held at its last good value (waybill quarantine)',
  broken: 'rows that cannot be mapped are held, and may stand behind it (waybill quarantine)',
  encrypted: 'it is encrypted at capture, anew each time',
  tier: 'it waits for its delivery',
};

/** What of a record is open. */
export interface Open {
  readonly groups: ReadonlyMap<string, OpenReason>;
  /** Whether the record is there at all; undefined: that is certain. */
  readonly existence: OpenReason | undefined;
}

/** A block of a source's mapping. */
export interface BlockOf {
  readonly source: string;
  readonly index: number;
  readonly groups: readonly string[];
  /** Several rows make one record. */
  readonly grouped: boolean;
}

export interface ProvableOptions {
  readonly ownership: Ownership;
  readonly blocks: readonly BlockOf[];
  /** Blocks with rows that are held whole. */
  readonly broken: readonly BlockOf[];
  /** By key of the record (as one text): the groups that are held, `*` for all. */
  readonly held: ReadonlyMap<string, ReadonlySet<string>>;
  /** Sources that records of the entity are written to. */
  readonly writtenTo: ReadonlySet<string>;
}

const CERTAIN: Open = { groups: new Map(), existence: undefined };

/** A function that says what of a record is open; `entry` is what the sources say of it. */
export function compileProvable(options: ProvableOptions): (key: string, entry: Entry | undefined) => Open {
  const { ownership, blocks, broken, held, writtenTo } = options;
  const { entity } = ownership;
  const numberOf = new Map([...entity.groupIndexes.keys()].map((group, number) => [group, number]));
  const sourcesBy = new Map(
    [...entity.groupIndexes.keys()].map((group) => [
      group,
      sourcesOf(blocks.filter(({ groups }) => groups.includes(group))),
    ]),
  );
  const grouped = broken.filter((block) => block.grouped);
  return (key, entry) => {
    const contributions = entry?.contributions ?? [];
    const groups = new Map<string, OpenReason>();
    let existence: OpenReason | undefined;
    const open = (group: string, reason: OpenReason): void => {
      if (!groups.has(group)) groups.set(group, reason);
    };
    for (const block of broken) {
      if (contributions.some((item) => item.source === block.source && item.index === block.index)) continue;
      for (const group of block.groups) open(group, 'broken');
      existence ??= 'broken';
    }
    for (const block of grouped) for (const group of block.groups) open(group, 'broken');
    for (const group of held.get(key) ?? []) {
      for (const each of group === WHOLE_RECORD ? entity.groupIndexes.keys() : [group]) open(each, 'held');
      existence ??= 'held';
    }
    if (contributions.length > 0) {
      const keyValues = entity.keyIndexes.map((index) => contributions[0]!.values[index] ?? '');
      for (const [group, rule] of ownership.rules) {
        const reason = openBy(entity, group, rule, contributions, keyValues);
        if (reason === undefined) continue;
        open(group, reason.reason);
        if (reason.mayBeNone) existence ??= reason.reason;
      }
      // What a record must have may be among the values that are open.
      if (entry!.given === undefined && groups.size > 0) existence ??= groups.values().next().value;
    }
    return groups.size === 0 && existence === undefined ? CERTAIN : { groups, existence };
  };

  function openBy(
    of: Entity,
    group: string,
    rule: GroupRule,
    contributions: readonly Contribution[],
    keyValues: readonly string[],
  ): { reason: OpenReason; mayBeNone: boolean } | undefined {
    const number = numberOf.get(group)!;
    const indexes = of.groupIndexes.get(group)!;
    const suppliers = contributions.filter((item) => item.lineage[number] !== undefined);
    const said = (items: readonly Contribution[]): Set<string> =>
      new Set(items.map(({ values }) => JSON.stringify(indexes.map((index) => values[index] ?? null))));
    // Without what it must have a record is not there.
    const lacks = (items: readonly Contribution[]): boolean =>
      items.some(({ values }) => indexes.some((index) => !of.fields[index]!.nullable && values[index] == null));
    if (rule.kind === 'merge') {
      const { merge } = rule.merge;
      if (merge === 'delta') return { reason: 'changes', mayBeNone: false };
      const written = suppliers.some(({ source }) => writtenTo.has(source));
      // Whoever said it may be gone, and what is left is what Waybill wrote.
      if (written && suppliers.length > 0 && sourcesOf(suppliers) < (sourcesBy.get(group) ?? 0))
        return { reason: 'written', mayBeNone: true };
      if ((merge !== 'lww' && !written) || said(suppliers).size < 2) return undefined;
      return { reason: merge === 'lww' ? 'writer' : 'written', mayBeNone: lacks(suppliers) };
    }
    const owner = rule.owners.find((candidate) => candidate.matches(keyValues));
    if (owner === undefined) return undefined;
    if (owner.fallback.length === 0) return undefined;
    // Of several blocks of one source the first that says anything counts.
    const candidates = [owner, ...owner.fallback].map(({ source }) => suppliers.find((item) => item.source === source));
    const none = candidates.includes(undefined);
    const there = candidates.filter((item) => item !== undefined);
    const outcomes = said(there);
    if (none) outcomes.add('none');
    return outcomes.size > 1 ? { reason: 'fallback', mayBeNone: none || lacks(there) } : undefined;
  }
}

/** How many sources there are among these. */
function sourcesOf(items: readonly { readonly source: string }[]): number {
  return new Set(items.map(({ source }) => source)).size;
}
