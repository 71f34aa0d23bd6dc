/** Views of stock: what can be promised, and what has been promised twice. */
import type { ViewDefinition } from './visibility-views.ts';

/**
 * Soft reservations end at a time, and no row changes then. A position's own `soft_reserved` may still count what has
 * ended since it was written, or not know yet what was added: what has ended by now is taken off, and it is never less
 * than what the reservations themselves say at this moment.
 */
export const availableToPromise: ViewDefinition = {
  name: 'available_to_promise',
  description: 'What can be promised of a product at a location, at the moment of the query.',
  entities: ['inventory_position', 'reservation'],
  body: (of) => `
with soft as (
  select tenant, sku, location, uom,
         coalesce(sum(qty) filter (where expires_at > now()), 0) as open,
         coalesce(sum(qty) filter (where expires_at <= now()), 0) as ended,
         min(expires_at) filter (where expires_at > now()) as next_expiry
    from ${of('reservation')} where kind = 'soft' and location is not null
   group by tenant, sku, location, uom
), stock as (
  select tenant, sku, location, uom,
         coalesce(sum(on_hand), 0) as on_hand, coalesce(sum(on_hold), 0) as on_hold, coalesce(sum(allocated), 0) as allocated,
         coalesce(sum(soft_reserved), 0) as soft_reserved, coalesce(sum(in_transit), 0) as in_transit,
         coalesce(sum(on_order), 0) as on_order, max(lineage_time) as changed_at
    from ${of('inventory_position')}
   group by tenant, sku, location, uom
), reserved as (
  select stock.*, greatest(stock.soft_reserved - coalesce(soft.ended, 0), coalesce(soft.open, 0), 0) as soft_now, soft.next_expiry
    from stock left join soft using (tenant, sku, location, uom)
)
select tenant, sku, location, uom, on_hand, on_hold, allocated, soft_now as soft_reserved,
       on_hand - on_hold - allocated - soft_now as available,
       greatest(on_hand - on_hold - allocated - soft_now, 0) as sellable,
       in_transit, on_order, next_expiry, changed_at
  from reserved`,
};

/**
 * What each channel may offer: max(0, available − safety stock). What a channel keeps back, and where it sells from, is the
 * merchant's to say, in a table that no flow writes: of the rows that fit a position, the one that names most counts, and
 * one that names the product before one that names the place.
 */
export const sellableByChannel: ViewDefinition = {
  name: 'sellable_by_channel',
  description: 'What each sales channel may offer of a product at a location, at the moment of the query.',
  entities: ['inventory_position', 'reservation'],
  body: (of) => `
select rule.tenant, rule.channel, stock.sku, stock.location, stock.uom, stock.available, rule.safety_stock,
       greatest(stock.available - rule.safety_stock, 0) as sellable, stock.next_expiry, stock.changed_at
  from ${of('available_to_promise')} stock
  join lateral (
    select distinct on (tenant, channel) tenant, channel, safety_stock, sells
      from ${of(CHANNEL_STOCK)} each
     where each.tenant = stock.tenant and each.sku in ('', stock.sku) and each.location in ('', stock.location)
     order by tenant, channel, sku desc, location desc
  ) rule on rule.sells`,
};

/** The table that says which channels there are. */
const CHANNEL_STOCK = 'channel_stock';

/** Statements that make the tables which views read and no flow writes. One that is there belongs to whoever made it. */
export function channelTables(of: (name: string) => string): string[] {
  const table = of(CHANNEL_STOCK);
  const statements = [
    `CREATE TABLE ${table} (
  tenant text NOT NULL DEFAULT 'default',
  channel text NOT NULL CHECK (channel <> ''),
  sku text NOT NULL DEFAULT '',
  location text NOT NULL DEFAULT '',
  safety_stock numeric NOT NULL DEFAULT 0 CHECK (safety_stock >= 0 AND safety_stock < 'Infinity'),
  sells boolean NOT NULL DEFAULT true,
  PRIMARY KEY (tenant, sku, location, channel)
)`,
    `COMMENT ON TABLE ${table} IS 'What sales channels keep back. Yours to fill: Waybill reads it for sellable_by_channel.'`,
    `COMMENT ON COLUMN ${table}.sku IS 'Empty: all products'`,
    `COMMENT ON COLUMN ${table}.location IS 'Empty: all locations'`,
    `COMMENT ON COLUMN ${table}.safety_stock IS 'Kept back of available at each location, in the unit of the position'`,
    `COMMENT ON COLUMN ${table}.sells IS 'Whether the channel sells it from there at all'`,
  ];
  const name = table.replaceAll("'", "''");
  return [`DO $make$ BEGIN IF to_regclass('${name}') IS NULL THEN\n${statements.join(';\n')};\nEND IF; END $make$`];
}

/** At a location, or (location NULL) of a product everywhere, with the reservations that name no location. */
export const oversoldItems: ViewDefinition = {
  name: 'oversold_items',
  description: 'Products of which more has been promised than there is, and the orders that claim them.',
  entities: ['inventory_position', 'reservation'],
  body: (of) => `
with everywhere as (
  select tenant, sku, uom, sum(available) as available from ${of('available_to_promise')} group by tenant, sku, uom
), unplaced as (
  select tenant, sku, uom, sum(qty) as qty from ${of('reservation')}
   where kind = 'soft' and location is null and expires_at > now() group by tenant, sku, uom
), short as (
  select tenant, sku, location, uom, available from ${of('available_to_promise')} where available < 0
  union all
  select e.tenant, e.sku, null, e.uom, e.available - coalesce(u.qty, 0)
    from everywhere e left join unplaced u using (tenant, sku, uom) where e.available - coalesce(u.qty, 0) < 0
)
select s.tenant, s.sku, s.location, s.uom, s.available, -s.available as oversold,
       coalesce(claims.orders, '{}') as orders, coalesce(claims.reserved, 0) as reserved
  from short s left join lateral (
    select array_agg(distinct r.order_number order by r.order_number) as orders, sum(r.qty) as reserved
      from ${of('reservation')} r
     where r.tenant = s.tenant and r.sku = s.sku and r.uom = s.uom and (s.location is null or r.location = s.location)
       and (r.kind = 'hard' or r.expires_at > now())) claims on true`,
};
