/** What the configuration of Waybill says of the retailer: sources, records, and the way of records into its systems. */
import { fileURLToPath } from 'node:url';
import { SHOP_TABLES } from './shop.ts';
import { WAREHOUSE_TABLES } from './warehouse.ts';

/** Where the retailer's systems are. */
export interface RetailerUrls {
  readonly shop: string;
  /** The 3PL's warehouse. */
  readonly threepl: string;
  readonly visibility: string;
}

export interface ErpSource {
  /** Name of the source that is the retailer's ERP. */
  readonly name: string;
}

type Part = Readonly<Record<string, unknown>>;
export interface RetailerConfig {
  readonly sources: Part;
  readonly targets: Part;
  readonly flows: Readonly<Record<string, Part>>;
}

/** Entities that go on into the systems of the retailer; all others are for those who look. */
export const TWO_WAY = ['sales_order', 'sales_order_line', 'shipment', 'inventory_position'] as const;

/** What is done for an order, from the least to the most: whoever is further says what it is. */
const STATUSES = ['placed', 'cancelled', 'allocated', 'released', 'shipped', 'completed'];

const map = (name: string): string => fileURLToPath(new URL(`./maps/${name}.yaml`, import.meta.url));

/**
 * The retailer's part of a configuration. Without an ERP nobody says what products there are.
 *
 * @param nightly how often products and prices are passed on: what is once a night elsewhere
 * @param out false: the records only, and nothing goes into the systems
 */
export function retailerConfig(
  urls: RetailerUrls,
  erp: ErpSource | undefined,
  nightly: string,
  out: boolean,
): RetailerConfig {
  const shop = { shop: { map: map('shop') } };
  const threepl = { threepl: { map: map('warehouse') } };
  const both = { ...shop, ...threepl };
  const records = (canonical: string, from: Part, more: Part = {}): Part => ({
    canonical,
    from,
    to: 'visibility',
    ...more,
  });
  const into = (system: string, outbound: string): Part => ({ outbound, map: map(`to-${system}`), to: system });
  const master = erp === undefined ? undefined : { [erp.name]: { map: map('erp') } };
  const delivery = { every: nightly };
  return {
    sources: {
      shop: { kind: 'postgres', url: urls.shop, tables: SHOP_TABLES },
      threepl: { kind: 'postgres', url: urls.threepl, tables: WAREHOUSE_TABLES },
    },
    targets: out
      ? { shop: { kind: 'postgres', url: urls.shop }, warehouse: { kind: 'postgres', url: urls.threepl } }
      : {},
    flows: {
      orders: records('sales_order', both, {
        owner: {
          status: { merge: 'rank', order: STATUSES },
          ...Object.fromEntries(['channel', 'customer', 'ordered_at', 'total'].map((group) => [group, 'shop'])),
        },
      }),
      order_lines: records('sales_order_line', both, {
        owner: { ordered: 'shop', price: 'shop', qty_shipped: 'threepl' },
      }),
      shipments: records('shipment', threepl),
      stock: records('inventory_position', threepl),
      tracking: records('tracking_event', threepl),
      ...(master === undefined
        ? {}
        : { products: records('product', master, { delivery }), prices: records('price', master, { delivery }) }),
      ...(out
        ? {
            warehouse_orders: into('warehouse', 'sales_order'),
            warehouse_lines: into('warehouse', 'sales_order_line'),
            shop_orders: into('shop', 'sales_order'),
            shop_lines: into('shop', 'sales_order_line'),
            shop_shipments: into('shop', 'shipment'),
            shop_stock: into('shop', 'inventory_position'),
          }
        : {}),
      ...(out && master !== undefined
        ? {
            warehouse_articles: into('warehouse', 'product'),
            shop_products: into('shop', 'product'),
            shop_prices: into('shop', 'price'),
          }
        : {}),
    },
  };
}
