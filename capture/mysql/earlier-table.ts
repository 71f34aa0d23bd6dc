/**
 * What the catalog said of a table before it said something else that no version of the table tells: which columns were
 * generated, what ends a row's time, and which values the log has as plain bytes. It holds for rows of the log until the
 * statement passes that made the difference.
 */
import type { GtidSet } from '../../core/gtid-set.ts';
import type { LoggedStatement } from './binlog-handler.ts';
import type { CapturedTable } from './catalog.ts';
import { baseType, HINTED } from './log-type.ts';

/** A table as it was before. */
export interface EarlierTable {
  readonly table: CapturedTable;
  /** Columns that are another way by now. */
  readonly names: readonly string[];
  /** What the source had executed when the catalog said otherwise: behind that the log has nothing of how it was. */
  readonly until: GtidSet;
}

/** The columns of `before` of which the log does not tell that they are another way `now`. */
export function hiddenDifferences(before: CapturedTable, now: CapturedTable): string[] {
  const current = new Map(now.columns.map((column) => [column.schema.name, column]));
  const names = before.columns
    .filter(({ schema, generated, shown }) => {
      const other = current.get(schema.name);
      const base = baseType(shown);
      if (generated) return other?.generated !== true;
      if (HINTED.has(base)) return other === undefined || baseType(other.shown) !== base;
      return other !== undefined && (other.generated || HINTED.has(baseType(other.shown)));
    })
    .map(({ schema }) => schema.name);
  return before.rowEnd === now.rowEnd ? names : [...names, before.rowEnd ?? now.rowEnd!];
}

/** Whether a statement about the table may have made the difference. */
export function makesDifference({ verb, sql }: LoggedStatement, names: readonly string[]): boolean {
  if (verb !== 'ALTER' || /\bSYSTEM\s+VERSIONING\b/i.test(sql)) return true;
  const words = sql.toLowerCase();
  return names.some((name) => words.includes(name.toLowerCase().replaceAll('`', '``')));
}
