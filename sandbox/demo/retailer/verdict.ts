/** Whether the systems of the retailer, and the records of them, say the same; and whether anything went round. */
import type { Client } from 'pg';
import { canonicalStreamName } from '../../../core/canonical-stream.ts';
import { readFrames } from '../../../core/cdc-stream.ts';
import type { Config } from '../../../core/config.ts';
import { decodeFrame, HEADER } from '../../../core/frame.ts';
import { connectNats } from '../../../core/nats.ts';
import { ORIGIN, parsePosition } from '../../../core/position.ts';
import { TWO_WAY } from './flows.ts';

/** Values only: which change they come from is another one in a run that reads the tables as they are now. */
const OF_LINEAGE = '^lineage';

async function linesOf(client: Client, sql: string): Promise<string[]> {
  const { rows } = await client.query({ text: sql, rowMode: 'array' });
  return (rows as unknown[][]).map((row) => JSON.stringify(row));
}

/** The lines of one list that the other lacks, as `only in …`; no more than a few. */
export function difference(
  what: string,
  names: readonly [string, string],
  lists: readonly [string[], string[]],
): string[] {
  const [left, right] = lists.map((list) => new Set(list)) as [Set<string>, Set<string>];
  const only = (a: Set<string>, b: Set<string>, name: string): string[] =>
    [...a].filter((line) => !b.has(line)).map((line) => `${what}: only in ${name}: ${line}`);
  return [...only(left, right, names[0]), ...only(right, left, names[1])].slice(0, 10);
}

/** What the shop and the warehouse do not agree on. */
export async function compareSystems(shop: Client, threepl: Client): Promise<string[]> {
  const compare = async (what: string, ofShop: string, ofWarehouse: string): Promise<string[]> =>
    difference(what, ['the shop', 'the warehouse'], [await linesOf(shop, ofShop), await linesOf(threepl, ofWarehouse)]);
  // A wish to cancel that nobody has answered stands in the shop alone.
  return [
    ...(await compare(
      'order',
      `select number, customer, total::text, status from orders`,
      `select client_ref, consignee, goods_value::text,
              case state when 'NEW' then case when cancel_requested then 'cancelled' else 'placed' end
                when 'PICKING' then 'allocated' when 'PICKED' then 'released' when 'DESPATCHED' then 'shipped'
                when 'DELIVERED' then 'completed' else 'cancelled' end from orders`,
    )),
    ...(await compare(
      'line of an order',
      `select o.number, l.line_no, l.sku, trim_scale(l.qty)::text, l.unit_price::text, trim_scale(l.shipped)::text
         from order_lines l join orders o on o.id = l.order_id`,
      `select o.client_ref, l.line_no, l.sku, l.qty::text, l.unit_value::text, l.despatched::text
         from order_lines l join orders o on o.id = l.order_id`,
    )),
    ...(await compare(
      'despatch',
      `select number, carrier, tracking_no, despatched_at::text, delivered_at::text from orders where tracking_no is not null`,
      `select o.client_ref, d.carrier, d.tracking_no, d.despatched_at::text, d.delivered_at::text
         from despatches d join orders o on o.id = d.order_id`,
    )),
    ...(await compare(
      'stock',
      `select sku, trim_scale(in_stock)::text from products where in_stock <> 0`,
      `select sku, (on_hand - allocated)::text from stock where on_hand <> allocated`,
    )),
    ...(await compare('product', `select sku, name from products`, `select sku, description from articles`)),
  ];
}

/** The records of every entity in a visibility database, by entity. */
async function readRecords(target: Client): Promise<Map<string, string[]>> {
  const { rows } = await target.query<{ name: string; columns: string }>(
    `select c.relname as name, string_agg(format('%I', a.attname), ', ' order by a.attname) as columns
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.relnamespace = to_regnamespace('canonical') and c.relkind = 'r' and a.attname !~ $1
      group by c.relname`,
    [OF_LINEAGE],
  );
  const records = new Map<string, string[]>();
  for (const { name, columns } of rows)
    records.set(name, await linesOf(target, `select ${columns} from canonical.${name}`));
  return records;
}

/** How the records of two installations differ; `wanted` is the one that began last. */
export async function compareRecords(found: Client, wanted: Client): Promise<{ count: number; problems: string[] }> {
  const [here, fresh] = [await readRecords(found), await readRecords(wanted)];
  const problems: string[] = [];
  let count = 0;
  for (const entity of new Set([...here.keys(), ...fresh.keys()])) {
    const lists = [here.get(entity) ?? [], fresh.get(entity) ?? []] as const;
    count += lists[0].length;
    problems.push(...difference(entity, ['these records', 'a fresh run'], [...lists]));
  }
  return { count, problems };
}

/**
 * Arithmetic of stock that does not hold in the records, when nothing is on its way: that of each position, and that what
 * is claimed is what the orders under way ask for.
 */
export async function brokenArithmetic(target: Client): Promise<string[]> {
  const broken = await target.query<{ problem: string }>(
    `with claimed as (
       select l.sku, sum(l.qty_ordered) as qty from canonical.sales_order_line l join canonical.sales_order o using (tenant, number)
        where o.status in ('allocated', 'released') group by l.sku
     )
     select format('stock of %s: %s on hand, %s allocated of which orders claim %s, %s picked, %s available',
                   sku, on_hand, allocated, coalesce(c.qty, 0), picked, available) as problem
       from canonical.inventory_position p left join claimed c using (sku)
      where available is distinct from on_hand - coalesce(on_hold, 0) - coalesce(allocated, 0) - coalesce(soft_reserved, 0)
         or not (0 <= picked and picked <= allocated) or coalesce(on_hold, 0) > on_hand
         or allocated is distinct from coalesce(c.qty, 0) limit 10`,
  );
  return broken.rows.map(({ problem }) => problem);
}

/** Records that have been passed on, of the entities that go on into the systems. */
export async function countRecordsSent(config: Pick<Config, 'nats'>): Promise<number> {
  const nats = await connectNats(config.nats, 'demo verdict');
  const stop = new AbortController();
  let sent = 0;
  try {
    for (const entity of TWO_WAY) {
      const stream = canonicalStreamName(config.nats.prefix, entity);
      const { state } = await nats.manager.streams.info(stream);
      if (state.messages === 0) continue;
      const startSeq = state.first_seq;
      const first = await nats.manager.streams.getMessage(stream, { seq: startSeq });
      const position = parsePosition(first?.header.get(HEADER.start) ?? '') ?? ORIGIN;
      for await (const frame of readFrames(nats, stream, { startSeq, position, signal: stop.signal })) {
        for (const [op] of decodeFrame(frame.payload, frame.place).rows) if ('iudr'.includes(op)) sent += 1;
        if (frame.seq >= state.last_seq) break;
      }
    }
    return sent;
  } finally {
    stop.abort();
    await nats.close();
  }
}
