import { describe, expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import { shipment } from '../../transform/canonical/entities-transport.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { compileOwnership, type OwnershipConfig } from '../../transform/ownership/ownership.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { RecordsReader, RecordsWriter } from '../../transform/saved-records.ts';
import { contributionOf, recordShown } from '../support/contributions.ts';

const SHIPMENT = shipment as unknown as Entity;
const NOW = Date.UTC(2026, 2, 1, 12) * 1000;
const SECOND = 1_000_000;
const MINUTE = 60 * SECOND;

const { ownership, problems } = compileOwnership(
  SHIPMENT,
  { default: { merge: 'lww' } },
  new Map(['a', 'b'].map((source) => [source, new Set(['carriage', 'status'])])),
);
const of = (source: string, carrier: string, us: number) =>
  contributionOf(SHIPMENT, source, { number: 'S1', carrier, status: 'shipped' }, us);
/** What a resolver knows, saved and brought back. */
function restored(resolver: Resolver, nowUs: number): Resolver {
  const writer = new RecordsWriter(SHIPMENT);
  for (const entry of resolver.entries.values()) writer.add(entry);
  const again = new Resolver(ownership);
  const line = JSON.parse(JSON.stringify(writer.take())) as ReturnType<RecordsWriter['take']>;
  new RecordsReader(SHIPMENT).read(line, (record) => again.restoreEntry(record, nowUs));
  again.restoreClocks(resolver.clocks);
  return again;
}
const carrierOf = (resolver: Resolver): (string | null)[] =>
  [...resolver.current()].map(({ values }) => values[SHIPMENT.index.get('carrier')!]!);

describe('a commit time that lies too far ahead', () => {
  it('leaves standing what its source said before, where nobody else has the record', () => {
    expect(problems).toEqual([]);
    const resolver = new Resolver(ownership);
    resolver.apply('b', [of('b', 'UPS', NOW - MINUTE)], NOW, NOW);
    expect(resolver.apply('b', [of('b', 'DHL', NOW + 6 * MINUTE)], NOW, NOW)).toEqual([]);
    expect(resolver.apply('b', [of('b', 'GLS', NOW + 7 * MINUTE)], NOW, NOW)).toEqual([]);
    expect(carrierOf(resolver)).toEqual(['UPS']);
    expect(resolver.held.all).toEqual([]);
    const later = resolver.apply('a', [], NOW, NOW + 2 * MINUTE);
    expect(later.map(recordShown)).toEqual([expect.objectContaining({ carrier: 'GLS' })]);
    // What stood meanwhile is of no use any more.
    expect([...resolver.entries.values()][0]!.contributions[0]!.claims?.size ?? 0).toBe(0);
  });

  it('does not bring back what another source said before', () => {
    const resolver = new Resolver(ownership);
    resolver.apply('a', [of('a', 'DHL', NOW - 3 * MINUTE)], NOW, NOW);
    resolver.apply('b', [of('b', 'UPS', NOW - 2 * MINUTE)], NOW, NOW);
    expect(resolver.apply('b', [of('b', 'EVIL', NOW + 60 * MINUTE)], NOW, NOW)).toEqual([]);
    expect(carrierOf(resolver)).toEqual(['UPS']);
    const winner = resolver.explain('S1', NOW)!.find(({ group }) => group === 'carriage')!.winner!;
    expect(winner.position).toBe(`p${NOW - 2 * MINUTE}`);
    // Who writes after what stands wins.
    const next = resolver.apply('a', [of('a', 'GLS', NOW - MINUTE)], NOW, NOW);
    expect(next.map(recordShown)).toEqual([expect.objectContaining({ carrier: 'GLS' })]);
    // A clock that was set right counts at once.
    const right = resolver.apply('b', [of('b', 'DPD', NOW)], NOW, NOW);
    expect(right.map(recordShown)).toEqual([expect.objectContaining({ carrier: 'DPD' })]);
  });

  it('leaves it standing over a restart, until the time has come', () => {
    const resolver = new Resolver(ownership);
    resolver.apply('a', [of('a', 'DHL', NOW - 3 * MINUTE)], NOW, NOW);
    resolver.apply('b', [of('b', 'UPS', NOW - 2 * MINUTE)], NOW, NOW);
    resolver.apply('b', [of('b', 'EVIL', NOW + 6 * MINUTE)], NOW, NOW);
    const again = restored(resolver, NOW);
    expect(again.apply('a', [of('a', 'DHL', NOW - 3 * MINUTE)], NOW, NOW)).toEqual([]);
    expect(carrierOf(again)).toEqual(['UPS']);
    const later = again.apply('a', [], NOW, NOW + 2 * MINUTE);
    expect(later.map(recordShown)).toEqual([expect.objectContaining({ carrier: 'EVIL' })]);
  });

  it('leaves it standing while Waybill writes into the source', () => {
    const resolver = new Resolver(ownership);
    resolver.apply('b', [of('b', 'UPS', NOW - 2 * MINUTE)], NOW, NOW);
    resolver.apply('b', [of('b', 'EVIL', NOW + 6 * MINUTE)], NOW, NOW);
    expect(resolver.apply('b', [of('b', 'UPS', NOW + 6 * MINUTE)], NOW, NOW, true)).toEqual([]);
    expect(carrierOf(resolver)).toEqual(['UPS']);
  });

  it('goes with what it is said of', () => {
    const resolver = new Resolver(ownership);
    resolver.apply('b', [of('b', 'UPS', NOW - 2 * MINUTE)], NOW, NOW);
    const early = of('b', 'EVIL', NOW + 6 * MINUTE);
    resolver.apply('b', [early], NOW, NOW);
    const gone = resolver.apply('b', [{ ...early, values: undefined }], NOW, NOW);
    expect(gone.map(({ after }) => after)).toEqual([undefined]);
    expect(resolver.entries.size).toBe(0);
  });
});

const STOCK = inventoryPosition as unknown as Entity;
const stock = (config: OwnershipConfig, sources: readonly string[]): Resolver =>
  new Resolver(
    compileOwnership(STOCK, config, new Map(sources.map((source) => [source, new Set(['on_hand'])]))).ownership,
  );
const say = (resolver: Resolver, source: string, onHand: string, us: number, nowUs: number) => {
  const record = { sku: 'A', location: 'W', uom: 'EA', on_hand: onHand };
  const changes = resolver.apply(source, [contributionOf(STOCK, source, record, us)], us, nowUs);
  return changes.map((change) => recordShown(change)['on_hand']);
};

describe('a stream with a commit time that lies ahead', () => {
  const fallback = [{ source: 'erp', stale_after: 60_000 }];

  it('does not make the owner stale, when it is the stream of its fallback', () => {
    const resolver = stock({ on_hand: { source: 'wms', fallback } }, ['wms', 'erp']);
    expect(say(resolver, 'wms', '1', NOW, NOW)).toEqual(['1']);
    expect(say(resolver, 'erp', '9', NOW + 24 * 60 * MINUTE, NOW)).toEqual([]);
    resolver.atEnd('wms');
    expect(resolver.apply('wms', [], NOW + MINUTE, NOW + MINUTE)).toEqual([]);
    // The owner says nothing any more.
    const silent = resolver.apply('erp', [], NOW + 24 * 60 * MINUTE, NOW + 3 * MINUTE);
    expect(silent.map((change) => recordShown(change)['on_hand'])).toEqual(['9']);
  });

  it('does not make the owner stale, when it is one that has no part in the rule', () => {
    const resolver = stock({ on_hand: { source: 'wms', fallback } }, ['wms', 'erp', 'shop']);
    say(resolver, 'wms', '1', NOW - 10 * MINUTE, NOW);
    say(resolver, 'erp', '9', NOW - 10 * MINUTE, NOW);
    resolver.apply('shop', [], NOW, NOW);
    resolver.atEnd('wms');
    expect(resolver.apply('shop', [], NOW, NOW)).toEqual([]);
  });

  it('does not swallow what is changed after its count', () => {
    const resolver = stock({ on_hand: { merge: 'delta', reset: 'wms' } }, ['wms', 'shop']);
    expect(say(resolver, 'wms', '100', NOW + 60 * MINUTE, NOW)).toEqual(['100']);
    say(resolver, 'shop', '100', NOW + MINUTE, NOW + MINUTE);
    expect(say(resolver, 'shop', '97', NOW + 6 * MINUTE, NOW + 6 * MINUTE)).toEqual(['97']);
  });
});
