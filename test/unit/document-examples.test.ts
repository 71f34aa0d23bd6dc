/** Configurations and mappings that the documents show load, as `waybill check` would load them, and do what the text says. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { loadConfig, type Config } from '../../core/config.ts';
import { compileSource, loadFlowPlan, type FlowPlan } from '../../transform/flow-plan.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { loadOutboundPlan, parseOutboundPlan } from '../../transform/outbound/outbound-file.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { recordShown } from '../support/contributions.ts';
import { SourceFeed, tableOf } from '../support/mapped-tables.ts';

const ROOT = resolve(import.meta.dirname, '../..');
type Settings = Record<string, Record<string, unknown>>;
interface Shown {
  readonly place: string;
  readonly text: string;
}

const files = ['README.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith('.md'),
);
/** Every block of YAML, without the indentation that it has in a list. */
const blocks = files.flatMap((file): Shown[] => {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return [...text.matchAll(/^( *)```yaml\n([\s\S]*?)^ *```$/gm)].map(({ 1: indent, 2: yaml, index }) => ({
    place: `${file}:${text.slice(0, index).split('\n').length + 1}`,
    text: yaml!.replaceAll(new RegExp(`^${indent!}`, 'gm'), ''),
  }));
});
const isMapping = ({ text }: Shown): boolean => /^(entities|outbound):/m.test(text);

/** Every group of an entity, from a table of its own. */
const POSITIONS = `
version: 1
name: all
zone: UTC
entities:
  inventory_position:
    from: stock
    fields: { sku: sku, location: place, lot: lot, owner: holder, uom: uom, on_hand: a, allocated: b, in_transit: c,
      on_order: d, soft_reserved: e, source_available: f, damaged: g }
`;
const ORDERS = `
version: 1
name: orders
zone: UTC
entities:
  sales_order:
    from: orders
    fields: { number: no, customer: who, ordered_at: at, status: state }
`;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'waybill-documents-'));
  mkdirSync(join(folder, 'maps'));
  writeFileSync(join(folder, 'maps/all.yaml'), POSITIONS);
  writeFileSync(join(folder, 'maps/erp-stock.yaml'), POSITIONS);
  for (const name of ['from-shop', 'from-wms']) writeFileSync(join(folder, `maps/${name}.yaml`), ORDERS);
  const outbound = blocks.find((block) => /^outbound:/m.test(block.text))!;
  writeFileSync(join(folder, 'maps/to-wms.yaml'), outbound.text);
  for (const name of ['salt', 'key', 'token'])
    writeFileSync(join(folder, name), Buffer.alloc(32, 7).toString('base64'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ENVIRONMENT = Object.fromEntries([
  ...['WMS_URL', 'SHOP_URL', 'VISIBILITY_URL'].map((name) => [name, `postgresql://a/${name}`]),
  ['PAGER_SECRET', `whsec_${Buffer.alloc(32, 7).toString('base64')}`],
]) as Record<string, string>;
const named: Settings = {
  sources: {
    wms: { kind: 'postgres', url: 'postgresql://a/wms' },
    shop: { kind: 'mysql', url: 'mysql://a/shop', tables: ['shop.*'] },
    erp: { kind: 'mariadb', url: 'mysql://a/erp', tables: ['erp.*'] },
  },
  targets: Object.fromEntries(
    ['visibility', 'wms'].map((name) => [name, { kind: 'postgres', url: `postgresql://a/${name}` }]),
  ),
};

/** A configuration with what an excerpt of one says, and beside it what the excerpt takes for granted. */
function completed(text: string): Settings {
  const given = parse(text) as Record<string, unknown>;
  if ('owner' in given) {
    const from = Object.fromEntries(['wms', 'shop', 'erp'].map((source) => [source, { map: './maps/all.yaml' }]));
    return completed(JSON.stringify({ flows: { inventory: { canonical: 'inventory_position', from, ...given } } }));
  }
  const excerpt = given as Settings;
  const under = (key: string): Settings =>
    Object.fromEntries(
      Object.entries(excerpt[key] ?? {}).map(([name, value]) => {
        const usual = (named[key]?.[name] ?? {}) as Record<string, unknown>;
        return [name, { ...('kind' in (value as object) ? {} : usual), ...(value as object) }];
      }),
    );
  const flows = Object.entries(excerpt['flows'] ?? {}).map(([name, value]) => {
    const flow = value as Record<string, unknown>;
    const kind = ['mirror', 'canonical', 'outbound'].find((each) => each in flow);
    const made =
      'from' in flow ? {} : { from: { wms: { pack: 'odoo' }, shop: { pack: 'medusa' } }, owner: { default: 'wms' } };
    const usual = kind === undefined ? { mirror: 'wms' } : kind === 'canonical' ? made : {};
    return [name, { to: 'visibility', ...usual, ...flow }];
  });
  return {
    version: 1 as never,
    ...excerpt,
    sources: { ...named['sources'], ...under('sources') },
    targets: { ...named['targets'], ...under('targets') },
    ...(flows.length === 0 ? {} : { flows: Object.fromEntries(flows) as Settings }),
  };
}

async function loadExcerpt(text: string): Promise<{ config: Config; plans: Map<string, FlowPlan> }> {
  // Secrets lie where the documents say only on the machine of who reads them.
  const settings = JSON.stringify(completed(text)).replaceAll(/\/run\/secrets\/[\w-]+/g, (path) =>
    join(folder, ['salt', 'key'].find((name) => path.endsWith(name)) ?? 'token'),
  );
  const file = join(folder, 'waybill.yaml');
  writeFileSync(file, settings);
  const config = loadConfig(file, ENVIRONMENT);
  const plans = new Map<string, FlowPlan>();
  for (const [name, flow] of Object.entries(config.canonicalFlows)) plans.set(name, await loadFlowPlan(name, flow));
  for (const { map, outbound } of Object.values(config.outboundFlows)) loadOutboundPlan(map, outbound);
  return { config, plans };
}

describe('what the documents show', () => {
  it('is found', () => {
    expect(blocks.length).toBeGreaterThan(12);
    expect(blocks.filter(isMapping)).toHaveLength(2);
  });

  it.each(blocks.filter((block) => !isMapping(block)))('is a configuration that loads: $place', async ({ text }) => {
    await expect(loadExcerpt(text)).resolves.toBeDefined();
  });

  it.each(blocks.filter(isMapping))('is a mapping that loads: $place', ({ text, place }) => {
    if (/^entities:/m.test(text)) expect(parseMapping(text, place).blocks).not.toEqual([]);
    else expect(() => parseOutboundPlan(text, place, 'sales_order')).not.toThrow();
  });
});

it('what a flow says of a mapping of its own reaches it, whatever folder the file is in', async () => {
  const from = { erp: { map: './maps/sited.yaml', zone: 'Asia/Kolkata', settings: { site: 'NORTH' } } };
  const sited = POSITIONS.replace('zone: UTC', 'settings: { site: MAIN }').replace('place,', '{ setting: site },');
  writeFileSync(join(folder, 'maps/sited.yaml'), sited);
  const load = async (more: object): Promise<FlowPlan> => {
    const flows = { stock: { canonical: 'inventory_position', from: { erp: { ...from.erp, ...more } } } };
    return (await loadExcerpt(JSON.stringify({ flows }))).plans.get('stock')!;
  };
  const plan = await load({});
  expect(plan.sources[0]!.mapping.zone).toBe('Asia/Kolkata');
  expect(JSON.stringify(plan.sources[0]!.mapping.blocks)).toContain('NORTH');
  expect((await load({ settings: { site: 'SOUTH' } })).fingerprint).not.toBe(plan.fingerprint);
});

it('two packs in one flow: reservations of the shop lower what is available of the stock of the ERP', async () => {
  const { text } = blocks.find((block) => block.place.startsWith('docs/packs.md'))!;
  const { plans } = await loadExcerpt(text);
  const plan = plans.get('inventory')!;
  const tables = {
    erp: [
      tableOf(
        'tabBin',
        {
          name: 'text',
          item_code: 'text',
          warehouse: 'text',
          actual_qty: 'numeric',
          reserved_stock: 'numeric',
          ordered_qty: 'numeric',
          projected_qty: 'numeric',
          stock_uom: 'text',
        },
        ['name'],
      ),
    ],
    shop: [
      tableOf('wp_wc_product_meta_lookup', { product_id: 'integer', sku: 'text', stock_quantity: 'numeric' }, [
        'product_id',
      ]),
      tableOf('wp_wc_orders', { id: 'integer', status: 'text' }),
      tableOf(
        'wp_wc_reserved_stock',
        { order_id: 'integer', product_id: 'integer', stock_quantity: 'numeric', expires: 'timestamp with time zone' },
        ['order_id', 'product_id'],
      ),
    ],
  };
  const feeds = new Map(
    plan.sources.map((source) => {
      const engine = new MappingEngine({ source: source.name, plan: compileSource(plan, source) });
      return [source.name, new SourceFeed(engine, tables[source.name as keyof typeof tables])];
    }),
  );
  const resolver = new Resolver(plan.ownership, { advisory: true });
  const taken = (source: string): unknown[] => {
    const feed = feeds.get(source)!;
    const { timeUs } = feed.place;
    return resolver.apply(source, feed.flush(), timeUs, timeUs).map(recordShown);
  };
  feeds.get('erp')!.put('tabBin', {
    name: 'B1',
    item_code: 'MUG',
    warehouse: 'Stores - C',
    actual_qty: '10',
    reserved_stock: '2',
    ordered_qty: '0',
    projected_qty: '8',
    stock_uom: 'Nos',
  });
  expect(taken('erp')).toEqual([expect.objectContaining({ location: 'Stores - C', available: '8' })]);
  feeds
    .get('shop')!
    .put('wp_wc_product_meta_lookup', { product_id: '7', sku: 'MUG', stock_quantity: '11' })
    .put('wp_wc_orders', { id: '1', status: 'wc-pending' })
    .put('wp_wc_reserved_stock', {
      order_id: '1',
      product_id: '7',
      stock_quantity: '3',
      expires: '2030-01-01 00:00:00+00',
    });
  expect(taken('shop').at(-1)).toEqual({
    sku: 'MUG',
    location: 'Stores - C',
    uom: 'EA',
    on_hand: '10',
    allocated: '2',
    soft_reserved: '3',
    on_order: '0',
    source_available: '8',
    available: '5',
  });
});
