import { describe, expect, it } from 'vitest';
import type { ReceivedFrame } from '../../core/cdc-stream.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { pgPosition } from '../../core/position.ts';
import { describeViolation } from '../../transform/canonical/validate.ts';
import { compileMapping } from '../../transform/mapping/block-plan.ts';
import { MappingEngine } from '../../transform/mapping/engine.ts';
import type { MappingFunction } from '../../transform/mapping/evaluate.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { SourceState } from '../../transform/source-state.ts';
import { imageOf, SourceFeed, summary, tableOf } from '../support/mapped-tables.ts';

const TABLES = [
  tableOf('quant', {
    id: 'bigint',
    product_id: 'integer',
    place_id: 'integer',
    quantity: 'numeric(16,4)',
    note: 'text',
    until: 'timestamp with time zone',
  }),
  tableOf('product', { id: 'integer', code: 'text', template_id: 'integer' }),
  tableOf('template', { id: 'integer', unit: 'text' }),
  tableOf('place', { id: 'integer', name: 'text', usage: 'text' }),
];
const STOCK = `version: 1
name: stock
entities:
  inventory_position:
    from: quant
    group: true
    join:
      product: { table: product, on: { id: product_id } }
      template: { table: template, on: { id: product.template_id } }
      place: { table: place, on: { id: place_id } }
    where: { in: [place.usage, [internal]] }
    expires: until
    fields:
      sku: product.code
      location: place.name
      lot: { const: '' }
      owner: { const: '' }
      uom: { lookup: { of: template.unit, values: { Units: EA, kg: KGM } } }
      on_hand: { sum: quantity }
      allocated: { sum: quantity, where: { in: [note, [held]] } }
`;

function feed(
  text = STOCK,
  options: { functions?: Map<string, MappingFunction>; stateBytes?: number } = {},
  tables = TABLES,
) {
  const plan = compileMapping(parseMapping(text, 'stock.yaml'), options.functions ?? new Map());
  const { stateBytes } = options;
  const engine = new MappingEngine({ source: 'wms', plan, ...(stateBytes === undefined ? {} : { stateBytes }) });
  return { engine, feed: new SourceFeed(engine, tables) };
}
const masters = (source: SourceFeed): SourceFeed =>
  source
    .put('template', { id: '1', unit: 'Units' }, { id: '2', unit: 'kg' })
    .put('product', { id: '1', code: 'A', template_id: '1' }, { id: '2', code: 'B', template_id: '2' })
    .put('place', { id: '1', name: 'WH', usage: 'internal' }, { id: '2', name: 'Customer', usage: 'customer' });
const quant = (id: string, quantity: string, more: Record<string, string> = {}) => ({
  id,
  product_id: '1',
  place_id: '1',
  quantity,
  ...more,
});

describe('mapping engine', () => {
  it('adds up rows of one key, and takes them back', () => {
    const { feed: source } = feed();
    masters(source).put('quant', quant('1', '5.0000'), quant('2', '2.5000', { note: 'held' }));
    expect(summary(source.flush())).toEqual([
      { sku: 'A', location: 'WH', uom: 'EA', on_hand: '7.5', allocated: '2.5' },
    ]);
    source.remove('quant', { id: '2' });
    expect(summary(source.flush())).toEqual([{ sku: 'A', location: 'WH', uom: 'EA', on_hand: '5', allocated: '0' }]);
    source.remove('quant', { id: '1' });
    expect(summary(source.flush())).toEqual(['gone']);
  });

  it('gives the last state of a transaction once, and nothing where it ends as it began', () => {
    const { feed: source } = feed();
    masters(source).put('quant', quant('1', '5')).flush();
    source.update('quant', quant('1', '6')).update('quant', quant('1', '7'));
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '7' })]);
    source.update('quant', quant('1', '8')).update('quant', quant('1', '7.0'));
    expect(source.flush()).toEqual([]);
  });

  it('waits for rows that it joins, whatever the order of the tables', () => {
    const { engine, feed: source } = feed();
    source.put('quant', quant('1', '5'), quant('2', '1', { product_id: '2' }), quant('3', '1'));
    expect(source.flush()).toEqual([]);
    expect(engine.waiting).toBe(3);
    source.remove('quant', { id: '3' }).flush();
    expect(engine.waiting).toBe(2);
    masters(source);
    expect(summary(source.flush())).toEqual([
      { sku: 'A', location: 'WH', uom: 'EA', on_hand: '5', allocated: '0' },
      { sku: 'B', location: 'WH', uom: 'KGM', on_hand: '1', allocated: '0' },
    ]);
    expect(engine.waiting).toBe(0);
  });

  it('tells of rows that still wait once all tables have been read whole, until their partner comes or they go', () => {
    const { engine, feed: source } = feed(
      STOCK.replace('{ in: [place.usage, [internal]] }', '{ all: [{ gt: [quantity, 0] }, { truthy: place.usage }] }'),
    );
    const mark = (which: string): void => {
      for (const { name } of TABLES) source.change(name, ['s', 0, ['1', which]]);
    };
    mark('begin');
    masters(source).put('quant', quant('1', '5'), quant('2', '1', { product_id: '9' }), quant('3', '1'));
    // One that is left out by what it says itself misses nothing.
    source.put('quant', quant('4', '0', { product_id: '9' }));
    expect(source.flush().map(({ held }) => held.size)).toEqual([0]);
    mark('end');
    const told = () =>
      source.flush().map(({ key, values, held }) => ({
        key,
        values,
        held: [...held].map(([group, violations]) => [group, ...violations.map(describeViolation)]),
      }));
    const waits = (key: string, what: string) => ({
      key: `\0waits\0${key}`,
      values: undefined,
      held: [['*', `inventory_position {"id":"${key}"}: join ${what} (it is not there)`]],
    });
    expect(told()).toEqual([waits('2', 'product must find its row of product')]);
    source.update('quant', quant('3', '2', { place_id: '7' }));
    expect(told()).toContainEqual(waits('3', 'place must find its row of place'));
    source.put('product', { id: '9', code: 'N', template_id: '8' });
    expect(told()).toEqual([waits('2', 'template must find its row of template')]);
    source.put('template', { id: '8', unit: 'kg' });
    expect(told()).toContainEqual({ key: '\0waits\x002', values: undefined, held: [] });
    source.remove('quant', { id: '3' });
    expect(told()).toEqual([{ key: '\0waits\x003', values: undefined, held: [] }]);
    expect(engine.waiting).toBe(0);
  });

  it('follows a change of a joined row, over two joins too', () => {
    const { feed: source } = feed();
    masters(source).put('quant', quant('1', '5')).flush();
    source.update('template', { id: '1', unit: 'kg' });
    expect(summary(source.flush())).toEqual([expect.objectContaining({ sku: 'A', uom: 'KGM' })]);
    source.update('product', { id: '1', code: 'A2', template_id: '1' });
    expect(summary(source.flush())).toEqual(['gone', expect.objectContaining({ sku: 'A2', on_hand: '5' })]);
    source.update('place', { id: '1', name: 'WH', usage: 'inventory' });
    expect(summary(source.flush())).toEqual(['gone']);
  });

  it('keeps what the source leaves unchanged, and follows a row that gets another key', () => {
    const { feed: source } = feed();
    masters(source)
      .put('quant', quant('1', '5', { note: 'held' }))
      .flush();
    const image = imageOf(TABLES[0]!, quant('1', '6'));
    image[4] = 0;
    source.change('quant', ['u', 0, image]);
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '6', allocated: '6' })]);
    const moved = imageOf(TABLES[0]!, quant('9', '7'));
    moved[4] = 0;
    source.change('quant', ['u', 0, moved, 'k', imageOf(TABLES[0]!, { id: '1' })]);
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '7', allocated: '7' })]);
    source.remove('quant', { id: '9' });
    expect(summary(source.flush())).toEqual(['gone']);
  });

  it('says of each record which change made it', () => {
    const { feed: source } = feed();
    masters(source).put('quant', quant('1', '5')).flush();
    source.update('template', { id: '1', unit: 'kg' });
    expect(source.flush()[0]!.lineage).toEqual({
      source: 'wms',
      table: 'public.template',
      key: '{"id":"1"}',
      position: 'p1',
      time: '2026-03-01T08:15:03.000000Z',
    });
  });

  it('holds a group with a bad value and its last good one, until a good one comes', () => {
    const { feed: source } = feed();
    masters(source).put('quant', quant('1', '5')).flush();
    source.update('quant', quant('1', 'NaN'));
    expect(summary(source.flush())).toEqual([
      {
        values: { sku: 'A', location: 'WH', uom: 'EA', on_hand: '5', allocated: '0' },
        held: ['on_hand: on_hand must be a decimal number'],
      },
    ]);
    source.update('quant', quant('1', '6'));
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '6' })]);
  });

  it('holds a group whose fields contradict each other, and no other', () => {
    const order = tableOf('sale', { id: 'bigint', state: 'text', total: 'numeric', currency: 'text' });
    const mapping = parseMapping(
      `version: 1
name: orders
entities:
  sales_order:
    from: sale
    fields: { number: id, status: state, total: total, currency: currency }
`,
      'orders.yaml',
    );
    const engine = new MappingEngine({ source: 'shop', plan: compileMapping(mapping, new Map()) });
    const source = new SourceFeed(engine, [order]);
    const row = { id: '1', state: 'placed', total: '5', currency: 'EUR' };
    expect(summary(source.put('sale', row).flush())).toHaveLength(1);
    const rule = 'total: currency must have a currency with its total';
    source.update('sale', { ...row, state: 'shipped', currency: null });
    expect(summary(source.flush())).toEqual([
      { values: { number: '1', status: 'shipped', total: '5', currency: 'EUR' }, held: [rule] },
    ]);
    source.put('sale', { id: '2', state: 'placed', total: '7' });
    expect(summary(source.flush())).toEqual([{ values: { number: '2', status: 'placed' }, held: [rule] }]);
    source.update('sale', { ...row, state: 'shipped', total: '6' });
    expect(summary(source.flush())).toEqual([{ number: '1', status: 'shipped', total: '6', currency: 'EUR' }]);
  });

  it('holds a row without a usable key, and lets its neighbours go on', () => {
    const { feed: source } = feed();
    masters(source).put('product', { id: '3', code: ' C', template_id: '1' });
    source.put('quant', quant('1', '1', { product_id: '3' }), quant('2', '2'));
    expect(summary(source.flush())).toEqual([
      { values: 'gone', held: ['*: sku must not begin or end with white space'] },
      expect.objectContaining({ sku: 'A', on_hand: '2' }),
    ]);
    source.update('product', { id: '3', code: 'C', template_id: '1' });
    expect(summary(source.flush())).toEqual(['gone', expect.objectContaining({ sku: 'C', on_hand: '1' })]);
  });

  it('holds a record that two rows make where they are not added up', () => {
    const { feed: source } = feed(`version: 1
name: places
entities:
  location:
    from: place
    fields: { code: name, type: { const: site }, is_stock: { const: 'true' } }
`);
    source.put('place', { id: '1', name: 'WH' });
    expect(summary(source.flush())).toEqual([{ code: 'WH', type: 'site', is_stock: 'true' }]);
    source.put('place', { id: '2', name: 'WH' });
    expect(summary(source.flush())).toEqual([
      {
        values: { code: 'WH', type: 'site', is_stock: 'true' },
        held: ['*: code must be unique, and several rows have it'],
      },
    ]);
    source.remove('place', { id: '1' });
    expect(summary(source.flush())).toEqual([{ code: 'WH', type: 'site', is_stock: 'true' }]);

    source.put('place', { id: '3', name: 'DC' }, { id: '4', name: 'DC' });
    const held = ['*: code must be unique, and several rows have it'];
    expect(summary(source.flush())).toEqual([{ values: 'gone', held }]);
    source.remove('place', { id: '3' }, { id: '4' });
    expect(summary(source.flush())).toEqual(['gone']);
  });

  it('lets a row expire without a change', () => {
    const { engine, feed: source } = feed();
    masters(source).put('quant', quant('1', '5'), quant('2', '1', { until: '2026-03-01 09:00:00+00' }));
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '6' })]);
    const nine = Date.UTC(2026, 2, 1, 9) * 1000;
    engine.advance(nine - 1);
    expect(source.flush(nine - 1)).toEqual([]);
    engine.advance(nine);
    expect(summary(source.flush(nine))).toEqual([expect.objectContaining({ on_hand: '5' })]);
  });

  it('keeps one time of each row that waits to expire, counts it, and takes the earliest of a saved state', () => {
    const table = tableOf('hold', { id: 'bigint', until: 'timestamp with time zone' });
    const mapping = parseMapping(
      'version: 1\nname: holds\nentities:\n  location:\n    from: hold\n    expires: until\n    fields: { code: id, type: { const: site }, is_stock: true }\n',
      'holds.yaml',
    );
    const engine = new MappingEngine({ source: 'shop', plan: compileMapping(mapping, new Map()) });
    const source = new SourceFeed(engine, [table]);
    const block = engine.blocks[0]!;
    const waits = (): (readonly [string, number])[] =>
      [...block.expiring()].map(({ key, untilUs }) => [key, untilUs / 1e6 - Date.UTC(2030, 0, 1) / 1000] as const);
    const until = (second: number): string => `2030-01-01 00:00:0${second}+00`;
    source.put('hold', { id: '1', until: until(1) }).flush();
    const bytes = engine.stateBytes;
    for (const second of [2, 4, 3]) source.update('hold', { id: '1', until: until(second) }).flush();
    expect(waits()).toEqual([['1', 3]]);
    expect(engine.stateBytes).toBe(bytes);
    source.update('hold', { id: '1', until: null }).flush();
    expect(waits()).toEqual([]);
    expect(engine.stateBytes).toBeLessThan(bytes - 100);
    source.put('hold', { id: '2', until: until(5) }, { id: '3', until: until(6) }).flush();
    source.remove('hold', { id: '1' }).remove('hold', { id: '2' }).flush();
    expect(waits()).toEqual([['3', 6]]);
    // A state that was saved by a version which kept all times of a row, of rows that had gone, too.
    const { cause } = [...block.expiring()][0]!;
    const second = (seconds: number): number => Date.UTC(2030, 0, 1) * 1000 + seconds * 1e6;
    for (const [seconds, row] of [
      [7, '3'],
      [2, '3'],
      [4, '3'],
      [1, '2'],
    ] as const)
      block.restoreExpiry(second(seconds), row, cause);
    expect(waits()).toEqual([['3', 2]]);
    engine.advance(second(2));
    expect(source.flush(second(2))).toEqual([]);
    expect(waits()).toEqual([['3', 6]]);
    engine.advance(second(6));
    expect(source.flush(second(6))).toHaveLength(1);
    expect(waits()).toEqual([]);
  });

  it('forgets what a truncate empties and what a snapshot does not bring again', () => {
    const { feed: source } = feed();
    masters(source)
      .put('quant', quant('1', '5'), quant('2', '1', { product_id: '2' }))
      .flush();
    source.change('quant', ['s', 0, ['snap', 'begin']]);
    source.change('quant', ['r', 0, imageOf(TABLES[0]!, quant('1', '5'))]);
    source.change('quant', ['s', 0, ['snap', 'end']]);
    expect(summary(source.flush())).toEqual(['gone']);
    source.change('quant', ['t', 0, []]);
    expect(summary(source.flush())).toEqual(['gone']);
  });

  it('forgets what a snapshot of a range of keys does not bring again, and nothing beside the range', () => {
    const { engine, feed: source } = feed();
    masters(source);
    for (const id of ['9', '10', '11', '100']) source.put('quant', quant(id, '1'));
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '4' })]);
    const range = (mark: string, from: string | null, to: string | null, id = 'snap'): SourceFeed =>
      source.change('quant', ['s', 0, [id, mark, from, to]]);
    range('begin_range', '["10"]', '["100"]');
    expect(engine.scanning).toBe(true);
    source.change('quant', ['r', 0, imageOf(TABLES[0]!, quant('11', '1'))]);
    range('end_range', '["10"]', '["100"]');
    expect(engine.scanning).toBe(false);
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '3' })]);
    // One that is given up, one that another one took the place of, and one while the whole table is read.
    range('begin_range', null, '["50"]').change('quant', ['s', 0, ['snap', 'cancel_range']]);
    range('end_range', null, '["50"]');
    range('begin_range', null, '["50"]', 'other');
    range('end_range', null, '["50"]').change('quant', ['s', 0, ['all', 'begin']]);
    range('begin_range', '["9"]', null);
    range('end_range', '["9"]', null).change('quant', ['s', 0, ['all', 'cancel']]);
    expect(source.flush()).toEqual([]);
    expect(engine.scanning).toBe(false);
    range('begin_range', '["11"]', null);
    range('end_range', '["11"]', null);
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '1' })]);
  });

  it('forgets what it saw of a snapshot that was given up, and loses nothing by it', () => {
    const { engine, feed: source } = feed();
    masters(source)
      .put('quant', quant('1', '5'), quant('2', '1', { product_id: '2' }))
      .flush();
    for (const mark of ['cancel', 'gone']) {
      source.change('quant', ['s', 0, ['snap', 'begin']]);
      expect(engine.scanning).toBe(true);
      source.change('quant', ['s', 0, ['snap', mark]]);
      expect(engine.scanning).toBe(false);
      source.change('quant', ['s', 0, ['snap', 'end']]);
      expect(summary(source.flush())).toEqual([]);
    }
  });

  it('reads columns of a domain as what it is made of', () => {
    const { feed: source } = feed(STOCK, {}, [
      {
        ...TABLES[0]!,
        columns: TABLES[0]!.columns.map((column) =>
          column.name === 'quantity' ? { ...column, type: 'public.amount' } : column,
        ),
      },
      ...TABLES.slice(1),
    ]);
    masters(source).put('quant', quant('1', '5.0000'));
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '5' })]);
  });

  it('tells keys of several texts apart whatever they hold', () => {
    const pair = tableOf('pair', { a: 'text', b: 'text', name: 'text' }, ['a', 'b']);
    const look = tableOf('look', { a: 'text', b: 'text', label: 'text' }, ['a', 'b']);
    const mapping = parseMapping(
      `version: 1
name: pairs
entities:
  location:
    from: pair
    join: { look: { table: look, on: { a: a, b: b }, optional: true } }
    fields: { code: name, name: look.label, type: { const: site }, is_stock: true }
`,
      'pairs.yaml',
    );
    const engine = new MappingEngine({ source: 'shop', plan: compileMapping(mapping, new Map()) });
    const source = new SourceFeed(engine, [pair, look]);
    source.put('look', { a: 'x\0y', b: 'z', label: 'one' }, { a: 'x', b: 'y\0z', label: 'two' });
    source.put('pair', { a: 'x\0y', b: 'z', name: 'A' }, { a: 'x', b: 'y\0z', name: 'B' });
    const changes = source.flush();
    expect(summary(changes)).toEqual([
      expect.objectContaining({ code: 'A', name: 'one' }),
      expect.objectContaining({ code: 'B', name: 'two' }),
    ]);
    expect(JSON.parse(changes[1]!.lineage.key)).toEqual({ a: 'x', b: 'y\0z' });
  });

  it('lets no row go on for ever that expires at no time', () => {
    const until = tableOf('hold', { id: 'bigint', until: 'text' });
    const mapping = parseMapping(
      'version: 1\nname: holds\nentities:\n  location:\n    from: hold\n    expires: until\n    fields: { code: id, type: { const: site }, is_stock: true }\n',
      'holds.yaml',
    );
    const engine = new MappingEngine({ source: 'shop', plan: compileMapping(mapping, new Map()) });
    const source = new SourceFeed(engine, [until]);
    source.put('hold', { id: '1', until: 'soon' }, { id: '2', until: '2030-01-01T00:00:00.000000Z' });
    expect(summary(source.flush())).toEqual([
      { values: 'gone', held: ['*: expires must be a time'] },
      expect.objectContaining({ code: '2' }),
    ]);
  });

  it('refuses to take two tables for one, and takes one that was renamed', () => {
    const { engine, feed: source } = feed();
    masters(source).put('quant', quant('1', '5')).flush();
    const other = { ...TABLES[0]!, schema: 'archive' };
    const apply = (...change: [string, ...unknown[]]): void =>
      engine.apply([change[0], 0, ...change.slice(1)] as never, [other], source.place);
    const row = imageOf(other, quant('1', '70'));
    expect(() => apply('i', row)).toThrow(/stock\.yaml:5: .*quant fits both public\.quant and archive\.quant/);
    source.change('quant', ['s', 0, ['renamed to archive.quant', 'gone']]);
    apply('s', ['all', 'begin']);
    apply('r', row);
    apply('s', ['all', 'end']);
    expect(summary(source.flush())).toEqual([expect.objectContaining({ on_hand: '70' })]);
  });

  describe('a new version of a table', () => {
    const columns = (...given: [name: string, type: string, id: number, existing?: string][]) => ({
      ...tableOf('bin', Object.fromEntries(given.map(([name, type]) => [name, type]))),
      columns: given.map(([name, type, column, existing]) => ({
        name,
        type,
        portable: type,
        notNull: false,
        id: column,
        ...(existing === undefined ? {} : { existing }),
      })),
    });
    const base = [
      ['id', 'integer', 1],
      ['item', 'text', 2],
    ] as const;
    const [ID, ITEM] = base.map((each) => [...each]) as [[string, string, number], [string, string, number]];
    const one = columns(ID, ITEM, ['qty', 'numeric', 3]);
    const bins = (key = ['id']) => {
      const mapping = parseMapping(
        `version: 1
name: bins
entities:
  inventory_position:
    from: bin
    group: true
    fields:
      sku: item
      location: { const: WH }
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      on_hand: { sum: { column: [quantity, qty], optional: true } }
      allocated: { sum: { column: [reserved], optional: true } }
`,
        'bins.yaml',
      );
      const engine = new MappingEngine({ source: 'erp', plan: compileMapping(mapping, new Map()) });
      const place = { position: 'p', timeUs: 1_772_352_902_000_000 };
      const apply = (table: typeof one, ...change: [string, ...unknown[]]): void =>
        engine.apply([change[0], 0, ...change.slice(1)] as never, [table], place);
      apply({ ...one, key }, 'i', ['1', 'A', '5']);
      apply({ ...one, key }, 'i', ['2', 'B', '7']);
      const told = () => summary(engine.flush(0).toSorted((a, b) => (a.key < b.key ? -1 : 1)));
      told();
      return { engine, apply, told };
    };
    const record = (sku: string, onHand: string, allocated: string) => ({
      sku,
      location: 'WH',
      uom: 'EA',
      on_hand: onHand,
      allocated,
    });

    it('fills its new columns with what the rows have in them that are there', () => {
      const { apply, told } = bins();
      const two = columns(ID, ITEM, ['qty', 'numeric', 3], ['reserved', 'numeric', 4, '2.0']);
      apply(two, 's', ['', 'schema']);
      expect(told()).toEqual([record('A', '5', '2'), record('B', '7', '2')]);
      // A column that was dropped says nothing any more; one that has another name is the same.
      const three = columns(ID, ITEM, ['quantity', 'numeric', 3]);
      apply(three, 'u', ['1', 'A', '6']);
      expect(told()).toEqual([record('A', '6', '0'), record('B', '7', '0')]);
      // Another one takes the place of one that is still there.
      const four = columns(ID, ITEM, ['qty', 'numeric', 3], ['quantity', 'numeric', 5, '1']);
      apply(four, 's', ['', 'schema']);
      expect(told()).toEqual([record('A', '1', '0'), record('B', '1', '0')]);
    });

    it('follows its rows under another key', () => {
      const { apply, told } = bins();
      const other = { ...one, key: ['item'], version: 'other' };
      apply(other, 's', ['', 'schema']);
      apply(other, 'u', ['1', 'A', '6']);
      expect(told()).toEqual([record('A', '6', '0')]);
      apply(other, 'u', ['1', 'C', '6'], 'k', [null, 'A', null]);
      expect(told()).toEqual(['gone', record('C', '6', '0')]);
      // What went meanwhile shows when the table is read again.
      apply(other, 'd', null, 'k', [null, 'B', null]);
      apply(other, 's', ['again', 'begin']);
      apply(other, 'r', ['1', 'C', '6']);
      apply(other, 's', ['again', 'end']);
      expect(told()).toEqual(['gone']);
    });
  });

  it('stops at a table that no longer fits, and over its budget', () => {
    const { engine, feed: source } = feed();
    masters(source);
    const changed = { ...tableOf('product', { id: 'integer', sku: 'text', template_id: 'integer' }), version: '2' };
    expect(() => engine.apply(['i', 0, ['7', 'X', '1']], [changed], source.place)).toThrow(
      /stock\.yaml:\d+: .*table public\.product has no column code/,
    );
    expect(() => masters(feed(STOCK, { stateBytes: 500 }).feed)).toThrow('keeps more than 500 bytes');
    expect(() => masters(feed(STOCK, { stateBytes: 500 }).feed)).toThrow(
      expect.objectContaining({ code: 'transform_state_full' }) as Error,
    );
  });

  it('calls functions of a module, and holds what they refuse', () => {
    const functions = new Map<string, MappingFunction>([
      [
        'shout',
        (text) => {
          if (text === null) throw new Error('must have a name');
          return `${text}!`;
        },
      ],
    ]);
    const { feed: source } = feed(
      `version: 1
name: places
entities:
  location:
    from: place
    fields: { code: id, name: { call: { function: shout, with: [name] } }, type: { const: site }, is_stock: { const: 'true' } }
`,
      { functions },
    );
    source.put('place', { id: '1', name: 'WH' }, { id: '2' });
    expect(summary(source.flush())).toEqual([
      expect.objectContaining({ name: 'WH!' }),
      { values: { code: '2', type: 'site', is_stock: 'true' }, held: ['name: name must have a name'] },
    ]);
  });
});

describe('evidence', () => {
  const LEDGER = `${STOCK}
  inventory_movement:
    from: move
    join: { product: { table: product, on: { id: product_id } } }
    where: { in: [state, [done]] }
    fields: { id: id, sku: product.code, location: { const: WH }, lot: { const: '' }, owner: { const: '' }, uom: { const: EA }, delta: qty, reason: { const: receipt }, occurred_at: at }
`;
  const move = tableOf('move', {
    id: 'bigint',
    product_id: 'integer',
    qty: 'numeric',
    state: 'text',
    at: 'timestamptz',
  });
  const row = (id: string, state: string) => ({ id, product_id: '1', qty: '1', state, at: '2026-03-01T08:00:00Z' });

  it('tells of each movement once, and keeps none that has been told of', () => {
    const mapping = parseMapping(LEDGER, 'stock.yaml');
    const plan = compileMapping(mapping, new Map(), 'inventory_position', ['inventory_movement']);
    const engine = new MappingEngine({ source: 'wms', plan });
    const source = masters(new SourceFeed(engine, [...TABLES, move]));
    const told = (): unknown[] => source.flush().map(({ values }) => values?.[0] ?? 'gone');
    for (const table of ['quant', 'product', 'template', 'place'])
      source.change(table, ['s', 0, ['all', 'begin']]).change(table, ['s', 0, ['all', 'end']]);
    masters(source);
    source.change('move', ['s', 0, ['one', 'begin']]);
    for (const id of ['1', '2']) source.change('move', ['r', 0, imageOf(move, row(id, 'done'))]);
    source.change('move', ['r', 0, imageOf(move, row('3', 'draft'))]).change('move', ['s', 0, ['one', 'end']]);
    expect(engine.complete).toBe(true);
    expect(told()).toEqual(['1', '2']);
    const bytes = engine.stateBytes;
    for (let id = 10; id < 1000; id++) source.put('move', row(String(id), 'done'));
    expect(told()).toHaveLength(990);
    expect(engine.stateBytes).toBe(bytes);
    // What is changed, read again or removed after it was told of tells nothing more.
    source.update('move', { ...row('1', 'done'), qty: '2' }).change('move', ['r', 0, imageOf(move, row('2', 'done'))]);
    expect(source.remove('move', { id: '10' }) && told()).toEqual([]);
    source.update('move', row('3', 'done'));
    expect(told()).toEqual(['3']);
    // Rows that `where` leaves out are none of the records that the flow makes.
    source.put('move', row('4', 'draft')).flush();
    expect(engine.takeFiltered()).toBe(0);
  });

  it('tells of what was cancelled, and of what takes it back, though neither is a record', () => {
    const text = LEDGER.replace('where: { in: [state, [done]] }', 'cancelled: { in: [state, [void]] }');
    const fed = (entity: string, evidence: string[]): [SourceFeed, () => unknown[]] => {
      const plan = compileMapping(parseMapping(text, 'stock.yaml'), new Map(), entity, evidence);
      const source = masters(new SourceFeed(new MappingEngine({ source: 'wms', plan }), [...TABLES, move]));
      source.change('move', ['s', 0, ['all', 'begin']]).change('move', ['s', 0, ['all', 'end']]);
      source.flush();
      return [source, () => source.flush().map(({ values }) => values?.[0] ?? 'gone')];
    };
    const cancel = (source: SourceFeed): SourceFeed =>
      source.update('move', row('1', 'void')).put('move', { ...row('2', 'void'), qty: '-1' });
    const [ledger, recorded] = fed('inventory_movement', []);
    ledger.put('move', row('1', 'done'));
    expect(recorded()).toEqual(['1']);
    cancel(ledger);
    expect(recorded()).toEqual(['gone']);
    const [source, told] = fed('inventory_position', ['inventory_movement']);
    source.put('move', row('1', 'done'));
    expect(told()).toEqual(['1']);
    cancel(source);
    expect(told()).toEqual(['2']);
  });

  it('keeps so many of the rows that `where` leaves out, and lets the oldest go', () => {
    const mapping = parseMapping(LEDGER, 'stock.yaml');
    const plan = compileMapping(mapping, new Map(), 'inventory_position', ['inventory_movement']);
    const engine = new MappingEngine({ source: 'wms', plan, leftOutRows: 100 });
    const source = masters(new SourceFeed(engine, [...TABLES, move]));
    source.change('move', ['s', 0, ['all', 'begin']]).change('move', ['s', 0, ['all', 'end']]);
    // It waits for its product, and must not go for that.
    source.put('move', { ...row('1', 'done'), product_id: '99' }).flush();
    for (let id = 10; id < 1000; id++) source.put('move', row(String(id), 'draft')).flush();
    const { rows } = plan.tables.find(({ names }) => names.includes('move'))!.store;
    expect(rows.size).toBeLessThanOrEqual(101);
    expect(rows.size).toBeGreaterThan(80);
    source.update('move', row('999', 'done'));
    expect(source.flush().map(({ values }) => values?.[0])).toEqual(['999']);
    source.put('product', { id: '99', code: 'LATE', template_id: '1' });
    expect(source.flush().map(({ values }) => values?.[0])).toEqual(['1']);
  });

  it('keeps movements that something else reads, too', () => {
    const joined = LEDGER.replace(
      '      product: { table',
      '      last: { table: move, on: { id: product_id }, optional: true }\n      product: { table',
    );
    const compiled = (text: string) =>
      compileMapping(parseMapping(text, 'stock.yaml'), new Map(), 'inventory_position', ['inventory_movement']);
    expect(compiled(LEDGER).events.size).toBe(1);
    expect(compiled(joined).events.size).toBe(0);
  });
});

it('a source has come as far as a frame says in which nothing concerns the mapping: its owner is not silent', () => {
  const plan = compileMapping(parseMapping(STOCK, 'stock.yaml'), new Map());
  const source = new SourceState('wms', new MappingEngine({ source: 'wms', plan }), 'here');
  const frame = (seq: number, timeUs: number): ReceivedFrame => ({
    source: 'wms',
    origin: '',
    epoch: 1,
    rows: 0,
    reset: false,
    place: `wms ${seq}`,
    seq,
    start: pgPosition(BigInt(seq)),
    end: pgPosition(BigInt(seq + 1)),
    timeUs,
    payload: new FrameWriter(1000).finish(),
  });
  source.begin(frame(1, 5_000_000));
  expect([source.idle, source.place.seq, source.reachedUs]).toEqual([true, 1, 5_000_000]);
  source.begin(frame(2, 0));
  expect(source.reachedUs).toBe(5_000_000);
});
