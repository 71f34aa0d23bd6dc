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
