/** The way of an order from the shop to the warehouse and back, as the two systems have noted it on one clock. */
import type { Client } from 'pg';

export interface Step {
  readonly what: string;
  readonly atMs: number;
  /** When the other system knew of it; undefined while it does not. */
  readonly knownMs: number | undefined;
}

export interface Journey {
  readonly number: string;
  /** In the order in which they came; the first is that the customer ordered. */
  readonly steps: readonly Step[];
  readonly tracking: string | undefined;
  readonly finished: boolean;
}

interface ShopRow {
  readonly number: string;
  readonly placed: number;
  readonly carrier: string | null;
  readonly tracking_no: string | null;
  readonly history: Readonly<Record<string, number>>;
}

interface WarehouseRow {
  readonly client_ref: string;
  readonly received: number;
  readonly picking: number | null;
  readonly picked: number | null;
  readonly despatched: number | null;
  readonly delivered: number | null;
}

const MS = (column: string): string => `(extract(epoch from ${column}) * 1000)::float8`;

/** The newest orders that have come back to the shop in some way, newest first. */
export async function readJourneys(shop: Client, threepl: Client, limit: number): Promise<Journey[]> {
  const { rows: orders } = await shop.query<ShopRow>(
    `select o.number, ${MS('o.placed_at')} as placed, o.carrier, o.tracking_no,
            (select jsonb_object_agg(h.status, h.ms) from
               (select status, min(${MS('at')}) as ms from order_history where order_id = o.id group by status) h) as history
       from orders o where o.status in ('shipped', 'completed') order by o.id desc limit $1`,
    [limit],
  );
  const { rows } = await threepl.query<WarehouseRow>(
    `select client_ref, ${MS('received_at')} as received, ${MS('picking_at')} as picking, ${MS('picked_at')} as picked,
            ${MS('despatched_at')} as despatched, ${MS('delivered_at')} as delivered
       from orders where client_ref = any ($1)`,
    [orders.map(({ number }) => number)],
  );
  const there = new Map(rows.map((row) => [row.client_ref, row]));
  return orders.map((order) => journeyOf(order, there.get(order.number)));
}

function journeyOf(order: ShopRow, there: WarehouseRow | undefined): Journey {
  const step = (what: string, atMs: number | null | undefined, status: string): Step[] =>
    typeof atMs === 'number' ? [{ what, atMs, knownMs: order.history[status] }] : [];
  return {
    number: order.number,
    steps: [
      { what: 'ordered', atMs: order.placed, knownMs: there?.received },
      ...step('picking', there?.picking, 'allocated'),
      ...step('picked', there?.picked, 'released'),
      ...step('despatched', there?.despatched, 'shipped'),
      ...step('delivered', there?.delivered, 'completed'),
    ],
    tracking: order.tracking_no === null ? undefined : `${order.carrier ?? ''} ${order.tracking_no}`,
    finished: order.history['completed'] !== undefined,
  };
}

/** One line: each step after how long, and in brackets how long the other system took to know. */
export function journeyText(journey: Journey): string {
  const steps = stepsOf(journey).map(
    ({ what, after, known }) => `${after === '' ? what : `${what} ${after}`}${known === '' ? '' : ` (${known})`}`,
  );
  return `order ${journey.number}: ${steps.join(', ')}${journey.tracking === undefined ? '' : `; ${journey.tracking}`}`;
}

/** A line for each step. */
export function journeyLines(journey: Journey): string[] {
  return [
    `order ${journey.number}${journey.tracking === undefined ? '' : `, with ${journey.tracking}`}`,
    ...stepsOf(journey).map(({ what, after, known }) => `  ${what.padEnd(12)}${after.padEnd(10)}${known}`),
  ];
}

function stepsOf({ steps }: Journey): { what: string; after: string; known: string }[] {
  const begun = steps[0]!.atMs;
  return steps.map(({ what, atMs, knownMs }, index) => ({
    what,
    after: index === 0 ? '' : `+${((atMs - begun) / 1000).toFixed(1)} s`,
    // Of statuses that follow each other at once the shop may see the last only.
    known:
      knownMs === undefined
        ? ''
        : `${index === 0 ? 'the warehouse' : 'the shop'} knows after ${Math.max(0, knownMs - atMs).toFixed(0)} ms`,
  }));
}
