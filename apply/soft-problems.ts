/** Why a table cannot be written by a flow with `deletes: soft`, or not by another one any more. */
import type { FlowConfig } from '../core/config.ts';
import type { TableSchema } from '../core/frame.ts';
import { compileTablePatterns } from '../core/table-pattern.ts';
import type { TableRecord } from './followed-tables.ts';
import { DELETED_AT, isDeletedAt } from '../core/soft-deletes.ts';

/** Where the remedy for these is described. */
export const SOFT_REMEDY = 'see docs/runbook.md#deleted-rows-that-stay';

/** What of a source table does not go with the flow's deletes, with the remedy. */
export function softProblems(table: TableSchema, { deletes }: Pick<FlowConfig, 'deletes'>): string[] {
  if (deletes !== 'soft') return [];
  const problems: string[] = [];
  if (table.key.length === 0)
    problems.push(
      'it has no key, by which deletes: soft finds the row to mark; give it one at the source, or take it into a flow of its own (tables) with deletes: apply',
    );
  const own = table.columns.find(({ name }) => isDeletedAt(name));
  if (own !== undefined)
    problems.push(
      `its column ${own.name} has the name of the one that deletes: soft adds; exclude it (sources.*.columns), or take the table into a flow of its own (tables) with deletes: apply`,
    );
  return problems;
}

/** The tables that the flow has in the target already, and of which rows that go are marked from now on. */
export function marked(records: readonly TableRecord[], settings: FlowConfig): TableSchema[] {
  if (settings.deletes !== 'soft') return [];
  const includes = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
  return records.flatMap(({ state, definition }) =>
    state === 'follows' &&
    definition !== undefined &&
    includes(definition.schema, definition.name) &&
    softProblems(definition, settings).length === 0
      ? [definition]
      : [],
  );
}

/** What is said of a column of ours that an earlier `deletes: soft` left in a table. `qualified` is the table as SQL names it. */
export function leftBehind(qualified: string, column: string): string {
  return `it has the column ${DELETED_AT} of a flow with deletes: soft, which would go on saying of rows that are there that they are gone; DELETE FROM ${qualified} WHERE ${column} IS NOT NULL; ALTER TABLE ${qualified} DROP COLUMN ${column}`;
}
