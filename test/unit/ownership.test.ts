import { describe, expect, it, vi } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import { salesOrder } from '../../transform/canonical/entities-orders.ts';
import { shipment } from '../../transform/canonical/entities-transport.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { compileOwnership, type OwnershipConfig } from '../../transform/ownership/ownership.ts';
import { contributionOf, recordShown } from '../support/contributions.ts';
import { SharedCounter } from '../../transform/ownership/counter.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';

const STOCK = inventoryPosition as unknown as Entity;
const SHIPMENT = shipment as unknown as Entity;
const NOW = Date.UTC(2026, 2, 1, 12) * 1000;

function compile(config: OwnershipConfig, supplied: Record<string, string[]>, entity = STOCK) {
  return compileOwnership(
    entity,
    config,
    new Map(Object.entries(supplied).map(([source, groups]) => [source, new Set(groups)])),
  );
}
const problems = (config: OwnershipConfig, supplied: Record<string, string[]>, entity = STOCK): string[] =>
  compile(config, supplied, entity).problems;

describe('ownership', () => {
  it('gives a group that one source fills to that source', () => {
    const { ownership, problems: none } = compile({}, { wms: ['on_hand', 'allocated'], erp: ['on_order'] });
    expect(none).toEqual([]);
    const names = (source: string): string[] =>
      ownership.writable(source, ['A', 'WH', '', '']).map((index) => STOCK.fields[index]!.name);
    expect(names('wms').toSorted()).toEqual(['allocated', 'on_hand', 'picked', 'uom']);
    expect(names('erp')).toEqual(['on_order']);
  });

  it.each<[string, OwnershipConfig, Record<string, string[]>, string]>([
    [
      'two sources without an owner',
      {},
      { wms: ['on_hand'], erp: ['on_hand'] },
      'owner.on_hand: wms and erp both supply it; name its owner or how they merge',
    ],
    [
      'more than two',
      {},
      { wms: ['on_hand'], erp: ['on_hand'], shop: ['on_hand'] },
      'owner.on_hand: wms, erp and shop all supply it; name its owner or how they merge',
    ],
    [
      'a default that names none of those who supply a group',
      { default: 'shop' },
      { wms: ['on_hand'], erp: ['on_hand'], shop: ['allocated'] },
      'owner.on_hand: wms and erp both supply it',
    ],
    [
      'a default whose owner in a scope does not supply a group',
      {
        default: [
          { source: 'east', where: { location: ['E*', 'X'], lot: 'L' } },
          { source: 'west', where: { location: 'W*' } },
        ],
      },
      { east: ['allocated'], west: ['on_hand', 'allocated'], erp: ['on_hand'] },
      'owner.on_hand: west and erp both supply it, and east, which owner.default names for location E* or X and lot L, does not; name its owners',
    ],
    [
      'an unknown source by default',
      { default: [{ source: 'wms', fallback: [{ source: 'erb', stale_after: 1 }] }] },
      { wms: ['on_hand'], erp: ['on_hand'] },
      'owner.default: "erb" is no source of this flow (did you mean "erp"?)',
    ],
    [
      'an unknown group',
      { onhand: 'wms' },
      { wms: ['on_hand'] },
      'owner.onhand: inventory_position has no field or group "onhand" that can be owned (did you mean "on_hand"?)',
    ],
    ['a derived field', { available: 'wms' }, { wms: ['on_hand'] }, 'no field or group "available" that can be owned'],
    [
      'an unknown source',
      { on_hand: 'wmz' },
      { wms: ['on_hand'] },
      'owner.on_hand: "wmz" is no source of this flow (did you mean "wms"?)',
    ],
    [
      'an owner that supplies nothing',
      { on_hand: 'erp' },
      { wms: ['on_hand'], erp: ['on_order'] },
      'the mapping of erp does not supply it',
    ],
    [
      'fields that move together',
      { on_hand: 'wms', uom: 'wms' },
      { wms: ['on_hand'] },
      'owner.uom: moves together with "on_hand"',
    ],
    [
      'overlapping scopes',
      {
        on_hand: [
          { source: 'a', where: { location: ['WH/1', 'WH/2*'] } },
          { source: 'b', where: { location: 'WH/2/7' } },
        ],
      },
      { a: ['on_hand'], b: ['on_hand'] },
      'owner.on_hand: a and b own it in overlapping scopes',
    ],
    [
      'a scope and none',
      { on_hand: [{ source: 'a' }, { source: 'b', where: { location: 'X' } }] },
      { a: ['on_hand'], b: ['on_hand'] },
      'overlapping scopes',
    ],
    [
      'a scope by a field that is no key',
      { on_hand: [{ source: 'a', where: { uom: 'EA' } }] },
      { a: ['on_hand'] },
      'owner.on_hand.where: uom is no field of the key',
    ],
    ['max over a group', { on_hand: { merge: 'max' } }, { a: ['on_hand'] }, 'max needs a field that stands alone'],
    ['an unknown key', { on_hand: { source: 'a', wher: {} } as never }, { a: ['on_hand'] }, 'owner.on_hand'],
  ])('refuses %s', (_, config, supplied, message) => {
    expect(problems(config, supplied).join('\n')).toContain(message);
  });

  it('gives what several supply and nobody is named for to the first in line by default', () => {
    const supplied = { wms: ['on_hand', 'allocated'], erp: ['on_hand', 'on_order'], shop: ['allocated', 'on_order'] };
    const { ownership, problems: none } = compile(
      {
        default: {
          source: 'erp',
          fallback: [
            { source: 'wms', stale_after: 7 },
            { source: 'shop', stale_after: 9 },
          ],
        },
        on_order: 'shop',
      },
      supplied,
    );
    expect(none).toEqual([]);
    const said = [...ownership.rules].map(([group, rule]) => [
      group,
      rule.kind === 'owner' ? rule.owners.map(({ source, fallback }) => [source, fallback]) : rule,
    ]);
    expect(Object.fromEntries(said)).toEqual({
      on_order: [['shop', []]],
      on_hand: [['erp', [{ source: 'wms', staleAfterUs: 7000 }]]],
      allocated: [['wms', [{ source: 'shop', staleAfterUs: 9000 }]]],
    });
    const merge = { merge: 'lww', skew: 300_000 };
    const merged = compile({ default: { merge: 'lww' } }, supplied).ownership.rules;
    for (const group of ['on_hand', 'allocated', 'on_order'])
      expect(merged.get(group)).toEqual({ kind: 'merge', merge });
  });

  it('takes for a scope of its default whoever supplies the group there', () => {
    const supplied = { east: ['allocated'], west: ['on_hand', 'allocated'], erp: ['on_hand'] };
    const { ownership, problems: none } = compile(
      {
        default: [
          { source: 'east', where: { location: 'E*' }, fallback: [{ source: 'erp', stale_after: 7 }] },
          { source: 'west', where: { location: 'W*' } },
        ],
      },
      supplied,
    );
    expect(none).toEqual([]);
    expect(ownership.writable('erp', ['A', 'E1', '', ''])).not.toEqual([]);
    expect(ownership.writable('erp', ['A', 'W1', '', ''])).toEqual([]);
  });

  it('says once what is wrong with its default', () => {
    const supplied = { a: ['on_hand', 'allocated'], b: ['on_hand', 'allocated'] };
    const where = { site: 'X' };
    expect(
      problems(
        {
          default: [
            { source: 'a', where },
            { source: 'b', where },
          ],
        },
        supplied,
      ),
    ).toEqual([
      'owner.default.where: site is no field of the key',
      'owner.default: a and b own it in overlapping scopes; give each a "where" of its own',
    ]);
  });

  it('accepts scopes that cannot meet', () => {
    const where = (location: string, lot?: string) => ({ location, ...(lot === undefined ? {} : { lot }) });
    expect(
      problems(
        {
          on_hand: [
            { source: 'a', where: where('WH/*', 'L1') },
            { source: 'b', where: where('WH/2*', 'L2') },
            { source: 'c', where: where('DC/*') },
          ],
        },
        { a: ['on_hand'], b: ['on_hand'], c: ['on_hand'] },
      ),
    ).toEqual([]);
  });
});

describe('resolution', () => {
  const key = { sku: 'A', location: 'WH/1' };

  it('takes each group from its owner, keeps the others to compare, and works out available', () => {
    const { ownership } = compile(
      { on_hand: 'wms', allocated: 'wms' },
      { wms: ['on_hand', 'allocated'], erp: ['on_hand', 'on_order'] },
    );
    const resolver = new Resolver(ownership);
    resolver.apply(
      'erp',
      [contributionOf(STOCK, 'erp', { ...key, uom: 'EA', on_hand: '99', on_order: '50' }, 1)],
      1,
      NOW,
    );
    const [change] = resolver.apply(
      'wms',
      [contributionOf(STOCK, 'wms', { ...key, uom: 'EA', on_hand: '10', allocated: '12' }, 2)],
      2,
      NOW,
    );
    expect(recordShown(change!)).toEqual({
      ...key,
      uom: 'EA',
      on_hand: '10',
      allocated: '12',
      on_order: '50',
      available: '-2',
    });
    const origin = resolver.explain(change!.key, NOW)!.find(({ group }) => group === 'on_hand')!;
    expect(origin).toMatchObject({
      winner: { source: 'wms' },
      rule: 'owner wms',
      advisory: [{ lineage: { source: 'erp' }, values: { on_hand: '99' } }],
    });
  });

  it('what Waybill wrote into a source is not what the source said', () => {
    const { ownership } = compile({ on_hand: { merge: 'lww' } }, { a: ['on_hand'], b: ['on_hand'] });
    const resolver = new Resolver(ownership, { advisory: true });
    const say = (source: string, on_hand: string, at: number, echo = false) =>
      resolver
        .apply(source, [contributionOf(STOCK, source, { ...key, uom: 'EA', on_hand }, at)], at, NOW, echo)
        .map(recordShown)
        .map((record) => record['on_hand']);
    expect(say('a', '1', 1)).toEqual(['1']);
    expect(say('b', '1', 2, true)).toEqual([]);
    expect(say('b', '2', 3)).toEqual(['2']);
    // An older record arrives at b behind what b itself said: b's word stands.
    expect(say('b', '1', 4, true)).toEqual([]);
    expect(say('a', '2', 5, true)).toEqual([]);
    expect(resolver.record([...resolver.current()][0]!.key)![STOCK.index.get('on_hand')!]).toBe('2');
    // What is as Waybill left it is said anew only when it changes.
    expect(say('a', '2', 6)).toEqual(['2']);
    expect(say('a', '7', 7)).toEqual(['7']);
    // Once nobody says it any more it goes, though a copy is there.
    const gone = { ...contributionOf(STOCK, 'a', key, 8), values: undefined };
    expect(resolver.apply('a', [gone], 8, NOW)).toHaveLength(1);
    expect(say('b', '7', 9, true)).toEqual([]);
  });

  it('a record that is deleted where it was written last stays as long as another source says it itself', () => {
    const { ownership } = compile({ on_hand: { merge: 'lww' } }, { a: ['on_hand'], b: ['on_hand'] });
    const resolver = new Resolver(ownership, { advisory: true });
    const of = (source: string, on_hand: string, at: number) =>
      contributionOf(STOCK, source, { ...key, uom: 'EA', on_hand }, at);
    resolver.apply('b', [of('b', '1', 1)], 1, NOW);
    resolver.apply('a', [of('a', '2', 2)], 2, NOW);
    const deleted = resolver.apply('a', [{ ...of('a', '2', 3), values: undefined }], 3, NOW);
    expect(deleted.map(recordShown)).toEqual([expect.objectContaining({ on_hand: '1' })]);
    const gone = resolver.apply('b', [{ ...of('b', '1', 4), values: undefined }], 4, NOW);
    expect(gone.map(({ after }) => after)).toEqual([undefined]);
  });

  it('a counter does not count what Waybill wrote', () => {
    const { ownership } = compile({ on_hand: { merge: 'delta' } }, { a: ['on_hand'], b: ['on_hand'] });
    const resolver = new Resolver(ownership);
    const say = (source: string, on_hand: string, at: number, echo = false) =>
      resolver.apply(source, [contributionOf(STOCK, source, { ...key, uom: 'EA', on_hand }, at)], at, NOW, echo);
    say('a', '10', 1);
    say('a', '12', 2);
    say('b', '2', 3, true);
    say('b', '5', 4, true);
    const [change] = say('b', '6', 5);
    expect(recordShown(change!)['on_hand']).toBe('3');
  });

  it('a record that only others speak of is not there, and goes with its owner', () => {
    const { ownership } = compile({ on_hand: 'wms' }, { wms: ['on_hand'], erp: ['on_hand'] });
    const resolver = new Resolver(ownership);
    expect(
      resolver.apply('erp', [contributionOf(STOCK, 'erp', { ...key, uom: 'EA', on_hand: '9' }, 1)], 1, NOW),
    ).toEqual([]);
    const wms = contributionOf(STOCK, 'wms', { ...key, uom: 'EA', on_hand: '9' }, 2);
    expect(resolver.apply('wms', [wms], 2, NOW)).toHaveLength(1);
    const [gone] = resolver.apply('wms', [{ ...wms, values: undefined }], 3, NOW);
    expect(gone!.after).toBeUndefined();
  });

  it('a record without what it must have is not there yet', () => {
    const { ownership } = compile({}, { wms: ['on_hand'], erp: ['on_order'] });
    const resolver = new Resolver(ownership);
    expect(resolver.apply('erp', [contributionOf(STOCK, 'erp', { ...key, on_order: '5' }, 1)], 1, NOW)).toEqual([]);
    expect(resolver.held.all).toEqual([expect.objectContaining({ key: 'A/WH/1//', group: '*' })]);
    expect(
      resolver.apply('wms', [contributionOf(STOCK, 'wms', { ...key, uom: 'EA', on_hand: '1' }, 2)], 2, NOW),
    ).toHaveLength(1);
    expect(resolver.held.all).toEqual([]);
  });

  it('owners by scope: each for its own locations', () => {
    const { ownership } = compile(
      {
        on_hand: [
          { source: 'a', where: { location: 'WH/*' } },
          { source: 'b', where: { location: 'DC/*' } },
        ],
      },
      { a: ['on_hand'], b: ['on_hand'] },
    );
    const resolver = new Resolver(ownership);
    const at = (source: string, location: string, onHand: string) =>
      contributionOf(STOCK, source, { sku: 'A', location, uom: 'EA', on_hand: onHand }, 1);
    expect(resolver.apply('a', [at('a', 'WH/1', '1'), at('a', 'DC/1', '2')], 1, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ location: 'WH/1', on_hand: '1' }),
    ]);
    expect(resolver.apply('b', [at('b', 'WH/1', '7'), at('b', 'DC/1', '8')], 1, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ location: 'DC/1', on_hand: '8' }),
    ]);
  });

  it('a fallback stands in when the owner has been silent for too long, by the time of the streams', () => {
    const { ownership } = compile(
      { on_hand: { source: 'wms', fallback: [{ source: 'erp', stale_after: 60_000 }] } },
      { wms: ['on_hand'], erp: ['on_hand'] },
    );
    const resolver = new Resolver(ownership);
    const second = 1_000_000;
    const of = (source: string, onHand: string, at: number) =>
      contributionOf(STOCK, source, { ...key, uom: 'EA', on_hand: onHand }, at);
    resolver.apply('wms', [of('wms', '1', 0)], 0, NOW);
    expect(resolver.apply('erp', [of('erp', '2', 30 * second)], 30 * second, NOW)).toEqual([]);
    expect(resolver.apply('erp', [], 61 * second, NOW)).toEqual([]);
    resolver.atEnd('wms');
    expect(resolver.apply('erp', [], 61 * second, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ on_hand: '2' }),
    ]);
    // A heartbeat of the owner is enough to bring it back.
    expect(resolver.apply('wms', [], 62 * second, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ on_hand: '1' }),
    ]);
  });

  it('last writer wins by commit time, and a clock from the future does not', () => {
    const { ownership } = compile(
      { carriage: { merge: 'lww', skew: 1000 }, status: 'a' },
      { a: ['carriage', 'status'], b: ['carriage'] },
      SHIPMENT,
    );
    const resolver = new Resolver(ownership);
    const of = (source: string, carrier: string, us: number) =>
      contributionOf(SHIPMENT, source, { number: 'S1', carrier, ...(source === 'a' ? { status: 'shipped' } : {}) }, us);
    resolver.apply('b', [of('b', 'UPS', 2_000_000)], 0, NOW);
    expect(resolver.apply('a', [of('a', 'DHL', 1_000_000)], 0, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ carrier: 'UPS' }),
    ]);
    expect(resolver.apply('a', [of('a', 'GLS', 3_000_000)], 0, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ carrier: 'GLS' }),
    ]);
    expect(resolver.apply('b', [of('b', 'EVIL', NOW + 3_600_000_000)], 0, NOW)).toEqual([]);
  });

  it('a status keeps its highest rank: a late event does not move delivered back', () => {
    const { ownership } = compile(
      { status: { merge: 'rank', order: ['planned', 'shipped', 'delivered'] } },
      { a: ['status'], b: ['status'] },
      SHIPMENT,
    );
    const resolver = new Resolver(ownership);
    const of = (source: string, status: string, us: number) =>
      contributionOf(SHIPMENT, source, { number: 'S1', status }, us);
    resolver.apply('a', [of('a', 'delivered', 1)], 1, NOW);
    expect(resolver.apply('b', [of('b', 'shipped', 2)], 2, NOW)).toEqual([]);
  });

  it('adds up changes of a counter, and starts anew from a count', () => {
    const { ownership } = compile(
      { on_hand: { merge: 'delta', reset: 'wms' } },
      { shop: ['on_hand'], till: ['on_hand'], wms: ['on_hand'] },
    );
    const resolver = new Resolver(ownership);
    const at = (source: string, onHand: string, us: number) => {
      const changes = resolver.apply(
        source,
        [contributionOf(STOCK, source, { ...key, uom: 'EA', on_hand: onHand }, us)],
        us,
        NOW,
      );
      return changes.map((change) => recordShown(change)['on_hand']);
    };
    expect(at('wms', '100', 10)).toEqual(['100']);
    at('shop', '100', 11);
    at('till', '100', 12);
    expect(at('shop', '97', 20)).toEqual(['97']);
    expect(at('till', '99', 30)).toEqual(['96']);
    // Counted at 25: the change of 20 is in the count, that of 30 is not.
    expect(at('wms', '90', 25)).toEqual(['89']);
    // Arrives late, was made before the count: in it.
    expect(at('shop', '96', 24)).toEqual([]);
  });

  it('a record that contradicts itself stays as it was, and is shown as held', () => {
    const entity = salesOrder as unknown as Entity;
    const { ownership } = compile({}, { shop: ['status', 'total'] }, entity);
    const resolver = new Resolver(ownership);
    const say = (total: Record<string, string | null>, at: number) =>
      resolver.apply(
        'shop',
        [contributionOf(entity, 'shop', { number: 'S-1', status: 'placed', ...total }, at)],
        at,
        NOW,
      );
    say({ total: '5', currency: 'EUR' }, 1);
    expect(say({ total: '6', currency: null }, 2)).toEqual([]);
    expect(resolver.held.all).toEqual([expect.objectContaining({ key: 'S-1', group: '*', incomplete: false })]);
    expect(say({ total: '6', currency: 'EUR' }, 3).map(recordShown)).toEqual([expect.objectContaining({ total: '6' })]);
    expect(resolver.held.all).toEqual([]);
  });

  it('a counter goes on counting when something else that its source said goes', () => {
    const { ownership } = compile(
      { on_hand: { merge: 'delta' }, soft_reserved: 'shop' },
      { shop: ['on_hand', 'soft_reserved'] },
    );
    const resolver = new Resolver(ownership);
    const say = (index: number, values: Record<string, string>, at: number) =>
      resolver.apply('shop', [{ ...contributionOf(STOCK, 'shop', { ...key, ...values }, at), index }], at, NOW);
    say(0, { uom: 'EA', on_hand: '10' }, 1);
    say(1, { soft_reserved: '3' }, 2);
    const claim = { ...contributionOf(STOCK, 'shop', key, 3), index: 1, values: undefined };
    resolver.apply('shop', [claim], 3, NOW);
    expect(say(0, { uom: 'EA', on_hand: '12' }, 4).map(recordShown)).toEqual([
      expect.objectContaining({ on_hand: '2' }),
    ]);
    // What it no longer says at all is forgotten: of its next figure it is not known what it was before.
    resolver.apply('shop', [{ ...claim, index: 0 }], 5, NOW);
    expect(say(0, { uom: 'EA', on_hand: '20' }, 6).map(recordShown)).toEqual([
      expect.objectContaining({ on_hand: '2' }),
    ]);
  });

  it('a counter that is never reset takes no more memory, however often it changes, and what counters take is counted', () => {
    const { ownership } = compile({ on_hand: { merge: 'delta' } }, { a: ['on_hand'], b: ['on_hand'] });
    const resolver = new Resolver(ownership);
    const say = (source: string, onHand: string, at: number) =>
      resolver.apply(source, [contributionOf(STOCK, source, { ...key, uom: 'EA', on_hand: onHand }, at)], at, NOW);
    say('a', '0', 1);
    say('b', '0', 1);
    const before = resolver.bytes;
    expect(before).toBeGreaterThan(new SharedCounter().bytes);
    let last: ReturnType<typeof say> = [];
    for (let at = 2; at < 50; at++) last = say(at % 2 === 0 ? 'a' : 'b', String(at), at);
    expect(last.map(recordShown)).toEqual([expect.objectContaining({ on_hand: '97' })]);
    // One change in which all of them are.
    const [counter] = [...resolver.entries.values()][0]!.counters!.values();
    expect(counter!.save().changes).toHaveLength(1);
    expect(resolver.bytes - before).toBeLessThan(200);
    // A record that nobody has is kept for what was counted of it, and for nothing else.
    const other = { sku: 'B', location: 'WH/1' };
    const same = { ...contributionOf(STOCK, 'a', { ...other, uom: 'EA', on_hand: '5' }, 50) };
    const after = resolver.bytes;
    resolver.apply('a', [same], 50, NOW);
    resolver.apply('a', [{ ...same, values: undefined }], 51, NOW);
    expect(resolver.bytes).toBe(after);

    const counted = compile({ on_hand: { merge: 'delta', reset: 'b' } }, { a: ['on_hand'], b: ['on_hand'] });
    const behind = new Resolver(counted.ownership);
    for (let at = 1; at < 50; at++)
      behind.apply('a', [contributionOf(STOCK, 'a', { ...key, uom: 'EA', on_hand: String(at) }, at)], at, NOW);
    // The count may come for any time since then: changes are kept, and so they are counted.
    expect(behind.bytes).toBeGreaterThan(resolver.bytes + 2000);
    const [kept] = behind.entries.values();
    const restored = new Resolver(counted.ownership);
    restored.restoreEntry(kept!, NOW);
    expect(restored.bytes).toBe(behind.bytes);
    behind.apply('b', [contributionOf(STOCK, 'b', { ...key, uom: 'EA', on_hand: '7' }, 60)], 60, NOW);
    expect(behind.bytes).toBeLessThan(restored.bytes);
  });

  it('who stands in and says nothing of a record does not take away what its owner said', () => {
    const { ownership } = compile(
      { on_hand: { source: 'wms', fallback: [{ source: 'erp', stale_after: 60_000 }] } },
      { wms: ['on_hand'], erp: ['on_hand'] },
    );
    const resolver = new Resolver(ownership);
    const second = 1_000_000;
    resolver.apply('wms', [contributionOf(STOCK, 'wms', { ...key, uom: 'EA', on_hand: '1' }, 0)], 0, NOW);
    resolver.apply('erp', [], 61 * second, NOW);
    resolver.atEnd('wms');
    expect(resolver.apply('erp', [], 61 * second, NOW)).toEqual([]);
    expect([...resolver.current()]).toHaveLength(1);
    const late = contributionOf(STOCK, 'erp', { ...key, uom: 'EA', on_hand: '2' }, 62 * second);
    expect(resolver.apply('erp', [late], 62 * second, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ on_hand: '2' }),
    ]);
    expect(resolver.apply('erp', [{ ...late, values: undefined }], 63 * second, NOW).map(recordShown)).toEqual([
      expect.objectContaining({ on_hand: '1' }),
    ]);
  });

  it('a time that lay too far ahead counts once it has come', () => {
    const { ownership } = compile(
      { carriage: { merge: 'lww', skew: 1000 }, status: 'a' },
      { a: ['carriage', 'status'], b: ['carriage'] },
      SHIPMENT,
    );
    const resolver = new Resolver(ownership);
    const of = (source: string, carrier: string, us: number) =>
      contributionOf(SHIPMENT, source, { number: 'S1', carrier, ...(source === 'a' ? { status: 'shipped' } : {}) }, us);
    const second = 1_000_000;
    resolver.apply('a', [of('a', 'DHL', NOW)], 0, NOW);
    expect(resolver.apply('b', [of('b', 'UPS', NOW + 10 * second)], 0, NOW)).toEqual([]);
    expect(resolver.apply('a', [], 0, NOW + 8 * second)).toEqual([]);
    expect(resolver.apply('a', [], 0, NOW + 9 * second).map(recordShown)).toEqual([
      expect.objectContaining({ carrier: 'UPS' }),
    ]);
    expect(resolver.apply('a', [], 0, NOW + 11 * second)).toEqual([]);
  });

  it('does not look at times that lie too far ahead until the first of them may count', () => {
    const { ownership } = compile(
      { carriage: { merge: 'lww', skew: 1000 }, status: 'a' },
      { a: ['carriage', 'status'], b: ['carriage'] },
      SHIPMENT,
    );
    const resolver = new Resolver(ownership);
    const of = (source: string, number: string, carrier: string, us: number) =>
      contributionOf(SHIPMENT, source, { number, carrier, ...(source === 'a' ? { status: 'shipped' } : {}) }, us);
    const second = 1_000_000;
    for (const [index, number] of ['S1', 'S2', 'S3'].entries()) {
      resolver.apply('a', [of('a', number, 'DHL', NOW)], 0, NOW);
      resolver.apply('b', [of('b', number, 'UPS', NOW + (index + 1) * 10 * second)], 0, NOW);
    }
    const came = (at: number): unknown[] => resolver.apply('a', [], 0, NOW + at * second).map(recordShown);
    const walks = vi.spyOn(Map.prototype, Symbol.iterator);
    try {
      for (const at of [1, 4, 8]) expect(resolver.apply('a', [], 0, NOW + at * second)).toEqual([]);
      expect(walks).not.toHaveBeenCalled();
    } finally {
      walks.mockRestore();
    }
    for (const [at, number] of [
      [9, 'S1'],
      [19, 'S2'],
      [29, 'S3'],
    ] as const) {
      expect(came(at - 1)).toEqual([]);
      expect(came(at)).toEqual([expect.objectContaining({ number, carrier: 'UPS' })]);
    }
  });

  it('holds what contradicts itself at its last good state', () => {
    const { ownership } = compile({}, { a: ['unit_price', 'ordered'] }, SHIPMENT);
    expect(ownership.rules.size).toBe(0);
    const order = compileOwnership(STOCK, {}, new Map([['wms', new Set(['on_hand'])]])).ownership;
    const resolver = new Resolver(order);
    resolver.apply('wms', [contributionOf(STOCK, 'wms', { ...key, uom: 'EA', on_hand: '1' }, 1)], 1, NOW);
    const held = new Map([
      [
        'on_hand',
        [{ entity: 'inventory_position', key: 'A/WH/1//', field: 'on_hand', valueClass: 'letters', rule: 'x' }],
      ],
    ]);
    const change = { ...contributionOf(STOCK, 'wms', { ...key, uom: 'EA', on_hand: '1' }, 2), held };
    expect(resolver.apply('wms', [change], 2, NOW)).toEqual([]);
    expect(resolver.held.all).toEqual([expect.objectContaining({ group: 'on_hand', source: 'wms', key: 'A/WH/1//' })]);
  });
});
