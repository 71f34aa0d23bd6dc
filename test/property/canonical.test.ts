import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import {
  addDecimals,
  canonicalDecimal,
  compareDecimals,
  isCanonicalDecimal,
  subtractDecimals,
} from '../../transform/canonical/decimal.ts';
import { recordObject } from '../../transform/canonical/entity.ts';
import { checkDigit, gtin14 } from '../../transform/canonical/gs1.ts';
import { canonicalTimestamp, microsOfTimestamp, timestampOfMicros } from '../../transform/canonical/timestamp.ts';
import { compileValidator } from '../../transform/canonical/validate.ts';

/** A decimal as a scaled integer, the reference to compare with. */
const SCALE = 30;
const scaled = (text: string): bigint => {
  const [whole = '', fraction = ''] = text.replace('-', '').split('.');
  const value = BigInt(whole + fraction.padEnd(SCALE, '0'));
  return text.startsWith('-') ? -value : value;
};
const decimal = fc
  .tuple(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), fc.nat({ max: SCALE - 5 }))
  .map(([digits, places]) => {
    const text = String(digits < 0n ? -digits : digits).padStart(places + 1, '0');
    return `${digits < 0n ? '-' : ''}${text.slice(0, text.length - places)}.${text.slice(text.length - places)}`;
  });

describe('canonical values', () => {
  it('decimals: canonical form keeps the value, and arithmetic is that of integers', () => {
    fc.assert(
      fc.property(fc.array(decimal, { minLength: 1, maxLength: 6 }), (texts) => {
        const canonical = texts.map((text) => canonicalDecimal(text)!);
        canonical.forEach((text, index) => {
          expect(isCanonicalDecimal(text)).toBe(true);
          expect(scaled(text)).toBe(scaled(texts[index]!));
        });
        expect(scaled(addDecimals(canonical))).toBe(canonical.reduce((sum, text) => sum + scaled(text), 0n));
        const [a, b = '0'] = canonical as [string, string?];
        expect(scaled(subtractDecimals(a, b))).toBe(scaled(a) - scaled(b));
        const difference = scaled(a) - scaled(b);
        expect(compareDecimals(a, b)).toBe(difference < 0n ? -1 : difference > 0n ? 1 : 0);
        expect(isCanonicalDecimal(addDecimals(canonical))).toBe(true);
      }),
    );
  });

  it('GTINs: what ends in its check digit is accepted, every other last digit refused', () => {
    fc.assert(
      fc.property(fc.constantFrom(7, 11, 12, 13), fc.bigInt({ min: 1n, max: 10n ** 13n - 1n }), (length, number) => {
        const digits = String(number).padStart(13, '0').slice(-length);
        fc.pre(!/^0+$/.test(digits));
        for (let last = 0; last < 10; last++)
          expect(gtin14(digits + String(last)) !== undefined).toBe(String(last) === checkDigit(digits));
      }),
    );
  });

  it('timestamps: local time in a zone is the moment that the zone shows as that local time', () => {
    const zones = ['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata', 'Pacific/Chatham', 'Africa/Casablanca'];
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 4_000_000_000 }),
        fc.nat({ max: 999_999 }),
        fc.constantFrom(...zones),
        (seconds, micros, zone) => {
          const us = seconds * 1_000_000 + micros;
          expect(microsOfTimestamp(timestampOfMicros(us))).toBe(us);
          const local = new Date(seconds * 1000).toLocaleString('sv-SE', { timeZone: zone });
          const result = canonicalTimestamp(`${local}.${String(micros).padStart(6, '0')}`, zone);
          const back = (result as { text: string }).text;
          // A repeated hour has two moments: ours is the first of those that show this local time.
          const shown = new Date(`${back.slice(0, 19)}Z`).toLocaleString('sv-SE', { timeZone: zone });
          expect(shown).toBe(local);
          expect(microsOfTimestamp(back)).toBeLessThanOrEqual(us);
          expect(back.slice(20, 26)).toBe(String(micros).padStart(6, '0'));
        },
      ),
    );
  });

  it('records: the compiled validator and the zod schema accept the same records', () => {
    const value = fc.oneof(
      fc.constantFrom('A', '1', '-2.5', '1.0', '', 'EA', 'EUR', 'DE', 'DEHAM', 'true', 'x', '4012345000009'),
      fc.constantFrom('04006381333931', '2026-03-01T08:15:02.123456Z', '[]', '{"city":"Ulm"}', '["1Z"]', 'shipped'),
      fc.constantFrom('hard', 'soft', 'active', 'lot', 'site', 'ACT', 'delivered', 'placed', 'pick', 'inbound'),
      fc.string({ maxLength: 5 }),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...ENTITIES.values()),
        fc.infiniteStream(value),
        fc.infiniteStream(fc.boolean()),
        (entity, stream, absent) => {
          const values = entity.fields.map((field) => {
            const isNull = absent.next().value as boolean;
            return isNull && !field.key ? null : (stream.next().value as string);
          });
          const violations = compileValidator({ ...entity, groupRules: [] })(values);
          let object: Record<string, unknown>;
          try {
            object = recordObject(entity, values);
          } catch {
            // A structure that is not JSON cannot become an object; the validator must have seen that.
            expect(violations.some((violation) => violation.rule === 'must be JSON')).toBe(true);
            return;
          }
          // A flag decodes to a boolean whatever its text is: the wire check is the stricter one there.
          const flags = entity.fields.filter((field) => field.type.kind === 'boolean').map((field) => field.name);
          const others = violations.filter((violation) => !flags.includes(violation.field));
          const nullFlag = violations.some((v) => flags.includes(v.field) && v.valueClass === 'null');
          expect(entity.schema.safeParse(object).success).toBe(others.length === 0 && !nullFlag);
        },
      ),
      { numRuns: 400 },
    );
  });
});
