/** The range of keys that a mark names, where rows that were not seen in it may be removed. */
import { dialectOf } from '../core/column-kind.ts';
import type { FlowConfig } from '../core/config.ts';
import type { ColumnSchema, Dialect, Value } from '../core/frame.ts';
import { boundsOfMark, isOrdered, keyOrder, type KeyBounds } from '../core/key-order.ts';
import type { PlanShape } from './table-changes.ts';

/**
 * Undefined where the target might not say as the source does which rows lie in the range: then all of them stay. `typeAt`
 * gives the type of a column in the target.
 */
export function markedRange(
  { table, key }: PlanShape,
  content: readonly Value[],
  settings: Pick<FlowConfig, 'zero_dates'>,
  dialect: Dialect,
  typeAt: (column: ColumnSchema) => string | undefined,
): KeyBounds | undefined {
  const bounds = boundsOfMark(content);
  if (bounds === undefined || !isOrdered(table, bounds, { dialect, typeAt })) return undefined;
  const source = dialectOf(table);
  if (source === 'postgres' || settings.zero_dates !== 'epoch') return bounds;
  // Dates that are moved to 1970 lie elsewhere than in the source.
  const isMoved = (index: number): boolean =>
    /^(?:date|time)$/.test(keyOrder(source, table.columns[index]!.type) ?? '');
  return key.some(isMoved) ? undefined : bounds;
}
