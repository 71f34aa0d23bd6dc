import { describe, expect, it } from 'vitest';
import {
  comparePositions,
  describePosition,
  formatHexLsn,
  formatLsn,
  formatPosition,
  parseLsn,
  parsePosition,
  ORIGIN,
  pgPosition,
} from '../../core/position.ts';

const MAX_LSN = 0xffff_ffff_ffff_ffffn;
const MAX_ORDINAL = 2 ** 48 - 1;

describe('positions', () => {
  it.each([
    [ORIGIN, 'origin', 'the beginning'],
    [pgPosition(0n), 'pg1/0000000000000000/000000000000', '0/0'],
    [pgPosition(0x16_b374_d848n), 'pg1/00000016B374D848/000000000000', '16/B374D848'],
    [pgPosition(0x16_b374_d848n, 255), 'pg1/00000016B374D848/0000000000FF', '16/B374D848+255'],
    [pgPosition(MAX_LSN, MAX_ORDINAL), 'pg1/FFFFFFFFFFFFFFFF/FFFFFFFFFFFF', `FFFFFFFF/FFFFFFFF+${MAX_ORDINAL}`],
  ])('%o is %s', (position, text, words) => {
    expect(formatPosition(position)).toBe(text);
    expect(parsePosition(text)).toEqual(position);
    expect(describePosition(position)).toBe(words);
  });

  it.each([
    '',
    '0/0',
    'pg1/0/0',
    'pg2/0000000000000000/000000000000',
    'pg1/0000000000000000/00000000000',
    'pg1/0000000000000000/0000000000000',
    'pg1/000000000000000g/000000000000',
    'pg1/000000000000000a/000000000000',
    ' pg1/0000000000000000/000000000000',
    'pg1/0000000000000000/000000000000\n',
  ])('%j is not a position', (text) => {
    expect(parsePosition(text)).toBeUndefined();
  });

  it('orders by LSN, then by ordinal', () => {
    const ordered = [ORIGIN, pgPosition(0n, 1), pgPosition(1n), pgPosition(1n, 9), pgPosition(1n, 10), pgPosition(2n)];
    for (const [i, a] of ordered.entries())
      for (const [j, b] of ordered.entries()) expect(comparePositions(a, b)).toBe(Math.sign(i - j));
  });
});

describe('LSNs', () => {
  it.each([
    [0n, '0/0'],
    [0x16_b374_d848n, '16/B374D848'],
    [0x1_0000_0000n, '1/0'],
    [MAX_LSN, 'FFFFFFFF/FFFFFFFF'],
  ])('%o is %s', (lsn, text) => {
    expect(formatLsn(lsn)).toBe(text);
    expect(parseLsn(text)).toBe(lsn);
    expect(parseLsn(text.toLowerCase())).toBe(lsn);
    expect(BigInt(`0x${formatHexLsn(lsn)}`)).toBe(lsn);
    expect(formatHexLsn(lsn)).toHaveLength(16);
  });

  it.each(['', '0', '/', '0/', '/0', '0/0/0', '123456789/0', '0/123456789', 'x/0', '0/0 '])('%j is not one', (text) => {
    expect(parseLsn(text)).toBeUndefined();
  });
});
