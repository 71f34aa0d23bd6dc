/**
 * The arithmetic of stock, in one place for every system: what is derived, what can be sold, and how far a channel is
 * oversold. Values are positional by the entity inventory_position.
 */
import { addDecimals, compareDecimals, isNegative, negateDecimal, subtractDecimals } from './decimal.ts';
import { inventoryPosition } from './entities-inventory.ts';
import type { RecordValues } from './entity.ts';

const at = (name: string): number => inventoryPosition.index.get(name)!;

/** Positions of the quantities. */
export const STOCK = {
  sku: at('sku'),
  location: at('location'),
  lot: at('lot'),
  owner: at('owner'),
  onHand: at('on_hand'),
  damaged: at('damaged'),
  quarantine: at('quarantine'),
  blocked: at('blocked'),
  onHold: at('on_hold'),
  allocated: at('allocated'),
  picked: at('picked'),
  softReserved: at('soft_reserved'),
  inTransit: at('in_transit'),
  available: at('available'),
} as const;

/** What is taken off on_hand. */
const CLAIMS = [STOCK.onHold, STOCK.allocated, STOCK.softReserved];

/**
 * The values with `on_hold` and `available` worked out: on_hold = damaged + quarantine + blocked, available = on_hand −
 * on_hold − allocated − soft_reserved. A quantity that no source supplies counts as zero; without on_hand nothing is
 * known of available. A negative available is the oversell signal and is never clamped.
 */
export function deriveStock(values: RecordValues): (string | null)[] {
  return deriveStockIn([...values]);
}

/** As `deriveStock`, written into the values that are given. */
export function deriveStockIn(values: (string | null)[]): (string | null)[] {
  const damaged = values[STOCK.damaged];
  const quarantine = values[STOCK.quarantine];
  const blocked = values[STOCK.blocked];
  values[STOCK.onHold] =
    isPresent(damaged) || isPresent(quarantine) || isPresent(blocked)
      ? addDecimals([damaged, quarantine, blocked].filter(isPresent))
      : null;
  values[STOCK.available] = availableOf(values);
  return values;
}

/** on_hand − on_hold − allocated − soft_reserved, or null without on_hand. */
export function availableOf(values: RecordValues): string | null {
  const onHand = values[STOCK.onHand];
  if (!isPresent(onHand)) return null;
  let rest = onHand;
  for (const claim of CLAIMS) {
    const claimed = values[claim];
    if (isPresent(claimed) && claimed !== '0') rest = subtractDecimals(rest, claimed);
  }
  return rest;
}

/** What a channel may offer: max(0, available − its safety stock). The only place where the figure is clamped. */
export function sellable(available: string | null, safetyStock = '0'): string {
  if (available === null) return '0';
  const rest = subtractDecimals(available, safetyStock);
  return isNegative(rest) ? '0' : rest;
}

/** Units promised beyond what is there: −available where it is negative, else zero. */
export function oversold(available: string | null): string {
  return available !== null && isNegative(available) ? negateDecimal(available) : '0';
}

/**
 * Units that may be oversold before a newer `available` arrives: units sold per second × seconds that the figure is old.
 */
export function oversellExposure(unitsPerSecond: number, stalenessSeconds: number): number {
  return Math.max(0, unitsPerSecond) * Math.max(0, stalenessSeconds);
}

/** Whether a ≤ b; true where one of them is not known. */
export function atMost(a: string | null | undefined, b: string | null | undefined): boolean {
  return !isPresent(a) || !isPresent(b) || compareDecimals(a, b) <= 0;
}

export function isPresent(value: string | null | undefined): value is string {
  return typeof value === 'string';
}
