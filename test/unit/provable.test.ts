/** What of a record follows from the rows that its sources have now. */
import { describe, expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { compileOwnership, type OwnershipConfig } from '../../transform/ownership/ownership.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { compileProvable, type BlockOf, type Open, type ProvableOptions } from '../../transform/proof/provable.ts';
import { recordOfHold } from '../../transform/proof/recomputed-flow.ts';
import { contributionOf } from '../support/contributions.ts';

const STOCK = inventoryPosition as unknown as Entity;
const KEY = { sku: 'A', location: 'WH' };
const ID = ['A', 'WH', '', ''].join('\u001f');
const BLOCK: BlockOf = { source: 'wms', index: 0, groups: ['on_hand'], grouped: false };

const BLOCKS = ['wms', 'erp'].map((source) => ({ ...BLOCK, source, groups: ['on_hand', 'on_order'] }));

/** What is open when the sources say this of one record. */
function openOf(
  config: OwnershipConfig,
  said: Record<string, Record<string, string | null>>,
  options: Partial<ProvableOptions> = {},
): { groups: Record<string, string>; existence: Open['existence'] } {
  const groups = ['on_hand', 'on_order'];
  const supplied = new Map(['wms', 'erp'].map((name) => [name, new Set(groups)]));
  const { ownership, problems } = compileOwnership(STOCK, { on_hand: 'wms', on_order: 'erp', ...config }, supplied);
  expect(problems).toEqual([]);
  const resolver = new Resolver(ownership);
  for (const [source, values] of Object.entries(said))
    resolver.apply(source, [contributionOf(STOCK, source, { ...KEY, ...values }, 0)], 0, 0);
  const open = compileProvable({
    ownership,
    blocks: BLOCKS,
    broken: [],
    held: new Map(),
    writtenTo: new Set<string>(),
    ...options,
  });
  const found = open(ID, resolver.entry(ID));
  return { groups: Object.fromEntries(found.groups), existence: found.existence };
}

const CERTAIN = { groups: {}, existence: undefined };
const both = (wms: string, erp: string) => ({ wms: { on_hand: wms, uom: 'EA' }, erp: { on_hand: erp, uom: 'EA' } });

describe('what can be proven of a record', () => {
  it('is what its owner says, whatever others do', () => {
    expect(openOf({}, both('5', '6'))).toEqual(CERTAIN);
  });

  it('is not who wrote last, unless all say the same', () => {
    expect(openOf({ on_hand: { merge: 'lww' } }, both('5', '6')).groups).toEqual({ on_hand: 'writer' });
    expect(openOf({ on_hand: { merge: 'lww' } }, both('5', '5'))).toEqual(CERTAIN);
    expect(openOf({ on_hand: { merge: 'lww' } }, { erp: { on_hand: '6', uom: 'EA' } })).toEqual(CERTAIN);
  });

  it('is the largest of the values, unless Waybill wrote them', () => {
    expect(openOf({ on_order: { merge: 'max' } }, { wms: { on_order: '5' }, erp: { on_order: '6' } })).toEqual(CERTAIN);
    const written = openOf(
      { on_order: { merge: 'max' } },
      { wms: { on_order: '5' }, erp: { on_order: '6' } },
      { writtenTo: new Set(['wms', 'erp']) },
    );
    expect(written.groups).toEqual({ on_order: 'written' });
    // Nobody may have said it but Waybill.
    const alone = openOf(
      { on_order: { merge: 'max' } },
      { wms: { on_order: '5' } },
      { writtenTo: new Set(['wms', 'erp']) },
    );
    expect(alone).toEqual({ groups: { on_order: 'written' }, existence: 'written' });
  });

  it('is never a sum of changes', () => {
    expect(openOf({ on_order: { merge: 'delta' } }, { wms: { on_order: '5' } }).groups).toEqual({
      on_order: 'changes',
    });
  });

  it('is not what a fallback may say otherwise, nor whether the record is there when one may be silent', () => {
    const owner = { source: 'wms', fallback: [{ source: 'erp', stale_after: 1000 }] };
    expect(openOf({ on_hand: owner }, both('5', '6'))).toEqual({
      groups: { on_hand: 'fallback' },
      existence: undefined,
    });
    expect(openOf({ on_hand: owner }, both('5', '5'))).toEqual(CERTAIN);
    expect(openOf({ on_hand: owner }, { wms: { on_hand: '5', uom: 'EA' } })).toEqual({
      groups: { on_hand: 'fallback' },
      existence: 'fallback',
    });
  });

  it('is not what is held, nor whether a record is there that is held whole', () => {
    const held = (group: string) => openOf({}, both('5', '6'), { held: new Map([[ID, new Set([group])]]) });
    expect(held('on_hand')).toEqual({ groups: { on_hand: 'held' }, existence: 'held' });
    expect(Object.keys(held('*').groups)).toEqual([...STOCK.groupIndexes.keys()]);
  });

  it('is not what rows that cannot be mapped may have made', () => {
    expect(openOf({}, {}, { broken: [BLOCK] })).toEqual({ groups: { on_hand: 'broken' }, existence: 'broken' });
    // Another row makes it: that one is mapped.
    expect(openOf({}, both('5', '6'), { broken: [BLOCK] })).toEqual(CERTAIN);
    // Of several rows that make it one may be missing.
    const grouped = { ...BLOCK, grouped: true };
    expect(openOf({}, both('5', '6'), { broken: [grouped] }).groups).toEqual({ on_hand: 'broken' });
  });
});

it('tells of what record something is held', () => {
  expect(recordOfHold(`wms#0#A#1\u001fWH#on_hand`)).toBe('A#1\u001fWH');
  expect(recordOfHold(`record#A#1\u001fWH#*`)).toBe('A#1\u001fWH');
  expect(recordOfHold('wms#12#\0row\x007#*')).toBe('\0row\x007');
});
