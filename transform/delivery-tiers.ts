/** When changes are passed on: at once, at intervals, or by a timetable; by field group, so that a record may be a hybrid. */
import { Cron } from 'croner';
import type { CanonicalFlowConfig, DeliveryTier } from '../core/canonical-config.ts';
import { nearest } from '../core/nearest.ts';
import { messageOf } from '../core/errors.ts';
import type { Entity } from './canonical/entity.ts';
import { isTimeZone } from './canonical/timestamp.ts';

/** Groups that are passed on together. */
export interface Tier {
  /** Tells tiers apart, also over restarts. */
  readonly id: string;
  readonly groups: readonly string[];
  /** The first time of release after `us`, both in microseconds since 1970. */
  readonly dueAfter: (us: number) => number;
}

export interface Tiers {
  /** Those that are not realtime. */
  readonly delayed: readonly Tier[];
  /** The delayed tier that decides when a record appears and goes; undefined: at once. */
  readonly existence: Tier | undefined;
}

/** What an entity is given where the flow says nothing: stock and orders at once, master data within a minute. */
const DEFAULTS: Readonly<Record<Entity['tier'], DeliveryTier>> = {
  R: 'realtime',
  N: { every: 10_000 },
  B: { every: 60_000 },
};

/** Compiles the delivery of a flow. Problems are unknown groups and timetables that say nothing. */
export function compileTiers(
  entity: Entity,
  delivery: CanonicalFlowConfig['delivery'],
): { tiers: Tiers; problems: string[] } {
  const problems: string[] = [];
  const byGroup = isByGroup(delivery) ? delivery : {};
  const otherwise = byGroup['default'] ?? (isByGroup(delivery) ? undefined : delivery) ?? DEFAULTS[entity.tier];
  const ofGroup = new Map<string, DeliveryTier>();
  for (const [name, tier] of Object.entries(byGroup)) {
    if (name === 'default') continue;
    const index = entity.index.get(name);
    const field = index === undefined ? undefined : entity.fields[index]!.group;
    const group = entity.groupIndexes.has(name) ? name : field;
    if (group === undefined || group === '') {
      const near = nearest(name, [...entity.groupIndexes.keys(), 'default']);
      const hint = near === undefined ? '' : ` (did you mean "${near}"?)`;
      problems.push(`delivery.${name}: ${entity.name} has no field or group "${name}"${hint}`);
    } else ofGroup.set(group, tier);
  }
  const faults = new Set<string>();
  const delayed = new Map<string, { groups: string[]; tier: Tier }>();
  let realtime = false;
  for (const group of entity.groupIndexes.keys()) {
    const spec = ofGroup.get(group) ?? otherwise;
    if (spec === 'realtime') {
      realtime = true;
      continue;
    }
    const id = tierId(spec);
    const known = delayed.get(id);
    if (known !== undefined) {
      known.groups.push(group);
      continue;
    }
    const groups = [group];
    const dueAfter = timetable(spec);
    if (typeof dueAfter === 'string') faults.add(`delivery: ${dueAfter}`);
    else delayed.set(id, { groups, tier: { id, groups, dueAfter } });
  }
  problems.push(...faults);
  const list = [...delayed.values()].map(({ tier }) => tier);
  const main = otherwise === 'realtime' ? undefined : list.find((tier) => tier.id === tierId(otherwise));
  return { tiers: { delayed: list, existence: realtime ? undefined : (main ?? list[0]) }, problems };
}

function isByGroup(delivery: CanonicalFlowConfig['delivery']): delivery is Record<string, DeliveryTier> {
  return typeof delivery === 'object' && !('every' in delivery) && !('cron' in delivery);
}

function tierId(tier: Exclude<DeliveryTier, 'realtime'>): string {
  if ('every' in tier) return `every ${tier.every}`;
  return tier.zone === undefined ? `cron ${tier.cron}` : `cron ${tier.cron} in ${tier.zone}`;
}

/**
 * Intervals are counted from 1970, and timetables read in their zone, UTC where none is named, so that a restart keeps the
 * same times. A time that a change of clocks leaves out comes at the end of the gap, one that comes twice the first time.
 */
function timetable(tier: Exclude<DeliveryTier, 'realtime'>): Tier['dueAfter'] | string {
  if ('every' in tier) {
    const periodUs = tier.every * 1000;
    if (periodUs < 1) return 'an interval must be longer than nothing';
    return (us) => (Math.floor(us / periodUs) + 1) * periodUs;
  }
  const { zone: timezone = 'UTC' } = tier;
  if (!isTimeZone(timezone)) return `"${timezone}" is not a time zone that is known`;
  let cron: Cron;
  try {
    cron = new Cron(tier.cron, { timezone, paused: true });
  } catch (thrown) {
    return `"${tier.cron}" is not a timetable: ${messageOf(thrown)}`;
  }
  if (cron.nextRun() === null) return `"${tier.cron}" never comes`;
  return (us) => {
    const next = cron.nextRun(new Date(us / 1000));
    return next === null ? Infinity : next.getTime() * 1000;
  };
}
