import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkMapping } from '../../transform/mapping/check.ts';
import { compileMapping } from '../../transform/mapping/block-plan.ts';
import { columnKind } from '../../core/value-kind.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { loadFunctions } from '../../transform/mapping/mapping-functions.ts';
import { tableOf } from '../support/mapped-tables.ts';

const GOOD = `version: 1
name: demo
zone: Europe/Berlin
entities:
  inventory_position:
    from: quant
    group: true
    join:
      product: { table: [product, product_old], on: { id: product_id } }
      place: { table: place, on: { id: place_id, kind: { const: stock } }, optional: true }
    where: { not: { absent: quantity } }
    fields:
      sku: product.code
      location: place.name
      lot: { const: '' }
      owner: { const: '' }
      uom: { lookup: { of: product.unit, values: { Units: EA } } }
      on_hand: { sum: quantity }
  sales_order:
    from: orders
    fields:
      number: name
      status: { if: { in: [state, [sale, done]] }, then: { const: accepted }, else: { const: draft } }
      ordered_at: ordered
`;
const TABLES = [
  tableOf('quant', { id: 'bigint', product_id: 'integer', place_id: 'integer', quantity: 'numeric(16,4)' }),
  tableOf('product', { id: 'integer', code: 'character varying(64)', unit: 'text' }),
  tableOf('place', { id: 'integer', kind: 'text', name: 'text' }),
  tableOf('orders', { id: 'integer', name: 'text', state: 'text', ordered: 'timestamp without time zone' }),
];

function problems(text: string, tables = TABLES): string[] {
  try {
    const mapping = parseMapping(text, 'map.yaml');
    return checkMapping(compileMapping(mapping, new Map()), tables).map(
      ({ path, message }) => `${mapping.lineOf(path)}: ${message}`,
    );
  } catch (thrown) {
    return (thrown as Error).message.split('\n  - map.yaml:').slice(1);
  }
}
const change = (from: string, to: string): string => {
  expect(GOOD).toContain(from);
  return GOOD.replace(from, to);
};

describe('mapping files', () => {
  it('accepts a sound mapping for its tables', () => {
    expect(problems(GOOD)).toEqual([]);
  });

  it.each([
    ['name: demo', 'nam: demo', '2: nam: is an unknown key'],
    ['zone: Europe/Berlin', 'zone: Europe/Atlantis', '3: zone: is not a time zone that is known'],
    [
      'inventory_position:',
      'inventory_postion:',
      '5: entities.inventory_postion: there is no entity "inventory_postion" (did you mean "inventory_position"?)',
    ],
    ['group: true', 'grup: true', '7: entities.inventory_position.grup: is an unknown key'],
    [
      'on: { id: product_id }',
      'on: { id: 7 }',
      '9: entities.inventory_position.join.product.on: must take at least one column',
    ],
    ['on: { id: product_id }', 'on: { id: place.x }', '"place" is not joined before this'],
    [
      '{ not: { absent: quantity } }',
      '{ nut: quantity }',
      '11: entities.inventory_position.where.nut: "nut" is no operator (did you mean "not"?)',
    ],
    ['sku: product.code', 'sku: prodct.code', '13: entities.inventory_position.fields.sku: there is no join "prodct"'],
    [
      'sku: product.code',
      'skuu: product.code',
      '13: entities.inventory_position.fields.skuu: inventory_position has no field "skuu" (did you mean "sku"?)',
    ],
    ['sku: product.code', 'brand: product.code', 'does not supply sku, a field of the key'],
    [
      '      on_hand: {',
      '      available: {',
      '18: entities.inventory_position.fields.available: available is computed',
    ],
    ['group: true', 'group: false', '18: entities.inventory_position.fields.on_hand: sum needs "group: true"'],
    ['{ sum: quantity }', '{ add: [{ sum: quantity }, 1] }', 'sum must stand alone'],
    ['{ sum: quantity }', '{ sum: quantity, then: 1 }', '"then" cannot stand beside sum'],
    ['values: { Units: EA } }', 'values: { Units: EA }, els: x }', 'has the unknown key "els"'],
    ['{ const: stock }', '{ trim: kind }', 'must be a column or a constant'],
  ])('names the line: %s → %s', (from, to, message) => {
    expect(problems(change(from, to)).join('\n')).toContain(message);
  });

  it('takes constants of its own from the flow, and no others', () => {
    const text = change('name: demo', 'name: demo\nsettings: { site: MAIN }').replace(
      'location: place.name',
      'location: { setting: site }',
    );
    const location = (settings?: Record<string, string>): unknown =>
      parseMapping(text, 'map.yaml', { settings }).blocks[0]!.fields.find(({ name }) => name === 'location')?.value;
    expect(location()).toMatchObject({ op: 'const', value: 'MAIN' });
    expect(location({ site: 'NORTH' })).toMatchObject({ op: 'const', value: 'NORTH' });
    expect(() => location({ sites: 'NORTH' })).toThrow(
      'map.yaml:3: settings: the flow sets "sites", which is no setting (did you mean "site"?)',
    );
    expect(problems(text.replace('setting: site', 'setting: sit')).join()).toContain(
      'there is no setting "sit" (did you mean "site"?)',
    );
  });

  it('says where YAML itself is broken', () => {
    expect(() => parseMapping('version: 1\nname: [', 'map.yaml')).toThrow(/map\.yaml:\d+: is not YAML/);
    expect(() => parseMapping('version: 1\nname: [', 'map.yaml')).toThrow(
      expect.objectContaining({ code: 'mapping_invalid' }) as Error,
    );
  });

  it('reports all problems at once', () => {
    expect(
      problems(change('sku: product.code', 'skuu: prodct.code').replace('{ const: draft }', '{ konst: 1 }')).length,
    ).toBeGreaterThan(1);
  });
});

describe('mappings against tables', () => {
  it.each([
    ['from: quant', 'from: quants', '6: the source has no table quants (did you mean "quant"?)'],
    ['sku: product.code', 'sku: product.kode', '13: table public.product has no column kode (did you mean "code"?)'],
    [
      'on: { id: product_id }',
      'on: { idd: product_id }',
      '9: table public.product has no column idd (did you mean "id"?)',
    ],
    ['zone: Europe/Berlin\n', '', 'public.orders.ordered is timestamp without time zone, a time without a zone'],
    ['{ sum: quantity }', '{ sum: product.code }', '18: is text, and a number is needed'],
    ['ordered_at: ordered', 'ordered_at: state', '24: is text, and sales_order.ordered_at needs a time'],
    ['{ const: draft }', '{ call: { function: nothing, with: [] } }', '23: there is no function "nothing"'],
    ['ordered_at: ordered', 'ordered_at: { const: yesterday }', '24: the constant must be an RFC 3339 time'],
  ])('names the line: %s → %s', (from, to, message) => {
    expect(problems(change(from, to)).join('\n')).toContain(message);
  });

  it('a cast with a zone makes a local time usable', () => {
    const cast = change('zone: Europe/Berlin\n', '').replace(
      'ordered_at: ordered',
      'ordered_at: { timestamp: { of: ordered, zone: UTC } }',
    );
    expect(problems(cast)).toEqual([]);
  });

  it('refuses binary columns, tables without a key, and names that fit two tables', () => {
    const binary = [
      ...TABLES.slice(0, 1),
      tableOf('product', { id: 'integer', code: 'bytea', unit: 'text' }),
      ...TABLES.slice(2),
    ];
    expect(problems(GOOD, binary).join()).toContain('public.product.code is bytea, which no field can hold');
    const keyless = [{ ...TABLES[0]!, key: [] }, ...TABLES.slice(1)];
    expect(problems(GOOD, keyless).join()).toContain('table public.quant has no key');
    expect(problems(GOOD, [...TABLES, { ...TABLES[0]!, schema: 'other' }]).join()).toContain(
      'quant fits several tables',
    );
    expect(
      problems(change('from: quant', 'from: public.quant'), [...TABLES, { ...TABLES[0]!, schema: 'other' }]),
    ).toEqual([]);
  });

  it.each([
    ['numeric(12,2)', 'decimal'],
    ['bigint unsigned', 'decimal'],
    ['double precision', 'decimal'],
    ['int4', 'decimal'],
    ['integer[]', 'text'],
    ['interval', 'text'],
    ['character varying(10)', 'text'],
    ['boolean', 'boolean'],
    ['timestamp(3) with time zone', 'timestamp'],
    ['timestamp without time zone', 'local'],
    ['timestamp(6)', 'timestamp'],
    ['datetime(6)', 'local'],
    ['date', 'date'],
    ['jsonb', 'json'],
    ['longblob', 'binary'],
    ['mood', 'text'],
  ])('%s is %s', (type, kind) => {
    expect(columnKind(type)).toBe(kind);
  });
});

it('functions of a module are those of its text now: it may have been mended while a transform runs', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-functions-'));
  try {
    const mapping = parseMapping(
      'version: 1\nname: demo\nfunctions: ./own.mjs\nentities: {}\n',
      join(folder, 'demo.yaml'),
    );
    for (const word of ['first', 'mended', 'first']) {
      writeFileSync(join(folder, 'own.mjs'), `export const say = () => '${word}';\n`);
      expect((await loadFunctions(mapping)).get('say')!()).toBe(word);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
