import { describe, expect, it } from 'vitest';
import { isCountry, isCurrency, isLocode, isUnit } from '../../transform/canonical/codes.ts';
import {
  addDecimals,
  canonicalDecimal,
  compareDecimals,
  divideDecimals,
  isCanonicalDecimal,
  multiplyDecimals,
  negateDecimal,
  subtractDecimals,
} from '../../transform/canonical/decimal.ts';
import {
  checkDigit,
  glnFault,
  grai,
  graiFault,
  gtin14,
  gtin14Fault,
  ssccFault,
} from '../../transform/canonical/gs1.ts';
import { dcsaMilestone, X12_MILESTONES } from '../../transform/canonical/milestones.ts';
import {
  canonicalTimestamp,
  isCanonicalDate,
  isCanonicalTimestamp,
  isTimeZone,
  microsOfTimestamp,
  timestampOfMicros,
} from '../../transform/canonical/timestamp.ts';
import { convertUnit, CONVERTIBLE_UNITS } from '../../transform/canonical/unit-conversion.ts';

describe('GS1 identifiers', () => {
  it.each(['96385074', '036000291452', '4006381333931', '10012341000011'])('accepts GTIN %s', (text) => {
    expect(gtin14(text)).toBe(text.padStart(14, '0'));
    expect(gtin14Fault(text.padStart(14, '0'))).toBeUndefined();
  });

  it('accepts GLN, SSCC and GRAI', () => {
    expect(glnFault('4012345000009')).toBeUndefined();
    expect(ssccFault('006141410000000418')).toBeUndefined();
    expect(grai('4012345111224')).toBe('04012345111224');
    expect(grai('04012345111224AB/1')).toBe('04012345111224AB/1');
  });

  it('refuses every single wrong digit and every swap of unequal neighbours that it can see', () => {
    const gln = '4012345000009';
    for (let at = 0; at < gln.length; at++)
      for (let digit = 0; digit < 10; digit++) {
        const wrong = gln.slice(0, at) + String(digit) + gln.slice(at + 1);
        expect(glnFault(wrong) === undefined, wrong).toBe(wrong === gln);
      }
    for (let at = 0; at + 1 < gln.length; at++) {
      const [a, b] = [Number(gln[at]), Number(gln[at + 1])];
      if (a === b || Math.abs(a - b) === 5) continue; // The weights 3 and 1 do not see a swap of digits five apart.
      expect(glnFault(gln.slice(0, at) + gln[at + 1]! + gln[at]! + gln.slice(at + 2))).toBeDefined();
    }
  });

  it('refuses other lengths, letters, zeros and foreign digits', () => {
    for (const text of ['', '9638507', '963850740', '400638133393A', '٤٠٠٦٣٨١٣٣٣٩٣١', '00000000', ' 96385074'])
      expect(gtin14(text), text).toBeUndefined();
    expect(graiFault('14012345111224')).toBe('must start with the filler digit 0');
    expect(graiFault('04012345111224' + 'A'.repeat(17))).toContain('serial');
    expect(graiFault('04012345111224é')).toContain('serial');
    expect(checkDigit('629104150021')).toBe('3');
  });
});

describe('decimals', () => {
  it.each([
    ['12.50', '12.5'],
    ['+012.000', '12'],
    ['-0.00', '0'],
    ['-0', '0'],
    ['-0.10', '-0.1'],
    ['00.5', '0.5'],
    ['100', '100'],
    ['.5', '0.5'],
    ['5.', '5'],
    ['1e-07', '0.0000001'],
    ['-1.25E+3', '-1250'],
    ['99999999999999999999999999.000000000000000001', '99999999999999999999999999.000000000000000001'],
  ])('%s becomes %s', (text, canonical) => {
    expect(canonicalDecimal(text)).toBe(canonical);
    expect(isCanonicalDecimal(canonical)).toBe(true);
    expect(isCanonicalDecimal(text)).toBe(text === canonical);
  });

  it.each(['', '.', 'NaN', 'Infinity', '-', '1,5', '1e', '1e999999999', '0x10', '1 2', '--1', '1.2.3', '-.'])(
    'refuses %j',
    (text) => {
      expect(canonicalDecimal(text)).toBeUndefined();
      expect(isCanonicalDecimal(text)).toBe(false);
    },
  );

  it('adds, subtracts, multiplies and compares exactly', () => {
    expect(addDecimals(['0.1', '0.2'])).toBe('0.3');
    expect(addDecimals(['9999999999999', '9999999999999'])).toBe('19999999999998');
    expect(addDecimals(['90071992547409931234', '1'])).toBe('90071992547409931235');
    expect(addDecimals([])).toBe('0');
    expect(subtractDecimals('1', '0.9')).toBe('0.1');
    expect(subtractDecimals('5', '5')).toBe('0');
    expect(multiplyDecimals(['1.1', '-1.1'])).toBe('-1.21');
    expect(divideDecimals('1', '8')).toBe('0.125');
    expect(divideDecimals('1', '3')).toBe('0.33333333333333333333');
    expect(divideDecimals('1', '0')).toBeUndefined();
    expect(negateDecimal('0')).toBe('0');
    expect(negateDecimal('-3.5')).toBe('3.5');
    expect(compareDecimals('10', '9.99')).toBe(1);
    expect(compareDecimals('-10', '9')).toBe(-1);
  });

  it('does not stumble over a long run of zeros', () => {
    expect(canonicalDecimal(`1.${'0'.repeat(200_000)}1`)).toHaveLength(200_003);
  });
});

describe('timestamps', () => {
  const utc = (text: string, zone?: string): unknown => canonicalTimestamp(text, zone);

  it.each([
    ['2026-03-01 08:15:02.123456+00', undefined, '2026-03-01T08:15:02.123456Z'],
    ['2026-03-01 08:15:02+05:30', undefined, '2026-03-01T02:45:02.000000Z'],
    ['2026-03-01T08:15:02.1Z', undefined, '2026-03-01T08:15:02.100000Z'],
    ['2026-03-01 08:15:02.123456', 'UTC', '2026-03-01T08:15:02.123456Z'],
    ['2026-03-01 08:15:02.123456', 'Europe/Berlin', '2026-03-01T07:15:02.123456Z'],
    ['2026-07-01 08:15:02.000001', 'Europe/Berlin', '2026-07-01T06:15:02.000001Z'],
    ['2026-03-01', 'Asia/Kolkata', '2026-02-28T18:30:00.000000Z'],
    // The hour that occurs twice: the first, that is summer time.
    ['2026-10-25 02:30:00', 'Europe/Berlin', '2026-10-25T00:30:00.000000Z'],
    // The hour that does not occur: the clock moves on by the gap.
    ['2026-03-29 02:30:00', 'Europe/Berlin', '2026-03-29T01:30:00.000000Z'],
    ['2026-11-01 01:30:00', 'America/New_York', '2026-11-01T05:30:00.000000Z'],
    ['1890-01-01 00:00:00', 'Europe/Amsterdam', '1889-12-31T23:42:30.000000Z'],
    ['0001-01-01 00:00:00', 'UTC', '0001-01-01T00:00:00.000000Z'],
    ['2024-02-29 23:59:59.9999999+00', undefined, '2024-02-29T23:59:59.999999Z'],
  ])('%s in %s is %s', (text, zone, expected) => {
    const result = utc(text, zone) as { text?: string };
    // Zones before 1900 differ by their tables; what matters is that seconds of an offset do not break anything.
    if (text.startsWith('1890')) expect(result.text).toMatch(/^18(89-12-31|90-01-01)T/);
    else expect(result).toEqual({ text: expected });
    expect(isCanonicalTimestamp(result.text!)).toBe(true);
  });

  it.each([
    ['2026-03-01 08:15:02', undefined, 'no time zone'],
    ['0000-00-00 00:00:00', 'UTC', 'zero date'],
    ['2026-00-10', 'UTC', 'zero date'],
    ['2026-02-30', 'UTC', 'no such day or time'],
    ['2023-02-29 00:00:00', 'UTC', 'no such day or time'],
    ['2026-02-03 24:00:00', 'UTC', 'no such day or time'],
    ['infinity', 'UTC', 'infinite or outside years 1 to 9999'],
    ['-infinity', 'UTC', 'infinite or outside years 1 to 9999'],
    ['0044-03-15 00:00:00 BC', 'UTC', 'infinite or outside years 1 to 9999'],
    ['12026-01-01 00:00:00', 'UTC', 'infinite or outside years 1 to 9999'],
    ['yesterday', 'UTC', 'not a timestamp'],
    ['', 'UTC', 'not a timestamp'],
  ])('refuses %j in %s: %s', (text, zone, fault) => {
    expect(utc(text, zone)).toEqual({ fault });
  });

  it('knows zones and days, and turns microseconds both ways', () => {
    expect(isTimeZone('Europe/Berlin')).toBe(true);
    expect(isTimeZone('Europe/Atlantis')).toBe(false);
    expect(isCanonicalDate('2024-02-29')).toBe(true);
    expect(isCanonicalDate('2100-02-29')).toBe(false);
    expect(timestampOfMicros(1_772_352_902_123_456)).toBe('2026-03-01T08:15:02.123456Z');
    expect(microsOfTimestamp('2026-03-01T08:15:02.123456Z')).toBe(1_772_352_902_123_456);
    expect(timestampOfMicros(-1)).toBe('1969-12-31T23:59:59.999999Z');
    expect(isCanonicalTimestamp('2026-02-30T00:00:00.000000Z')).toBe(false);
  });
});

describe('code lists', () => {
  it('knows units, currencies, countries and the form of places', () => {
    expect(['EA', 'KGM', 'LTR', 'MTR', 'XPX'].map(isUnit)).toEqual([true, true, true, true, true]);
    expect(['each', 'kg', ''].map(isUnit)).toEqual([false, false, false]);
    expect(['EUR', 'JPY', 'EURO', 'DEM'].map(isCurrency)).toEqual([true, true, false, false]);
    expect(['DE', 'GB', 'UK', 'de'].map(isCountry)).toEqual([true, true, false, false]);
    expect(['DEHAM', 'NLRTM', 'US2AB', 'UKLON', 'DEHA1', 'DE HAM'].map(isLocode)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  it('converts units of one kind exactly', () => {
    expect(convertUnit('2.5', 'KGM', 'GRM')).toBe('2500');
    expect(convertUnit('1', 'LBR', 'KGM')).toBe('0.45359237');
    expect(convertUnit('3', 'DZN', 'EA')).toBe('36');
    expect(convertUnit('7', 'EA', 'EA')).toBe('7');
    expect(convertUnit('1', 'KGM', 'MTR')).toBeUndefined();
    expect(convertUnit('1', 'XPX', 'EA')).toBeUndefined();
    expect(CONVERTIBLE_UNITS.filter((code) => !isUnit(code))).toEqual([]);
  });

  it('translates milestones, and does not take a gate for an identifier', () => {
    expect(X12_MILESTONES['D1']).toBe('delivered');
    expect(dcsaMilestone('ARRI', 'EST')).toBe('eta_updated');
    expect(dcsaMilestone('ARRI', 'ACT')).toBe('arrived_terminal');
    expect(dcsaMilestone('GTIN', 'ACT')).toBeUndefined();
  });
});
