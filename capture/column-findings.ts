/** What `waybill check` says of the column rules of a source. */
import type { ColumnRules } from '../core/column-rules.ts';
import { asReplicationError } from '../core/errors.ts';
import type { Finding } from '../core/finding.ts';
import type { TableSchema } from '../core/frame.ts';

export type Add = (severity: Finding['severity'], what: string, message: string, remedy?: string) => void;

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
