/** Which schema of a target (MySQL: database) a table's rows go to. */
import { CANONICAL_SOURCE } from '../core/canonical-config.ts';
import type { FlowConfig } from '../core/config.ts';
import type { TableSchema } from '../core/frame.ts';

/** What Waybill keeps in every target. */
export const WAYBILL_SCHEMA = 'waybill';

/** Flows of records bring what their mappings hold as rows of the target's own quarantine. */
export function targetSchema(
  table: Pick<TableSchema, 'schema'>,
  settings: Pick<FlowConfig, 'mirror' | 'schema'>,
): string {
  if (isQuarantine(table, settings)) return WAYBILL_SCHEMA;
  return settings.schema ?? table.schema;
}

/** Whether rows of a table are entries of the quarantine. */
export function isQuarantine(table: Pick<TableSchema, 'schema'>, { mirror }: Pick<FlowConfig, 'mirror'>): boolean {
  return mirror === CANONICAL_SOURCE && table.schema === WAYBILL_SCHEMA;
}

/**
 * Whether the target learns of rows of a table that go at the source: they go there, or are marked. What a mapping holds does in any case: it is no row of
 * the source.
 */
export function appliesDeletes(
  table: Pick<TableSchema, 'schema'>,
  settings: Pick<FlowConfig, 'mirror' | 'deletes'>,
): boolean {
  return settings.deletes !== 'ignore' || isQuarantine(table, settings);
}
