import { describe, expect, it } from 'vitest';
import { createOutboundStatements } from '../../apply/mysql/outbound-statements.ts';
import { localTime } from '../../apply/outbound/local-time.ts';
import { meetingsOf, type Meeting } from '../../apply/outbound/meeting-rows.ts';
import {
  encodeValue,
  outboundProblems,
  tablesOf,
  type SystemColumn,
  type SystemTable,
} from '../../apply/outbound/outbound-shape.ts';
import { parseConfig } from '../../core/config.ts';
import { OutboundFault } from '../../core/outbound.ts';
import { isOwnOrigin, markerTable, originName, originOfMarker } from '../../core/origin.ts';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import { parseOutboundPlan } from '../../transform/outbound/outbound-file.ts';

const plan = (block: string, head = '') =>
  parseOutboundPlan(`version: 1\nname: test\n${head}outbound:\n  sales_order:\n${block}`, 'map.yaml', 'sales_order');

function meetings(entity: string, text: string, tables: ReadonlyMap<string, SystemTable> = new Map()): Meeting[] {
  const read = parseOutboundPlan(`version: 1\nname: t\noutbound:\n  ${entity}:\n${text}`, 'map.yaml', entity);
  return [...meetingsOf(read, tables).values()];
}

function order(values: Readonly<Record<string, string>>): (string | null)[] {
  return ENTITIES.get('sales_order')!.fields.map(({ name }) => values[name] ?? null);
}

function system(name: string, columns: Readonly<Record<string, string>>, more: Partial<SystemTable> = {}): SystemTable {
  const read = ([column, text]: [string, string]): [string, SystemColumn] => {
    const [type, ...marks] = text.split('!');
    const has = (mark: string): boolean => marks.includes(mark);
    return [
      column,
      {
        type: type!,
        notNull: has('not null'),
        defaulted: has('default'),
        generated: has('generated'),
        exact: has('exact'),
        ...(has('ci') ? { collation: 'ci' } : {}),
      },
    ];
  };
  return {
    schema: 'public',
    name,
    columns: new Map(Object.entries(columns).map(read)),
    unique: [['id'], ['reference']],
    denied: [],
    ...more,
  };
}

describe('an outbound mapping', () => {
  it('makes rows of records, leaves out those it does not want, and says what it cannot map', () => {
    const { blocks } = plan(`    to: t
    where: { ne: [status, { const: draft }] }
    key: { reference: number }
    set: { state: { lookup: { of: status, values: { placed: NEW } } }, note: { concat: [{ const: 'for ' }, customer] } }
    gone: { set: { state: { const: GONE } } }
`);
    const { write, gone } = blocks[0]!;
    expect(write.cells(order({ number: 'S-1', status: 'placed', customer: 'Ada' }))).toEqual(['S-1', 'NEW', 'for Ada']);
    expect(write.cells(order({ number: 'S-1', status: 'draft' }))).toBeUndefined();
    const fault = write.cells(order({ number: 'S-1', status: 'shipped' }));
    expect(fault).toBeInstanceOf(OutboundFault);
    expect((fault as OutboundFault).message).toBe(
      't.state must be in the look-up table of the mapping (it is letters of 7 characters)',
    );
    expect(gone).toMatchObject({ remove: false });
    expect((gone as { write: typeof write }).write.cells(order({ number: 'S-1' }))).toEqual(['S-1', 'GONE']);
  });

  it('knows which fields of the record its key does not tell apart', () => {
    const lacks = (entity: string, text: string): readonly string[] => meetings(entity, text)[0]!.keyLacks;
    const price = '    to: t\n    key: { sku: sku }\n    set: { price: amount }\n';
    const all = lacks('price', price);
    expect(all).toContain('list');
    expect(lacks('price', `${price}    where: { all: [{ eq: [list, { const: retail }] }] }\n`)).toEqual(
      all.filter((field) => field !== 'list'),
    );
    const line = (key: string): string => `    to: t\n    key: ${key}\n    set: { quantity: qty_ordered }\n`;
    expect(
      lacks('sales_order_line', line('{ o: { find: orders.id, where: { number: number } }, n: { decimal: line } }')),
    ).toEqual([]);
    expect(lacks('sales_order_line', line('{ o: { concat: [number, line] } }'))).toEqual(['number', 'line']);
  });

  it('knows which blocks fill the same columns of the same rows, and which records meet in them', () => {
    const meet = (...blocks: string[]) => {
      const list = blocks.map((text) => `    - { to: t, ${text} }\n`).join('');
      return meetings('inventory_position', list).map(
        ({ wholeRow, keyLacks, rowLacks }) => `${wholeRow ? 'row' : 'columns'}: ${keyLacks.join()}; ${rowLacks.join()}`,
      );
    };
    const at = (place: string, ...more: string[]): string =>
      `where: { all: [${[`{ eq: [location, { const: ${place} }] }`, ...more].join(', ')}] }`;
    const alone = [`{ eq: [lot, { const: '' }] }`, `{ in: [owner, ['']] }`];
    const by = 'key: { sku: sku }';
    // Each its own column of the row.
    expect(
      meet(`${at('A')}, ${by}, set: { a: on_hand }`, `${at('B')}, ${by}, set: { b: on_hand }, new: { a: sku }`),
    ).toEqual(['columns: lot,owner; location,lot,owner', 'columns: lot,owner; location,lot,owner']);
    // What each lets pass is one record, and they are not the same.
    const same = meet(
      `${at('A', ...alone)}, ${by}, set: { a: on_hand }`,
      `${at('B', ...alone)}, ${by}, set: { a: on_hand }`,
    );
    expect(same).toEqual(['row: location; location', 'row: location; location']);
    expect(
      meet(`${at('A', ...alone)}, ${by}, set: { a: on_hand }`, `${at('A', ...alone)}, ${by}, set: { a: allocated }`),
    ).toEqual(['row: ; ', 'row: ; ']);
    // Two that share nothing are joined by a third one.
    expect(
      meet(`${by}, set: { a: on_hand }`, `${by}, set: { b: on_hand }`, `${by}, set: { b: lot, a: lot, c: lot }`),
    ).toEqual(Array.from({ length: 3 }, () => 'row: location,lot,owner; location,lot,owner'));
    // In whatever order the columns of the key stand.
    expect(
      meet('key: { x: sku, y: lot }, set: { a: on_hand }', 'key: { y: lot, x: sku }, set: { b: on_hand }'),
    ).toEqual(['columns: location,owner; location,owner', 'columns: location,owner; location,owner']);
    // A field that one has as it is, and of which another lets one value pass: it is told where they have that value in one column.
    const [as, returns] = ['where: { ne: [location, { const: R }] }, key: { sku: sku, place: location }', at('R')];
    const [own, home] = ['key: { sku: sku, place: { const: R } }', 'key: { sku: sku, place: { const: A } }'];
    expect(meet(`${as}, set: { a: on_hand }`, `${returns}, ${home}, set: { b: on_hand }`)).toEqual([
      'columns: lot,owner; location,lot,owner',
      'columns: lot,owner; location,lot,owner',
    ]);
    expect(meet(`${as}, set: { a: on_hand }`, `${returns}, ${own}, set: { a: on_hand }`)).toEqual(
      Array.from({ length: 2 }, () => 'row: lot,owner; lot,owner'),
    );
    const found = (code: string): string => `key: { sku: sku, site: { find: sites.id, where: { code: ${code} } } }`;
    expect(
      meet(
        `${found('location')}, set: { a: on_hand }`,
        `${returns}, ${found('{ const: R }')}, set: { a: on_hand }`,
        `${returns}, ${found('{ const: A }')}, set: { b: on_hand }`,
      ),
    ).toEqual([
      'columns: lot,owner; location,lot,owner',
      'columns: lot,owner; lot,owner',
      'columns: lot,owner; location,lot,owner',
    ]);
    // One that each has in another column is not told.
    expect(
      meet('key: { x: lot, y: location }, set: { a: sku }', 'key: { x: location, y: lot }, set: { a: sku }'),
    ).toEqual(Array.from({ length: 2 }, () => 'row: sku,location,lot,owner; sku,location,lot,owner'));
    // By other columns, or in another table, the rows are others.
    expect(
      meet(
        `${at('A', ...alone)}, ${by}, set: { a: on_hand }`,
        `${at('B', ...alone)}, key: { code: sku }, set: { a: on_hand }`,
      ),
    ).toEqual(['row: ; ', 'row: ; ']);
  });

  it('knows where values that differ may be one for the database', () => {
    const columns = { sku: 'text!exact', place: 'varchar(20)!ci', site: 'integer', lot: 'text!exact' };
    const sites = { id: 'integer', code: 'text!exact', region: 'integer' };
    const tables = (...more: readonly (readonly [string, SystemTable])[]) =>
      new Map([
        ['t', system('t', columns, { unique: [['sku', 'place']] })],
        ['sites', system('sites', sites, { unique: [['id'], ['code']] })],
        ...more,
      ]);
    const blurs = (key: string, known = tables()): string[] =>
      meetings('inventory_position', `    to: t\n    key: ${key}\n    set: { a: on_hand }\n`, known)[0]!.keyBlurs.map(
        ({ field, why }) => `${field}: ${why}`,
      );
    expect(blurs('{ sku: sku, lot: lot }')).toEqual([]);
    expect(blurs('{ sku: sku, place: location }')).toEqual(['location: t.place is varchar(20), compared by ci']);
    // Where one place tells them, another one need not.
    expect(blurs('{ sku: location, place: location }')).toEqual([]);
    expect(blurs('{ sku: sku, site: { decimal: location } }')).toEqual([
      'location: t.site gets it as a number, however it is written',
    ]);
    const find = (column: string, by: string): string =>
      `{ sku: sku, site: { find: sites.${column}, where: { ${by}: location } } }`;
    expect(blurs(find('id', 'code'))).toEqual([]);
    expect(blurs(find('region', 'code'))).toEqual(['location: sites.region has no unique index of its own']);
    const blurred = system('sites', { ...sites, code: 'citext' }, { unique: [['id'], ['code']] });
    expect(blurs(find('id', 'code'), tables(['sites', blurred]))).toEqual(['location: sites.code is citext']);
    // What is found must be kept as it is.
    const large = system('sites', { ...sites, id: 'numeric(10,2)' }, { unique: [['id'], ['code']] });
    expect(blurs(find('id', 'code'), tables(['sites', large]))).toEqual(['location: t.site is not sites.id']);
    // Of a number nothing is lost by the cast, nor of a time, unless the column keeps less of it.
    const price = (type: string): string[] =>
      meetings(
        'price',
        '    to: t\n    key: { q: { decimal: min_qty } }\n    set: { a: amount }\n',
        new Map([['t', system('t', { q: type })]]),
      )[0]!.keyBlurs.map(({ why }) => why);
    expect(price('numeric')).toEqual([]);
    expect(price('numeric(10,2)')).toEqual(['t.q is numeric(10,2)']);
    const seen = (type: string): string[] =>
      meetings(
        'sensor_reading',
        '    to: t\n    key: { at: observed_at }\n    set: { a: device }\n',
        new Map([['t', system('t', { at: type })]]),
      )[0]!.keyBlurs.map(({ why }) => why);
    expect(seen('timestamp with time zone')).toEqual([]);
    expect(seen('timestamp(0) with time zone')).toEqual(['t.at is timestamp(0) with time zone']);
  });

  it('ends nothing of a record that its key alone keeps out: what is not known of one that has gone lets it in', () => {
    const ending = (where: string) => {
      const text = `    to: t\n    where: ${where}\n    key: { sku: sku }\n    gone: delete\n`;
      const { gone } = parseOutboundPlan(
        `version: 1\nname: t\noutbound:\n  inventory_position:\n${text}`,
        'map.yaml',
        'inventory_position',
      ).blocks[0]!;
      const { write } = gone as Exclude<typeof gone, 'ignore'>;
      const { fields } = ENTITIES.get('inventory_position')!;
      return ['WH', 'OTHER'].map((location) =>
        write.cells(fields.map(({ name }) => ({ sku: 'A', location, lot: '', owner: '' })[name] ?? null)),
      );
    };
    const here = '{ eq: [location, { const: WH }] }';
    const plenty = '{ gt: [on_hand, 5] }';
    const none = '{ eq: [lot, { const: none }] }';
    expect(ending(here)).toEqual([['A'], undefined]);
    expect(ending(`{ all: [${plenty}, ${here}] }`)).toEqual([['A'], undefined]);
    expect(ending(`{ not: { ne: [location, { const: WH }] } }`)).toEqual([['A'], undefined]);
    expect(ending(`{ any: [{ all: [${here}, ${plenty}] }, ${none}] }`)).toEqual([['A'], undefined]);
    expect(ending(`{ all: [${plenty}, { any: [${none}, ${here}] }] }`)).toEqual([['A'], undefined]);
    expect(ending(`{ any: [${here}, ${plenty}] }`)).toEqual([['A'], ['A']]);
    expect(ending(`{ not: { all: [${plenty}, { eq: [location, { const: OTHER }] }] } }`)).toEqual([['A'], ['A']]);
    expect(ending(plenty)).toEqual([['A'], ['A']]);
    // One that could not be told was never written.
    expect(ending(`{ gt: [{ lookup: { of: location, values: { WH: 1 } } }, 0] }`)).toEqual([['A'], undefined]);
  });

  it.each([
    [
      'a field that is not there',
      '    to: t\n    key: { a: numbr }\n',
      'map.yaml:6: outbound.sales_order.key.a: sales_order has no field "numbr" (did you mean "number"?)',
    ],
    [
      'an unknown key',
      '    to: t\n    key: { a: number }\n    sets: {}\n',
      'map.yaml:7: outbound.sales_order.sets: is an unknown key',
    ],
    [
      'columns of rows that are never made',
      '    to: t\n    key: { a: number }\n    set: { b: status }\n    missing: wait\n    new: { c: 1 }\n',
      'map.yaml:9: outbound.sales_order.new: is of no use',
    ],
    [
      'a look-up without a column',
      '    to: t\n    key: { a: { find: t, where: { b: number } } }\n',
      'map.yaml:6: outbound.sales_order.key.a.find: must be table.column',
    ],
    [
      'a key that a gone record does not tell',
      '    to: t\n    key: { a: status }\n    gone: delete\n',
      'map.yaml:6: outbound.sales_order.key.a: status is not known of a record that has gone',
    ],
    ['an aggregate', '    to: t\n    key: { a: { sum: total } }\n', 'sum cannot be used here'],
  ])('is refused with the line: %s', (_, text, message) => {
    expect(() => plan(text)).toThrow(message);
  });

  it('is held against the real tables: every misfit with its line', () => {
    const bad = plan(`    to: wh_order
    key: { reference: number }
    set:
      consigne: customer
      wanted: ordered_at
      urgent: { const: x }
      amount: status
      parent: { find: wh_customer.id, where: { code: customer } }
      stamp: { const: 1 }
`);
    expect(tablesOf(bad)).toEqual(['wh_order', 'wh_customer']);
    const table = system(
      'wh_order',
      {
        id: 'bigint!not null!default',
        reference: 'character varying(20)!not null',
        consignee: 'text',
        wanted: 'timestamp without time zone',
        urgent: 'boolean',
        amount: 'numeric(12,2)',
        parent: 'integer',
        stamp: 'integer!generated',
        depot: 'text!not null',
      },
      { denied: ['UPDATE'] },
    );
    const customers = system('wh_customer', { id: 'integer', code: 'text' }, { unique: [['id']] });
    const problems = outboundProblems(
      bad,
      new Map([
        ['wh_order', table],
        ['wh_customer', customers],
      ]),
    );
    expect(problems.map(({ line, message }) => `${line}: ${message}`)).toEqual([
      '8: table wh_order has no column consigne (did you mean "consignee"?)',
      '9: wh_order.wanted is timestamp without time zone: it keeps times without a zone; name the zone of the system with "zone"',
      '11: wh_order.amount is numeric(12,2): a number is needed (cast texts with { decimal: … })',
      '12: wh_customer has no unique index on code',
      '13: wh_order.stamp is made by the database and cannot be written',
      '5: wh_order.depot (text) is NOT NULL without a default, and is not given: rows cannot be made',
      '5: this user may not UPDATE in wh_order',
    ]);
    expect(outboundProblems(bad, new Map())).toEqual([
      { line: 5, message: 'there is no table wh_order that this user may use' },
    ]);
    const keyless = outboundProblems(
      plan('    to: wh_order\n    key: { consignee: customer }\n'),
      new Map([['wh_order', table]]),
    );
    expect(keyless[0]).toEqual({ line: 5, message: 'wh_order has no unique index on its key (consignee)' });
  });

  it('waits in MySQL for no row that is left alone where it is not there', () => {
    const detail = (type: string) => ({ type, notNull: false, defaulted: false, generated: false });
    const columns = (...names: string[]) => new Map(names.map((name) => [name, detail('int')] as const));
    const table = (name: string, ...names: string[]) =>
      ({ ...system(name, {}), columns: columns(...names), details: columns(...names) }) as never;
    const tables = new Map([
      ['line', table('line', 'parent', 'state')],
      ['parent', table('parent', 'id', 'code')],
    ]);
    const late = (missing: string): boolean => {
      const { blocks } = plan(`    to: line
    key: { parent: { find: parent.id, where: { code: number } } }
    set: { state: status }
    missing: ${missing}
`);
      return createOutboundStatements(blocks[0]!.write, tables, undefined).stage([]).includes('SET w = 1');
    };
    expect(late('wait')).toBe(true);
    expect(late('insert')).toBe(true);
    expect(late('ignore')).toBe(false);
  });

  it('writes truth values as numbers where columns hold numbers, also those of constants', () => {
    expect(encodeValue('true', 'boolean', 'tinyint(1)', undefined)).toBe('1');
    const numbers = ['true', 'false', '7'].map((text) => encodeValue(text, 'unknown', 'tinyint(1)', undefined));
    expect(numbers).toEqual(['1', '0', '7']);
    expect(encodeValue('false', 'unknown', 'bit(1)', undefined)).toBe('0');
    expect(encodeValue('true', 'unknown', 'boolean', undefined)).toBe('true');
    expect(encodeValue('true', 'unknown', 'text', undefined)).toBe('true');
  });

  it('gives times in the zone of the system, over the change of the clock, to the microsecond', () => {
    expect(localTime('2026-03-29T00:59:59.999999Z', 'Europe/Berlin')).toBe('2026-03-29 01:59:59.999999');
    expect(localTime('2026-03-29T01:00:00.000001Z', 'Europe/Berlin')).toBe('2026-03-29 03:00:00.000001');
    expect(localTime('2026-01-01T00:30:00.000000Z', 'America/New_York')).toBe('2025-12-31 19:30:00.000000');
    expect(localTime('2026-01-01T00:30:00.000000Z', 'UTC')).toBe('2026-01-01 00:30:00.000000');
  });
});

it('a flow out names a target that is there, and an entity that a flow makes', () => {
  const config = (flow: Record<string, unknown>) => () =>
    parseConfig(
      JSON.stringify({
        version: 1,
        targets: { wms: { kind: 'postgres', url: 'postgresql://a/b' } },
        flows: { out: flow },
      }),
      {},
    );
  expect(config({ outbound: 'sales_order', map: 'x.yaml', to: 'wmss' })).toThrow(
    'there is no target "wmss" (did you mean "wms"?)',
  );
  expect(config({ outbound: 'sales_order', map: 'x.yaml', to: 'wms' })).toThrow(
    'flows.out.outbound: no flow makes sales_order',
  );
  expect(config({ outbound: 'sales_order', mapp: 'x.yaml', to: 'wms' })).toThrow(
    'flows.out.mapp: unknown key (did you mean "map"?)',
  );
});

it('marks tell what this installation wrote from what others did', () => {
  expect(isOwnOrigin(originName('wms_orders', 'a1b2c3'), 'a1b2c3')).toBe(true);
  expect(isOwnOrigin(originName('wms_orders', 'a1b2c3'), 'ffffff')).toBe(false);
  expect(isOwnOrigin(originOfMarker('waybill', markerTable('a1b2c3')), 'a1b2c3')).toBe(true);
  expect(originOfMarker('waybill', 'position')).toBeUndefined();
  expect(isOwnOrigin('pg_16389', 'a1b2c3')).toBe(false);
});
