/** Which keys lie in a range that a snapshot has read: those that are kept and were not read are gone. */
import type { TableSchema } from '../../core/frame.ts';
import { isOrdered, keyOrder, type KeyBounds, type KeyOrder } from '../../core/key-order.ts';
import { canonicalDecimal, compareDecimals } from '../canonical/decimal.ts';
import { keyParts } from './key-texts.ts';

type Compare = (a: string, b: string) => number;

const asTexts: Compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const COMPARE: Readonly<Record<KeyOrder, Compare>> = {
  number: asNumbers,
  'long number': asNumbers,
  date: asTexts,
  // All are in UTC, or none has a zone.
  time: (a, b) => asTexts(a.replace(/\+00$/, ''), b.replace(/\+00$/, '')),
  bytes: (a, b) => Buffer.compare(Buffer.from(a, 'base64'), Buffer.from(b, 'base64')),
  uuid: asTexts,
};
/** Days and times that sort by other rules than their texts. */
const ODD = /infinity|BC$|^0000|^[+-]?\d{5,}-|-00/;

/** Whether a value is one of those of which it is certain where they lie. */
function isPlain(order: KeyOrder, text: string): boolean {
  if (order === 'date' || order === 'time') return !ODD.test(text);
  return COMPARE[order] !== asNumbers || canonicalDecimal(text) !== undefined;
}

/** A test of keys as one text; undefined where nobody can say for certain what lies in the range. */
export function rangeOf(table: TableSchema, { from, to }: KeyBounds): ((key: string) => boolean) | undefined {
  if (!isOrdered(table, { from, to })) return undefined;
  const dialect = table.dialect ?? 'postgres';
  const orders = table.key.map((name) => keyOrder(dialect, table.columns.find((column) => column.name === name)!.type));
  const compare = (parts: readonly string[], bound: readonly string[]): number => {
    for (const [index, value] of bound.entries()) {
      const order = COMPARE[orders[index]!](parts[index]!, value);
      if (order !== 0) return order;
    }
    return 0;
  };
  const compared = Math.max(from?.length ?? 0, to?.length ?? 0);
  return (key) => {
    const parts = table.key.length === 1 ? [key] : keyParts(key);
    for (let i = 0; i < compared; i++) if (!isPlain(orders[i]!, parts[i]!)) return false;
    return (from === null || compare(parts, from) >= 0) && (to === null || compare(parts, to) < 0);
  };
}

function asNumbers(a: string, b: string): number {
  return compareDecimals(canonicalDecimal(a)!, canonicalDecimal(b)!);
}
