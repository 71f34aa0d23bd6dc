/** Tables of Odoo on Postgres, as versions 14 and 17 make them (columns that mappings and joins look at, and their neighbours). */

const AUDIT = 'create_uid integer, create_date timestamp, write_uid integer, write_date timestamp';
const table = (name: string, columns: string): string =>
  `create table ${name} (id serial primary key, ${columns}, ${AUDIT})`;

/** From 16 on translated texts are jsonb; lots, done quantities and units were renamed over the years. */
export function odooDdl(version: 14 | 17 = 17): string {
  const translated = version === 17 ? 'jsonb' : 'varchar';
  const lots = version === 17 ? 'stock_lot' : 'stock_production_lot';
  return [
    table('uom_uom', `name ${translated} not null, category_id integer, factor numeric, rounding numeric`),
    table('res_currency', 'name varchar not null, symbol varchar, rounding numeric'),
    table('res_partner', 'name varchar, ref varchar, active boolean, company_id integer'),
    table(
      'product_template',
      `name ${translated} not null, uom_id integer not null, type varchar, tracking varchar not null default 'none', list_price numeric, active boolean`,
    ),
    table(
      'product_product',
      'default_code varchar, barcode varchar, product_tmpl_id integer not null, active boolean, weight numeric, volume numeric',
    ),
    table(
      'stock_location',
      'name varchar not null, complete_name varchar, usage varchar not null, location_id integer, parent_path varchar, barcode varchar, company_id integer, active boolean',
    ),
    table(lots, 'name varchar not null, ref varchar, product_id integer, company_id integer'),
    table(
      'stock_quant',
      `product_id integer not null, company_id integer, location_id integer not null, lot_id integer, package_id integer, owner_id integer,
       quantity numeric, reserved_quantity numeric not null default 0, in_date timestamp not null default now()`,
    ),
    table('stock_picking_type', `code varchar not null, name ${translated}, sequence_code varchar`),
    table('delivery_carrier', `name ${translated} not null, active boolean`),
    table(
      'stock_picking',
      `name varchar, origin varchar, state varchar, scheduled_date timestamp, date_deadline timestamp, date_done timestamp,
       partner_id integer, picking_type_id integer, carrier_id integer, carrier_tracking_ref varchar, location_id integer, location_dest_id integer`,
    ),
    table(
      'stock_move_line',
      `picking_id integer, move_id integer, product_id integer, product_uom_id integer, ${version === 17 ? 'quantity numeric' : 'qty_done numeric, product_uom_qty numeric'},
       lot_id integer, package_id integer, owner_id integer, location_id integer not null, location_dest_id integer not null, state varchar, date timestamp not null`,
    ),
    table(
      'sale_order',
      'name varchar not null, state varchar, partner_id integer, date_order timestamp, currency_id integer, amount_total numeric',
    ),
    table(
      'sale_order_line',
      `order_id integer not null, name text, product_id integer, product_uom integer, product_uom_qty numeric, qty_delivered numeric,
       qty_invoiced numeric, price_unit numeric, price_subtotal numeric, state varchar, display_type varchar`,
    ),
  ].join(';\n');
}

export function odooRows(version: 14 | 17 = 17): string {
  const text = (value: string): string =>
    version === 17 ? `'{"de_DE": "${value} (de)", "en_US": "${value}"}'` : `'${value}'`;
  return `
insert into uom_uom (id, name) values (1, ${text('Units')}), (2, ${text('kg')});
insert into res_currency (id, name) values (1, 'EUR');
insert into res_partner (id, name, ref) values (1, 'Anna', 'C-1');
insert into product_template (id, name, uom_id, tracking) values (1, ${text('Chair')}, 1, 'none'), (2, ${text('Glue')}, 2, 'lot');
insert into product_product (id, default_code, barcode, product_tmpl_id, active) values (1, 'CHAIR', '4006381333931', 1, true), (2, 'GLUE', null, 2, true);
insert into stock_location (id, name, complete_name, usage, location_id, active) values
  (7, 'WH', 'WH', 'view', null, true), (8, 'Stock', 'WH/Stock', 'internal', 7, true), (5, 'Customers', 'Partners/Customers', 'customer', null, true),
  (4, 'Vendors', 'Partners/Vendors', 'supplier', null, true), (14, 'Adjustment', 'Virtual/Adjustment', 'inventory', null, true),
  (15, 'Production', 'Virtual/Production', 'production', null, true), (16, 'Transit', 'Transit', 'transit', null, true);
insert into stock_picking_type (id, code, name) values (1, 'incoming', ${text('Receipts')}), (2, 'outgoing', ${text('Deliveries')}), (3, 'internal', ${text('Moves')});
insert into delivery_carrier (id, name) values (1, ${text('Fast')});
insert into sale_order (id, name, state, partner_id, date_order, currency_id, amount_total) values
  (1, 'S1', 'sale', 1, '2026-03-01 08:15:02.123456', 1, 29.70);
`;
}
