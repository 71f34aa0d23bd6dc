import { describe, expect, it } from 'vitest';
import { shipment } from '../../transform/canonical/entities-transport.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { compileOwnership } from '../../transform/ownership/ownership.ts';
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
