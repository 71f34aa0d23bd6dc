/** Every canonical entity by its name. */
import { inventoryMovement, inventoryPosition, reservation } from './entities-inventory.ts';
import { location, party, price, product } from './entities-master.ts';
import {
  inboundAsn,
  inboundAsnLine,
  purchaseOrder,
  purchaseOrderLine,
  salesOrder,
  salesOrderLine,
} from './entities-orders.ts';
import { sensorReading, shipment, shipmentPackage, trackingEvent } from './entities-transport.ts';
import type { Entity } from './entity.ts';

const ALL = [
  product,
  location,
  party,
  inventoryPosition,
  inventoryMovement,
  reservation,
  salesOrder,
  salesOrderLine,
  purchaseOrder,
  purchaseOrderLine,
  inboundAsn,
  inboundAsnLine,
  shipment,
  shipmentPackage,
  trackingEvent,
  price,
  sensorReading,
] as unknown as readonly Entity[];

export const ENTITIES: ReadonlyMap<string, Entity> = new Map(ALL.map((entity) => [entity.name, entity]));

export const ENTITY_NAMES: readonly string[] = [...ENTITIES.keys()];
