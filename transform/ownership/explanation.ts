/** Where a group of a record is from, who else has a part in it, and what was said of it and does not count. */
import type { Entity } from '../canonical/entity.ts';
import type { ContributedValues } from '../mapping/contribution-change.ts';
import { claimOf } from './contribution.ts';
import type { Entry } from './entry.ts';
import type { GroupRule } from './ownership.ts';
import type { Chosen, GroupFields } from './precedence.ts';
import type { GroupOrigin, GroupSaying } from './resolved.ts';

/** Explains the group of this number. `chosen` is what counts of it. */
export function originOf(
  entity: Entity,
  { contributions, counters }: Entry,
  number: number,
  { group, indexes }: GroupFields,
  rule: GroupRule,
  { winner, rule: why, claim }: Chosen,
): GroupOrigin {
  const merge = rule.kind === 'merge' ? rule.merge.merge : undefined;
  const counted = merge === 'delta' ? counters?.get(number)?.sources : undefined;
  const merged: GroupSaying[] = [];
  const advisory: GroupSaying[] = [];
  for (const item of contributions) {
    const lineage = item.lineage[number];
    if (item === winner || lineage === undefined) continue;
    const said = merge === 'union' ? claimOf(item, number) : undefined;
    if (said !== undefined) merged.push(sayingOf(entity, indexes, said.lineage, said.values));
    else if (counted?.has(item.source) === true && givesNumber(entity, indexes, item.values))
      merged.push(sayingOf(entity, indexes, lineage, item.values));
    else advisory.push(sayingOf(entity, indexes, lineage, item.values));
  }
  return {
    group,
    winner: claim?.lineage ?? winner?.lineage[number],
    block: winner?.index,
    rule: why,
    merged,
    advisory,
  };
}

/** Of fields of which nothing is said there is nothing to tell. */
function sayingOf(
  { fields }: Entity,
  indexes: readonly number[],
  lineage: GroupSaying['lineage'],
  values: ContributedValues,
): GroupSaying {
  const said: Record<string, string | null> = {};
  for (const index of indexes) {
    const value = values[index];
    if (value !== undefined) said[fields[index]!.name] = value;
  }
  return { lineage, values: said };
}

function givesNumber({ fields }: Entity, indexes: readonly number[], values: ContributedValues): boolean {
  return indexes.some((index) => fields[index]!.type.kind === 'decimal' && typeof values[index] === 'string');
}
