import { expect, it } from 'vitest';
import { inventoryPosition } from '../../transform/canonical/entities-inventory.ts';
import { STOCK } from '../../transform/canonical/inventory.ts';
import { SalesRate } from '../../transform/sales-rate.ts';

const position = (available: string | null): (string | null)[] => {
  const values: (string | null)[] = inventoryPosition.fields.map(() => null);
  values[STOCK.available] = available;
  return values;
};

it('counts what available falls by in the last minute, and nothing else', () => {
  const rate = new SalesRate();
  rate.take(position('10'), position('4'), 1000);
  rate.take(position('4'), position('9'), 1500);
  rate.take(undefined, position('3'), 1600);
  rate.take(position(null), position('3'), 1700);
  rate.take(position('-2.5'), position('-8.5'), 30_000);
  expect(rate.perSecond(31_000)).toBe(12 / 60);
  expect(rate.exposure(30, 31_000)).toBe(6);
  expect(rate.perSecond(62_000)).toBe(6 / 60);
  expect(rate.exposure(0, 62_000)).toBe(0);
});
