import { describe, expect, it } from 'vitest';
import { outboundFit, requireFit } from '../../apply/outbound/outbound-fit.ts';
import type { SystemColumn, SystemTable } from '../../apply/outbound/outbound-shape.ts';
import { parseOutboundPlan } from '../../transform/outbound/outbound-file.ts';

const column: SystemColumn = { type: 'integer', notNull: false, defaulted: false, generated: false, exact: true };
const names = ['sku', 'place', 'a', 'b', 'note'];
const table: SystemTable = {
  schema: 'public',
  name: 'p',
  foundByName: true,
  columns: new Map(
    names.map((name) => [name, name === 'sku' || name === 'place' ? { ...column, type: 'text' } : column]),
  ),
  unique: [['sku'], ['place', 'sku']],
  denied: [],
};
const tables = new Map([
  ['p', table],
  ['public.p', table],
]);

function plan(...blocks: string[]) {
  const text = blocks.map((block) => `    - { ${block} }\n`).join('');
  return parseOutboundPlan(
    `version: 1\nname: t\noutbound:\n  inventory_position:\n${text}`,
    'map.yaml',
    'inventory_position',
  );
}

describe('a column that a record empties when it goes', () => {
  const empties = 'gone: { set: { a: { const: 0 }, b: { const: 0 } } }';
  const first = `to: p, where: { eq: [location, { const: W1 }] }, key: { sku: sku }, set: { a: on_hand }, ${empties}`;

  it('must not be one that another block fills for other records', () => {
    const read = plan(
      first,
      'to: public.p, where: { eq: [location, { const: W2 }] }, key: { sku: sku }, set: { b: on_hand }',
    );
    expect(outboundFit(read, tables).problems).toEqual([
      {
        line: 5,
        message: 'p.b is filled by another block, of records that may still be there: let that block empty it',
      },
    ]);
    expect(() => requireFit(read, tables)).toThrow(
      expect.objectContaining({
        code: 'mapping_invalid',
        message: expect.stringContaining('map.yaml:5: p.b is filled'),
      }),
    );
  });

  it.each([
    ['nobody fills', [first]],
    ['a block fills that fills one of the same', [first, 'to: p, key: { sku: sku }, set: { a: on_hand, b: on_hold }']],
    [
      'another block fills for the same records',
      ['a: on_hand }, ' + empties, 'b: on_hold }'].map(
        (rest) =>
          `to: p, where: { all: [{ eq: [lot, { const: '' }] }, { eq: [owner, { const: '' }] }] }, key: { sku: sku, place: location }, set: { ${rest}`,
      ),
    ],
    ['a block fills in other rows', [first, 'to: p, key: { place: location, sku: sku }, set: { b: on_hand }']],
  ])('may be one that %s', (_, blocks) => {
    expect(outboundFit(plan(...blocks), tables).problems).toEqual([]);
  });
});
