import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import type { ContributionChange } from '../../transform/mapping/contribution-change.ts';
import { compileOwnership, type OwnershipConfig } from '../../transform/ownership/ownership.ts';
import type { ResolvedChange } from '../../transform/ownership/resolved.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { contributionOf, recordShown } from '../support/contributions.ts';

const ENTITY = inventoryPosition as unknown as Entity;
const SOURCES = ['a', 'b', 'c'] as const;
const GROUPS = ['on_hand', 'allocated', 'on_hold', 'in_transit', 'on_order', 'soft_reserved', 'source_available'];
const CONFIG: OwnershipConfig = {
  on_hand: { merge: 'delta', reset: 'a' },
  allocated: [
    { source: 'a', where: { location: 'WH/*' }, fallback: [{ source: 'b', stale_after: 5 }] },
    { source: 'c', where: { location: 'DC' } },
  ],
  on_hold: { merge: 'lww', skew: 0 },
  in_transit: { merge: 'max' },
  on_order: { merge: 'min' },
  soft_reserved: 'b',
  source_available: 'c',
};
const NOW = 10_000;

interface Event {
  readonly change: ContributionChange;
  readonly timeUs: number;
}

const quantity = fc.constantFrom('0', '1', '2.5', '-3', '7');
const record = fc.record(
  {
    sku: fc.constantFrom('A', 'B'),
    location: fc.constantFrom('WH/1', 'DC', 'elsewhere'),
    uom: fc.constant('EA'),
    on_hand: quantity,
    allocated: quantity,
    damaged: quantity,
    in_transit: quantity,
    on_order: quantity,
    soft_reserved: quantity,
    source_available: quantity,
  },
  { requiredKeys: ['sku', 'location', 'uom', 'on_hand'] },
);

/** The log of one source: in its own order, commit times never falling. */
const log = (source: string): fc.Arbitrary<Event[]> =>
  fc.array(fc.tuple(record, fc.nat({ max: 4000 }), fc.nat({ max: 9 })), { maxLength: 8 }).map((items) => {
    let timeUs = 0;
    return items.map(([values, pause, gone]) => {
      timeUs += pause;
      const change = contributionOf(ENTITY, source, values, timeUs);
      return { change: gone === 0 ? { ...change, values: undefined } : change, timeUs };
    });
  });

/** Runs logs in an order given by picks among those that have something left; gives the records and what is held. */
function run(logs: readonly (readonly Event[])[], picks: readonly number[]): { records: unknown; held: unknown } {
  const supplied = new Map(SOURCES.map((source) => [source, new Set(GROUPS)]));
  const { ownership, problems } = compileOwnership(ENTITY, CONFIG, supplied);
  expect(problems).toEqual([]);
  const resolver = new Resolver(ownership);
  const records = new Map<string, unknown>();
  const next = logs.map(() => 0);
  const note = (changes: readonly ResolvedChange[]): void => {
    for (const resolved of changes)
      if (resolved.after === undefined) records.delete(resolved.key);
      else records.set(resolved.key, recordShown(resolved));
  };
  for (let turn = 0; next.some((at, index) => at < logs[index]!.length); turn++) {
    const open = [...logs.keys()].filter((index) => next[index]! < logs[index]!.length);
    const index = open[(picks[turn] ?? 0) % open.length]!;
    const { change, timeUs } = logs[index]![next[index]!++]!;
    note(resolver.apply(SOURCES[index]!, [change], timeUs, NOW));
    if ((picks[turn] ?? 0) > 2) resolver.atEnd(SOURCES[index]!);
  }
  for (const source of SOURCES) resolver.atEnd(source);
  for (const [index, source] of SOURCES.entries())
    note(resolver.apply(source, [], logs[index]!.at(-1)?.timeUs ?? 0, NOW));
  const sorted = [...records].toSorted(([x], [y]) => (x < y ? -1 : 1));
  return { records: sorted, held: resolver.held.all.map(({ key, group }) => `${key} ${group}`).toSorted() };
}

describe('resolver', () => {
  it('gives the same records whatever the order in which sources arrive', () => {
    const order = fc.array(fc.nat({ max: 5 }), { maxLength: 24 });
    fc.assert(
      fc.property(fc.tuple(log('a'), log('b'), log('c')), order, order, (logs, one, other) => {
        expect(run(logs, one)).toEqual(run(logs, other));
      }),
      { numRuns: 1500 },
    );
  });
});
