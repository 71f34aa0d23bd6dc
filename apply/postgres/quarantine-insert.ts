import type { RowChange, TableSchema } from '../../core/frame.ts';
import type { SourceRow } from '../compact.ts';
import { quoteLiteral, quoteNullable } from './sql.ts';
import type { TablePlan } from './table-plan.ts';

export interface RowFailure {
  readonly reason: string;
  readonly sqlState: string | null;
  readonly message: string | null;
}

export const HELD: RowFailure = { reason: 'held', sqlState: null, message: null };

/** What `waybill.quarantine.change` holds: enough to apply the change later without the stream. */
export interface QuarantinedChange {
  readonly change: RowChange;
  readonly table: TableSchema;
  readonly target: { readonly schema: string; readonly name: string };
}

/** The key of a row as a JSON array of its key values; null in a table without a key. */
function keyJson({ plan, row }: SourceRow<TablePlan>): string | null {
  if (plan.key.length === 0) return null;
  const image = row[2] ?? row[4]!;
  return JSON.stringify(
    plan.key.map((index) => (typeof image[index] === 'string' ? image[index] : (row[4]?.[index] ?? null))),
  );
}

/** Invariant 7: a change that cannot be applied is stored whole, in the transaction that passes it. */
export function quarantineSql(flow: string, source: string, item: SourceRow<TablePlan>, failure: RowFailure): string {
  const { plan, row } = item;
  const change: QuarantinedChange = {
    change: row,
    table: plan.table,
    target: { schema: plan.target.schema, name: plan.target.name },
  };
  return (
    'INSERT INTO waybill.quarantine (flow, source, table_schema, table_name, key, position, ordinal, op, reason,' +
    ` sqlstate, message, change) VALUES (${quoteLiteral(flow)}, ${quoteLiteral(source)},` +
    ` ${quoteLiteral(plan.table.schema)}, ${quoteLiteral(plan.table.name)}, ${quoteNullable(keyJson(item))},` +
    ` '${item.position}', ${item.ordinal}, '${row[0]}', ${quoteLiteral(failure.reason)},` +
    ` ${quoteNullable(failure.sqlState)}, ${quoteNullable(failure.message)}, ${quoteLiteral(JSON.stringify(change))})`
  );
}
