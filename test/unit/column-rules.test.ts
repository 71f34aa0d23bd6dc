import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describeConfiguration } from '../../cli/audit.ts';
import { decryptValue, encryptGuard, hashGuard, maskGuard } from '../../core/column-guard.ts';
import { ColumnRules, type ColumnRulesConfig } from '../../core/column-rules.ts';
import { parseConfig, type Config } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';

const SALT = 'a salt of enough characters';
const KEY = randomBytes(32);
const bytes = (text: string): Buffer => Buffer.from(text, 'utf8');
const column = (name: string, type = 'text'): TableSchema['columns'][number] => ({
  name,
  type,
  portable: type,
  notNull: true,
  default: "'clear'",
});
const users: TableSchema = {
  schema: 'public',
  name: 'users',
  version: 'one',
  identity: 'default',
  key: ['email'],
  columns: [column('email'), column('phone'), column('iban'), column('password'), column('age', 'integer')],
};
const rules = (config: ColumnRulesConfig): ColumnRules => ColumnRules.compile(config);

describe('hash', () => {
  it('is the HMAC-SHA-256 of the text, so that equal values of any column stay equal', () => {
    const { apply } = hashGuard(SALT);
    expect(apply(bytes('anna@example.org'))).toBe(createHmac('sha256', SALT).update('anna@example.org').digest('hex'));
    expect(hashGuard(`${SALT}!`).apply(bytes('anna@example.org'))).not.toBe(apply(bytes('anna@example.org')));
  });

  it('answers the published test vector (RFC 4231, case 2)', () => {
    expect(hashGuard('Jefe').apply(bytes('what do ya want for nothing?'))).toBe(
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    );
  });
});

describe('mask', () => {
  it.each([
    [0, 4, '+49 170 1234567', '****4567'],
    [2, 2, 'DE12345678', 'DE****78'],
    [1, 0, 'Anna', 'A****'],
    [0, 0, 'Anna', '****'],
    [0, 4, '4567', '****'],
    [0, 4, '', '****'],
    [0, 1, 'ab\u{1f69a}', '****\u{1f69a}'],
  ])('keeps %i and %i of %s', (keepFirst, keepLast, value, expected) => {
    expect(maskGuard({ keepFirst, keepLast }).apply(bytes(value))).toBe(expected);
  });
});

describe('encrypt', () => {
  const guard = encryptGuard('2026-01', KEY);
  const keys = new Map([['2026-01', KEY]]);

  it('is undone with the key alone, and looks different each time', () => {
    const text = guard.apply(bytes('DE00 1234'));
    expect(text).toMatch(/^wb1\.2026-01\.[A-Za-z0-9+/]+=*$/);
    expect(decryptValue(text, keys).toString('utf8')).toBe('DE00 1234');
    expect(guard.apply(bytes('DE00 1234'))).not.toBe(text);
    expect(decryptValue(guard.apply(bytes('')), keys).toString('utf8')).toBe('');
  });

  it('is undone by the program in the documents', async () => {
    const text = readFileSync(new URL('../../docs/privacy.md', import.meta.url), 'utf8');
    const code = /```js\n([\s\S]*?)```/.exec(text)![1]!;
    const { decrypt } = (await import(`data:text/javascript,${encodeURIComponent(code)}`)) as {
      decrypt: (value: string, keys: Record<string, Buffer>) => Buffer;
    };
    expect(decrypt(guard.apply(bytes('Größe: 12')), { '2026-01': KEY }).toString('utf8')).toBe('Größe: 12');
  });

  it('does not accept what was changed, another key, or another text', () => {
    const text = guard.apply(bytes('DE00 1234'));
    const at = text.length - 8;
    const changed = text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
    expect(() => decryptValue(changed, keys)).toThrow(/not encrypted with this key/);
    expect(() => decryptValue(text, new Map([['2026-01', randomBytes(32)]]))).toThrow(/not encrypted with this key/);
    expect(() => decryptValue(text, new Map())).toThrow(/no key 2026-01/);
    expect(() => decryptValue('DE00 1234', keys)).toThrow(/not an encrypted value/);
  });
});

describe('the rules of a table', () => {
  it('are none where no pattern names a column of it, and the schema stays the same object', () => {
    const published = rules({ exclude: ['public.other.*'] }).publish(users);
    expect(published).toEqual({ schema: users, rules: undefined });
    expect(published.schema).toBe(users);
  });

  it('change types, and take defaults and columns away', () => {
    const compiled = rules({
      exclude: ['*.users.pass*'],
      hash: { columns: ['public.*.email'], salt: SALT },
      mask: [{ columns: ['public.users.phone', 'public.users.age'], keep_first: 0, keep_last: 2 }],
      encrypt: { columns: ['public.users.iban'], key_id: 'k', encryption_key: KEY.toString('base64') },
    });
    const { schema } = compiled.publish(users);
    expect(schema.columns.map(({ name, type, default: fallback }) => [name, type, fallback])).toEqual([
      ['email', 'text', undefined],
      ['phone', 'text', undefined],
      ['iban', 'text', undefined],
      ['age', 'text', undefined],
    ]);
    expect(schema.version).not.toBe(users.version);
    const mysql = compiled.publish({ ...users, dialect: 'mysql' }).schema;
    expect(mysql.columns.map(({ type }) => type)).toEqual(['varchar(64)', 'varchar(255)', 'longtext', 'varchar(255)']);
  });

  it.each<[string, ColumnRulesConfig, Partial<TableSchema>, RegExp]>([
    ['exclude a key', { exclude: ['public.users.email'] }, {}, /email is part of the key.*exclude/],
    ['mask a key', { mask: [{ columns: ['*.*.email'], keep_first: 0, keep_last: 0 }] }, {}, /part of the key.*mask/],
    [
      'encrypt a key',
      { encrypt: { columns: ['*.*.email'], key_id: 'k', encryption_key: KEY.toString('hex') } },
      {},
      /part of the key.*encrypt/,
    ],
    [
      'encrypt where the whole row is the key',
      { encrypt: { columns: ['*.*.iban'], key_id: 'k', encryption_key: KEY.toString('hex') } },
      { key: [], identity: 'full' },
      /has no key/,
    ],
    [
      'mask bytes',
      { mask: [{ columns: ['*.*.raw'], keep_first: 0, keep_last: 4 }] },
      { columns: [column('email'), column('raw', 'bytea')] },
      /bytes/,
    ],
    [
      'contradict each other',
      { exclude: ['*.*.iban'], hash: { columns: ['public.users.*'], salt: SALT } },
      {},
      /named by exclude "\*\.\*\.iban" and by hash "public\.users\.\*"/,
    ],
  ])('may not %s', (_, config, change, message) => {
    expect(() => rules(config).publish({ ...users, ...change })).toThrow(message);
    expect(() => rules(config).publish({ ...users, ...change })).toThrow(
      expect.objectContaining({ code: 'source_columns' }) as Error,
    );
  });

  it('are named when no column matches', () => {
    const config = { exclude: ['public.users.pasword'], hash: { columns: ['public.*.email'], salt: SALT } };
    expect(rules(config).unmatched([users])).toEqual(['exclude "public.users.pasword"']);
  });

  it('seal the cursor of a snapshot where the key is hashed', () => {
    const hashed = rules({ hash: { columns: ['public.*.email'], salt: SALT } });
    const published = hashed.publish(users);
    const stored = hashed.sealCursor(published, ['anna@example.org']);
    expect(JSON.stringify(stored)).not.toContain('anna');
    expect(hashed.openCursor(published, stored)).toEqual(['anna@example.org']);
    const other = rules({ hash: { columns: ['public.*.email'], salt: `${SALT}!` } });
    expect(other.openCursor(other.publish(users), stored)).toBeNull();
    const none = rules({});
    expect(none.openCursor(none.publish(users), stored)).toBeNull();
    expect(none.sealCursor(none.publish(users), ['anna@example.org'])).toEqual(['anna@example.org']);
    expect(hashed.openCursor(published, ['anna@example.org'])).toBeNull();
  });
});

describe('in the configuration', () => {
  const parse = (columns: unknown): unknown =>
    parseConfig(
      JSON.stringify({ version: 1, sources: { shop: { kind: 'postgres', url: 'postgres://x', columns } } }),
      {},
    );

  it.each<[string, unknown, RegExp]>([
    ['a salt that is short', { hash: { columns: ['a.b.c'], salt: 'short' } }, /salt: must have at least 16/],
    ['a pattern without a table', { exclude: ['email'] }, /schema\.table\.column/],
    ['an unknown rule', { exlude: ['a.b.c'] }, /did you mean "exclude"/],
    [
      'a key that is short',
      { encrypt: { columns: ['a.b.c'], key_id: 'k', encryption_key: 'c2hvcnQ=' } },
      /encryption_key: must be 32 bytes/,
    ],
    [
      'a salt that cannot be read',
      { hash: { columns: ['a.b.c'], salt_file: '/nowhere/salt' } },
      /salt_file: cannot read/,
    ],
  ])('%s is refused without showing it', (_, columns, message) => {
    expect(() => parse(columns)).toThrow(message);
    expect(() => parse(columns)).not.toThrow(/c2hvcnQ/);
  });

  it('salts and keys are not shown where the configuration is', () => {
    const columns = {
      hash: { columns: ['a.b.c'], salt: SALT },
      encrypt: { columns: ['a.b.d'], key_id: 'k', encryption_key: KEY.toString('base64') },
    };
    const shown = JSON.stringify(describeConfiguration(parse(columns) as Config));
    expect(shown).toContain('a.b.d');
    expect(shown).not.toContain(SALT);
    expect(shown).not.toContain(KEY.toString('base64'));
  });
});
