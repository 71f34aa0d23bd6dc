/** Of which keys a target may say which lie in a range, and how marks name the range. */
import { describe, expect, it } from 'vitest';
import { beforeSql, behindSql, boundsOfMark, isOrdered, keyOrder, rangeMark } from '../../core/key-order.ts';
import type { Dialect } from '../../core/frame.ts';
import { rangeOf } from '../../transform/mapping/key-range.ts';
import { joinedKey } from '../../transform/mapping/key-texts.ts';

const table = (type: string, dialect?: Dialect) => ({
  key: ['k'],
  columns: [{ name: 'k', type, portable: type, notNull: true }],
  ...(dialect === undefined ? {} : { dialect }),
});

describe('a range of keys', () => {
  it.each<[Dialect, string, string | undefined]>([
    ['postgres', 'bigint', 'number'],
    ['postgres', 'numeric(12,2)', 'number'],
    ['postgres', 'numeric', 'long number'],
    ['postgres', 'timestamp(3) with time zone', 'time'],
    ['postgres', 'uuid', 'uuid'],
    ['postgres', 'integer[]', undefined],
    ['postgres', 'text', undefined],
    ['postgres', 'character varying(20)', undefined],
    ['postgres', 'double precision', undefined],
    ['mysql', 'bigint unsigned', 'number'],
    ['mysql', 'varbinary(16)', 'bytes'],
    ['mysql', "enum('a','b')", undefined],
    ['mysql', 'varchar(20)', undefined],
    ['mariadb', 'uuid', undefined],
  ])('of %s %s has order %s', (dialect, type, order) => {
    expect(keyOrder(dialect, type)).toBe(order);
  });

  it('means the same where the target holds values of the same kind alone', () => {
    const bounds = { from: ['1'], to: ['20'] };
    expect(isOrdered(table('bigint'), bounds)).toBe(true);
    expect(isOrdered(table('bigint'), bounds, { dialect: 'mysql', typeAt: () => 'bigint' })).toBe(true);
    expect(isOrdered(table('bigint'), bounds, { dialect: 'postgres', typeAt: () => 'text' })).toBe(false);
    expect(isOrdered(table('bigint'), bounds, { dialect: 'postgres', typeAt: () => undefined })).toBe(false);
    expect(isOrdered(table('numeric'), bounds, { dialect: 'mysql', typeAt: () => 'decimal(65,30)' })).toBe(false);
    expect(isOrdered(table('numeric'), bounds, { dialect: 'postgres', typeAt: () => 'numeric' })).toBe(true);
    expect(isOrdered(table('text'), bounds)).toBe(false);
  });

  it.each<[Dialect, string, string, Dialect, string, boolean]>([
    ['postgres', 'numeric(9,2)', '1.50', 'postgres', 'numeric(9,2)', true],
    ['postgres', 'numeric(9,2)', '1.50', 'postgres', 'numeric(9,1)', false],
    ['postgres', 'numeric(9,2)', '1.50', 'postgres', 'integer', false],
    ['mysql', 'decimal(9,0)', '1', 'postgres', 'bigint', true],
    ['postgres', 'integer', '1', 'mysql', 'decimal(20,4)', true],
    ['postgres', 'timestamp without time zone', '2026-01-01 00:00:00', 'mysql', 'datetime(6)', true],
    ['postgres', 'timestamp without time zone', '2026-01-01 00:00:00', 'mysql', 'datetime', false],
    ['postgres', 'timestamp(0) without time zone', '2026-01-01 00:00:00', 'mysql', 'datetime', true],
    ['mysql', 'datetime(3)', '2026-01-01 00:00:00', 'postgres', 'timestamp without time zone', true],
    ['mysql', 'datetime(3)', '2026-01-01 00:00:00', 'postgres', 'timestamp(0) without time zone', false],
    ['mysql', 'binary(16)', 'AAA=', 'postgres', 'bytea', true],
    ['mysql', 'binary(16)', 'AAA=', 'mariadb', 'binary(16)', true],
    ['mysql', 'binary(8)', 'AAA=', 'mariadb', 'binary(16)', false],
    ['postgres', 'bytea', 'AAA=', 'mysql', 'binary(16)', false],
    ['postgres', 'bytea', 'AAA=', 'mysql', 'varbinary(16)', true],
  ])('of %s %s from %s on is told by %s %s: %s', (from, type, bound, to, there, isTold) => {
    const bounds = { from: [bound], to: null };
    expect(isOrdered(table(type, from), bounds, { dialect: to, typeAt: () => there })).toBe(isTold);
  });

  it.each([
    ['numeric(4,2)', 'NaN'],
    ['date', 'infinity'],
    ['date', '0044-03-15 BC'],
    ['timestamp without time zone', '10000-01-01 00:00:00'],
  ])('of %s has no bound %s that all databases know', (type, bound) => {
    expect(isOrdered(table(type), { from: [bound], to: null })).toBe(false);
  });

  it('asks for no more columns than the key has', () => {
    expect(isOrdered(table('bigint'), { from: ['1', '2'], to: null })).toBe(false);
  });

  it('is read from a mark as it was written, and not where that is damaged', () => {
    const bounds = { from: ['1', 'a"b'], to: null };
    expect(boundsOfMark(rangeMark('id', 'begin_range', bounds))).toEqual(bounds);
    for (const [from, to] of [
      [null, null],
      ['[', null],
      ['[]', null],
      ['[1]', '["2"]'],
      ['{"a": "1"}', null],
    ] as const)
      expect(boundsOfMark(['id', 'end_range', from, to])).toBeUndefined();
  });

  it('is compared column by column', () => {
    const parts = [
      { column: 'a', bound: '1' },
      { column: 'b', bound: '2' },
    ];
    expect(behindSql(parts, false)).toBe('(a > 1) OR (a = 1 AND b > 2)');
    expect(behindSql(parts, true)).toBe('(a > 1) OR (a = 1 AND b > 2) OR (a = 1 AND b = 2)');
    expect(beforeSql(parts)).toBe('(a < 1) OR (a = 1 AND b < 2)');
  });
});

it.each([
  ['numeric', ['9.50', '10'], ['9.5', '9.99'], ['9.49', '10', '10.0', '-9.7', 'NaN']],
  ['bigint', ['-5', '100'], ['-5', '0', '99'], ['-6', '100', '-50']],
  ['date', ['2026-03-01', '2026-04-01'], ['2026-03-31'], ['2026-04-01', 'infinity', '12026-03-05', '2026-03-05 BC']],
  [
    'timestamp with time zone',
    ['2026-03-01 00:00:00+00', '2026-03-02 00:00:00+00'],
    ['2026-03-01 00:00:00+00', '2026-03-01 00:00:00.5+00', '2026-03-01 23:59:59.999999+00'],
    ['2026-02-28 23:59:59.9+00', '2026-03-02 00:00:00+00', '-infinity'],
  ],
  [
    'uuid',
    ['1f000000-0000-0000-0000-000000000000', '20000000-0000-0000-0000-000000000000'],
    ['1f000000-0012-0000-0000-00000000000a'],
    ['20000000-0000-0000-0000-000000000000'],
  ],
  ['bytea', ['AA==', 'gA=='], ['AA==', 'AAE=', 'fw=='], ['gA==', '/w==']],
] as const)('of type %s has the keys that its source says', (type, [from, to], inside, outside) => {
  const schema = { ...table(type), schema: 's', name: 't', version: '1', identity: 'default' } as const;
  const lies = rangeOf(schema, { from: [from], to: [to] })!;
  for (const key of inside) expect(lies(key), key).toBe(true);
  for (const key of outside) expect(lies(key), key).toBe(false);
  expect(rangeOf(schema, { from: [from], to: null })!(inside[0])).toBe(true);
});

it('of the first columns of a key, and none of texts, which sort in many ways', () => {
  const columns = ['integer', 'integer', 'text'].map((type, index) => ({
    ...table(type).columns[0]!,
    name: 'abc'[index]!,
  }));
  const schema = { schema: 's', name: 't', version: '1', identity: 'default', key: ['a', 'b', 'c'], columns } as const;
  const lies = rangeOf(schema, { from: ['1', '5'], to: ['2'] })!;
  const key = (...parts: string[]): boolean => lies(joinedKey(parts));
  expect([key('1', '5', 'x'), key('1', '10', ''), key('1', '4', 'z'), key('2', '0', 'a')]).toEqual([
    true,
    true,
    false,
    false,
  ]);
  expect(rangeOf(schema, { from: ['1', '5', 'x'], to: null })).toBeUndefined();
});
