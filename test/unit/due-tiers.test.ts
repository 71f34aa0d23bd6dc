import { describe, expect, it } from 'vitest';
import { pgPosition } from '../../core/position.ts';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import type { Release } from '../../transform/checkpoint.ts';
import { compileTiers, type Tier } from '../../transform/delivery-tiers.ts';
import { compareReleases, DueTiers } from '../../transform/due-tiers.ts';

const MINUTE_US = 60_000_000;
const HOUR_US = 60 * MINUTE_US;
const NOON_US = 12 * HOUR_US;

function tier(delivery: { every: number } | { cron: string; zone?: string }): Tier {
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

describe('a timetable with a zone', () => {
  /** The next times behind one, in UTC. */
  const times = (cron: string, zone: string | undefined, from: string, count: number): string[] => {
    const { dueAfter } = tier({ cron, ...(zone === undefined ? {} : { zone }) });
    const found: string[] = [];
    let us = Date.parse(from) * 1000;
    for (let n = 0; n < count; n++) found.push(new Date((us = dueAfter(us)) / 1000).toISOString().slice(5, 16));
    return found;
  };

  it('keeps its hour when the clocks go forward, and comes at the end of a gap that it lies in', () => {
    const around = (cron: string): string[] => times(cron, 'Europe/Berlin', '2026-03-27T12:00:00Z', 3);
    expect(around('0 4 * * *')).toEqual(['03-28T03:00', '03-29T02:00', '03-30T02:00']);
    expect(around('30 2 * * *')).toEqual(['03-28T01:30', '03-29T01:00', '03-30T00:30']);
  });

  it('keeps its hour when the clocks go back, and comes once in an hour that comes twice', () => {
    const around = (cron: string): string[] => times(cron, 'Europe/Berlin', '2026-10-24T12:00:00Z', 3);
    expect(around('0 4 * * *')).toEqual(['10-25T03:00', '10-26T03:00', '10-27T03:00']);
    expect(around('30 2 * * *')).toEqual(['10-25T00:30', '10-26T01:30', '10-27T01:30']);
  });

  it('comes after any time that it is asked for, also within the hours of a change', () => {
    for (const day of ['2026-03-29', '2026-10-25']) {
      const { dueAfter } = tier({ cron: '30 2 * * *', zone: 'Europe/Berlin' });
      const due = new Set<number>();
      for (let minute = -120; minute < 600; minute++) {
        const us = Date.parse(`${day}T00:00:00Z`) * 1000 + minute * MINUTE_US;
        expect(dueAfter(us)).toBeGreaterThan(us);
        due.add(dueAfter(us));
      }
      expect(due.size).toBe(2);
    }
  });

  it('is in UTC without one, and another timetable with one', () => {
    expect(times('0 4 * * *', undefined, '2026-03-28T12:00:00Z', 2)).toEqual(['03-29T04:00', '03-30T04:00']);
    const ids = [undefined, 'Europe/Berlin', 'America/New_York'].map(
      (zone) => tier({ cron: '0 4 * * *', ...(zone === undefined ? {} : { zone }) }).id,
    );
    expect(new Set(ids).size).toBe(3);
    expect(ids[0]).toBe('cron 0 4 * * *');
  });

  it('is refused where there is no such zone', () => {
    const { problems } = compileTiers(ENTITIES.get('location')!, { cron: '0 2 * * *', zone: 'Europe/Berlim' });
    expect(problems).toEqual(['delivery: "Europe/Berlim" is not a time zone that is known']);
  });
});

it('orders releases by the clock, and where that stood still by what had come', () => {
  const made = [release(1, 9, 9n), release(2, 3, 5n), release(2, 3, 6n), release(2, 4, 1n), release(3, 1, 1n)];
  expect([made[3]!, made[0]!, made[4]!, made[2]!, made[1]!].sort(compareReleases)).toEqual(made);
  expect(compareReleases(release(2, 3, 5n), release(2, 3, 5n))).toBe(0);
});
