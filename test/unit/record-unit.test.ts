import { describe, expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { compileOwnership } from '../../transform/ownership/ownership.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { contributionOf, recordShown } from '../support/contributions.ts';

const STOCK = inventoryPosition as unknown as Entity;
const supplied = new Map([
  ['wms', new Set(['on_hand'])],
  ['erp', new Set(['allocated', 'on_hand'])],
]);

describe('quantities of a record in several units', () => {
  const begin = () => {
    const { ownership } = compileOwnership(STOCK, { on_hand: 'wms' }, supplied);
    const resolver = new Resolver(ownership);
    let at = 0;
    const say = (source: string, values: Record<string, string>) => {
      at += 1;
      const said = contributionOf(STOCK, source, { sku: 'A', location: 'W', ...values }, at);
      return resolver.apply(source, [said], at, 1_000_000).map(recordShown);
    };
    return { resolver, say };
  };

  it('are converted into the unit of the record', () => {
    const { say } = begin();
    say('erp', { uom: 'DZN', allocated: '12' });
    expect(say('wms', { uom: 'EA', on_hand: '144' })).toEqual([
      expect.objectContaining({ uom: 'EA', on_hand: '144', allocated: '144', available: '0' }),
    ]);
  });

  it('are held where they cannot be converted, at their last good values', () => {
    const { resolver, say } = begin();
    say('wms', { uom: 'EA', on_hand: '10' });
    say('erp', { uom: 'EA', allocated: '4' });
    expect(say('erp', { uom: 'KGM', allocated: '3' })).toEqual([]);
    expect(resolver.held.all).toEqual([
      expect.objectContaining({
        group: 'allocated',
        key: 'A/W//',
        violations: [expect.objectContaining({ rule: 'must be in the unit of the record: EA, not KGM' })],
      }),
    ]);
    expect(say('wms', { uom: 'EA', on_hand: '11' })).toEqual([
      expect.objectContaining({ on_hand: '11', allocated: '4', available: '7' }),
    ]);
    expect(say('erp', { uom: 'EA', allocated: '3' })).toEqual([expect.objectContaining({ allocated: '3' })]);
    expect(resolver.held.all).toEqual([]);
  });

  it('are in the unit of the record where none is said', () => {
    const { say } = begin();
    say('wms', { uom: 'KGM', on_hand: '10' });
    expect(say('erp', { allocated: '4' })).toEqual([expect.objectContaining({ uom: 'KGM', available: '6' })]);
  });
});
