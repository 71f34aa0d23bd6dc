/** Canonical entities of transport and sensing: shipment, package, tracking event, sensor reading. */
import { z } from 'zod';
import { addressShape } from './entities-master.ts';
import { defineEntity } from './entity.ts';
import {
  code,
  flag,
  keyPart,
  oneOf,
  positive,
  quantity,
  sscc,
  structure,
  text,
  timestamp,
  unit,
} from './field-type.ts';
import { MILESTONES } from './milestones.ts';

export const shipment = defineEntity({
  name: 'shipment',
  version: 1,
  description: 'Goods that travel together, out, in or between own sites.',
  tier: 'R',
  schema: z.strictObject({
    number: code(),
    direction: oneOf(['outbound', 'inbound', 'internal']).nullable(),
    document: text().nullable(),
    status: oneOf(['planned', 'waiting', 'ready', 'shipped', 'delivered', 'cancelled']),
    carrier: text().nullable(),
    service: text().nullable(),
    tracking_nos: structure(z.array(z.string().min(1))).nullable(),
    ship_from: code().nullable(),
    ship_to: structure(addressShape).nullable(),
    partner: code().nullable(),
    planned_at: timestamp().nullable(),
    due_at: timestamp().nullable(),
    shipped_at: timestamp().nullable(),
    eta: timestamp().nullable(),
    delivered_at: timestamp().nullable(),
  }),
  meanings: {
    partner: 'The other party: customer, supplier.',
    due_at: 'When it must have arrived.',
    eta: 'When it is expected to arrive, as said last.',
    document: 'The order, purchase order or transfer that it serves.',
  },
  key: ['number'],
  groups: { carriage: ['carrier', 'service', 'tracking_nos'] },
});

export const shipmentPackage = defineEntity({
  name: 'shipment_package',
  version: 1,
  description: 'A package or pallet of a shipment, perhaps inside another one.',
  tier: 'R',
  schema: z.strictObject({
    shipment: code(),
    package: code(),
    sscc: sscc().nullable(),
    parent_sscc: sscc().nullable(),
    parent: code().nullable(),
    tracking_no: text().nullable(),
    weight: positive().nullable(),
    weight_uom: unit().nullable(),
    contents: structure(
      z.array(z.strictObject({ sku: code(), qty: positive(), uom: unit(), lot: z.string().optional() })),
    ).nullable(),
  }),
  meanings: {
    parent_sscc: 'The SSCC of the handling unit that it is in.',
    parent: 'The package that it is in.',
    contents: 'What it holds.',
  },
  key: ['shipment', 'package'],
  groups: { weight: ['weight', 'weight_uom'] },
  rules: [
    {
      rule: 'must have a unit with its weight',
      fields: ['weight_uom'],
      holds: (value) => value('weight') === null || value('weight_uom') !== null,
    },
  ],
});

export const trackingEvent = defineEntity({
  name: 'tracking_event',
  version: 1,
  description: 'What a carrier said of a shipment, and when.',
  tier: 'R',
  schema: z.strictObject({
    id: code(),
    shipment: code().nullable(),
    tracking_no: text().nullable(),
    occurred_at: timestamp(),
    recorded_at: timestamp(),
    classifier: oneOf(['PLN', 'EST', 'ACT', 'REQ']),
    milestone: oneOf(MILESTONES),
    location: text().nullable(),
  }),
  meanings: {
    classifier: 'Planned, estimated, actual or requested.',
    milestone: 'What happened, or is to happen.',
    recorded_at: 'When it was said: of two of the same kind the later one counts.',
  },
  key: ['id'],
  groups: {
    event: ['shipment', 'tracking_no', 'occurred_at', 'recorded_at', 'classifier', 'milestone', 'location'],
  },
});

export const sensorReading = defineEntity({
  name: 'sensor_reading',
  version: 1,
  description: 'A measurement of a device.',
  tier: 'N',
  schema: z.strictObject({
    device: code(),
    observed_at: timestamp(),
    type: code(),
    value: quantity(),
    uom: unit(),
    subject: text().nullable(),
    lot: keyPart().nullable(),
    alert: flag().nullable(),
  }),
  meanings: {
    subject: 'What was measured: an SSCC, a location, a shipment.',
  },
  key: ['device', 'observed_at', 'type'],
  groups: { reading: ['value', 'uom'] },
});
