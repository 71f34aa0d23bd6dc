import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { canonicalFlowSchema } from '../../core/canonical-config.ts';
import { pgPosition } from '../../core/position.ts';
import { loadFlowPlan, type FlowPlan } from '../../transform/flow-plan.ts';
import { FlowState } from '../../transform/flow-state.ts';
import { keptParts, layoutOf } from '../../transform/kept-layout.ts';
import { KeptRows } from '../../transform/kept-rows.ts';
import { saveState, StateRestorer } from '../../transform/saved-state.ts';
import { imageOf, tableOf, type RowObject } from '../support/mapped-tables.ts';

const TABLES = {
  quant: tableOf('quant', {
    id: 'bigint',
    product_id: 'integer',
    place: 'text',
    quantity: 'numeric',
    reserved: 'numeric',
  }),
  product: tableOf('product', { id: 'integer', code: 'text', unit: 'text' }),
  claim: tableOf('claim', { id: 'bigint', product_id: 'integer', place: 'text', qty: 'numeric', expires: 'text' }),
  above: tableOf('above', { id: 'bigint', place: 'text', parent: 'text' }),
  move: tableOf('move', { id: 'bigint', product_id: 'integer', place: 'text', qty: 'numeric', reason: 'text' }),
};
const MAPPING = `version: 1
name: stock
entities:
  inventory_position:
    - from: quant
      group: true
      join:
        product: { table: product, on: { id: product_id } }
      where: { ne: [place, { const: gone }] }
      fields:
        sku: product.code
        location: place
        lot: { const: '' }
        owner: { const: '' }
        uom: product.unit
        on_hand: { sum: quantity }
        allocated: { sum: reserved }
    - from: claim
      group: true
      expires: { timestamp: { of: expires, zone: UTC } }
      join:
        product: { table: product, on: { id: product_id } }
      fields:
        sku: product.code
        location: place
        lot: { const: '' }
        owner: { const: '' }
        soft_reserved: { sum: qty }
  location:
    from: above
    fields: { code: place, type: { const: bin }, is_stock: true, parent: parent }
  reservation:
    from: claim
    join: { product: { table: product, on: { id: product_id } } }
    fields:
      order_number: id
      line: { const: '1' }
      part: { const: '' }
      sku: product.code
      location: place
      uom: { const: EA }
      qty: qty
      kind: { const: hard }
  inventory_movement:
    from: move
    join: { product: { table: product, on: { id: product_id } } }
    fields:
      id: id
      sku: product.code
      location: place
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      delta: { if: { ne: [qty, { const: '7' }] }, then: qty }
      absolute: { if: { in: [qty, ['7', '2.50']] }, then: qty }
      reason: reason
      occurred_at: { const: '2026-03-01T08:00:00Z' }
`;
const SOURCES = ['wms', 'shop'] as const;
const START_US = 1_772_352_902_000_000;
const time = (step: number): string => new Date(START_US / 1000 + step * 1000).toISOString();

let folder: string;
/** With nothing beside the positions, and with everything that they are held against. */
let plain: FlowPlan;
let held: FlowPlan;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'waybill-saved-'));
  const map = join(folder, 'map.yaml');
  writeFileSync(map, MAPPING);
  const settings = (evidence: readonly string[]) => ({
    canonical: 'inventory_position',
    from: { wms: { map }, shop: { map } },
    to: 'vis',
    owner: {
      on_hand: { merge: 'delta', reset: 'wms' },
      allocated: ['wms', { source: 'shop', stale_after: '3s' }],
      soft_reserved: { merge: 'lww', skew: '0s' },
    },
    delivery: { default: 'realtime', soft_reserved: { every: '5s' } },
    evidence,
  });
  const load = (evidence: readonly string[]): Promise<FlowPlan> =>
    loadFlowPlan('stock', canonicalFlowSchema.parse(settings(evidence)) as never);
  plain = await load([]);
  held = await load(['location', 'reservation', 'inventory_movement']);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Step =
  | { readonly table: keyof typeof TABLES; readonly row: RowObject; readonly gone: boolean }
  | 'commit'
  | 'echo'
  | 'release'
  | 'save';

const id = fc.constantFrom('1', '2', '3');
const place = fc.constantFrom('A', 'B', 'gone');
const change = <T extends keyof typeof TABLES>(table: T, row: Record<string, fc.Arbitrary<string | null>>) =>
  fc
    .record({ table: fc.constant(table), row: fc.record(row) as fc.Arbitrary<RowObject>, gone: fc.nat({ max: 5 }) })
    .map((made) => ({
      ...made,
      gone: made.gone === 0,
    }));
const reason = fc.constantFrom('receipt', 'despatch', 'transfer_in');
const quantity = fc.constantFrom('1', '2.50', '-3', '0.0', '7', 'NaN');
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: change('quant', { id, product_id: fc.option(id), place, quantity, reserved: quantity }) },
  {
    weight: 3,
    arbitrary: change('product', {
      id,
      code: fc.constantFrom('X', 'Y', 'X', 'Y', ' bad'),
      unit: fc.constantFrom('EA', 'EA', 'KGM', 'pieces'),
    }),
  },
  {
    weight: 3,
    arbitrary: change('claim', {
      id,
      product_id: id,
      place,
      qty: quantity,
      expires: fc.constantFrom(null, 'never', time(6), time(12), time(20)),
    }),
  },
  { weight: 1, arbitrary: change('above', { id, place, parent: fc.option(place) }) },
  { weight: 1, arbitrary: change('move', { id, product_id: id, place, qty: quantity, reason }) },
  { weight: 6, arbitrary: fc.constant('commit' as const) },
  { weight: 2, arbitrary: fc.constant('echo' as const) },
  { weight: 1, arbitrary: fc.constant('release' as const) },
  { weight: 2, arbitrary: fc.constant('save' as const) },
);

/** Most that comes later finds what it joins, and stock that it changes. */
const FIRST = SOURCES.flatMap((_, source) =>
  ['1', '2', '3'].flatMap((key): { source: number; step: Step }[] => [
    { source, step: { table: 'product', row: { id: key, code: key === '3' ? 'Y' : 'X', unit: 'EA' }, gone: false } },
    {
      source,
      step: {
        table: 'quant',
        row: { id: key, product_id: key, place: 'A', quantity: '5', reserved: '1' },
        gone: false,
      },
    },
  ]),
);

/** What a flow gives for a history; with `saves` its state is put away and brought back wherever that says so. */
function run(plan: FlowPlan, history: readonly { source: number; step: Step }[], saves: boolean): unknown[] {
  let state = new FlowState(plan, 'here');
  const given: unknown[] = [];
  let ticks = 0;
  /** A state whose lines are written while the flow goes on, and what they are to be. */
  let saving: { lines: Iterator<string>; expected: string[]; written: string[] } | undefined;
  const write = (most: number): void => {
    for (let n = 0; saving !== undefined && n < most; n++) {
      const { value, done } = saving.lines.next();
      if (done !== true) saving.written.push(value);
      else {
        expect(saving.written.toSorted()).toEqual(saving.expected.toSorted());
        saving = undefined;
      }
    }
  };
  const settle = (index: number, echo = false): void => {
    const source = state.sources[index]!;
    source.reachedUs = START_US + ticks * 1e6;
    source.echo = echo;
    if (ticks % 2 === 0) state.resolver.atEnd(source.name);
    const outcome = state.settle(source);
    const changes = outcome.changes.toSorted((a, b) => (a.key < b.key ? -1 : 1));
    const { held, breaches } = outcome;
    const broken = breaches.map(({ invariant, key }) => `${invariant} ${key}`).sort();
    const passed = changes.map((each) => state.delivery.take(each));
    given.push({ changes, held: held.toSorted((a, b) => (a.id < b.id ? -1 : 1)), passed, broken });
    given.push(changes.map(({ key }) => state.groups(key)));
  };
  const tick = (): void => {
    ticks += 1;
    state.clockUs = START_US + ticks * 1e6;
    state.expire();
    for (const index of SOURCES.keys()) settle(index);
  };
  // Every table has been read whole.
  for (const { engine } of state.sources)
    for (const table of Object.values(TABLES))
      for (const mark of ['begin', 'end'])
        engine.apply(['s', 0, ['first', mark]], [table], { position: 'p0', timeUs: START_US });
  tick();
  for (const { source, step: item } of [...FIRST, ...history]) {
    const place = { position: `p${ticks}`, timeUs: START_US + ticks * 1e6 };
    if (item === 'commit') tick();
    // What Waybill wrote into the source.
    else if (item === 'echo') settle(source, true);
    else if (item === 'release') {
      tick();
      for (const tier of plan.tiers.delayed) given.push(state.release(tier));
    } else if (item === 'save') {
      tick();
      // The next state gives up the one that is being written.
      write(Infinity);
      const lines = [...saveState(state, 1)];
      if (!saves) {
        saving = { lines: saveState(state, 1)[Symbol.iterator](), expected: lines, written: [] };
        continue;
      }
      const { clockUs } = state;
      const saved = [...saveState(state, 3)];
      state = new FlowState(plan, 'here');
      state.clockUs = clockUs;
      const restorer = new StateRestorer(state);
      for (const line of saved) restorer.take(line);
      restorer.done();
      // Nothing is lost by being saved again.
      expect([...saveState(state, 1)].toSorted()).toEqual(lines.toSorted());
    } else {
      const table = TABLES[item.table];
      const image = imageOf(table, item.row);
      write(1);
      state.sources[source]!.engine.apply(item.gone ? ['d', 0, null, 'k', image] : ['i', 0, image], [table], place);
    }
  }
  tick();
  write(Infinity);
  const records = [...state.resolver.current()].toSorted((a, b) => (a.key < b.key ? -1 : 1));
  given.push(
    records,
    records.map(({ key }) => state.groups(key)),
    state.resolver.held.all.length,
    state.stateBytes,
  );
  return given.map((each) =>
    JSON.parse(JSON.stringify(each, (key, value: unknown) => (key === 'entity' ? undefined : value)) ?? 'null'),
  );
}

it.each([
  ['positions alone', () => plain],
  ['positions held against what else the sources tell', () => held],
])('a state that was saved and brought back goes on as if nothing had been: %s', (_, plan) => {
  const history = fc.array(fc.record({ source: fc.nat({ max: 1 }), step }), {
    minLength: 25,
    maxLength: 50,
    size: 'max',
  });
  fc.assert(
    fc.property(history, (steps) => {
      expect(run(plan(), steps, true)).toEqual(run(plan(), steps, false));
    }),
    { numRuns: 60 },
  );
});

/** Mappings that read no more than the one above, and owners; each with what it changes. */
const MENDED: readonly (readonly [what: string, mapping: (text: string) => string, owner: Record<string, unknown>])[] =
  [
    ['other owners', (text) => text, { on_hand: 'shop', soft_reserved: 'wms' }],
    ['a merge', (text) => text, { soft_reserved: { merge: 'min' } }],
    ['rows that are left out', (text) => text.replace('{ const: gone }', '{ const: A }'), {}],
    ['rows that are not left out', (text) => text.replace(/^ +where: .*\n/m, ''), {}],
    ['another key', (text) => text.replace('location: place', 'location: { concat: [place, { const: /1 }] }'), {}],
    ['another value', (text) => text.replace('sum: quantity', 'max: quantity'), {}],
    ['a field less', (text) => text.replace(/^ +allocated: .*\n/m, ''), { allocated: undefined }],
    [
      'a field more',
      (text) => text.replace('allocated: {', 'in_transit: { sum: reserved }\n        allocated: {'),
      { in_transit: 'wms' },
    ],
    ['no expiry', (text) => text.replace(/^ +expires: .*\n/m, ''), {}],
    ['blocks the other way round', swapped, {}],
    [
      'a block less',
      (text) => text.replace(/ {4}- from: claim[^]*?(?=^ {2}location:)/m, ''),
      { soft_reserved: undefined },
    ],
    ['other reservations', (text) => text.replace('kind: { const: hard }', 'kind: { const: soft }'), {}],
  ];

function swapped(text: string): string {
  const [quant, claim] = [
    / {4}- from: quant[^]*?(?= {4}- from: claim)/,
    / {4}- from: claim[^]*?(?=^ {2}location:)/m,
  ].map((part) => part.exec(text)![0]) as [string, string];
  return text.replace(quant + claim, claim + quant);
}

const sound: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: change('quant', {
      id,
      product_id: id,
      place,
      quantity: fc.constantFrom('1', '2.50', '7'),
      reserved: fc.constantFrom('0', '1'),
    }),
  },
  { weight: 3, arbitrary: change('product', { id, code: fc.constantFrom('X', 'Y'), unit: fc.constant('EA') }) },
  {
    weight: 3,
    arbitrary: change('claim', {
      id,
      product_id: id,
      place,
      qty: fc.constantFrom('1', '2'),
      expires: fc.constantFrom(null, time(6), time(12)),
    }),
  },
  {
    weight: 1,
    // No two rows of one place: what is held depends on what was there before.
    arbitrary: change('above', { id, parent: fc.option(place) }).map((made) => ({
      ...made,
      row: { ...made.row, place: { '1': 'A', '2': 'B', '3': 'gone' }[made.row['id'] as '1'] },
    })),
  },
  { weight: 4, arbitrary: fc.constant('commit' as const) },
);

it('rows that were kept make what another plan makes of the frames that brought them', async () => {
  const load = async (name: string, text: string, owner: Record<string, unknown>): Promise<FlowPlan> => {
    const map = join(folder, `${name.replaceAll(' ', '-')}.yaml`);
    writeFileSync(map, text);
    const settings = {
      canonical: 'inventory_position',
      from: { wms: { map }, shop: { map } },
      to: 'vis',
      owner: { on_hand: 'wms', allocated: 'wms', soft_reserved: 'shop', ...owner },
      delivery: 'realtime',
      evidence: ['location', 'reservation', 'inventory_movement'],
    };
    return await loadFlowPlan('stock', canonicalFlowSchema.parse(JSON.parse(JSON.stringify(settings))) as never);
  };
  const before = await load('before', MAPPING, {});
  // What is not said decides nothing.
  expect((await load('same', `# Mended.\n${MAPPING}`, {})).fingerprint).toBe(before.fingerprint);
  const plans = await Promise.all(MENDED.map(([name, mend, owner]) => load(name, mend(MAPPING), owner)));
  const after = (plan: FlowPlan, history: readonly { source: number; step: Step }[]): FlowState => {
    const state = new FlowState(plan, 'here');
    let ticks = 0;
    const tick = (): void => {
      ticks += 1;
      state.clockUs = START_US + ticks * 1e6;
      state.expire();
      for (const source of state.sources) {
        source.reachedUs = state.clockUs;
        state.settle(source);
      }
    };
    for (const { engine } of state.sources)
      for (const table of Object.values(TABLES))
        for (const mark of ['begin', 'end'])
          engine.apply(['s', 0, ['first', mark]], [table], { position: 'p0', timeUs: START_US });
    for (const { source, step: item } of [...FIRST, ...history]) {
      if (typeof item === 'string') tick();
      else {
        const table = TABLES[item.table];
        const image = imageOf(table, item.row);
        const place = { position: `p${ticks}`, timeUs: START_US + ticks * 1e6 };
        state.sources[source]!.engine.apply(item.gone ? ['d', 0, null, 'k', image] : ['i', 0, image], [table], place);
      }
    }
    tick();
    return state;
  };
  const shown = (state: FlowState): unknown => ({
    records: [...state.resolver.current()].map(({ values }) => JSON.stringify(values)).toSorted(),
    breaches: state
      .audit()
      .map(({ invariant, key }) => `${invariant} ${key}`)
      .toSorted(),
    bytes: state.stateBytes,
    held: state.resolver.held.all.length,
  });
  const restated = (from: FlowState, plan: FlowPlan): FlowState => {
    const state = new FlowState(plan, 'here');
    state.clockUs = from.clockUs;
    const layout = layoutOf(from);
    const parts = keptParts(layout, layoutOf(state));
    expect([...parts.values()].map(({ source }) => source)).toEqual(SOURCES);
    const rows = new KeptRows(state, layout, parts);
    for (const line of saveState(from, 3)) rows.take(line);
    const position = pgPosition(1n);
    const places = new Map(SOURCES.map((source) => [source, { position, seq: 1 }]));
    Array.from(rows.made(places));
    return state;
  };
  const steps = fc.array(fc.record({ source: fc.nat({ max: 1 }), step: sound }), { minLength: 5, maxLength: 40 });
  fc.assert(
    fc.property(steps, fc.nat({ max: plans.length - 1 }), (history, mended) => {
      const kept = after(before, history);
      expect(shown(restated(kept, plans[mended]!)), MENDED[mended]![0]).toEqual(shown(after(plans[mended]!, history)));
      // With the plan that it was, everything is as it was, where it came from included.
      const records = (state: FlowState): unknown =>
        [...state.resolver.current()].toSorted((a, b) => (a.key < b.key ? -1 : 1));
      expect(records(restated(kept, before))).toEqual(records(kept));
    }),
    { numRuns: 100 },
  );
  // What is not kept cannot be made of it.
  const more = await load('more', MAPPING.replace('uom: product.unit', 'uom: product.kind'), {});
  expect(keptParts(layoutOf(after(before, [])), layoutOf(new FlowState(more, 'here')))).toEqual(new Map());
});
