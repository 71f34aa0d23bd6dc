/** Lists that are collected over the rows of a record. */
import { describe, expect, it } from 'vitest';
import { compileMapping, type MappingPlan } from '../../transform/mapping/block-plan.ts';
import { checkMapping } from '../../transform/mapping/check.ts';
import type { ContributionChange } from '../../transform/mapping/contribution-change.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { SourceFeed, tableOf } from '../support/mapped-tables.ts';

const PACKS = [tableOf('pack', { id: 'integer', sku: 'text', uom: 'text', qty: 'numeric', code: 'text' })];

function planOf(entity: string, fields: string): MappingPlan {
  const text = `version: 1
name: packs
entities:
  ${entity}:
    from: pack
    group: true
    fields: { ${fields} }
`;
  return compileMapping(parseMapping(text, 'packs.yaml'), new Map());
}

function feed(entity: string, fields: string): SourceFeed {
  return new SourceFeed(new MappingEngine({ source: 'pim', plan: planOf(entity, fields) }), PACKS);
}

const product = (field: string): SourceFeed => feed('product', `sku: sku, base_uom: { const: EA }, ${field}`);

/** A field as the newest of the changes gives it. */
function given(changes: readonly ContributionChange[], name: string): string {
  const { block, values } = changes.at(-1)!;
  return values![block.block.entity.index.get(name)!]!;
}

describe('collect', () => {
  it('gives the structures of all rows as a list, and follows them', () => {
    const source = product(
      `packs: { collect: { object: { uom: uom, qty: qty, gtin: { gtin: code } } }, where: { gt: [qty, 1] } }`,
    );
    source
      .put('pack', { id: '1', sku: 'A', uom: 'DZN', qty: '12', code: '96385074' })
      .put('pack', { id: '2', sku: 'A', uom: 'EA', qty: '1' })
      .put('pack', { id: '3', sku: 'A', uom: 'GRO', qty: '480' });
    const carton = { uom: 'DZN', qty: '12', gtin: '00000096385074' };
    expect(JSON.parse(given(source.flush(), 'packs'))).toEqual([carton, { uom: 'GRO', qty: '480' }]);
    source.remove('pack', { id: '3' });
    expect(JSON.parse(given(source.flush(), 'packs'))).toEqual([carton]);
    // One that breaks a rule holds the whole list at its last good values.
    source.put('pack', { id: '1', sku: 'A', uom: 'DZN', qty: '10', code: '96385075' });
    const [change] = source.flush();
    expect([...change!.held.keys()]).toEqual(['packs']);
    expect(JSON.parse(given([change!], 'packs'))).toEqual([carton]);
    source.remove('pack', { id: '1' });
    expect(given(source.flush(), 'packs')).toBe('[]');
  });

  it('gives texts as texts, equal ones once where it is told to', () => {
    const rows = [
      { id: '1', sku: 'A', uom: 'b"c' },
      { id: '2', sku: 'A', uom: 'a' },
      { id: '3', sku: 'A' },
      { id: '4', sku: 'A', uom: 'a' },
    ];
    const of = (field: string): unknown => {
      const source = feed('shipment', `number: sku, ${field}`).put('pack', ...rows);
      return given(source.flush(), 'tracking_nos');
    };
    expect(of('tracking_nos: { collect: uom }')).toBe('["b\\"c","a","a"]');
    expect(of('tracking_nos: { collect: uom, distinct: true }')).toBe('["b\\"c","a"]');
  });

  it('is refused where no list can be, and beside what is no list', () => {
    const problem = (field: string): string => {
      try {
        const plan = planOf('product', `sku: sku, base_uom: { const: EA }, ${field}`);
        return checkMapping(plan, PACKS)
          .map(({ message }) => message)
          .join('\n');
      } catch (thrown) {
        return (thrown as Error).message;
      }
    };
    expect(problem('packs: { collect: { object: { uom: uom } } }')).toBe('');
    expect(problem('name: { collect: uom }')).toMatch(/is a structure, and product\.name needs a text/);
    expect(problem('packs: { sum: qty, distinct: true }')).toMatch(/"distinct" cannot stand beside sum/);
    expect(problem('packs: { coalesce: [{ collect: uom }] }')).toMatch(/collect must stand alone/);
  });
});
