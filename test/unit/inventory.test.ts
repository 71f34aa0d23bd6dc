import { describe, expect, it } from 'vitest';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import { INVARIANTS, InvariantMonitor, type RecordChange } from '../../transform/canonical/inventory-invariants.ts';
import { deriveStock, oversellExposure, oversold, sellable, STOCK } from '../../transform/canonical/inventory.ts';

type Fields = Record<string, string>;
const record = (entity: string, fields: Fields): (string | null)[] => {
  const values = ENTITIES.get(entity)!.fields.map((field) => fields[field.name] ?? (field.key ? '' : null));
  return entity === 'inventory_position' ? deriveStock(values) : values;
};
const change = (entity: string, before: Fields | undefined, after: Fields | undefined): RecordChange => ({
  entity,
  before: before === undefined ? undefined : record(entity, before),
  after: after === undefined ? undefined : record(entity, after),
});
const stock = (fields: Fields): Fields => ({ sku: 'A', location: 'WH', uom: 'EA', ...fields });
const position = (before: Fields | undefined, after: Fields | undefined): RecordChange =>
  change('inventory_position', before && stock(before), after && stock(after));
let ids = 0;
const movement = (reason: string, fields: Fields): RecordChange =>
  change('inventory_movement', undefined, {
    id: String((ids += 1)),
    sku: 'A',
    location: 'WH',
    uom: 'EA',
    reason,
    occurred_at: '2026-03-01T08:15:02.123456Z',
    ...fields,
  });
const broken = (monitor: InvariantMonitor, ...changes: RecordChange[]): string[] =>
  monitor.observe(changes).map(({ invariant, key }) => `${invariant} ${key}`);

describe('stock arithmetic', () => {
  it('works out on_hold and available, exactly and without clamping', () => {
    const values = record(
      'inventory_position',
      stock({ on_hand: '10', damaged: '0.1', blocked: '0.2', allocated: '9', soft_reserved: '5' }),
    );
    expect(values[STOCK.onHold]).toBe('0.3');
    expect(values[STOCK.available]).toBe('-4.3');
    expect(oversold(values[STOCK.available]!)).toBe('4.3');
    expect(sellable(values[STOCK.available]!)).toBe('0');
    expect(sellable('7', '2.5')).toBe('4.5');
    expect(sellable(null)).toBe('0');
    expect(oversold('3')).toBe('0');
    expect(oversellExposure(0.5, 60)).toBe(30);
    expect(record('inventory_position', stock({ allocated: '9' }))[STOCK.available]).toBeNull();
  });
});

describe('invariants', () => {
  it('has eight', () => expect(Object.keys(INVARIANTS)).toHaveLength(8));

  it('1: the identity of available', () => {
    const wrong = position(undefined, { on_hand: '5' });
    const after = [...wrong.after!];
    after[STOCK.available] = '6';
    const monitor = new InvariantMonitor();
    expect(broken(monitor, { ...wrong, after })).toEqual(['available_identity A/WH//']);
    expect(broken(monitor, position({ on_hand: '5' }, { on_hand: '4' }))).toEqual([]);
    expect(monitor.counts.available_identity).toBe(1);
  });

  it('2 and 3: picked within allocated, holds within on_hand', () => {
    const monitor = new InvariantMonitor();
    expect(broken(monitor, position(undefined, { on_hand: '5', allocated: '2', picked: '3' }))).toEqual([
      'picked_within_allocated A/WH//',
    ]);
    expect(broken(monitor, position(undefined, { on_hand: '5', allocated: '2', picked: '-1' }))).toEqual([
      'picked_within_allocated A/WH//',
    ]);
    expect(broken(monitor, position(undefined, { on_hand: '5', damaged: '6' }))).toEqual([
      'hold_within_on_hand A/WH//',
    ]);
    expect(broken(monitor, position(undefined, { on_hand: '5', damaged: '5', allocated: '2', picked: '2' }))).toEqual(
      [],
    );
  });

  it('4: what is allocated is what is reserved, over all lots of a place', () => {
    const monitor = new InvariantMonitor();
    const claim = (qty: string, kind = 'hard'): Fields => ({
      order_number: 'S1',
      line: '1',
      sku: 'A',
      location: 'WH',
      uom: 'EA',
      qty,
      kind,
    });
    expect(
      broken(
        monitor,
        position(undefined, { lot: 'L1', on_hand: '5', allocated: '2' }),
        position(undefined, { lot: 'L2', on_hand: '5', allocated: '1' }),
        change('reservation', undefined, claim('3')),
      ),
    ).toEqual([]);
    expect(broken(monitor, change('reservation', claim('3'), claim('4')))).toEqual(['allocated_is_reserved A/WH']);
    expect(
      broken(
        monitor,
        change('reservation', claim('4'), claim('4', 'soft')),
        position({ lot: 'L1', on_hand: '5', allocated: '2' }, { lot: 'L1', on_hand: '5' }),
        position({ lot: 'L2', on_hand: '5', allocated: '1' }, { lot: 'L2', on_hand: '5' }),
      ),
    ).toEqual([]);
  });

  it('5: a location holds what its leaves hold', () => {
    const monitor = new InvariantMonitor();
    const place = (code: string, parent?: string): RecordChange =>
      change('location', undefined, {
        code,
        type: 'bin',
        is_stock: 'true',
        ...(parent === undefined ? {} : { parent }),
      });
    const at = (location: string, onHand: string): RecordChange => position(undefined, { location, on_hand: onHand });
    expect(
      broken(
        monitor,
        place('WH'),
        place('Z', 'WH'),
        place('B1', 'Z'),
        place('B2', 'Z'),
        at('WH', '3'),
        at('B1', '1'),
        at('B2', '2'),
      ),
    ).toEqual([]);
    expect(broken(monitor, position({ location: 'B2', on_hand: '2' }, { location: 'B2', on_hand: '5' }))).toEqual([
      'parent_is_sum A/WH//',
    ]);
    expect(broken(monitor, position({ location: 'WH', on_hand: '3' }, { location: 'WH', on_hand: '6' }))).toEqual([]);
    // A hierarchy that runs in a circle has no leaves: it is a breach, and no endless climb.
    const circle = change('location', undefined, { code: 'WH', type: 'bin', is_stock: 'true', parent: 'B1' });
    expect(broken(monitor, circle, at('B1', '1'))).toEqual(['parent_is_sum A/B1//', 'parent_is_sum A/WH//']);
  });

  it('6: on_hand changes by the movements, and a count is absolute', () => {
    const monitor = new InvariantMonitor();
    expect(broken(monitor, position(undefined, { on_hand: '10' }))).toEqual([]);
    expect(
      broken(monitor, position({ on_hand: '10' }, { on_hand: '7' }), movement('adjustment', { delta: '-3' })),
    ).toEqual([]);
    expect(broken(monitor, position({ on_hand: '7' }, { on_hand: '5' }))).toEqual(['movements_explain_on_hand A/WH//']);
    // The movement comes later, in a transaction of its own: then all is explained.
    expect(broken(monitor, movement('adjustment', { delta: '-2' }))).toEqual([]);
    expect(
      broken(monitor, position({ on_hand: '5' }, { on_hand: '42' }), movement('count', { absolute: '42' })),
    ).toEqual([]);
  });

  it('6: a first figure settles the movements that came before it', () => {
    const monitor = new InvariantMonitor();
    expect(broken(monitor, movement('receipt', { delta: '5' }))).toEqual(['movements_explain_on_hand A/WH//']);
    expect(broken(monitor, position(undefined, { on_hand: '5' }))).toEqual([]);
    expect(
      broken(monitor, position({ on_hand: '5' }, { on_hand: '4' }), movement('adjustment', { delta: '-1' })),
    ).toEqual([]);
  });

  it('6: keeps no account of ever new lots that no position has', () => {
    const monitor = new InvariantMonitor();
    const lots = Array.from({ length: 100_001 }, (_, lot) => movement('receipt', { lot: `L${lot}`, delta: '1' }));
    expect(monitor.observe(lots)).toHaveLength(lots.length);
    const kept = [...monitor.unexplained()].map(([key]) => key.split('\u001f')[2]);
    expect(kept).toHaveLength(100_000);
    // The oldest one is given up.
    expect(kept).not.toContain('L0');
    expect(kept).toContain('L100000');
  });

  it('takes a transaction of very many movements in a time that grows with their number', () => {
    const monitor = new InvariantMonitor();
    const places = Array.from({ length: 30_000 }, (_, i) => ({ sku: `S${i}`, on_hand: '1' }));
    monitor.observe(places.map((fields) => position(undefined, fields)));
    const moved = places.flatMap((fields) => [
      position(fields, { ...fields, on_hand: '2' }),
      movement('transfer_in', { sku: fields.sku, delta: '1' }),
    ]);
    const ofOne = Array.from({ length: 50_000 }, () => movement('receipt', { sku: 'S', delta: '1' }));
    const started = performance.now();
    const found = monitor.observe([...moved, ...ofOne]);
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(found.filter(({ invariant }) => invariant === 'transfer_conserves')).toHaveLength(places.length);
  });

  it('7: a transfer conserves on_hand and in_transit together', () => {
    const monitor = new InvariantMonitor();
    const both = (a: string, b: string): Fields[] => [{ on_hand: a }, { location: 'DC', on_hand: '0', in_transit: b }];
    const [a, b] = both('10', '0');
    broken(monitor, position(undefined, a), position(undefined, b));
    const [c, d] = both('6', '4');
    expect(broken(monitor, position(a, c), position(b, d), movement('transfer_out', { delta: '-4' }))).toEqual([]);
    const [e, f] = both('5', '4');
    expect(broken(monitor, position(c, e), position(d, f), movement('transfer_out', { delta: '-1' }))).toEqual([
      'transfer_conserves A',
    ]);
  });

  it('8: a despatch leaves available where it was', () => {
    const monitor = new InvariantMonitor();
    broken(monitor, position(undefined, { on_hand: '10', allocated: '4' }));
    expect(
      broken(
        monitor,
        position({ on_hand: '10', allocated: '4' }, { on_hand: '7', allocated: '1' }),
        movement('despatch', { delta: '-3' }),
      ),
    ).toEqual([]);
    expect(
      broken(
        monitor,
        position({ on_hand: '7', allocated: '1' }, { on_hand: '6', allocated: '1' }),
        movement('despatch', { delta: '-1' }),
      ),
    ).toEqual(['despatch_keeps_available A/WH//']);
  });
});
