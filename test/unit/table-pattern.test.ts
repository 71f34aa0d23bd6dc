import { describe, expect, it } from 'vitest';
import { compileTablePatterns } from '../../core/table-pattern.ts';

describe('table patterns', () => {
  it.each<[patterns: string[], table: [string, string], included: boolean]>([
    [['public.orders'], ['public', 'orders'], true],
    [['public.orders'], ['public', 'orders_old'], false],
    [['public.orders'], ['public', 'old_orders'], false],
    [['public.orders'], ['other', 'orders'], false],
    [['public.*'], ['public', 'anything at all'], true],
    [['public.*'], ['public2', 'orders'], false],
    [['*.orders'], ['any', 'orders'], true],
    [['*.*'], ['Any Schema', 'Any.Table'], true],
    [['public.order_*_20*'], ['public', 'order_line_2026'], true],
    [['public.order_*_20*'], ['public', 'order_2026'], false],
    [['public.*'], ['public', 'with\nline feed'], true],
    [['public.Orders'], ['public', 'orders'], false],
    // Only the first dot parts schema and table.
    [['public.a.b'], ['public', 'a.b'], true],
    // What means something in a regular expression means itself here.
    [['public.a.b'], ['public', 'axb'], false],
    [['public.a+b(c)[d]{2}|^$?\\'], ['public', 'a+b(c)[d]{2}|^$?\\'], true],
    [['public.a?'], ['public', 'a'], false],
    [['public.häuser_🚚*'], ['public', 'häuser_🚚_1'], true],
    // The last pattern that matches decides.
    [['public.*', '!public.audit_*'], ['public', 'audit_2026'], false],
    [['public.*', '!public.audit_*', 'public.audit_keep'], ['public', 'audit_keep'], true],
    [['!public.audit_*', 'public.*'], ['public', 'audit_2026'], true],
    [['!public.audit_*'], ['public', 'orders'], false],
    [[], ['public', 'orders'], false],
  ])('%j: %j is %s', (patterns, [schema, name], included) => {
    expect(compileTablePatterns(patterns)(schema, name)).toBe(included);
  });

  it.each(['orders', '.orders', 'public.', '!orders', '!.x', '', '!'])('refuses %j', (pattern) => {
    expect(() => compileTablePatterns(['public.*', pattern])).toThrow(
      expect.objectContaining({
        code: 'config_invalid',
        message: expect.stringContaining(`"${pattern}"`) as string,
      }) as Error,
    );
  });
});
