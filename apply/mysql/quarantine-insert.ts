import type { SourceRow } from '../compact.ts';
import { keyJson, type QuarantinedChange, type RowFailure } from '../quarantine-entry.ts';
import { storedInPieces } from './quarantine-pieces.ts';
import { quoteLiteral, quoteNullable } from './sql.ts';
import type { TablePlan } from './table-plan.ts';

export const MOST_MESSAGE_CHARS = 2000;

/** Invariant 7: a change that cannot be applied is stored whole, in the transaction that passes it. */
export function quarantineSql(
  flow: string,
  source: string,
  item: SourceRow<TablePlan>,
  failure: RowFailure,
  maxPacketBytes: number,
): readonly string[] {
  const { plan, row } = item;
  const change: QuarantinedChange = {
    change: row,
    table: plan.table,
    target: { schema: plan.target.schema, name: plan.target.name },
    ...(plan.marksDeleted === true ? { commitTimeUs: item.commitTimeUs } : {}),
  };
  const { text, pieces } = storedInPieces(JSON.stringify(change), maxPacketBytes);
  return [
    'INSERT INTO waybill.quarantine (flow, source, table_schema, table_name, `key`, position, ordinal, op, reason,' +
      ` \`sqlstate\`, message, \`change\`, created_at) VALUES (${quoteLiteral(flow)}, ${quoteLiteral(source)},` +
      ` ${quoteLiteral(plan.table.schema)}, ${quoteLiteral(plan.table.name)}, ${quoteNullable(keyJson(item))},` +
      ` '${item.position}', ${item.ordinal}, '${row[0]}', ${quoteLiteral(failure.reason)},` +
      ` ${quoteNullable(failure.sqlState)}, ${quoteNullable(failure.message?.slice(0, MOST_MESSAGE_CHARS) ?? null)},` +
      ` ${quoteLiteral(text)}, UTC_TIMESTAMP(6))`,
    ...pieces,
  ];
}
