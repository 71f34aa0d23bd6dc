/** The column rules of a source: what `waybill check` says of them, and what a capture begins with. */
import { ColumnRules } from '../core/column-rules.ts';
import type { SourceConfig } from '../core/config.ts';
import { asReplicationError } from '../core/errors.ts';
import type { Finding } from '../core/finding.ts';
import type { TableSchema } from '../core/frame.ts';
import type { Logger } from '../core/logger.ts';

export type Add = (severity: Finding['severity'], what: string, message: string, remedy?: string) => void;

/** The rules of a capture. Throws `source_columns` where a table does not allow one. */
export function compileColumnRules(
  { settings, log }: { readonly settings: SourceConfig; readonly log: Logger },
  tables: readonly { readonly schema: TableSchema }[],
): ColumnRules {
  const rules = ColumnRules.compile(settings.columns);
  for (const { schema } of tables) rules.publish(schema);
  for (const rule of rules.unmatched(tables.map(({ schema }) => schema)))
    log.warn({ rule }, 'a rule of `columns` names no column of the captured tables');
  return rules;
}

/** Names rules that no column matches (a typing error would let values through) and rules that cannot be kept. */
export function checkColumnRules(rules: ColumnRules, tables: readonly TableSchema[], add: Add): void {
  for (const rule of rules.unmatched(tables))
    add('error', 'columns', `${rule} matches no column of the captured tables`, 'Correct sources.*.columns.');
  let guarded = 0;
  for (const table of tables)
    try {
      guarded += rules.publish(table).rules?.size ?? 0;
    } catch (thrown) {
      const error = asReplicationError(thrown);
      if (error.code !== 'source_columns') throw error;
      add('error', 'columns', error.message, error.remedy);
    }
  if (guarded > 0) add('ok', 'columns', `${guarded} column(s) do not reach the stream as they are`);
}
