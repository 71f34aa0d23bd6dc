/** What a mapping makes of all changes of its tables, in whatever order and cut, is what it makes of the rows that are left. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { canonicalFlowSchema } from '../../core/canonical-config.ts';
import type { RowChange, Value } from '../../core/frame.ts';
import { loadFlowPlan, type FlowPlan } from '../../transform/flow-plan.ts';
import { FlowState } from '../../transform/flow-state.ts';
import { saveState, StateRestorer } from '../../transform/saved-state.ts';
import type { HeldGroup } from '../../transform/ownership/resolved.ts';
import { tableOf } from '../support/mapped-tables.ts';

const TABLES = {
  quant: tableOf('quant', {
    id: 'bigint',
    product_id: 'integer',
    note: 'text',
    place_id: 'integer',
    quantity: 'numeric',
    until: 'timestamp with time zone',
  }),
  product: tableOf('product', { id: 'integer', code: 'text', unit_id: 'integer', kind: 'text' }),
  unit: tableOf('unit', { id: 'integer', name: 'text' }),
  place: tableOf('place', { id: 'integer', name: 'text', parent: 'integer' }),
  attr: tableOf('attr', { id: 'integer', product_id: 'integer', value: 'text', name: 'text' }),
};
type Table = keyof typeof TABLES;
type Row = readonly (string | null)[];
const NAMES = Object.keys(TABLES) as Table[];

const MAPPING = `version: 1
name: stock
entities:
  inventory_position:
    - from: quant
      group: true
      expires: until
      join:
        product: { table: product, on: { id: product_id } }
        unit: { table: unit, on: { id: product.unit_id } }
        place: { table: place, on: { id: place_id }, optional: true }
        above: { table: place, on: { id: place.parent }, optional: true }
        lot: { table: attr, on: { product_id: product.id, name: { const: lot } }, optional: true }
      where: { ne: [product.kind, { const: service }] }
      fields:
        sku: product.code
        location: { coalesce: [{ concat: [above.name, { const: / }, place.name] }, place.name, { const: none }] }
        lot: { coalesce: [lot.value, { const: '' }] }
        owner: { const: '' }
        uom: unit.name
        on_hand: { sum: quantity }
        allocated: { sum: quantity, where: { in: [note, [held]] } }
        on_order: { max: quantity }
    - from: attr
      join: { product: { table: product, on: { id: product_id } } }
      where: { in: [name, [extra]] }
      fields: { sku: product.code, location: { const: X }, lot: value, owner: { const: '' }, uom: { const: EA }, on_hand: 1 }
`;
const START_US = 1_772_352_902_000_000;
const time = (second: number): string => new Date(START_US / 1000 + second * 1000).toISOString().replace('T', ' ');

const id = fc.constantFrom('1', '2', '3');
const some = fc.constantFrom('1', '1', '2', '2', '3', '3', null);
const rows: Readonly<Record<Table, fc.Arbitrary<Row>>> = {
  quant: fc.tuple(
    fc.constantFrom('1', '2', '3', '4', '5'),
    some,
    fc.constantFrom('held', 'free', null),
    some,
    fc.constantFrom('1', '2.50', '-3', '0.0', '7', null, 'NaN'),
    fc.constantFrom(time(5), time(15), time(40), null, null),
  ),
  product: fc.tuple(id, fc.constantFrom('X', 'Y', ' bad'), some, fc.constantFrom('good', 'good', 'service')),
  unit: fc.tuple(id, fc.constantFrom('EA', 'EA', 'KGM', 'pieces')),
  place: fc.tuple(id, fc.constantFrom('A', 'B'), fc.constantFrom('1', '2', '3', null)),
  attr: fc.tuple(id, some, fc.constantFrom('L1', 'L2'), fc.constantFrom('lot', 'lot', 'extra')),
};
/** What makes each bad value good. */
const MENDED: Readonly<Record<string, string>> = { NaN: '9', ' bad': 'W', pieces: 'EA' };

type Step =
  | { readonly kind: 'put' | 'toast' | 'remove'; readonly table: Table; readonly row: Row }
  | { readonly kind: 'move'; readonly table: Table; readonly row: Row; readonly to: string }
  | { readonly kind: 'truncate'; readonly table: Table }
  | { readonly kind: 'read'; readonly table: Table; readonly lost: number }
  | { readonly kind: 'commit' }
  | { readonly kind: 'save' };

const table = fc.constantFrom<Table>('quant', 'quant', 'quant', 'product', 'unit', 'place', 'attr');
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: table.chain((name) =>
      fc.record({
        kind: fc.constantFrom(
          'put' as const,
          'put' as const,
          'put' as const,
          'toast' as const,
          'remove' as const,
          'move' as const,
        ),
        table: fc.constant(name),
        row: rows[name],
        to: id,
      }),
    ) as fc.Arbitrary<Step>,
  },
  { weight: 4, arbitrary: fc.constant<Step>({ kind: 'commit' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ kind: 'save' }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('truncate' as const), table }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('read' as const), table, lost: fc.nat(2) }) },
);

let folder: string;
let plan: FlowPlan;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'waybill-rows-'));
  const map = join(folder, 'map.yaml');
  writeFileSync(map, MAPPING);
  const settings = { canonical: 'inventory_position', from: { wms: { map } }, to: 'vis' };
  plan = await loadFlowPlan('stock', canonicalFlowSchema.parse(settings) as never);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A flow of one source, and the rows that its tables have. */
class Live {
  state = new FlowState(plan, 'here');
  readonly rows = new Map(NAMES.map((name) => [name, new Map<string, Row>()]));
  /** The records, as the changes that were given add up. */
  readonly given = new Map<string, unknown>();
  #ticks = 0;

  change(name: Table, ...change: readonly unknown[]): void {
    const place = { position: `p${this.#ticks}`, timeUs: START_US + this.#ticks * 1e6 };
    const [op, ...rest] = change;
    this.state.sources[0]!.engine.apply([op, 0, ...rest] as unknown as RowChange, [TABLES[name]], place);
  }

  commit(): void {
    this.#ticks += 1;
    this.state.clockUs = START_US + this.#ticks * 1e6;
    this.state.expire();
    for (const { key, before, after } of this.state.settle(this.state.sources[0]!).changes) {
      expect(before).toEqual(this.given.get(key));
      if (after === undefined) this.given.delete(key);
      else this.given.set(key, after);
    }
  }

  take(taken: Step): void {
    if (taken.kind === 'commit') return this.commit();
    if (taken.kind === 'save') return this.#save();
    const { table: name } = taken;
    const there = this.rows.get(name)!;
    const keyImage = (key: string): Value[] => TABLES[name].columns.map((_, index) => (index === 0 ? key : null));
    if (taken.kind === 'truncate') {
      there.clear();
      return this.change(name, 't', []);
    }
    if (taken.kind === 'read') {
      // Of some rows no event tells that they are gone.
      for (const key of [...there.keys()].slice(0, taken.lost)) there.delete(key);
      this.change(name, 's', ['again', 'begin']);
      for (const row of there.values()) this.change(name, 'r', row);
      return this.change(name, 's', ['again', 'end']);
    }
    const { row } = taken;
    const [key] = row as [string];
    const old = there.get(key);
    if (taken.kind === 'put') this.change(name, old === undefined ? 'i' : 'u', row);
    else if (old === undefined) return;
    if (taken.kind === 'remove') {
      there.delete(key);
      return this.change(name, 'd', null, 'k', keyImage(key));
    }
    if (taken.kind === 'move') {
      if (there.has(taken.to)) return;
      there.delete(key);
      there.set(taken.to, [taken.to, ...row.slice(1)]);
      return this.change(name, 'u', there.get(taken.to), 'k', keyImage(key));
    }
    const kept = taken.kind === 'toast' && typeof old?.[2] === 'string' ? old[2] : undefined;
    there.set(key, kept === undefined ? row : row.with(2, kept));
    if (taken.kind === 'toast') this.change(name, 'u', kept === undefined ? row : (row as Value[]).with(2, 0));
  }

  #save(): void {
    this.commit();
    const lines = [...saveState(this.state)];
    const { clockUs } = this.state;
    this.state = new FlowState(plan, 'here');
    this.state.clockUs = clockUs;
    const restorer = new StateRestorer(this.state);
    for (const line of lines) restorer.take(line);
    restorer.done();
  }

  /** Every bad value becomes a good one. */
  mend(): void {
    for (const [name, there] of this.rows)
      for (const row of Array.from(there.values())) {
        const good = row.map((value) => MENDED[value ?? ''] ?? value);
        if (good.some((value, index) => value !== row[index])) this.take({ kind: 'put', table: name, row: good });
      }
    this.commit();
  }
}

const recordsOf = (state: FlowState) =>
  [...state.resolver.current()].map(({ key, values }) => [key, values]).toSorted((a, b) => (a[0]! < b[0]! ? -1 : 1));

/** Rows that wait for one that they join, and the rest of what is held. */
function heldBy(state: FlowState): { waiting: unknown[]; other: unknown[] } {
  const waits = ({ violations }: HeldGroup): boolean => violations.every(({ field }) => field.startsWith('join '));
  const { all } = state.resolver.held;
  const waiting = all.filter(waits).flatMap(({ violations }) => violations.map(({ key, field }) => `${key} ${field}`));
  return { waiting: waiting.toSorted(), other: all.filter((each) => !waits(each)) };
}

it('records follow from the rows that there are, whatever led to them, and nothing good is held', () => {
  const order = fc.shuffledSubarray(NAMES, { minLength: NAMES.length });
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 60, size: 'max' }), order, (steps, names) => {
      const live = new Live();
      for (const each of steps) live.take(each);
      live.mend();
      // Once all has been read, what a row joins and is not there does not come by itself.
      for (const table of NAMES) live.take({ kind: 'read', table, lost: 0 });
      live.commit();
      const fresh = new Live();
      fresh.state.clockUs = live.state.clockUs;
      for (const name of names) {
        fresh.change(name, 's', ['first', 'begin']);
        for (const row of live.rows.get(name)!.values()) fresh.change(name, 'r', row);
        fresh.change(name, 's', ['first', 'end']);
        fresh.state.settle(fresh.state.sources[0]!);
      }
      // Rows that give no record are held, and what they gave before goes on being served.
      const held = heldBy(fresh.state);
      fc.pre(held.other.length === 0);
      expect(heldBy(live.state)).toEqual(held);
      expect(recordsOf(live.state)).toEqual(recordsOf(fresh.state));
      expect([...live.given].toSorted(([a], [b]) => (a < b ? -1 : 1))).toEqual(recordsOf(fresh.state));
    }),
    { numRuns: 250 },
  );
});
