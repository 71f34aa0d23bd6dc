import { describe, expect, it } from 'vitest';
import { pgPosition } from '../../core/position.ts';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import type { Release } from '../../transform/checkpoint.ts';
import { compileTiers, type Tier } from '../../transform/delivery-tiers.ts';
import { compareReleases, DueTiers } from '../../transform/due-tiers.ts';

const MINUTE_US = 60_000_000;
const HOUR_US = 60 * MINUTE_US;
const NOON_US = 12 * HOUR_US;

function tier(delivery: { every: number } | { cron: string }): Tier {
  return compileTiers(ENTITIES.get('location')!, delivery).tiers.delayed[0]!;
}

function release(clockUs: number, seq = 1, lsn = 1n): Release {
  return { clockUs, sources: new Map([['wms', { seq, position: pgPosition(lsn) }]]) };
}

describe('a delayed tier', () => {
  const everyMinute = tier({ every: 60_000 });
  const atMidnight = tier({ cron: '0 0 * * *' });

  it('is due when the time behind its last release has come', () => {
    const due = new DueTiers();
    expect(due.isDue(everyMinute, release(NOON_US), NOON_US + MINUTE_US - 1)).toBe(false);
    expect(due.isDue(everyMinute, release(NOON_US), NOON_US + MINUTE_US)).toBe(true);
    expect(due.isDue(atMidnight, release(NOON_US), 2 * NOON_US - 1)).toBe(false);
    expect(due.isDue(atMidnight, release(NOON_US), 2 * NOON_US)).toBe(true);
  });

  it('is due at once when its last release was made by a clock that was ahead, and then in time again', () => {
    const due = new DueTiers();
    const ahead = release(NOON_US + HOUR_US);
    expect(due.isDue(everyMinute, ahead, NOON_US)).toBe(true);
    due.noteReleased(everyMinute, NOON_US);
    expect(due.isDue(everyMinute, ahead, NOON_US + MINUTE_US - 1)).toBe(false);
    expect(due.isDue(everyMinute, ahead, NOON_US + MINUTE_US)).toBe(true);
  });

  it('waits where the clock was ahead by less than the timetable tells apart', () => {
    const due = new DueTiers();
    expect(due.isDue(atMidnight, release(NOON_US + HOUR_US), NOON_US)).toBe(false);
    expect(due.isDue(everyMinute, release(NOON_US + MINUTE_US / 2), NOON_US)).toBe(false);
  });
});

it('orders releases by the clock, and where that stood still by what had come', () => {
  const made = [release(1, 9, 9n), release(2, 3, 5n), release(2, 3, 6n), release(2, 4, 1n), release(3, 1, 1n)];
  expect([made[3]!, made[0]!, made[4]!, made[2]!, made[1]!].sort(compareReleases)).toEqual(made);
  expect(compareReleases(release(2, 3, 5n), release(2, 3, 5n))).toBe(0);
});
