/** Tables of ERPNext on MariaDB as its DocTypes make them (frappe: Float and Currency are decimal(21,9), Data varchar(140)). */

const FLOAT = 'decimal(21,9) not null default 0';
const DATA = 'varchar(140) default null';
const CHECK = 'int(1) not null default 0';

/** A DocType's table; columns that every one has come with it. */
function docType(name: string, columns: Readonly<Record<string, string>>, child = false): string {
  const standard = {
    name: 'varchar(140) not null primary key',
    creation: 'datetime(6) default null',
    modified: 'datetime(6) default null',
    modified_by: DATA,
    owner: DATA,
    docstatus: 'int(1) not null default 0',
    idx: 'int(8) not null default 0',
    ...(child ? { parent: DATA, parentfield: DATA, parenttype: DATA } : {}),
  };
  const lines = Object.entries({ ...standard, ...columns }).map(([column, type]) => `\`${column}\` ${type}`);
  return `create table \`tab${name}\` (${lines.join(', ')}) engine=InnoDB row_format=dynamic default charset=utf8mb4 collate=utf8mb4_unicode_ci`;
}

/** `version` 15 has stock reservation; 13 has not. */
export function erpnextDdl(version: 13 | 15 = 15): string {
  const reservation: Record<string, string> = version === 15 ? { reserved_stock: FLOAT } : {};
  const lineReservation: Record<string, string> = version === 15 ? { stock_reserved_qty: FLOAT } : {};
  return [
    docType('Item', {
      item_code: DATA,
      item_name: DATA,
      item_group: DATA,
      stock_uom: DATA,
      brand: DATA,
      disabled: CHECK,
      has_batch_no: CHECK,
      has_serial_no: CHECK,
      weight_per_unit: FLOAT,
    }),
    docType('Item Barcode', { barcode: DATA, barcode_type: DATA, uom: DATA }, true),
    docType('Warehouse', {
      warehouse_name: DATA,
      parent_warehouse: DATA,
      is_group: CHECK,
      warehouse_type: DATA,
      disabled: CHECK,
      company: DATA,
      lft: 'int(11) not null default 0',
      rgt: 'int(11) not null default 0',
    }),
    docType('Bin', {
      item_code: DATA,
      warehouse: DATA,
      actual_qty: FLOAT,
      reserved_qty: FLOAT,
      ordered_qty: FLOAT,
      indented_qty: FLOAT,
      planned_qty: FLOAT,
      projected_qty: FLOAT,
      reserved_qty_for_production: FLOAT,
      reserved_qty_for_sub_contract: FLOAT,
      ...reservation,
      stock_uom: DATA,
      valuation_rate: FLOAT,
    }),
    docType('Stock Ledger Entry', {
      item_code: DATA,
      warehouse: DATA,
      posting_date: 'date default null',
      posting_time: 'time(6) default null',
      voucher_type: DATA,
      voucher_no: DATA,
      voucher_detail_no: DATA,
      actual_qty: FLOAT,
      qty_after_transaction: FLOAT,
      stock_uom: DATA,
      is_cancelled: CHECK,
      batch_no: DATA,
      serial_no: 'longtext default null',
    }),
    docType('Stock Entry', {
      stock_entry_type: DATA,
      purpose: DATA,
      posting_date: 'date default null',
      from_warehouse: DATA,
      to_warehouse: DATA,
    }),
    docType('Sales Order', {
      customer: DATA,
      status: DATA,
      transaction_date: 'date default null',
      delivery_date: 'date default null',
      currency: DATA,
      grand_total: FLOAT,
      per_delivered: FLOAT,
    }),
    docType(
      'Sales Order Item',
      {
        item_code: DATA,
        qty: FLOAT,
        stock_qty: FLOAT,
        uom: DATA,
        stock_uom: DATA,
        conversion_factor: FLOAT,
        warehouse: DATA,
        delivered_qty: FLOAT,
        returned_qty: FLOAT,
        picked_qty: FLOAT,
        ...lineReservation,
        rate: FLOAT,
        delivery_date: 'date default null',
      },
      true,
    ),
    docType('Shipment', {
      shipment_id: DATA,
      pickup_from_type: DATA,
      carrier: DATA,
      carrier_service: DATA,
      awb_number: DATA,
      status: DATA,
      tracking_status: DATA,
      tracking_status_info: DATA,
    }),
  ].join(';\n');
}

export const ERPNEXT_ROWS = `
insert into tabWarehouse (name, warehouse_name, is_group, parent_warehouse) values
  ('All Warehouses - C', 'All Warehouses', 1, ''), ('Stores - C', 'Stores', 0, 'All Warehouses - C');
insert into tabItem (name, item_code, item_name, stock_uom, brand, has_batch_no) values
  ('SCREW-M4', 'SCREW-M4', 'Screw M4', 'Nos', '', 0), ('GLUE', 'GLUE', 'Glue', 'Kg', 'Sticky', 1);
insert into \`tabItem Barcode\` (name, parent, parenttype, parentfield, idx, barcode, barcode_type) values
  ('b1', 'SCREW-M4', 'Item', 'barcodes', 1, '4006381333931', 'EAN'), ('b2', 'SCREW-M4', 'Item', 'barcodes', 2, 'X-1', '');
`;
