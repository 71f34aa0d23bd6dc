/**
 * When delayed tiers are released. That goes by the clock as it is: the one by which rows expire never goes back, and may be
 * far ahead after a moment in which the clock of the machine was.
 */
import { orderPositions } from '../core/position.ts';
import type { Release } from './checkpoint.ts';
import type { Tier } from './delivery-tiers.ts';

export class DueTiers {
  /** By id of the tier, microseconds since 1970: its last release in this run. */
  readonly #releasedUs = new Map<string, number>();

  /** Whether a tier is to be released at `nowUs`. `last`: its last release, which may be one before a restart. */
  isDue(tier: Tier, last: Release, nowUs: number): boolean {
    const lastUs = this.#releasedUs.get(tier.id) ?? last.clockUs;
    // One that lies behind the next release has been made while the clock was ahead: it says nothing of when this one is due.
    return nowUs >= tier.dueAfter(lastUs) || lastUs > tier.dueAfter(nowUs);
  }

  noteReleased(tier: Tier, nowUs: number): void {
    this.#releasedUs.set(tier.id, nowUs);
  }
}

/** Orders releases as they were made. */
export function compareReleases(a: Release, b: Release): number {
  if (a.clockUs !== b.clockUs) return a.clockUs - b.clockUs;
  // The clock that they tell stands still while it is ahead.
  for (const [source, { seq, position }] of a.sources) {
    const other = b.sources.get(source);
    if (other === undefined) continue;
    const order = seq - other.seq || (orderPositions(position, other.position) ?? 0);
    if (order !== 0) return order;
  }
  return 0;
}

/** Whether `known` is this release. */
export function isSameRelease(known: Release | undefined, release: Release): boolean {
  return known !== undefined && compareReleases(known, release) === 0;
}
