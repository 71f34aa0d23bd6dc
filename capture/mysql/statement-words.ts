/**
 * What a statement may have done to a table, by the words in it: no SQL is parsed, and a word that is found by chance costs
 * a reading of the table. docs/schema-changes.md.
 */
import type { LoggedStatement } from './binlog-handler.ts';
import type { CapturedTable } from './catalog.ts';
import type { Statements } from './told-tables.ts';

const CHANGES_ROWS = /\b(?:MODIFY|CHANGE|CONVERT|RENAME|PRIMARY|AS)\b/i;
/** Not those of indexes and constraints. */
const ADDS_COLUMN = /\bADD\b(?!\s+(?:INDEX|KEY|UNIQUE|FULLTEXT|SPATIAL|PRIMARY|CONSTRAINT|FOREIGN|CHECK|PARTITION)\b)/i;
const DROPS = /\bDROP\b(?!\s+(?:INDEX|KEY|CONSTRAINT|FOREIGN|CHECK)\b)/i;
/** A column that keeps its name. */
const RETYPES = /\b(?:MODIFY|CHANGE|CONVERT)\b/i;
const GIVES_VALUES = /\b(?:NOT\s+NULL|DEFAULT|AUTO_INCREMENT)\b/i;
const GIVES_PLACE = /\b(?:FIRST|AFTER)\b/i;
/** Columns that get another name: not those that CHANGE gives the name that they have. */
const RENAMES_COLUMN = /\bRENAME\s+COLUMN\b|\bCHANGE\b(?!\s+(?:COLUMN\s+)?(`[^`]+`|[^\s`]+)\s+\1\s)/gi;

/**
 * What a statement that mentions `table` may have done to it. `since` is what statements before it may have done that the
 * stream was not told of.
 */
export function aboutStatement(
  statement: LoggedStatement,
  table: CapturedTable,
  since: Statements | undefined,
): Omit<Statements, 'count'> {
  const { verb, sql } = statement;
  const renames = renamesTable(statement);
  if (verb !== 'ALTER') return { changesRows: false, drops: since?.drops === true, renames };
  const drops = DROPS.test(sql) || since?.drops === true;
  const places = GIVES_PLACE.test(sql);
  const renamed = sql.match(RENAMES_COLUMN)?.length ?? 0;
  // One new name with a place shows as a column that is gone and one that is new, where no other took the old name.
  const exchanges = places && (renamed > 1 || (renamed === 1 && ADDS_COLUMN.test(sql)));
  const retypes = renames || RETYPES.test(sql);
  return { changesRows: changesRows(sql, table, drops), drops, exchanges, places, renames, retypes };
}

/** Whether rows may have other values behind an ALTER that the log does not tell. */
function changesRows(sql: string, table: CapturedTable, drops: boolean): boolean {
  if (CHANGES_ROWS.test(sql)) return true;
  // A column that was dropped comes again without its values.
  if (ADDS_COLUMN.test(sql)) return drops || GIVES_VALUES.test(sql);
  // The value of a new column was taken from what its default is by now.
  return /\bDEFAULT\b/i.test(sql) && table.columns.some(({ schema }) => schema.existing !== undefined);
}

/** Whether a statement may give a table another name: those of its columns and indexes are not its own. */
export function renamesTable({ sql }: LoggedStatement): boolean {
  return /\bRENAME\b(?!\s+(?:COLUMN|INDEX|KEY)\b)/i.test(sql);
}
