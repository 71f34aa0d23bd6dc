/** The tables of Odoo 17 that stock is read from, with the columns that matter, and some rows. */
export const ODOO_DDL = `
create table uom_uom (id serial primary key, name jsonb not null);
create table product_template (id serial primary key, name jsonb not null, uom_id int not null, tracking varchar);
create table product_product (id serial primary key, product_tmpl_id int not null, default_code varchar, barcode varchar,
  active boolean default true, weight numeric);
create table res_partner (id serial primary key, name varchar, ref varchar);
create table stock_location (id serial primary key, usage varchar not null, complete_name varchar, location_id int,
  active boolean default true);
create table stock_lot (id serial primary key, name varchar not null);
create table stock_quant (id serial primary key, product_id int not null, location_id int not null, lot_id int, owner_id int,
  quantity numeric, reserved_quantity numeric not null default 0, in_date timestamp);
insert into uom_uom (name) values ('{"en_US": "Units"}'), ('{"en_US": "kg"}');
insert into stock_location (usage, complete_name) values ('internal', 'WH/Stock'), ('internal', 'DC/Stock'),
  ('customer', 'Partners/Customers'), ('transit', 'Transit');
`;

/** Products `A-1` to `A-<count>`, each with a template. */
export function odooProducts(count: number): string {
  return `insert into product_template (name, uom_id, tracking)
      select jsonb_build_object('en_US', 'Product ' || i), 1, 'none' from generate_series(1, ${count}) i;
    insert into product_product (product_tmpl_id, default_code) select i, 'A-' || i from generate_series(1, ${count}) i;`;
}
