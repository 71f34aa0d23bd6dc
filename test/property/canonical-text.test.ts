import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalRow, canonicalValue, textKind, type TextKind } from '../../monitoring/drift/canonical-text.ts';
import { Buckets, digestOf, formatDigest, parseDigest, sumOf } from '../../monitoring/drift/digest.ts';

const kinds: readonly TextKind[] = ['sized', 'plain', 'sized', 'padded'];
const sized = fc.option(fc.string({ unit: 'binary', maxLength: 6 }));
const tricky = fc.option(fc.stringMatching(/^[;:0-9 ]{0,4}$/));
const plain = fc.option(fc.integer().map(String));
const row = fc.tuple(fc.oneof(sized, tricky), plain, fc.oneof(sized, tricky), tricky);

describe('canonical text', () => {
  it('is the same for no two different rows', () => {
    fc.assert(
      fc.property(row, row, (a, b) => {
        const same = JSON.stringify(a) === JSON.stringify(b);
        expect(canonicalRow(kinds, a) === canonicalRow(kinds, b)).toBe(same);
      }),
      { numRuns: 2000 },
    );
  });

  it('writes a number in one way, however it came', () => {
    const value = (text: string): string | undefined => canonicalValue('decimal', text);
    expect(['1.50', '1.5', '0001.500', '15e-1', '0.15E1', '1.5e+0'].map(value)).toEqual(Array(6).fill('1.5'));
    expect(['0', '-0', '0.00', '-0.0', '0e10'].map(value)).toEqual(Array(5).fill('0'));
    expect(['1e+20', '1e-7', '-12.0', 'NaN', '-Infinity'].map(value)).toEqual([
      '100000000000000000000',
      '0.0000001',
      '-12',
      'NaN',
      '-Infinity',
    ]);
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e15, max: 1e15 }), (number) => {
        const text = value(String(number))!;
        expect(Number(text)).toBe(number === 0 ? 0 : number);
        expect(value(text)).toBe(text);
        expect(text).not.toMatch(/e|\.\d*0$|^-0$/i);
      }),
    );
  });

  it('chooses a kind that both types can give', () => {
    expect(textKind('bigint', 'integer')).toBe('plain');
    expect(textKind('numeric(12,2)', 'numeric(12,2)')).toBe('plain');
    expect(textKind('numeric(12,2)', 'numeric')).toBe('decimal');
    expect(textKind('numeric[]', 'numeric[]')).toBe('sized');
    expect(textKind('double precision', 'numeric')).toBe('decimal');
    expect(textKind('timestamp(3) with time zone', 'timestamp with time zone')).toBe('plain');
    expect(textKind('order_status', 'text')).toBe('sized');
    expect(textKind('text', 'character(10)')).toBe('padded');
    expect(textKind('json', 'jsonb')).toBe('json');
    expect(textKind('character(10)', 'character(20)')).toBe('padded');
    expect(textKind('character(10)', 'character(10)')).toBe('sized');
    expect(textKind('timestamp without time zone', 'timestamp(3) with time zone')).toBe('moment');
    expect(textKind('timestamp with time zone', 'timestamp without time zone')).toBe('moment');
    expect(textKind('timestamp with time zone[]', 'timestamp without time zone[]')).toBe('sized');
    expect(textKind('date', 'timestamp with time zone')).toBe('moment');
  });
});

describe('sums of digests', () => {
  it('do not depend on the order, and forget no pair', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 1, maxLength: 20 }), (texts) => {
        const buckets = (list: readonly string[]): Buckets => {
          const sums = new Buckets(3);
          for (const text of list) sums.addRow(digestOf(text, 'md5'));
          return sums;
        };
        const all = buckets(texts);
        expect(all.differing(buckets(texts.toReversed()))).toEqual([]);
        // The same row once more, or twice more: XOR would not see the second.
        expect(all.differing(buckets([...texts, texts[0]!]))).toHaveLength(1);
        expect(all.differing(buckets([...texts, texts[0]!, texts[0]!]))).toHaveLength(1);
      }),
    );
  });

  it('are those of the digests as numbers of 128 bits', () => {
    const texts = ['a', 'b', 'c'];
    const sum = { rows: 0, high: 0n, low: 0n };
    for (const { high, low } of texts.map((text) => digestOf(text, 'md5'))) {
      sum.high += high;
      sum.low += low;
    }
    // A digest as a number: its halves as signed numbers, the first times 2^64.
    const number = ({ high, low }: { high: bigint; low: bigint }): bigint => BigInt.asUintN(128, (high << 64n) + low);
    expect(sumOf(sum)).toBe(
      BigInt.asUintN(
        128,
        texts.map((text) => number(digestOf(text, 'md5'))).reduce((a, b) => a + b),
      ),
    );
    expect(formatDigest(digestOf('a', 'md5'))).toBe('0cc175b9c0f1b6a831c399e269772661');
    expect(parseDigest(formatDigest(digestOf('b', 'md5')))).toEqual(digestOf('b', 'md5'));
  });
});
