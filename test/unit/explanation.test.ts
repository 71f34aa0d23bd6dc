/** What is told of where a record's values are from, and of what did not count. */
import { describe, expect, it } from 'vitest';
import { explainFields } from '../../cli/commands/explain.ts';
import { parseConfig } from '../../core/config.ts';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import { party } from '../../transform/canonical/entities-master.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { loadFlowPlan } from '../../transform/flow-plan.ts';
import { compileOwnership, type OwnershipConfig } from '../../transform/ownership/ownership.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { groupsJson } from '../../transform/record-rows.ts';
import { contributionOf } from '../support/contributions.ts';

const STOCK = inventoryPosition as unknown as Entity;
const PARTY = party as unknown as Entity;
const NOW = Date.UTC(2026, 2, 1, 12) * 1000;

type Say = (source: string, record: Record<string, string | null>, index?: number, echo?: boolean) => void;

function resolved(entity: Entity, config: OwnershipConfig, sources: readonly string[], groups: readonly string[]) {
  const supplied = new Map(sources.map((source) => [source, new Set(groups)]));
  const { ownership, problems } = compileOwnership(entity, config, supplied);
  expect(problems).toEqual([]);
  const resolver = new Resolver(ownership, { advisory: true });
  let at = NOW - 1_000_000;
  let key = '';
  const say: Say = (source, record, index = 0, echo = false) => {
    at += 1;
    const change = { ...contributionOf(entity, source, record, at), index };
    key = change.key;
    resolver.apply(source, [change], at, NOW, echo);
  };
  const told = (group: string) => resolver.explain(key, NOW)!.find((each) => each.group === group)!;
  const json = (): Record<string, Record<string, unknown>> =>
    JSON.parse(groupsJson(resolver.explain(key, NOW)!)) as Record<string, Record<string, unknown>>;
  return { say, told, json };
}

it('a field is shown with who has a part in it, and apart from them who has none', async () => {
  const flow = { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } }, to: 'vis' };
  const config = parseConfig(
    JSON.stringify({
      version: 1,
      sources: { wms: { kind: 'postgres', url: 'postgresql://a/b' } },
      targets: { vis: { kind: 'postgres', url: 'postgresql://a/d' } },
      flows: { stock: flow },
    }),
    {},
  );
  const plan = await loadFlowPlan('stock', config.canonicalFlows['stock']!);
  const by = (source: string) => ({ source, table: 't', key: '{}', position: 'p', time: 'now' });
  const groups = {
    on_hand: {
      rule: 'sum of changes',
      ...by('wms'),
      merged: [{ ...by('b'), values: { on_hand: '3', uom: 'EA' } }],
      advisory: [{ ...by('c'), values: { uom: 'KGM' } }],
    },
  };
  const values = new Map([
    ['on_hand', '5'],
    ['lineage_groups', JSON.stringify(groups)],
  ]);
  const fields = explainFields(plan, values);
  const of = (name: string) => fields.find(({ field }) => field === name);
  expect(of('on_hand')).toMatchObject({ value: '5', merged: [{ source: 'b', value: '3' }], lost: [] });
  expect(of('uom')).toMatchObject({ merged: [{ source: 'b', value: 'EA' }], lost: [{ source: 'c', value: 'KGM' }] });
});

describe('explanations', () => {
  it('name all who have a part in a union, and none of them as one whose word does not count', () => {
    const { say, told, json } = resolved(PARTY, { roles: { merge: 'union' } }, ['a', 'b', 'c'], ['roles']);
    say('a', { code: 'P', roles: '["customer"]' });
    say('b', { code: 'P', roles: '["supplier"]' });
    expect(told('roles')).toMatchObject({
      winner: { source: 'b' },
      rule: 'union',
      merged: [{ lineage: { source: 'a' }, values: { roles: '["customer"]' } }],
      advisory: [],
    });
    expect(json()['roles']).toMatchObject({
      source: 'b',
      merged: [{ source: 'a', values: { roles: '["customer"]' } }],
    });
    expect(json()['roles']).not.toHaveProperty('advisory');
    // What Waybill wrote into a system is no part of what is merged.
    say('c', { code: 'P', roles: '["customer","supplier"]' }, 0, true);
    expect(told('roles')).toMatchObject({
      merged: [{ lineage: { source: 'a' } }],
      advisory: [{ lineage: { source: 'c' } }],
    });
  });

  it('name all whose changes are in a sum', () => {
    const { say, told } = resolved(STOCK, { on_hand: { merge: 'delta' } }, ['a', 'b'], ['on_hand']);
    const stock = (on_hand: string) => ({ sku: 'A', location: 'WH', uom: 'EA', on_hand });
    say('a', stock('10'));
    say('b', stock('10'));
    say('a', stock('12'));
    expect(told('on_hand')).toMatchObject({
      winner: { source: 'a' },
      rule: 'sum of changes',
      merged: [{ lineage: { source: 'b' }, values: { on_hand: '10', uom: 'EA' } }],
      advisory: [],
    });
  });

  it('say nothing of fields of which a block says nothing', () => {
    const { say, told } = resolved(STOCK, { on_hand: 'shop' }, ['shop', 'erp'], ['on_hand']);
    say('shop', { sku: 'A', location: 'WH', uom: 'EA', on_hand: '5' });
    say('shop', { sku: 'A', location: 'WH', uom: 'EA', soft_reserved: '2' }, 1);
    say('erp', { sku: 'A', location: 'WH', uom: 'EA', on_hand: null });
    const { advisory } = told('on_hand');
    expect(advisory.map(({ lineage, values }) => [lineage.source, values])).toEqual([
      ['shop', { uom: 'EA' }],
      ['erp', { on_hand: null, uom: 'EA' }],
    ]);
  });
});
