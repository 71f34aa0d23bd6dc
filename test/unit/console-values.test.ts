/** What the console never shows, and whom it answers. */
import { describe, expect, it } from 'vitest';
import { auditLine } from '../../cli/console/audit-lines.ts';
import { hiddenColumns, shown } from '../../cli/console/hidden-columns.ts';
import { withoutValues } from '../../cli/console/quarantine.ts';
import { parseConfig, type Config } from '../../core/config.ts';
import { filled } from '../../monitoring/sql-reader.ts';
import { isOwnHost, sameToken } from '../../monitoring/console/token.ts';

function config(hide: string[] = []): Config {
  return parseConfig(
    JSON.stringify({
      version: 1,
      sources: { s: { kind: 'postgres', url: 'postgresql://a/b' } },
      targets: { t: { kind: 'postgres', url: 'postgresql://a/c' } },
      flows: { f: { mirror: 's', to: 't' } },
      monitoring: { hide },
    }),
    {},
  );
}

describe('hidden columns', () => {
  it.each([
    'password',
    'user_password',
    'passwd',
    'pwd_hash',
    'login_token',
    'API_KEY',
    'apikey',
    'private_key',
    'iban',
    'card_number',
    'cvv',
    'client_secret',
  ])('are those whose name says it: %s', (name) =>
    expect(hiddenColumns(config(), 'f')('public', 'a', name)).toBe(true),
  );

  it.each(['id', 'qty', 'passenger', 'pinned', 'tokens_left', 'spin', 'cardinality', 'compass', 'saltwater'])(
    'are not: %s',
    (name) => expect(hiddenColumns(config(), 'f')('public', 'a', name)).toBe(false),
  );

  it('are those of the configuration', () => {
    const hides = hiddenColumns(config(['public.customers.*', '*.*.note']), 'f');
    expect(hides('public', 'customers', 'name')).toBe(true);
    expect(hides('other', 'orders', 'note')).toBe(true);
    expect(hides('public', 'customers_2', 'name')).toBe(false);
    expect(hides('public', 'orders', 'notes')).toBe(false);
  });

  it('are those that the source leaves out or changes, whatever it does with them', () => {
    const known = config();
    const columns = {
      exclude: ['public.a.one'],
      hash: { columns: ['public.a.two'], salt: 'a.b.c' },
      mask: [{ columns: ['public.*.three'], keep_first: 1, keep_last: 0 }],
    };
    const source = { ...known.sources['s']!, columns };
    const hides = hiddenColumns({ ...known, sources: { s: source } }, 'f');
    expect(['one', 'two', 'three', 'four'].map((name) => hides('public', 'a', name))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(hides('b', 'c', 'd')).toBe(false);
  });

  it('give no value away; that there is none may be seen', () => {
    expect(shown('x', true)).toEqual({ hidden: true });
    expect(shown(null, true)).toBeNull();
    expect(shown('x', false)).toBe('x');
    expect(shown(0, false)).toEqual({ unchanged: true });
  });
});

it.each([
  ['invalid input syntax for type integer: "4111 1111"', '22P02', 'invalid input syntax for type integer: …'],
  ['value too long for type character varying(3)', '22001', 'value too long for type character varying(3)'],
  [
    'null value in column "qty" of relation "a" violates it',
    '23502',
    'null value in column "qty" of relation "a" violates it',
  ],
  [`Duplicate entry 'anna@example.org' for key 'a.email'`, '23000', `Duplicate entry … for key 'a.email'`],
  [
    `Incorrect integer value: 'hunter2' for column 'qty' at row 1`,
    'HY000',
    `Incorrect integer value: … for column 'qty' at row 1`,
  ],
])('quoted values are taken out of messages: %s', (message, sqlState, expected) => {
  expect(withoutValues(message, sqlState)).toBe(expected);
});

describe('who is answered', () => {
  it('tokens are the same or not', () => {
    expect(sameToken('0123456789abcdef', '0123456789abcdef')).toBe(true);
    for (const other of ['', '0123456789abcde', '0123456789abcdeF', '0123456789abcdef0'])
      expect(sameToken(other, '0123456789abcdef')).toBe(false);
  });

  it.each([
    ['127.0.0.1:9464', true],
    ['localhost:9464', true],
    ['[::1]:9464', true],
    ['10.1.2.3', true],
    ['Waybill.Internal:9464', true],
    ['rebound.example:9464', false],
    ['127.0.0.1.rebound.example', false],
    ['localhost.rebound.example', false],
    [undefined, false],
  ])('by the name %s: %s', (host, answered) => {
    expect(isOwnHost(host, ['waybill.internal'])).toBe(answered);
  });

  it.each(['Ops.Example', 'ops.example:9464', 'ops.example.'])('by a name that is configured as %s', (name) => {
    for (const host of ['ops.example', 'OPS.example:9464', 'ops.example.:80'])
      expect(isOwnHost(host, [name])).toBe(true);
    expect(isOwnHost('ops.example.evil', [name])).toBe(false);
  });
});

it('a line of audit that somebody made unreadable is shown as it is', () => {
  const line = { id: 1, at: '', actor: 'a', action: 'repair', subject: 's', previous: '', hash: '' };
  expect(auditLine({ ...line, detail: '{"n":1}' }).detail).toEqual({ n: 1 });
  expect(auditLine({ ...line, detail: '{"n":' })).toMatchObject({ id: 1, detail: '{"n":' });
  expect(auditLine({ ...line, detail: '' }).detail).toBe('');
});

it.each([
  ['a = ? AND b = ?', 'a = $0 AND b = $1'],
  ['SELECT "active?", `what``?` FROM t WHERE "a""?" = ?', 'SELECT "active?", `what``?` FROM t WHERE "a""?" = $0'],
  [`x = 'it''s ?' OR y = ?`, `x = 'it''s ?' OR y = $0`],
])('values stand in for the question marks of %s that are none of a name or a text', (sql, expected) => {
  expect(filled(sql, (index) => `$${index}`)).toBe(expected);
});
