import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import type { Entity, RecordValues } from '../../transform/canonical/entity.ts';
import { deriveStock } from '../../transform/canonical/inventory.ts';
import { Delivery, type Passing } from '../../transform/delivery.ts';
import { compileTiers } from '../../transform/delivery-tiers.ts';

const ENTITY = inventoryPosition as unknown as Entity;
const at = (name: string): number => ENTITY.index.get(name)!;

function recordOf(sku: string, onHand: string, allocated: string, onOrder: string): RecordValues {
  const values: (string | null)[] = ENTITY.fields.map(() => null);
  const given = { sku, location: 'WH', lot: '', owner: '', uom: 'EA', on_hand: onHand, allocated, on_order: onOrder };
  for (const [name, value] of Object.entries(given)) values[at(name)] = value;
  return deriveStock(values);
}

const DELIVERIES = {
  realtime: 'realtime' as const,
  every: { every: 5000 },
  hybrid: { default: 'realtime' as const, allocated: { every: 5000 }, on_order: { cron: '0 2 * * *' } },
  slow: { default: { every: 5000 }, on_order: { cron: '0 2 * * *' } },
};

/** A record that changes, or goes; or the release of a tier. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constantFrom('A', 'B'), fc.nat(2), fc.nat(2), fc.nat(2)) },
  { weight: 1, arbitrary: fc.constantFrom('A', 'B') },
  { weight: 1, arbitrary: fc.nat(1) },
);

class Receiver {
  readonly records = new Map<string, RecordValues>();
  writes = 0;

  /** Refuses what does not follow from what was passed on before. */
  take({ key, before, after }: Passing): void {
    expect(before).toEqual(this.records.get(key));
    expect(after).not.toEqual(before);
    this.writes += 1;
    if (after === undefined) this.records.delete(key);
    else this.records.set(key, after);
    const derived = after === undefined ? undefined : deriveStock(after);
    expect(derived).toEqual(after);
  }
}

describe.each(Object.entries(DELIVERIES))('delivery %s', (_, delivery) => {
  const { tiers, problems } = compileTiers(ENTITY, delivery);
  it('passes on each state once, the fast groups at once, and everything in the end', () => {
    expect(problems).toEqual([]);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const current = new Map<string, RecordValues>();
        const receiver = new Receiver();
        const gate = new Delivery(ENTITY, tiers);
        let changes = 0;
        const change = (key: string, after: RecordValues | undefined): void => {
          const before = current.get(key);
          if (JSON.stringify(before) === JSON.stringify(after)) return;
          if (after === undefined) current.delete(key);
          else current.set(key, after);
          changes += 1;
          const passed = gate.take({ key, before, after });
          if (passed !== undefined) receiver.take(passed);
        };
        for (const each of steps) {
          if (typeof each === 'string') change(each, undefined);
          else if (typeof each !== 'number')
            change(each[0], recordOf(each[0], String(each[1]), String(each[2]), String(each[3])));
          else {
            const tier = tiers.delayed[each];
            if (tier === undefined) continue;
            for (const passed of gate.release(tier, (key) => current.get(key))) receiver.take(passed);
          }
          if (tiers.existence !== undefined) continue;
          expect([...receiver.records.keys()].sort()).toEqual([...current.keys()].sort());
          for (const [key, values] of current)
            expect(receiver.records.get(key)![at('on_hand')]).toBe(values[at('on_hand')]);
        }
        for (const tier of tiers.delayed)
          for (const passed of gate.release(tier, (key) => current.get(key))) receiver.take(passed);
        expect(receiver.records).toEqual(current);
        expect(gate.waiting).toBe(0);
        if (tiers.delayed.length === 0) expect(receiver.writes).toBe(changes);
        if (delivery === DELIVERIES.every) expect(receiver.writes + gate.savedWrites).toBe(changes);
      }),
      { numRuns: 2000, seed: 11 },
    );
  });
});

/** What a source says of a record: the stock of `wms`, without which it is not there, or the orders of `erp`. */
type Said = { readonly source: 'wms' | 'erp'; readonly sku: string; readonly value: string | undefined };

describe.each(Object.entries(DELIVERIES))('delivery %s', (_, delivery) => {
  const { tiers } = compileTiers(ENTITY, delivery);

  /** The records that follow from what has been said, as `Delivery` is told of their changes. */
  class Flow {
    readonly gate: Delivery;
    readonly said = { wms: new Map<string, string>(), erp: new Map<string, string>() };
    readonly current = new Map<string, RecordValues>();

    constructor(gate = new Delivery(ENTITY, tiers)) {
      this.gate = gate;
    }

    take({ source, sku, value }: Said, replayed: boolean): Passing | undefined {
      if (value === undefined) this.said[source].delete(sku);
      else this.said[source].set(sku, value);
      const before = this.current.get(sku);
      const stock = this.said.wms.get(sku);
      const after = stock === undefined ? undefined : recordOf(sku, stock, '1', this.said.erp.get(sku) ?? '0');
      if (after === undefined) this.current.delete(sku);
      else this.current.set(sku, after);
      if (JSON.stringify(before) === JSON.stringify(after)) return undefined;
      return this.gate.take({ key: sku, before, after }, replayed);
    }

    release(tier: number, replayed: boolean): Passing[] {
      return this.gate.release(tiers.delayed[tier]!, (key) => this.current.get(key), replayed);
    }

    /** As a saved state brings it back. */
    copy(): Flow {
      const copy = new Flow();
      for (const source of ['wms', 'erp'] as const)
        for (const [sku, value] of this.said[source]) copy.said[source].set(sku, value);
      for (const [key, values] of this.current) copy.current.set(key, values);
      for (const saved of this.gate.saved()) copy.gate.restore(...saved);
      return copy;
    }
  }

  it('loses nothing that waits over a kill, in whatever order the sources are read again', () => {
    const event = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          source: fc.constantFrom('wms' as const, 'erp' as const),
          sku: fc.constantFrom('A', 'B'),
          value: fc.option(fc.constantFrom('1', '2', '3'), { nil: undefined, freq: 5 }),
        }),
      },
      { weight: 1, arbitrary: fc.nat(1) },
    );
    const order = fc.constantFrom(['wms', 'erp'] as const, ['erp', 'wms'] as const);
    fc.assert(
      fc.property(fc.array(event, { maxLength: 20 }), fc.nat(20), order, (events, savedAt, sources) => {
        const target = new Map<string, RecordValues>();
        const pass = (passed: Passing | undefined): void => {
          if (passed?.after === undefined) target.delete(passed?.key ?? '');
          else target.set(passed.key, passed.after);
        };
        const flow = new Flow();
        let again = new Flow();
        const stops = new Map<number, number>();
        for (const [at, each] of events.entries()) {
          if (at === savedAt) {
            again = flow.copy();
            stops.clear();
          }
          if (typeof each !== 'number') pass(flow.take(each, false));
          else if (each < tiers.delayed.length) {
            for (const passed of flow.release(each, false)) pass(passed);
            stops.set(each, at);
          }
        }
        // It is killed. What came behind the saved state is read again in silence, one source after the other.
        let from = savedAt < events.length ? savedAt : 0;
        const readTo = (to: number): void => {
          for (const source of sources)
            for (const each of events.slice(from, to))
              if (typeof each !== 'number' && each.source === source) again.take(each, true);
          from = to;
        };
        for (const [tier, at] of [...stops].toSorted((a, b) => a[1] - b[1])) {
          readTo(at);
          again.release(tier, true);
        }
        readTo(events.length);
        for (const tier of tiers.delayed.keys()) for (const passed of again.release(tier, false)) pass(passed);
        expect(target).toEqual(again.current);
        expect(again.gate.waiting).toBe(0);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('tiers', () => {
  it('are counted from 1970, and read in UTC', () => {
    const every = compileTiers(ENTITY, { every: 60_000 }).tiers.delayed[0]!;
    expect(every.dueAfter(Date.UTC(2026, 2, 1, 8, 15, 1) * 1000)).toBe(Date.UTC(2026, 2, 1, 8, 16) * 1000);
    expect(every.dueAfter(Date.UTC(2026, 2, 1, 8, 15) * 1000)).toBe(Date.UTC(2026, 2, 1, 8, 16) * 1000);
    const cron = compileTiers(ENTITY, { cron: '0 2 * * *' }).tiers.delayed[0]!;
    expect(cron.dueAfter(Date.UTC(2026, 2, 1, 8) * 1000)).toBe(Date.UTC(2026, 2, 2, 2) * 1000);
  });

  it.each([
    [{ cron: 'never' }, '"never" is not a timetable'],
    [{ on_hands: 'realtime' as const }, 'no field or group "on_hands" (did you mean "on_hand"?)'],
  ])('refuse %j', (delivery, message) => {
    expect(compileTiers(ENTITY, delivery as never).problems.join()).toContain(message);
  });
});
