/** Mappings that make positions of a warehouse's stock, for tests about what is done with them. */

export const STOCK_DDL =
  "create table stock (id int primary key, sku varchar(20), place varchar(20), lot varchar(20) not null default '', qty numeric(12,3));";

export interface StockMapping {
  /** Name of the mapping. */
  readonly name?: string;
  readonly from?: string;
  /** What else the block says, e.g. its joins: lines of YAML. */
  readonly block?: string;
  /** Expressions by field, as YAML; those that are not given are of a table as `STOCK_DDL` makes it, without lots. */
  readonly fields: Readonly<Record<string, string>>;
}

const FIELDS = { sku: 'sku', location: 'place', lot: `{ const: '' }`, owner: `{ const: '' }`, uom: '{ const: EA }' };

/** The text of a mapping into `inventory_position`. */
export function stockMapping({ name = 'own', from = 'stock', block = '', fields }: StockMapping): string {
  const lines = Object.entries({ ...FIELDS, ...fields }).map(([field, value]) => `      ${field}: ${value}\n`);
  return `version: 1
name: ${name}
entities:
  inventory_position:
    from: ${from}
${block}    fields:
${lines.join('')}`;
}

/** Of a table as `STOCK_DDL` makes it. */
export const STOCK_MAP = stockMapping({ name: 'wms', fields: { lot: 'lot', on_hand: 'qty' } });
