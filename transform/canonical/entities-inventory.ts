/** Canonical entities of stock: position, movement, reservation. */
import { z } from 'zod';
import { defineEntity } from './entity.ts';
import { code, keyPart, oneOf, quantity, positive, text, timestamp, unit } from './field-type.ts';

export const inventoryPosition = defineEntity({
  name: 'inventory_position',
  version: 1,
  description: 'The stock of a product at a location, for a lot and an owner, in the base unit.',
  tier: 'R',
  schema: z.strictObject({
    sku: code(),
    location: code(),
    lot: keyPart(),
    owner: keyPart(),
    uom: unit(),
    /** Physically present, in any condition. */
    on_hand: quantity().nullable(),
    damaged: quantity().nullable(),
    quarantine: quantity().nullable(),
    blocked: quantity().nullable(),
    /** damaged + quarantine + blocked. */
    on_hold: quantity().nullable(),
    /** Hard claims on stock that is not on hold. */
    allocated: quantity().nullable(),
    /** The part of allocated that has left its place. */
    picked: quantity().nullable(),
    /** Carts and drafts, each with an expiry. */
    soft_reserved: quantity().nullable(),
    /** Despatched and not yet received. */
    in_transit: quantity().nullable(),
    /** Confirmed supply that is not yet despatched. */
    on_order: quantity().nullable(),
    /** on_hand − on_hold − allocated − soft_reserved. Negative means oversold; never clamped here. */
    available: quantity().nullable(),
    /** What the source itself calls available, kept to be compared. */
    source_available: quantity().nullable(),
  }),
  key: ['sku', 'location', 'lot', 'owner'],
  groups: {
    on_hand: ['on_hand', 'uom'],
    on_hold: ['damaged', 'quarantine', 'blocked'],
    allocated: ['allocated', 'picked'],
  },
  derived: ['on_hold', 'available'],
});

export const inventoryMovement = defineEntity({
  name: 'inventory_movement',
  version: 1,
  description: 'A change of stock, or the result of a count.',
  tier: 'R',
  schema: z.strictObject({
    id: code(),
    sku: code(),
    location: code(),
    lot: keyPart(),
    owner: keyPart(),
    uom: unit(),
    delta: quantity().nullable(),
    absolute: quantity().nullable(),
    reason: oneOf([
      'receipt',
      'putaway',
      'pick',
      'despatch',
      'transfer_out',
      'transfer_in',
      'adjustment',
      'count',
      'return',
      'production',
      'scrap',
    ]),
    document: text().nullable(),
    occurred_at: timestamp(),
  }),
  key: ['id'],
  groups: {
    movement: ['sku', 'location', 'lot', 'owner', 'uom', 'delta', 'absolute', 'reason', 'document', 'occurred_at'],
  },
  rules: [
    {
      rule: 'must have either a delta or an absolute quantity',
      fields: ['delta', 'absolute'],
      holds: (value) => (value('delta') === null) !== (value('absolute') === null),
    },
  ],
});

export const reservation = defineEntity({
  name: 'reservation',
  version: 1,
  description: 'A claim of an order line on stock.',
  tier: 'R',
  schema: z.strictObject({
    order_number: code(),
    line: code(),
    /** Tells the claims of one line apart; empty where a line has one. */
    part: keyPart(),
    sku: code(),
    location: code().nullable(),
    lot: keyPart().nullable(),
    owner: keyPart().nullable(),
    uom: unit(),
    qty: positive(),
    kind: oneOf(['soft', 'hard']),
    expires_at: timestamp().nullable(),
  }),
  key: ['order_number', 'line', 'part'],
  groups: { claim: ['sku', 'location', 'lot', 'owner', 'uom', 'qty', 'kind', 'expires_at'] },
  rules: [
    {
      rule: 'must have a time at which a soft reservation expires',
      fields: ['expires_at'],
      holds: (value) => value('kind') !== 'soft' || value('expires_at') !== null,
    },
  ],
});
