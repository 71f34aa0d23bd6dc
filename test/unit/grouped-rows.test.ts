/** Rows that make one record together must be about the same thing. */
import { describe, expect, it } from 'vitest';
import { checkMapping } from '../../transform/mapping/check.ts';
import { compileMapping } from '../../transform/mapping/block-plan.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { SourceFeed, summary, tableOf } from '../support/mapped-tables.ts';

const QUANT = tableOf('quant', {
  id: 'integer',
  product_id: 'integer',
  code: 'text',
  unit: 'text',
  quantity: 'numeric',
  reserved: 'numeric',
});
const mappingOf = (same = '', group = 'group: true') => `
version: 1
name: grouped
entities:
  inventory_position:
    from: quant
    ${group}
    ${same}
    fields:
      sku: code
      location: { const: WH }
      lot: { const: '' }
      owner: { const: '' }
      uom: unit
      on_hand: { sum: quantity }
      allocated: { sum: reserved }
`;

function feedOf(text: string): SourceFeed {
  const plan = compileMapping(parseMapping(text, 'grouped.yaml'), new Map());
  expect(checkMapping(plan, [QUANT])).toEqual([]);
  return new SourceFeed(new MappingEngine({ source: 's', plan }), [QUANT]);
}
const quant = (id: string, product: string, unit: string | null, quantity: string) => ({
  id,
  product_id: product,
  code: 'CHAIR',
  unit,
  quantity,
  reserved: '1',
});
const stock = (onHand: string, allocated: string) => ({
  sku: 'CHAIR',
  location: 'WH',
  uom: 'EA',
  on_hand: onHand,
  allocated,
});

describe('rows that make one record', () => {
  it('hold a group of which they say different things, at its last good values, until they agree', () => {
    const feed = feedOf(mappingOf());
    feed.put('quant', quant('1', '1', 'EA', '10'));
    expect(summary(feed.flush())).toEqual([stock('10', '1')]);
    feed.put('quant', quant('2', '1', 'KGM', '5'));
    const rule = 'on_hand: uom must be the same in all rows of the record';
    expect(summary(feed.flush())).toEqual([{ values: stock('10', '2'), held: [rule] }]);
    feed.update('quant', quant('2', '1', null, '5'));
    expect(summary(feed.flush())).toEqual([{ values: stock('10', '2'), held: [rule] }]);
    feed.update('quant', quant('2', '1', 'EA', '5'));
    expect(summary(feed.flush())).toEqual([stock('15', '2')]);
    feed.update('quant', quant('1', '1', 'KGM', '10')).flush();
    feed.remove('quant', { id: '2' });
    expect(summary(feed.flush())).toEqual([{ ...stock('10', '1'), uom: 'KGM' }]);
  });

  it('are held whole where they differ in what `same` names, and come back once they do not', () => {
    const feed = feedOf(mappingOf('same: [product_id]'));
    feed.put('quant', quant('1', '1', 'EA', '10'), quant('2', '1', 'EA', '4'));
    expect(summary(feed.flush())).toEqual([stock('14', '2')]);
    feed.put('quant', quant('3', '2', 'EA', '7'));
    expect(summary(feed.flush())).toEqual([
      { values: stock('14', '2'), held: ['*: product_id must be the same in all rows of the record'] },
    ]);
    feed.update('quant', quant('1', '1', 'EA', '11'));
    expect(summary(feed.flush())).toEqual([expect.objectContaining({ values: stock('14', '2') })]);
    feed.update('quant', { ...quant('3', '2', 'EA', '7'), code: 'TABLE' });
    expect(summary(feed.flush())).toEqual([stock('15', '2'), { ...stock('7', '1'), sku: 'TABLE' }]);
  });

  it('give no record at all where they never agreed', () => {
    const feed = feedOf(mappingOf('same: [product_id]'));
    feed.put('quant', quant('1', '1', 'EA', '10'), quant('2', '2', 'EA', '4'));
    expect(summary(feed.flush())).toEqual([
      { values: 'gone', held: ['*: product_id must be the same in all rows of the record'] },
    ]);
    feed.remove('quant', { id: '2' });
    expect(summary(feed.flush())).toEqual([stock('10', '1')]);
  });

  it('are asked for what is the same only where a block takes several, and by columns that are there', () => {
    expect(() => parseMapping(mappingOf('same: [product_id]', ''), 'm.yaml')).toThrow('same needs "group: true"');
    expect(() => parseMapping(mappingOf('same: [nowhere.id]'), 'm.yaml')).toThrow('there is no join "nowhere"');
    expect(() => parseMapping(mappingOf('same: [{ sum: quantity }]'), 'm.yaml')).toThrow('sum must stand alone');
    const plan = compileMapping(parseMapping(mappingOf('same: [product]'), 'm.yaml'), new Map());
    expect(checkMapping(plan, [QUANT]).map(({ message }) => message)).toEqual([
      expect.stringContaining('table public.quant has no column product'),
    ]);
  });
});
