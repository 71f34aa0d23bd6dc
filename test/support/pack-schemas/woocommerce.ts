/** Tables of WooCommerce (and of WordPress below it), under any prefix. Zero dates are their default. */

/** `version` 8 lacks global_unique_id, which came with 9.2. */
export function woocommerceDdl(prefix: string, version: 8 | 9 = 9): string {
  const uniqueId = version === 9 ? "`global_unique_id` varchar(100) default ''," : '';
  const zero = "datetime not null default '0000-00-00 00:00:00'";
  return `
create table ${prefix}posts (ID bigint(20) unsigned not null auto_increment primary key, post_author bigint(20) unsigned not null default 0,
  post_date ${zero}, post_date_gmt ${zero}, post_content longtext not null, post_title text not null,
  post_status varchar(20) not null default 'publish', post_type varchar(20) not null default 'post',
  post_parent bigint(20) unsigned not null default 0, post_modified_gmt ${zero}) engine=InnoDB;
create table ${prefix}wc_product_meta_lookup (product_id bigint(20) not null primary key, sku varchar(100) default '', ${uniqueId}
  \`virtual\` tinyint(1) default 0, downloadable tinyint(1) default 0, min_price decimal(19,4), max_price decimal(19,4),
  onsale tinyint(1) default 0, stock_quantity double, stock_status varchar(100) default 'instock', rating_count bigint(20) default 0,
  average_rating decimal(3,2) default 0.00, total_sales bigint(20) default 0, tax_status varchar(100) default 'taxable',
  tax_class varchar(100) default '') engine=InnoDB;
create table ${prefix}wc_reserved_stock (order_id bigint(20) not null, product_id bigint(20) not null,
  stock_quantity double not null default 0, \`timestamp\` ${zero}, expires ${zero}, primary key (order_id, product_id)) engine=InnoDB;
create table ${prefix}wc_orders (id bigint(20) unsigned not null primary key, status varchar(20), currency varchar(10), type varchar(20),
  tax_amount decimal(26,8), total_amount decimal(26,8), customer_id bigint(20) unsigned, billing_email varchar(320),
  date_created_gmt datetime, date_updated_gmt datetime, parent_order_id bigint(20) unsigned, payment_method varchar(100),
  transaction_id varchar(100)) engine=InnoDB;
create table ${prefix}woocommerce_order_items (order_item_id bigint(20) unsigned not null auto_increment primary key,
  order_item_name text not null, order_item_type varchar(200) not null default '', order_id bigint(20) unsigned not null) engine=InnoDB;
create table ${prefix}woocommerce_order_itemmeta (meta_id bigint(20) unsigned not null auto_increment primary key,
  order_item_id bigint(20) unsigned not null, meta_key varchar(255), meta_value longtext) engine=InnoDB`;
}

export function woocommerceRows(prefix: string): string {
  return `
insert into ${prefix}posts (ID, post_content, post_title, post_status, post_type) values
  (10, '', 'Mug', 'publish', 'product'), (11, '', 'Shirt', 'publish', 'product'), (12, '', 'Shirt, red', 'publish', 'product_variation'),
  (13, '', 'Card', 'draft', 'product');
insert into ${prefix}wc_product_meta_lookup (product_id, sku, stock_quantity) values
  (10, 'MUG', 20), (11, '', null), (12, 'SHIRT-RED', 5), (13, '', null);
`;
}
