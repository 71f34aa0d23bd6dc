/** What becomes of a table whose source changed when its target could not follow. docs/schema-changes.md. */
import type { FlowConfig } from '../core/config.ts';
import type { ErrorCode, ReplicationError } from '../core/errors.ts';
import type { TableSchema } from '../core/frame.ts';
import type { TableRecord } from './followed-tables.ts';

/** What is not the table's fault: the flow waits, or halts, as a whole. */
const OF_THE_FLOW: ReadonlySet<ErrorCode> = new Set([
  'target_unreachable',
  'target_auth',
  'target_conflict',
  'target_fenced',
  'target_full',
  'internal',
]);

/** Whether a failure concerns the flow as a whole. */
export function isOfTheFlow(error: ReplicationError): boolean {
  return OF_THE_FLOW.has(error.code);
}

/** The record of a table that is stopped; throws the error where it concerns the flow as a whole. */
export function stoppedRecord(
  table: TableSchema,
  before: TableRecord | undefined,
  error: ReplicationError,
): TableRecord {
  const first = before?.definition === undefined;
  if (isOfTheFlow(error) || (first && error.code === 'target_privilege')) throw error;
  return {
    schema: table.schema,
    name: table.name,
    definition: before?.definition,
    kept: before?.kept ?? [],
    pending: before?.pending ?? [],
    state: 'stopped',
    reason: error.message,
  };
}

/** Whether a target table is renamed with its source rather than said to be gone: its new name follows in the stream. */
export function isRenamedAlong(settings: Pick<FlowConfig, 'renamed_tables'>, why: string): boolean {
  return settings.renamed_tables === 'rename' && /^renamed to [^,]*$/.test(why);
}

/** The reason that a record gives for a table which the source no longer has and the target keeps. */
export function goneReason(why: string): string {
  return `${why} at the source; the table in the target stays as it is`;
}

/** Why a table is stopped that the target had once, or whose `columns` it had. Made again, it would be empty. */
export function lostReason(columns?: readonly string[]): string {
  if (columns === undefined) return 'it is missing, and had been written';
  return `${columns.length === 1 ? `column ${columns[0]} is` : `columns ${columns.join(', ')} are`} missing, and had been written`;
}
