import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../core/config.ts';
import { loadFlowPlan } from '../../transform/flow-plan.ts';

const MAPPINGS = resolve(import.meta.dirname, '../../transform/packs');
const odoo = { map: resolve(MAPPINGS, 'odoo/mapping.yaml') };
const medusa = { pack: 'medusa' };

function parse(flows: Record<string, unknown>) {
  return parseConfig(
    JSON.stringify({
      version: 1,
      sources: {
        wms: { kind: 'postgres', url: 'postgresql://a/b' },
        shop: { kind: 'postgres', url: 'postgresql://a/c' },
      },
      targets: { vis: { kind: 'postgres', url: 'postgresql://a/d' } },
      flows,
    }),
    {},
  );
}

const stock = (more: Record<string, unknown> = {}) => ({
  canonical: 'inventory_position',
  from: { wms: odoo, shop: medusa },
  to: 'vis',
  ...more,
});

describe('canonical flows in the configuration', () => {
  it('stand apart from mirrors, with durations in milliseconds and sizes in bytes', () => {
    const config = parse({
      copy: { mirror: 'wms', to: 'vis' },
      stock: stock({ owner: { on_hand: ['wms', { source: 'shop', stale_after: '10m' }] }, state_bytes: '64MB' }),
    });
    expect(Object.keys(config.flows)).toEqual(['copy']);
    expect(config.canonicalFlows['stock']).toMatchObject({
      owner: { on_hand: { source: 'wms', fallback: [{ source: 'shop', stale_after: 600_000 }] } },
      state_bytes: 64 * 1024 ** 2,
      schema: 'canonical',
      tenant: 'default',
    });
  });

  it.each([
    [{ a: stock({ form: {} }) }, 'flows.a.form: unknown key (did you mean "from"?)'],
    [{ a: { canonical: 'product', from: { wms: { pack: 'odoo', map: 'x' } }, to: 'vis' } }, 'either a pack or a map'],
    [{ a: { canonical: 'product', from: {}, to: 'vis' } }, 'at least one source'],
    [{ a: { canonical: 'product', from: { wns: odoo }, to: 'vis' } }, 'no source "wns" (did you mean "wms"?)'],
    [{ a: { canonical: 'product', from: { wms: odoo }, to: 'vos' } }, 'no target "vos" (did you mean "vis"?)'],
    [{ a: stock(), b: stock() }, 'inventory_position is made by flow a already'],
    [{ a: stock({ owner: { on_hand: 7 } }) }, 'flows.a.owner.on_hand: must be a source'],
    [{ a: stock({ delivery: 'sometimes' }) }, 'flows.a.delivery'],
    [{ a: stock({ evidence: ['movements'] }) }, 'flows.a.evidence'],
    [{ a: { mirror: 'wms', too: 'vis', to: 'vis' } }, 'flows.a.too: unknown key (did you mean "to"?)'],
  ])('refuses %j', (flows, message) => {
    expect(() => parse(flows)).toThrow(message);
  });

  it.each([
    [{ canonical: 'inventory_positions' }, 'no entity "inventory_positions" (did you mean "inventory_position"?)'],
    [{ from: { wms: { pack: 'odo' } } }, 'no pack "odo" (did you mean "odoo"?)'],
    [{ canonical: 'tracking_event', from: { wms: odoo } }, 'has nothing for tracking_event'],
    [{ owner: {} }, 'flows.stock.owner.on_hand: wms and shop both supply it'],
    [{ owner: { on_hands: 'wms' } }, 'no field or group "on_hands" that can be owned (did you mean "on_hand"?)'],
    [{ canonical: 'product', evidence: ['location'] }, 'evidence: only a flow of inventory_position'],
    [{ from: { shop: { pack: 'medusa' } }, evidence: ['inventory_movement'] }, 'anything for inventory_movement'],
  ])('a plan is refused for %j', async (more, message) => {
    const config = parse({ stock: stock(more) });
    await expect(loadFlowPlan('stock', config.canonicalFlows['stock']!)).rejects.toThrow(message);
  });

  it('a plan is refused where nobody who counts supplies what a record must have', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'waybill-plan-'));
    const mapping = (name: string, fields: string): { map: string } => {
      const map = join(folder, `${name}.yaml`);
      writeFileSync(
        map,
        `version: 1\nname: ${name}\nentities:\n  sales_order:\n    from: orders\n    fields: { number: no, ${fields} }\n`,
      );
      return { map };
    };
    const load = async (from: Record<string, unknown>, owner: Record<string, unknown> = {}): Promise<unknown> => {
      const config = parse({ orders: { canonical: 'sales_order', from, owner, to: 'vis' } });
      return await loadFlowPlan('orders', config.canonicalFlows['orders']!).then(
        () => 'fits',
        (thrown: unknown) => (thrown as Error).message.split('\n').slice(1),
      );
    };
    try {
      const [without, full] = [mapping('without', 'customer: who'), mapping('full', 'status: state')];
      const lacking = [
        '  - flows.orders: nobody whose word counts supplies status, without which no sales_order is there',
      ];
      expect(await load({ wms: without })).toEqual(lacking);
      expect(await load({ wms: without, shop: full })).toBe('fits');
      const position = { canonical: 'inventory_position', from: { wms: odoo }, to: 'vis' };
      const config = parse({ stock: position });
      await expect(loadFlowPlan('stock', config.canonicalFlows['stock']!)).resolves.toBeDefined();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('a plan has another fingerprint when what decides its records changes, and no other', async () => {
    const print = async (more: Record<string, unknown>): Promise<string> => {
      const owner = { on_hand: 'wms', allocated: 'wms', source_available: 'wms' };
      const config = parse({ stock: stock({ owner, ...more }) });
      return (await loadFlowPlan('stock', config.canonicalFlows['stock']!)).fingerprint;
    };
    const plain = await print({});
    expect(await print({ batch_bytes: '1MB', schema: 'other' })).toBe(plain);
    expect(await print({ tenant: 'north' })).not.toBe(plain);
    expect(await print({ evidence: ['location'] })).not.toBe(plain);
    expect(await print({ owner: { on_hand: 'shop', allocated: 'wms', source_available: 'wms' } })).not.toBe(plain);
  });
});
