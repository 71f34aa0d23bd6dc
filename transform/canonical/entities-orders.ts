/** Canonical entities of demand and supply: sales orders, purchase orders, advance shipping notices, with their lines. */
import { z } from 'zod';
import { addressShape } from './entities-master.ts';
import { defineEntity } from './entity.ts';
import {
  amount,
  code,
  currency,
  keyPart,
  oneOf,
  positive,
  sscc,
  structure,
  text,
  timestamp,
  unit,
} from './field-type.ts';

export const salesOrder = defineEntity({
  name: 'sales_order',
  version: 1,
  description: 'A customer’s order.',
  tier: 'R',
  schema: z.strictObject({
    number: code(),
    channel: code().nullable(),
    status: oneOf(['draft', 'placed', 'accepted', 'allocated', 'released', 'shipped', 'completed', 'cancelled']),
    customer: code().nullable(),
    ordered_at: timestamp().nullable(),
    requested_at: timestamp().nullable(),
    promised_at: timestamp().nullable(),
    total: amount().nullable(),
    currency: currency().nullable(),
    ship_to: structure(addressShape).nullable(),
  }),
  meanings: {
    channel: 'Where it was placed: a shop, a marketplace.',
    requested_at: 'When the customer wants it.',
    promised_at: 'When it was promised.',
  },
  key: ['number'],
  groups: { total: ['total', 'currency'] },
  rules: [
    {
      rule: 'must have a currency with its total',
      fields: ['currency'],
      holds: (value) => value('total') === null || value('currency') !== null,
    },
  ],
});

export const salesOrderLine = defineEntity({
  name: 'sales_order_line',
  version: 1,
  description: 'A line of a customer’s order.',
  tier: 'R',
  schema: z.strictObject({
    number: code(),
    line: code(),
    sku: code(),
    uom: unit(),
    qty_ordered: positive(),
    qty_allocated: positive().nullable(),
    qty_shipped: positive().nullable(),
    qty_cancelled: positive().nullable(),
    qty_returned: positive().nullable(),
    unit_price: amount().nullable(),
    currency: currency().nullable(),
  }),
  key: ['number', 'line'],
  groups: { ordered: ['sku', 'uom', 'qty_ordered'], price: ['unit_price', 'currency'] },
  rules: [
    {
      rule: 'must have a currency with its price',
      fields: ['currency'],
      holds: (value) => value('unit_price') === null || value('currency') !== null,
    },
  ],
});

export const purchaseOrder = defineEntity({
  name: 'purchase_order',
  version: 1,
  description: 'An order to a supplier.',
  tier: 'N',
  schema: z.strictObject({
    number: code(),
    supplier: code().nullable(),
    status: oneOf(['draft', 'placed', 'confirmed', 'part_received', 'received', 'cancelled']),
    ordered_at: timestamp().nullable(),
    due_at: timestamp().nullable(),
    currency: currency().nullable(),
  }),
  key: ['number'],
});

export const purchaseOrderLine = defineEntity({
  name: 'purchase_order_line',
  version: 1,
  description: 'A line of an order to a supplier.',
  tier: 'N',
  schema: z.strictObject({
    number: code(),
    line: code(),
    sku: code(),
    uom: unit(),
    qty_ordered: positive(),
    qty_received: positive().nullable(),
    due_at: timestamp().nullable(),
    location: code().nullable(),
  }),
  key: ['number', 'line'],
  groups: { ordered: ['sku', 'uom', 'qty_ordered'] },
});

export const inboundAsn = defineEntity({
  name: 'inbound_asn',
  version: 1,
  description: 'A supplier’s notice of what is on its way.',
  tier: 'N',
  schema: z.strictObject({
    asn: code(),
    supplier: code().nullable(),
    purchase_orders: structure(z.array(z.string())).nullable(),
    status: oneOf(['announced', 'in_transit', 'arrived', 'received', 'cancelled']),
    shipped_at: timestamp().nullable(),
    eta: timestamp().nullable(),
    location: code().nullable(),
  }),
  key: ['asn'],
});

export const inboundAsnLine = defineEntity({
  name: 'inbound_asn_line',
  version: 1,
  description: 'What an advance shipping notice says of one product in one handling unit.',
  tier: 'N',
  schema: z.strictObject({
    asn: code(),
    line: code(),
    sku: code(),
    lot: keyPart().nullable(),
    uom: unit(),
    qty: positive(),
    sscc: sscc().nullable(),
    purchase_order: text().nullable(),
    purchase_order_line: text().nullable(),
  }),
  meanings: {
    sscc: 'The handling unit it is in.',
  },
  key: ['asn', 'line'],
  groups: { contents: ['sku', 'lot', 'uom', 'qty'] },
});
