import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  comparePositions,
  formatHexLsn,
  formatLsn,
  formatPosition,
  parseLsn,
  parsePosition,
  pgPosition,
} from '../../core/position.ts';

const MAX_LSN = 0xffff_ffff_ffff_ffffn;
const lsn = fc.oneof(fc.bigInt({ min: 0n, max: MAX_LSN }), fc.bigInt({ min: 0n, max: 40n }));
const ordinal = fc.oneof(fc.integer({ min: 0, max: 2 ** 48 - 1 }), fc.integer({ min: 0, max: 20 }));
const position = fc.tuple(lsn, ordinal).map(([lsn, ordinal]) => pgPosition(lsn, ordinal));

const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

describe('positions', () => {
  it('survive their text', () => {
    const check = fc.property(position, (a) => {
      expect(parsePosition(formatPosition(a))).toEqual(a);
    });
    fc.assert(check);
  });

  it('sort as their text does, in UTF-16 and in bytes', () => {
    const check = fc.property(position, position, (a, b) => {
      const [textA, textB] = [formatPosition(a), formatPosition(b)];
      expect(comparePositions(a, b)).toBe(order(textA, textB));
      expect(comparePositions(a, b)).toBe(Buffer.compare(Buffer.from(textA), Buffer.from(textB)));
      expect(comparePositions(b, a) + comparePositions(a, b)).toBe(0);
    });
    fc.assert(check, { numRuns: 2000 });
  });

  it('are never read from other text', () => {
    const check = fc.property(
      fc.oneof(fc.string(), position.map(formatPosition)),
      fc.nat(40),
      fc.string(),
      (text, at, by) => {
        const other = text.slice(0, at) + by + text.slice(at + 1);
        const parsed = parsePosition(other);
        // What is read at all is exactly what would be written.
        if (parsed !== undefined) expect(formatPosition(parsed)).toBe(other);
      },
    );
    fc.assert(check, { numRuns: 2000 });
  });
});

describe('LSNs', () => {
  it('survive their text', () => {
    const check = fc.property(lsn, (a) => {
      expect(parseLsn(formatLsn(a))).toBe(a);
      expect(BigInt(`0x${formatHexLsn(a)}`)).toBe(a);
    });
    fc.assert(check);
  });
});
