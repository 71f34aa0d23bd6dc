/** What is said to follow from the rows that sources have now does, whatever led to them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import type { Entity, RecordValues } from '../../transform/canonical/entity.ts';
import { compileOwnership, type OwnershipConfig } from '../../transform/ownership/ownership.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { compileProvable } from '../../transform/proof/provable.ts';
import { recordOfHold } from '../../transform/proof/recomputed-flow.ts';
import { contributionOf } from '../support/contributions.ts';

const ENTITY = inventoryPosition as unknown as Entity;
const SOURCES = ['a', 'b', 'c'] as const;
const SUPPLIED = new Set(ENTITY.groupIndexes.keys());
const CONFIG: OwnershipConfig = {
  on_hand: { source: 'a', fallback: [{ source: 'b', stale_after: 5 }] },
  allocated: [
    { source: 'a', where: { location: 'WH/*' }, fallback: [{ source: 'b', stale_after: 5 }] },
    { source: 'c', where: { location: 'DC' } },
  ],
  on_hold: { merge: 'lww' },
  in_transit: { merge: 'max' },
  on_order: { merge: 'min' },
  soft_reserved: { merge: 'delta' },
  source_available: 'c',
};
const BLOCKS = SOURCES.map((source) => ({ source, index: 0, groups: [...SUPPLIED], grouped: false }));
const NOW = 1_000_000;

interface Event {
  readonly source: (typeof SOURCES)[number];
  readonly values: Record<string, string>;
  readonly pauseUs: number;
  readonly gone: boolean;
  readonly echo: boolean;
}

const quantity = fc.constantFrom('0', '1', '2.5', '7');
const values = fc.record(
  {
    sku: fc.constantFrom('A', 'B'),
    location: fc.constantFrom('WH/1', 'DC', 'elsewhere'),
    uom: fc.constantFrom('EA', 'KGM'),
    on_hand: quantity,
    allocated: quantity,
    damaged: quantity,
    in_transit: quantity,
    on_order: quantity,
    soft_reserved: quantity,
    source_available: quantity,
  },
  { requiredKeys: ['sku', 'location'] },
) as fc.Arbitrary<Record<string, string>>;
const history = fc.array(
  fc.record({
    source: fc.constantFrom(...SOURCES),
    values,
    pauseUs: fc.nat({ max: 9000 }),
    gone: fc.nat({ max: 7 }).map((n) => n === 0),
    echo: fc.nat({ max: 3 }).map((n) => n === 0),
  }),
  { maxLength: 14 },
);

function resolverOf(): { resolver: Resolver; ownership: ReturnType<typeof compileOwnership>['ownership'] } {
  const { ownership, problems } = compileOwnership(ENTITY, CONFIG, new Map(SOURCES.map((name) => [name, SUPPLIED])));
  expect(problems).toEqual([]);
  return { resolver: new Resolver(ownership), ownership };
}

/** Records that contradict themselves and stay as they were. */
function heldOf(resolver: Resolver): [key: string, group: string][] {
  return [...resolver.held.entries()].flatMap(({ id, held }) =>
    held === undefined || held.incomplete === true ? [] : [[recordOfHold(id), held.group] as [string, string]],
  );
}

function check(events: readonly Event[], echoes: boolean): void {
  const { resolver: lived, ownership } = resolverOf();
  const { resolver: scanned } = resolverOf();
  const now = new Map<string, Event>();
  let timeUs = 0;
  for (const event of events) {
    timeUs += event.pauseUs;
    const said = contributionOf(ENTITY, event.source, event.values, timeUs);
    const id = `${event.source} ${said.key}`;
    const record = lived.record(said.key);
    // What Waybill writes is what the record says, into a row that is there or a new one.
    const echo = echoes && event.echo && record !== undefined && !event.gone;
    const values = echo ? { ...now.get(id)?.values, ...merged(record) } : event.values;
    const change = echo ? contributionOf(ENTITY, event.source, values, timeUs) : said;
    if (event.gone) now.delete(id);
    else now.set(id, { ...event, values });
    lived.apply(event.source, [event.gone ? { ...change, values: undefined } : change], timeUs, NOW, echo);
  }
  for (const { source, values: last } of now.values())
    scanned.apply(source, [contributionOf(ENTITY, source, last, 0)], 0, NOW);
  const held = new Map<string, Set<string>>();
  for (const [key, group] of [...heldOf(lived), ...heldOf(scanned)])
    held.set(key, (held.get(key) ?? new Set()).add(group));
  const openOf = compileProvable({
    ownership,
    blocks: BLOCKS,
    broken: [],
    held,
    writtenTo: new Set(echoes ? SOURCES : []),
  });
  for (const key of new Set([...lived.entries.keys(), ...scanned.entries.keys()])) {
    const { groups, existence } = openOf(key, scanned.entry(key));
    const [expected, given] = [scanned.record(key), lived.record(key)];
    if (existence === undefined) expect(given === undefined, `whether ${key} is there`).toBe(expected === undefined);
    if (expected === undefined || given === undefined) continue;
    expect(claimed(given, groups), key).toEqual(claimed(expected, groups));
  }
}

/** The key of a record, and what of it several sources make together. */
function merged(record: RecordValues): Record<string, string> {
  return Object.fromEntries(
    ENTITY.fields.flatMap(({ name, key, group }, index) => {
      const value = record[index];
      const wanted = key || ['in_transit', 'on_order', 'on_hold'].includes(group);
      return wanted && typeof value === 'string' ? [[name, value]] : [];
    }),
  );
}

/** The values that are claimed, by field: of derived ones none where anything is open. */
function claimed(record: RecordValues, open: ReadonlyMap<string, string>): Record<string, string | null> {
  return Object.fromEntries(
    ENTITY.fields.flatMap((field, index) =>
      open.has(field.group) || (field.derived && open.size > 0) ? [] : [[field.name, record[index]!]],
    ),
  );
}

describe('what can be proven', () => {
  it('is so whatever led to the rows that there are', () => {
    fc.assert(
      fc.property(history, (events) => check(events, false)),
      { numRuns: 1000 },
    );
  });

  it('is so where Waybill itself wrote some of them', () => {
    fc.assert(
      fc.property(history, (events) => check(events, true)),
      { numRuns: 1000 },
    );
  });
});
