/** Changes that a person makes to a quarantined row before it is tried again. */
import { ReplicationError } from '../core/errors.ts';
import type { Value } from '../core/frame.ts';
import type { QuarantinedChange } from './quarantine-entry.ts';

/** New values by column: canonical text (binary as base64) or null. */
export type RowEdit = Readonly<Record<string, string | null>>;

/**
 * The change with new values in its after-image. Throws `config_invalid` for a change without one, an unknown column, a
 * key column (later changes of the row would not find it any more) or a null where the source has none.
 */
export function editChange(quarantined: QuarantinedChange, edit: RowEdit): QuarantinedChange {
  const { change, table } = quarantined;
  const [op, index, after, ...rest] = change;
  const refuse = (message: string): never => {
    throw new ReplicationError('config_invalid', message);
  };
  if (after === null || !['i', 'u', 'r'].includes(op)) return refuse('this change has no new values to edit');
  const values: Value[] = [...after];
  for (const [name, value] of Object.entries(edit)) {
    const at = table.columns.findIndex((column) => column.name === name);
    const column = table.columns[at];
    if (column === undefined) return refuse(`table ${table.schema}.${table.name} has no column ${name}`);
    if (table.key.includes(name)) return refuse(`${name} is of the key, which cannot be edited`);
    if (value === null && column.notNull) return refuse(`${name} may not be null`);
    values[at] = value;
  }
  return { ...quarantined, change: [op, index, values, ...rest] };
}
