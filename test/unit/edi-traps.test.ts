/** What X12 and DCSA messages mean other than they seem to. */
import { describe, expect, it } from 'vitest';
import { gtin14 } from '../../transform/canonical/gs1.ts';
import { dcsaMilestone, MILESTONES, X12_MILESTONES } from '../../transform/canonical/milestones.ts';
import { x12Timestamp } from '../../transform/canonical/x12-time.ts';
import { compileMapping } from '../../transform/mapping/block-plan.ts';
import { checkMapping } from '../../transform/mapping/check.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { SourceFeed, summary, tableOf } from '../support/mapped-tables.ts';
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

describe('a mapping of carriers’ messages', () => {
  const event = tableOf('event', {
    id: 'integer',
    at701: 'text',
    at705: 'text',
    at706: 'text',
    at707: 'text',
    place_zone: 'text',
    event_type: 'text',
    classifier: 'text',
  });
  const told = (milestone: string, row: Record<string, string>, more = ''): unknown => {
    const text = `version: 1
name: tms
entities:
  tracking_event:
    from: event
    ${more}
    fields:
      id: id
      occurred_at: { x12_time: { date: at705, time: at706, code: at707, zone: place_zone } }
      recorded_at: { const: '2026-07-01T00:00:00.000000Z' }
      classifier: { coalesce: [classifier, { const: ACT }] }
      milestone: ${milestone}
`;
    const plan = compileMapping(parseMapping(text, 'tms.yaml'), new Map());
    expect(checkMapping(plan, [event])).toEqual([]);
    const feed = new SourceFeed(new MappingEngine({ source: 'tms', plan }), [event]);
    feed.put('event', { id: '1', at705: '20260701', at706: '0830', place_zone: 'America/Chicago', ...row });
    return summary(feed.flush())[0];
  };
  const x12 = '{ milestone: { of: at701, standard: x12 } }';
  const dcsa = '{ milestone: { of: event_type, standard: dcsa, classifier: classifier } }';

  it('takes the status codes of X12, and the time of the place where no time code says another', () => {
    expect(told(x12, { at701: 'D1' })).toMatchObject({
      milestone: 'delivered',
      occurred_at: '2026-07-01T13:30:00.000000Z',
    });
    const coded = { at701: 'X2', at707: 'UT', place_zone: 'Nowhere/At All' };
    expect(told(x12, coded)).toMatchObject({ milestone: 'eta_updated', occurred_at: '2026-07-01T08:30:00.000000Z' });
    expect(told(x12, { at701: 'D1', place_zone: 'Nowhere/At All' })).toMatchObject({
      held: [expect.stringContaining('occurred_at must be a time zone that is known')],
    });
    expect(told(x12, { at701: 'D1', at706: '8:30' })).toMatchObject({
      held: [expect.stringContaining('must be a date and a time as X12 writes them: not a timestamp')],
    });
  });

  it('takes events of DCSA with their classifier', () => {
    expect(told(dcsa, { event_type: 'ARRI', classifier: 'EST' })).toMatchObject({ milestone: 'eta_updated' });
    expect(told(dcsa, { event_type: 'ARRI', classifier: 'ACT' })).toMatchObject({ milestone: 'arrived_terminal' });
  });

  it('gives no milestone for a word that is none, so that a mapping may leave it out', () => {
    const gate = { event_type: 'GTIN', classifier: 'ACT' };
    expect(told(dcsa, gate)).toMatchObject({ held: [expect.stringContaining('milestone')] });
    expect(told(dcsa, gate, `where: { not: { absent: ${dcsa} } }`)).toBeUndefined();
    expect(told(x12, { at701: 'ZZ' })).toMatchObject({ held: [expect.stringContaining('milestone')] });
  });

  it.each([
    ['{ milestone: { of: event_type, standard: dcsa } }', 'dcsa needs a classifier'],
    ['{ milestone: { of: at701, standard: x12, classifier: classifier } }', 'x12 has no classifier'],
    ['{ milestone: { of: at701, standard: edifact } }', 'milestone.milestone.standard'],
  ])('refuses %s', (milestone, message) => {
    expect(() => told(milestone, {})).toThrow(message);
  });
});

it('trap: an exception that arrives late does not move delivered back', () => {
  const word = (source: string, timeUs: number, code: string) => ({ source, timeUs, values: [X12_MILESTONES[code]!] });
  expect(highestRank([word('carrier', 1, 'D1'), word('edi', 2, 'SD')], MILESTONES)?.values).toEqual(['delivered']);
});

it('trap: an event that arrives late does not move delivered back', () => {
  const word = (source: string, timeUs: number, milestone: string) => ({ source, timeUs, values: [milestone] });
  const late = [word('carrier', 1, 'delivered'), word('edi', 2, 'departed_terminal')];
  expect(highestRank(late, MILESTONES)?.values).toEqual(['delivered']);
  expect(highestRank(late.toReversed(), MILESTONES)?.values).toEqual(['delivered']);
});
