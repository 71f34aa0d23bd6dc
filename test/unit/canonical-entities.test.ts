import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { ENTITIES, ENTITY_NAMES } from '../../transform/canonical/catalog.ts';
import { inventoryMovement, inventoryPosition, reservation } from '../../transform/canonical/entities-inventory.ts';
import { product } from '../../transform/canonical/entities-master.ts';
import { shipment } from '../../transform/canonical/entities-transport.ts';
import {
  defineEntity,
  describeKey,
  entityJsonSchema,
  keyText,
  recordObject,
  type Entity,
} from '../../transform/canonical/entity.ts';
import { canonicalTableSchema, LINEAGE_COLUMNS } from '../../transform/canonical/envelope.ts';
import { code, quantity, valueClass } from '../../transform/canonical/field-type.ts';
import { postgresTableDdl } from '../../transform/canonical/postgres-ddl.ts';
import { compileValidator, describeViolation } from '../../transform/canonical/validate.ts';

/** Positional values from an object; what is not named is null, or empty in a key. */
function values(entity: Entity, record: Record<string, string>): (string | null)[] {
  return entity.fields.map((field) => record[field.name] ?? (field.key ? '' : null));
}
const rules = (entity: unknown, record: Record<string, string>): string[] =>
  compileValidator(entity as Entity)(values(entity as Entity, record)).map(describeViolation);

describe('entities', () => {
  it('has every entity of the domain', () => {
    expect(ENTITY_NAMES).toEqual(
      expect.arrayContaining(
        'product location party inventory_position inventory_movement reservation sales_order sales_order_line purchase_order purchase_order_line inbound_asn inbound_asn_line shipment shipment_package tracking_event price sensor_reading'.split(
          ' ',
        ),
      ),
    );
  });

  it.each(ENTITY_NAMES)('%s: table, frame schema and JSON Schema agree on the columns', (name) => {
    const entity = ENTITIES.get(name)!;
    const table = canonicalTableSchema(entity);
    const [create] = postgresTableDdl(entity, 'canonical');
    const columns = [...create!.matchAll(/^ {2}"(\w+)" (.+?)( NOT NULL)?,?$/gm)].map(([, column, type, notNull]) => [
      column,
      type,
      notNull !== undefined,
    ]);
    expect(columns).toEqual(table.columns.map((column) => [column.name, column.type, column.notNull]));
    expect(create).toContain(`PRIMARY KEY ("tenant", ${entity.key.map((key) => `"${key}"`).join(', ')})`);
    const json = entityJsonSchema(entity) as { properties: object; required: string[]; additionalProperties: boolean };
    expect(Object.keys(json.properties)).toEqual(entity.fields.map((field) => field.name));
    expect(json.additionalProperties).toBe(false);
    expect(table.columns.slice(-LINEAGE_COLUMNS.length).map((column) => column.name)[1]).toBe('lineage_source');
  });

  it('shows patterns, words and structures in the JSON Schema', () => {
    const json = entityJsonSchema(product as unknown as Entity) as { properties: Record<string, unknown> };
    expect(JSON.stringify(json.properties['gtin14'])).toContain('\\\\d{14}');
    expect(JSON.stringify(json.properties['tracking'])).toContain('"serial"');
    expect(JSON.stringify(json.properties['packs'])).toContain('"qty"');
  });

  it('groups what means something only together', () => {
    const names = (group: string): string[] =>
      inventoryPosition.groupIndexes.get(group)!.map((index) => inventoryPosition.fields[index]!.name);
    expect(names('on_hand').toSorted()).toEqual(['on_hand', 'uom']);
    expect(names('on_hold')).toEqual(['damaged', 'quarantine', 'blocked']);
    expect(inventoryPosition.groupIndexes.has('available')).toBe(false);
  });

  it('refuses a definition that contradicts itself', () => {
    const schema = z.strictObject({ a: code(), b: quantity().nullable() });
    const base = { name: 'x', version: 1, description: '', tier: 'R', schema, key: ['a'] } as const;
    expect(() => defineEntity({ ...base, key: ['b'] })).toThrow('x.b is a key and may be null');
    expect(() => defineEntity({ ...base, groups: { g: ['b'], h: ['b'] } })).toThrow('x.b is in two groups');
    expect(() => defineEntity({ ...base, groups: { g: ['a'] } })).toThrow('x.a cannot be in a group');
    expect(() => defineEntity({ ...base, schema: schema.extend({ c: z.string() }) })).toThrow('field-type.ts');
  });

  it('keeps keys apart that look alike', () => {
    const one = values(inventoryPosition as unknown as Entity, { sku: 'A', location: 'B', lot: 'C' });
    const two = values(inventoryPosition as unknown as Entity, { sku: 'A', location: 'B', owner: 'C' });
    const entity = inventoryPosition as unknown as Entity;
    expect(keyText(entity, one)).not.toBe(keyText(entity, two));
    expect(describeKey(entity, one)).toBe('A/B/C/');
  });

  it('decodes a record to what its zod schema describes', () => {
    const record = values(shipment as unknown as Entity, {
      number: 'WH/OUT/1',
      status: 'shipped',
      tracking_nos: '["1Z","1Y"]',
      shipped_at: '2026-03-01T08:15:02.123456Z',
    });
    const object = recordObject(shipment as unknown as Entity, record);
    expect(object['tracking_nos']).toEqual(['1Z', '1Y']);
    expect(shipment.schema.parse(object).status).toBe('shipped');
  });
});

describe('validation', () => {
  it('accepts a sound record', () => {
    expect(rules(inventoryPosition, { sku: 'A', location: 'WH/1', uom: 'EA', on_hand: '-1.5' })).toEqual([]);
  });

  it('names entity, key, field, class of the value and rule, never the value', () => {
    expect(rules(product, { sku: 'A-1', base_uom: 'pieces', gtin14: '04006381333930' })).toEqual([
      'product A-1: gtin14 must end with its check digit (it is digits of 14 characters)',
      'product A-1: base_uom must be a unit of UN/ECE Recommendation 20 (it is letters of 6 characters)',
    ]);
    expect(rules(product, { sku: 'A-1' })).toEqual(['product A-1: base_uom must not be absent (it is null)']);
  });

  it.each([
    [{ on_hand: '1.50' }, 'on_hand must be a decimal number'],
    [{ on_hand: 'NaN' }, 'on_hand must be a decimal number'],
    [{ location: '' }, 'location must not be empty'],
    [{ location: ' A' }, 'location must not begin or end with white space'],
    [{ lot: 'a\u001fb' }, 'lot must not hold control characters'],
    [{ sku: 'x'.repeat(201) }, 'sku must have at most 200 characters'],
  ])('refuses a position with %j', (change, rule) => {
    expect(rules(inventoryPosition, { sku: 'A', location: 'B', uom: 'EA', ...change }).join()).toContain(rule);
  });

  it('checks rules across fields only when the fields are sound', () => {
    const movement = {
      id: '1',
      sku: 'A',
      location: 'B',
      uom: 'EA',
      lot: '',
      owner: '',
      reason: 'pick',
      occurred_at: '2026-03-01T08:15:02.123456Z',
    };
    expect(rules(inventoryMovement, movement)).toEqual([
      'inventory_movement 1: delta, absolute must have either a delta or an absolute quantity (it is null, null)',
    ]);
    expect(rules(inventoryMovement, { ...movement, delta: '1' })).toEqual([]);
    expect(rules(inventoryMovement, { ...movement, delta: '1', absolute: '1' })).toHaveLength(1);
    expect(rules(reservation, { order_number: 'S1', line: '1', sku: 'A', uom: 'EA', qty: '1', kind: 'soft' })).toEqual([
      expect.stringContaining('must have a time at which a soft reservation expires'),
    ]);
  });

  it('checks inside structures', () => {
    const wrong = { sku: 'A', base_uom: 'EA', packs: '[{"uom":"EA","qty":"1.0"}]' };
    expect(rules(product, wrong).join()).toContain('packs');
    expect(rules(product, { ...wrong, packs: '[{"uom":"DZN","qty":"12","gtin":"04006381333931"}]' })).toEqual([]);
    expect(rules(product, { ...wrong, packs: '[' })).toEqual([
      'product A: packs must be JSON (it is text of 1 character)',
    ]);
  });

  it('classifies values without showing them', () => {
    expect([null, undefined, '', '7', '12.5', 'abc', 'a b'].map(valueClass)).toEqual([
      'null',
      'absent',
      'empty text',
      'digits of 1 character',
      'a number of 4 characters',
      'letters of 3 characters',
      'text of 3 characters',
    ]);
  });
});
