/** Tables of OpenBoxes: keys of CHAR(38), booleans of BIT(1), names that are reserved words of SQL. */

const table = (name: string, columns: string): string =>
  `create table \`${name}\` (id char(38) not null primary key, version bigint not null default 0, ${columns}) engine=InnoDB default charset=utf8`;
const AUDIT = 'date_created datetime default null, last_updated datetime default null';

/** `release` 0.9 names the type of an order by a table; 0.8 by a word in another column. */
export function openboxesDdl(release: '0.8' | '0.9' = '0.9'): string {
  const isNewer = release === '0.9';
  const orderType = isNewer ? 'order_type_id' : 'order_type_code';
  return [
    ...(isNewer
      ? [
          table(
            'order_type',
            `name varchar(255) not null, code varchar(100) not null, order_type_code varchar(100) not null`,
          ),
        ]
      : []),
    table(
      'product',
      `product_code varchar(255), name varchar(255) not null, upc varchar(255), brand_name varchar(255),
       unit_of_measure varchar(255), active bit(1) not null default b'1', lot_control bit(1), serialized bit(1), ${AUDIT}`,
    ),
    table(
      'location',
      `name varchar(255) not null, inventory_id char(38), parent_location_id char(38), location_number varchar(255),
       active bit(1) not null default b'1', ${AUDIT}`,
    ),
    table(
      'inventory_item',
      `product_id char(38) not null, lot_number varchar(255), expiration_date datetime, ${AUDIT}`,
    ),
    table(
      'product_availability',
      `location_id char(38) not null, product_id char(38) not null, product_code varchar(100) not null, inventory_item_id char(38) not null,
       lot_number varchar(100) not null default 'DEFAULT', bin_location_id char(38), bin_location_name varchar(100) not null default 'DEFAULT',
       quantity_on_hand int not null, quantity_allocated int, quantity_on_hold int, quantity_available_to_promise int, ${AUDIT},
       unique key natural_key (location_id, product_code, lot_number, bin_location_name)`,
    ),
    table('transaction_type', 'name varchar(255) not null, transaction_code varchar(255) not null'),
    table(
      'transaction',
      `transaction_number varchar(255), transaction_date datetime not null, transaction_type_id char(38) not null,
       inventory_id char(38) not null, source_id char(38), destination_id char(38), ${AUDIT}`,
    ),
    table(
      'transaction_entry',
      `transaction_id char(38) not null, inventory_item_id char(38), product_id char(38), bin_location_id char(38),
       quantity int not null, reason_code varchar(255)`,
    ),
    table(
      'order',
      `order_number varchar(255) not null, name varchar(255), status varchar(255) not null, ${orderType} varchar(255),
       origin_id char(38), destination_id char(38), currency_code varchar(255), date_ordered datetime, ${AUDIT}`,
    ),
    table(
      'order_item',
      `order_id char(38) not null, product_id char(38), quantity int not null, quantity_per_uom decimal(19,8),
       unit_price decimal(19,4), order_item_status_code varchar(255), estimated_ship_date datetime,
       estimated_delivery_date datetime, ${AUDIT}`,
    ),
    table(
      'shipment',
      `shipment_number varchar(255), name varchar(255), current_status varchar(255), origin_id char(38),
       destination_id char(38), expected_shipping_date datetime, expected_delivery_date datetime, ${AUDIT}`,
    ),
    table(
      'shipment_item',
      'shipment_id char(38) not null, container_id char(38), product_id char(38), lot_number varchar(255), quantity int not null',
    ),
    table(
      'container',
      `shipment_id char(38), parent_container_id char(38), container_number varchar(255), name varchar(255),
       weight float, weight_units varchar(255)`,
    ),
  ].join(';\n');
}

export const OPENBOXES_ROWS = `
insert into product (id, product_code, name, unit_of_measure, upc, lot_control) values
  ('p1', 'GLOVES', 'Gloves', 'Pair', '036000291452', b'1'), ('p2', 'MASK', 'Mask', '', null, b'0');
insert into location (id, name, inventory_id, parent_location_id) values
  ('l1', 'Central', 'i1', null), ('l2', 'Bin A', null, 'l1'), ('l3', 'Supplier', null, null);
insert into transaction_type (id, name, transaction_code) values
  ('7', 'Inventory', 'INVENTORY'), ('8', 'Transfer In', 'CREDIT'), ('9', 'Transfer Out', 'DEBIT'), ('11', 'Product inventory', 'PRODUCT_INVENTORY');
insert into inventory_item (id, product_id, lot_number) values ('ii1', 'p1', 'L1'), ('ii2', 'p2', null);
`;
