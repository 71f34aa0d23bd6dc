import { describe, expect, it } from 'vitest';
import { BETWEEN, formatCheckpoint, parseCheckpoint, type Checkpoint } from '../../transform/checkpoint.ts';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import type { Entity } from '../../transform/canonical/entity.ts';
import { compileOwnership } from '../../transform/ownership/ownership.ts';
import { Resolver } from '../../transform/ownership/resolver.ts';
import { Silence } from '../../transform/ownership/silence.ts';
import { contributionOf, recordShown } from '../support/contributions.ts';

const STOCK = inventoryPosition as unknown as Entity;
const MINUTE = 60_000_000;
const NOW = 1000 * MINUTE;
const fallback = [
  { source: 'erp', staleAfterUs: 10 * MINUTE },
  { source: 'shop', staleAfterUs: 20 * MINUTE },
];

function reached(times: Readonly<Record<string, number>>): Silence {
  const silence = new Silence();
  for (const [source, minutes] of Object.entries(times)) silence.reach(source, minutes * MINUTE);
  return silence;
}
const inCharge = (silence: Silence, nowUs = NOW): string => silence.inCharge('wms', fallback, nowUs);

describe('an owner', () => {
  it('is not silent while its stream is still to be read, however far the others are', () => {
    const silence = reached({ wms: 5, erp: 5 });
    silence.atEnd('wms');
    // The transform was down for an hour: the stream of the fallback is read first.
    silence.reach('erp', 65 * MINUTE);
    silence.atEnd('erp');
    expect(inCharge(silence)).toBe('wms');
    silence.reach('wms', 20 * MINUTE);
    expect(inCharge(silence)).toBe('wms');
    silence.reach('wms', 64 * MINUTE);
    silence.atEnd('wms');
    expect(inCharge(silence)).toBe('wms');
  });

  it('is silent against what the others had reached when it was at its end, and back with its next word', () => {
    const silence = reached({ wms: 5, erp: 15 });
    silence.atEnd('wms');
    expect(inCharge(silence)).toBe('wms');
    silence.reach('erp', 16 * MINUTE);
    expect(inCharge(silence)).toBe('wms');
    silence.atEnd('wms');
    expect(inCharge(silence)).toBe('erp');
    silence.reach('wms', 7 * MINUTE);
    expect(inCharge(silence)).toBe('wms');
  });

  it('is not silent before its stream was at its end', () => {
    expect(inCharge(reached({ erp: 500 }))).toBe('wms');
  });

  it('is stood in for by the second in line only where the first is at its end, too', () => {
    const silence = reached({ wms: 5, erp: 5, shop: 50 });
    silence.atEnd('wms');
    expect(inCharge(silence)).toBe('erp');
    silence.atEnd('erp');
    expect(inCharge(silence)).toBe('shop');
  });

  it('is not silent against a time ahead of the clock', () => {
    const silence = reached({ wms: 5, erp: 900 });
    silence.atEnd('wms');
    expect(inCharge(silence, 14 * MINUTE)).toBe('wms');
    expect(inCharge(silence, 16 * MINUTE)).toBe('erp');
  });

  it('stays what it was over a restart, also from a state that says nothing of ends', () => {
    const silence = reached({ wms: 5, erp: 30 });
    silence.atEnd('wms');
    silence.reach('erp', 60 * MINUTE);
    const again = (saved: unknown): Silence => {
      const restored = new Silence();
      restored.restore(JSON.parse(JSON.stringify(saved)) as ReturnType<Silence['save']>);
      return restored;
    };
    const saved = silence.save();
    expect(again(saved).save()).toEqual(saved);
    expect(inCharge(again(saved))).toBe('erp');
    const healthy = reached({ wms: 29, erp: 30 });
    const old = again({ reached: saved.reached });
    expect(inCharge(old)).toBe('erp');
    const backlog = again({ reached: healthy.save().reached });
    backlog.reach('erp', 90 * MINUTE);
    expect(inCharge(backlog)).toBe('wms');
  });
});

it('records are not handed to a fallback while the stream of their owner is being read', () => {
  const { ownership } = compileOwnership(
    STOCK,
    { on_hand: { source: 'wms', fallback: [{ source: 'erp', stale_after: 600_000 }] } },
    new Map(['wms', 'erp'].map((source) => [source, new Set(['on_hand'])])),
  );
  const resolver = new Resolver(ownership);
  const say = (source: string, onHand: string, minutes: number) => {
    const values = { sku: 'A', location: 'W', uom: 'EA', on_hand: onHand };
    const changes = [contributionOf(STOCK, source, values, minutes * MINUTE)];
    return resolver.apply(source, changes, minutes * MINUTE, NOW).map((change) => recordShown(change)['on_hand']);
  };
  expect(say('wms', '1', 1)).toEqual(['1']);
  expect(say('erp', '9', 1)).toEqual([]);
  for (const source of ['wms', 'erp']) resolver.atEnd(source);
  const { standing } = resolver;
  expect(say('erp', '8', 60)).toEqual([]);
  expect(resolver.standing).toBe(standing);
  for (const minutes of [2, 30, 59]) expect(say('wms', String(minutes), minutes)).toEqual([String(minutes)]);
  // Now it falls silent.
  expect(say('erp', '7', 90)).toEqual([]);
  resolver.atEnd('wms');
  expect(say('erp', '7', 91)).toEqual(['7']);
  expect(resolver.standing).not.toBe(standing);
});

it('a checkpoint says which owners were silent, where it matters', () => {
  const checkpoint: Checkpoint = {
    plan: 'p',
    clockUs: 1,
    sources: new Map(),
    tiers: new Map([['t', { clockUs: 1, sources: new Map(), standing: BETWEEN }]]),
    heldBehind: false,
    standing: '[["erp"]]',
  };
  expect(parseCheckpoint(formatCheckpoint(checkpoint), 'here')).toEqual(checkpoint);
  const { standing: _, ...plain } = { ...checkpoint, tiers: new Map() };
  expect(parseCheckpoint(formatCheckpoint({ ...plain, standing: '' }), 'here')).toEqual(plain);
});
