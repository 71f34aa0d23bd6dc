/** Canonical entities of master data: product, location, party, price. */
import { z } from 'zod';
import { defineEntity } from './entity.ts';
import {
  amount,
  code,
  country,
  currency,
  gln,
  gtin14,
  keyPart,
  latitude,
  locode,
  longitude,
  flag,
  oneOf,
  positive,
  structure,
  text,
  timestamp,
  unit,
} from './field-type.ts';

export const addressShape = z.strictObject({
  name: z.string().optional(),
  lines: z.array(z.string()).optional(),
  city: z.string().optional(),
  region: z.string().optional(),
  postal_code: z.string().optional(),
  country: country().optional(),
});

export const product = defineEntity({
  name: 'product',
  version: 1,
  description: 'An article that is stocked, sold or bought, by its stock keeping unit.',
  tier: 'B',
  schema: z.strictObject({
    sku: code(),
    gtin14: gtin14().nullable(),
    gtin_text: text().nullable(),
    name: text().nullable(),
    brand: text().nullable(),
    base_uom: unit(),
    packs: structure(z.array(z.strictObject({ uom: unit(), qty: positive(), gtin: gtin14().optional() }))).nullable(),
    net_weight: positive().nullable(),
    gross_weight: positive().nullable(),
    weight_uom: unit().nullable(),
    length: positive().nullable(),
    width: positive().nullable(),
    height: positive().nullable(),
    dimension_uom: unit().nullable(),
    volume: positive().nullable(),
    volume_uom: unit().nullable(),
    country_of_origin: country().nullable(),
    tracking: oneOf(['none', 'lot', 'serial']).nullable(),
    status: oneOf(['active', 'inactive', 'archived']).nullable(),
  }),
  meanings: {
    base_uom: 'The unit in which stock is counted.',
    packs: 'Units that hold several of the base unit, each with its quantity.',
    tracking: 'Whether stock is told apart by lot, by serial number, or not.',
    gtin_text: 'The GTIN as the source wrote it, with its own length.',
  },
  key: ['sku'],
  groups: {
    gtin: ['gtin14', 'gtin_text'],
    weight: ['net_weight', 'gross_weight', 'weight_uom'],
    dimensions: ['length', 'width', 'height', 'dimension_uom'],
    volume_with_unit: ['volume', 'volume_uom'],
  },
  rules: [
    {
      rule: 'must have a unit with its weight',
      fields: ['weight_uom'],
      holds: (value) =>
        value('weight_uom') !== null || (value('net_weight') === null && value('gross_weight') === null),
    },
    {
      rule: 'must have a unit with its dimensions',
      fields: ['dimension_uom'],
      holds: (value) =>
        value('dimension_uom') !== null ||
        (value('length') === null && value('width') === null && value('height') === null),
    },
    {
      rule: 'must have a unit with its volume',
      fields: ['volume_uom'],
      holds: (value) => value('volume_uom') !== null || value('volume') === null,
    },
  ],
});

export const location = defineEntity({
  name: 'location',
  version: 1,
  description: 'A place where goods are or pass: a site, a zone, a bin, or a partner’s place.',
  tier: 'B',
  schema: z.strictObject({
    code: code(),
    gln: gln().nullable(),
    name: text().nullable(),
    type: oneOf(['site', 'zone', 'bin', 'transit', 'supplier', 'customer', 'production', 'virtual']),
    parent: code().nullable(),
    address: structure(addressShape).nullable(),
    latitude: latitude().nullable(),
    longitude: longitude().nullable(),
    unlocode: locode().nullable(),
    is_stock: flag(),
    status: oneOf(['active', 'inactive', 'archived']).nullable(),
  }),
  meanings: {
    parent: 'The location that holds this one.',
    type: 'What kind of place it is.',
    is_stock: 'Whether what lies here counts as stock.',
  },
  key: ['code'],
  groups: { geo: ['latitude', 'longitude'] },
  rules: [
    {
      rule: 'must have both latitude and longitude, or neither',
      fields: ['latitude', 'longitude'],
      holds: (value) => (value('latitude') === null) === (value('longitude') === null),
    },
  ],
});

export const party = defineEntity({
  name: 'party',
  version: 1,
  description: 'A company or person in a role: supplier, customer, carrier.',
  tier: 'B',
  schema: z.strictObject({
    code: code(),
    gln: gln().nullable(),
    name: text().nullable(),
    roles: structure(z.array(z.enum(['supplier', 'customer', 'carrier', 'warehouse', 'owner', 'other']))).nullable(),
    tax_ids: structure(z.array(z.strictObject({ scheme: z.string(), id: z.string() }))).nullable(),
    address: structure(addressShape).nullable(),
    status: oneOf(['active', 'inactive', 'archived']).nullable(),
  }),
  key: ['code'],
});

export const price = defineEntity({
  name: 'price',
  version: 1,
  description: 'The price of a product on a list, from a quantity on.',
  tier: 'B',
  schema: z.strictObject({
    sku: code(),
    list: code(),
    min_qty: positive(),
    version: keyPart(),
    amount: amount(),
    currency: currency(),
    uom: unit(),
    valid_from: timestamp().nullable(),
    valid_until: timestamp().nullable(),
  }),
  meanings: {
    min_qty: 'Quantity from which it holds. Part of the key, since one list may have several steps.',
    version: 'Start of validity as the list names it, empty without one; part of the key for the same reason.',
  },
  key: ['sku', 'list', 'min_qty', 'version'],
  groups: { amount: ['amount', 'currency', 'uom'], validity: ['valid_from', 'valid_until'] },
  rules: [
    {
      rule: 'must end after it starts',
      fields: ['valid_from', 'valid_until'],
      holds: (value) =>
        value('valid_from') === null || value('valid_until') === null || value('valid_from')! <= value('valid_until')!,
    },
  ],
});
