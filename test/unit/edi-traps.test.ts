/** What X12 and DCSA messages mean other than they seem to. */
import { describe, expect, it } from 'vitest';
import { gtin14 } from '../../transform/canonical/gs1.ts';
import { dcsaMilestone, MILESTONES, X12_MILESTONES } from '../../transform/canonical/milestones.ts';
import { x12Timestamp } from '../../transform/canonical/x12-time.ts';
import { highestRank } from '../../transform/ownership/merge.ts';

describe('DCSA', () => {
  it('trap: GTIN is a gate that was passed inwards, and neither an identifier nor a milestone', () => {
    expect(dcsaMilestone('GTIN', 'ACT')).toBeUndefined();
    expect(gtin14('GTIN')).toBeUndefined();
  });

  it('an arrival that is estimated is an ETA; one that is planned is nothing yet', () => {
    expect(dcsaMilestone('ARRI', 'EST')).toBe('eta_updated');
    expect(dcsaMilestone('ARRI', 'ACT')).toBe('arrived_terminal');
    expect(dcsaMilestone('ARRI', 'PLN')).toBeUndefined();
    expect(dcsaMilestone('DEPA', 'EST')).toBeUndefined();
    expect(dcsaMilestone('HOLD', 'ACT')).toBe('exception');
  });
});

describe('X12 214', () => {
  it.each([
    ['AF', 'picked_up'],
    ['X4', 'arrived_terminal'],
    ['P1', 'departed_terminal'],
    ['AG', 'eta_updated'],
    ['X2', 'eta_updated'],
    ['X1', 'arrived_at_delivery'],
    ['AH', 'attempted'],
    ['D1', 'delivered'],
    ['SD', 'exception'],
    ['A9', 'exception'],
    ['A7', 'exception'],
    ['A3', 'exception'],
    ['CA', 'exception'],
  ])('AT701 %s is %s', (code, milestone) => {
    expect(X12_MILESTONES[code]).toBe(milestone);
  });

  it('trap: AT706 is local time where AT707 is absent', () => {
    expect(x12Timestamp('20260701', '0830', undefined, 'America/Chicago')).toEqual({
      text: '2026-07-01T13:30:00.000000Z',
    });
    expect(x12Timestamp('20260101', '0830', '', 'America/Chicago')).toEqual({ text: '2026-01-01T14:30:00.000000Z' });
    expect(x12Timestamp('20260701', '0830', 'LT', 'Europe/Berlin')).toEqual({ text: '2026-07-01T06:30:00.000000Z' });
    expect(x12Timestamp('20260701', '0830', undefined, undefined)).toEqual({ fault: 'no time zone' });
  });

  it.each([
    ['UT', '2026-07-01T08:30:15.250000Z'],
    ['ES', '2026-07-01T13:30:15.250000Z'],
    ['ED', '2026-07-01T12:30:15.250000Z'],
    ['ET', '2026-07-01T12:30:15.250000Z'],
    ['NS', '2026-07-01T12:00:15.250000Z'],
    ['02', '2026-07-01T06:30:15.250000Z'],
    ['24', '2026-07-01T09:30:15.250000Z'],
    ['13', '2026-07-01T20:30:15.250000Z'],
  ])('time code %s', (code, text) => {
    // The zone of the place does not matter where the code says another one.
    expect(x12Timestamp('20260701', '08301525', code, 'Asia/Tokyo')).toEqual({ text });
  });

  it.each([
    ['260701', '0830', 'UT'],
    ['20260701', '830', 'UT'],
    ['20260701', '0830', 'XX'],
    ['20260231', '0830', 'UT'],
  ])('%s %s %s cannot be read', (date, time, code) => {
    expect(x12Timestamp(date, time, code, 'UTC')).toHaveProperty('fault');
  });
});

it('trap: an event that arrives late does not move delivered back', () => {
  const word = (source: string, timeUs: number, milestone: string) => ({ source, timeUs, values: [milestone] });
  const late = [word('carrier', 1, 'delivered'), word('edi', 2, 'departed_terminal')];
  expect(highestRank(late, MILESTONES)?.values).toEqual(['delivered']);
  expect(highestRank(late.toReversed(), MILESTONES)?.values).toEqual(['delivered']);
});
