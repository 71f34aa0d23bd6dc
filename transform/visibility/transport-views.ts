/** Views of transport: which shipments are late, or will be. */
import type { ViewDefinition } from './visibility-views.ts';

/**
 * Events belong to a shipment by its number or by one of its tracking numbers. The newest estimate is the one that was
 * recorded last, whatever time it names; an event that arrives late does not undo a delivery.
 */
export const shipmentRisks: ViewDefinition = {
  name: 'shipment_risks',
  description: 'Shipments that are late, or that threaten to be, with their newest estimated arrival.',
  entities: ['shipment', 'tracking_event'],
  body: (of) => `
with open as (
  select * from ${of('shipment')} where status not in ('delivered', 'cancelled') and delivered_at is null
), told as (
  select s.tenant, s.number, e.*
    from open s join lateral (
      select id, occurred_at, recorded_at, classifier, milestone from ${of('tracking_event')} e
       where e.tenant = s.tenant and (e.shipment = s.number or (e.shipment is null and s.tracking_nos ? e.tracking_no))) e on true
), estimate as (
  select distinct on (tenant, number) tenant, number, occurred_at as eta, recorded_at from told
   where milestone = 'eta_updated' or (classifier = 'EST' and milestone in ('arrived_at_delivery', 'delivered'))
   order by tenant, number, recorded_at desc, id desc
), latest as (
  select distinct on (tenant, number) tenant, number, milestone, occurred_at from told
   where classifier = 'ACT' and milestone <> 'eta_updated' order by tenant, number, occurred_at desc, recorded_at desc, id desc
), arrived as (
  select distinct tenant, number from told where classifier = 'ACT' and milestone = 'delivered'
), judged as (
  select s.tenant, s.number as shipment, s.direction, s.document, s.partner, s.carrier, s.tracking_nos, s.status, s.due_at,
         coalesce(e.eta, s.eta) as eta, e.recorded_at as eta_recorded_at, l.milestone as last_milestone, l.occurred_at as last_event_at,
         case when s.due_at < now() then 'overdue'
              when coalesce(e.eta, s.eta) > s.due_at then 'eta_after_due'
              when l.milestone = 'exception' then 'exception'
              when s.status in ('planned', 'waiting', 'ready') and s.planned_at < now() then 'not_despatched' end as reason
    from open s
    left join estimate e using (tenant, number) left join latest l using (tenant, number)
   where not exists (select from arrived a where a.tenant = s.tenant and a.number = s.number)
)
select tenant, shipment, case when reason = 'overdue' then 'late' else 'at_risk' end as risk, reason, due_at, eta, eta_recorded_at,
       greatest(case when reason = 'overdue' then now() end, eta) - due_at as late_by,
       direction, document, partner, carrier, tracking_nos, status, last_milestone, last_event_at
  from judged where reason is not null`,
};
