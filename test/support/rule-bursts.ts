/** The rules that values of rows can break, each with a column that does it, and what mends the mapping. */

export interface RuleBurst {
  readonly entity: string;
  /** The column of the entity's table that holds the value, and the field that is made of it. */
  readonly column: string;
  readonly field: string;
  /** The expression of the field; `$` stands for the column. */
  readonly expression: string;
  readonly good: string;
  readonly bad: string;
  /** What the mended mapping takes `bad` for; null for no value. */
  readonly mended: string | null;
  /** What the field is then. */
  readonly shown: string | null;
  /** The rule, as the quarantine says it, and the fields that it names. */
  readonly rule: string;
  readonly named: string;
}

const burst = (
  entity: string,
  field: string,
  [good, bad, mended]: readonly [good: string, bad: string, mended: string | null],
  rule: string,
  more: Partial<RuleBurst> = {},
): RuleBurst => ({
  entity,
  column: field,
  field,
  expression: '$',
  good,
  bad,
  mended,
  shown: mended,
  rule,
  named: field,
  ...more,
});

const TIME = { expression: '{ timestamp: { of: $, zone: Europe/Berlin } }' };
const NUMBER = { expression: '{ decimal: { trim: $ } }' };

export const RULE_BURSTS: readonly RuleBurst[] = [
  burst(
    'product',
    'gtin14',
    ['96385074', '96385075', '4006381333931'],
    'must be a GTIN of 8, 12, 13 or 14 digits with check digit',
    { expression: '{ gtin: $ }', shown: '04006381333931' },
  ),
  burst('product', 'base_uom', ['EA', 'CRATE', 'KGM'], 'must be a unit of UN/ECE Recommendation 20'),
  burst('product', 'net_weight', ['1', '-1', '2'], 'must not be negative', NUMBER),
  burst('product', 'country_of_origin', ['DE', 'XX', 'FR'], 'must be a country of ISO 3166-1 alpha-2'),
  burst('product', 'tracking', ['none', 'perhaps', 'lot'], 'must be one of none, lot, serial'),
  burst('product', 'packs', ['[]', 'none', '[{"uom": "EA", "qty": "2"}]'], 'must be JSON', {
    shown: '[{"qty": "2", "uom": "EA"}]',
  }),
  burst('product', 'status', ['a', '?', 'b'], 'must be in the look-up table of the mapping', {
    expression: '{ lookup: { of: $, values: { a: active, b: archived } } }',
    shown: 'archived',
  }),
  burst('product', 'volume', ['1', '0', '4'], 'must not be divided by zero', {
    expression: '{ divide: [2, { decimal: $ }] }',
    shown: '0.5',
  }),
  burst('product', 'length', ['MTR', 'KGM', 'CMT'], 'must be in a unit that converts', {
    expression: '{ convert: { of: 300, from: $, to: { const: MTR } } }',
    shown: '3',
  }),
  burst('location', 'gln', ['4012345000009', '4012345000008', '4006381333931'], 'must end with its check digit'),
  burst('location', 'unlocode', ['DEHAM', 'Hamburg', 'NLRTM'], 'must be a UN/LOCODE'),
  burst('location', 'latitude', ['1', '91', '19'], 'must lie between -90 and 90', NUMBER),
  burst('location', 'parent', ['SITE', ' SITE', 'ROOT'], 'must not begin or end with white space'),
  burst('price', 'currency', ['EUR', 'EUX', 'CHF'], 'must be a currency of ISO 4217'),
  burst(
    'price',
    'valid_from',
    ['2026-01-01 00:00:00', '2027-01-01 00:00:00', '2026-02-01 00:00:00'],
    'must end after it starts',
    { ...TIME, shown: '2026-01-31 23:00:00+00', named: 'valid_from, valid_until' },
  ),
  burst(
    'tracking_event',
    'occurred_at',
    ['2026-01-01 00:00:00', '2026-02-30 00:00:00', '2026-02-28 12:00:00'],
    'must be a timestamp that can be read: no such day or time',
    { ...TIME, shown: '2026-02-28 11:00:00+00' },
  ),
  burst(
    'shipment_package',
    'sscc',
    ['006141410000000418', '006141410000000419', null],
    'must end with its check digit',
  ),
  burst('shipment_package', 'weight_uom', ['KGM', 'none', 'GRM'], 'must have a unit with its weight', {
    expression: '{ lookup: { of: $, values: { none: null, KGM: KGM, GRM: GRM } } }',
  }),
  burst('reservation', 'kind', ['hard', 'soft', 'hard'], 'must have a time at which a soft reservation expires', {
    named: 'expires_at',
  }),
  burst('inventory_movement', 'absolute', ['', '7', null], 'must have either a delta or an absolute quantity', {
    ...NUMBER,
    named: 'delta, absolute',
  }),
  burst('inventory_position', 'on_hand', ['1', 'many', '5'], 'must be a decimal number', NUMBER),
  burst('inventory_position', 'location', ['WH', '', 'LOST'], 'must not be empty'),
];

/** Fields of the entities beside those: what a record must have. `note` is a text that nothing holds, where there is one. */
const OTHERS: Readonly<Record<string, { readonly fields: string; readonly key: string; readonly note?: string }>> = {
  product: {
    fields:
      'sku: id, name: note, weight_uom: { const: KGM }, volume_uom: { const: LTR }, dimension_uom: { const: MTR }',
    key: 'sku',
    note: 'name',
  },
  location: {
    fields: 'code: id, name: note, type: { const: bin }, longitude: { const: 1 }, is_stock: { const: true }',
    key: 'code',
    note: 'name',
  },
  price: {
    fields:
      "sku: id, list: { const: L }, min_qty: { const: 1 }, version: { const: '' }, amount: { const: 1 }, uom: { const: EA }, valid_until: { const: '2026-12-01T00:00:00.000000Z' }",
    key: 'sku',
  },
  tracking_event: {
    fields:
      "id: id, tracking_no: note, recorded_at: { const: '2026-01-01T00:00:00.000000Z' }, classifier: { const: ACT }, milestone: { const: delivered }",
    key: 'id',
    note: 'tracking_no',
  },
  shipment_package: {
    fields: 'shipment: { const: S }, package: id, tracking_no: note, weight: { const: 1 }',
    key: 'package',
    note: 'tracking_no',
  },
  reservation: {
    fields:
      "order_number: id, line: { const: 1 }, part: { const: '' }, sku: { const: A }, uom: { const: EA }, qty: { const: 1 }",
    key: 'order_number',
  },
  inventory_movement: {
    fields:
      "id: id, sku: { const: A }, location: { const: WH }, lot: { const: '' }, owner: { const: '' }, uom: { const: EA }, delta: { const: 1 }, reason: { const: pick }, document: note, occurred_at: { const: '2026-01-01T00:00:00.000000Z' }",
    key: 'id',
    note: 'document',
  },
  inventory_position: {
    fields: "sku: id, lot: { const: '' }, owner: { const: '' }, uom: { const: EA }",
    key: 'sku',
  },
};

export const RULE_ENTITIES: readonly string[] = Object.keys(OTHERS);

/** The field of an entity's key that is the id of the row, and the one that follows `note`, where there is one. */
export function idField(entity: string): string {
  return OTHERS[entity]!.key;
}

export function noteField(entity: string): string | undefined {
  return OTHERS[entity]!.note;
}

const burstsOf = (entity: string): readonly RuleBurst[] => RULE_BURSTS.filter((rule) => rule.entity === entity);

/** Makes the tables, each with `rows` good rows for every rule that they are to break, and one, `0`, that stays good. */
export function ruleTables(rows: number): string[] {
  return RULE_ENTITIES.flatMap((entity) => {
    const columns = burstsOf(entity).map(({ column, good }) => `${column} text default '${good}'`);
    return [
      `create table t_${entity} (id text primary key, note text not null default 'first', ${columns.join(', ')})`,
      `insert into t_${entity} (id) select i::text from generate_series(0, ${rowsOf(entity, rows)}) i`,
    ];
  });
}

/** How many rows of an entity are to break rules, at `rows` for each. */
export function rowsOf(entity: string, rows: number): number {
  return burstsOf(entity).length * rows;
}

/** Which rows of an entity are to break a rule, as a condition on their ids: those in `column`. */
export function rowsOfRule(rule: RuleBurst, rows: number, column: string): string {
  const at = burstsOf(rule.entity).indexOf(rule);
  return `${column}::int > ${at * rows} and ${column}::int <= ${(at + 1) * rows}`;
}

/** The statement by which its rows break a rule. */
export function breakRule(rule: RuleBurst, rows: number): string {
  const { entity, column, bad } = rule;
  return `update t_${entity} set ${column} = '${bad}' where ${rowsOfRule(rule, rows, 'id')}`;
}

/** The mapping of all entities, as it is at first, or mended for what breaks rules. */
export function ruleMapping(isMended: boolean): string {
  const entities = RULE_ENTITIES.map((entity) => {
    const fields = burstsOf(entity).map(({ column, field, expression, bad, mended }) => {
      const values = JSON.stringify({ [bad]: mended });
      const value = isMended ? `{ lookup: { of: ${column}, values: ${values}, else: ${column} } }` : column;
      return `${field}: ${expression.replace('$', value)}`;
    });
    return `  ${entity}:
    from: t_${entity}
    fields: { ${[OTHERS[entity]!.fields, ...fields].join(', ')} }
`;
  });
  return `version: 1\nname: rules\nentities:\n${entities.join('')}`;
}

/** Who is held by which rule: the rule and how many groups of records. */
export const HELD_BY_RULE = `select flow, split_part(split_part(message, ': ', 2) || ': ' || split_part(message, ': ', 3), ' (it is', 1), count(*)
  from waybill.quarantine group by 1, 2`;
