/** The stock of a warehouse by article and place, and the mapping that makes positions of it: for tests about what is done with them. */

export const STOCK_DDL =
  "create table stock (id int primary key, sku varchar(20), place varchar(20), lot varchar(20) not null default '', qty numeric(12,3));";

export const STOCK_MAP = `version: 1
name: wms
entities:
  inventory_position:
    from: stock
    fields: { sku: sku, location: place, lot: lot, owner: { const: '' }, uom: { const: EA }, on_hand: qty }
`;
