/** `waybill.tables`: what each flow knows of the tables that it follows, in the same transaction as their rows. */
import type { ClientBase } from 'pg';
import type { TableSchema } from '../../core/frame.ts';
import type { TableRecord } from '../followed-tables.ts';
import { quoteLiteral, quoteNullable } from './sql.ts';
import { targetError } from './target-error.ts';

interface Row {
  readonly schema: string;
  readonly name: string;
  readonly definition: TableSchema | null;
  readonly kept: string[];
  readonly pending: string[];
  readonly state: TableRecord['state'];
  readonly reason: string | null;
}

/** The records of a flow; with `noted` only of tables that it does not follow. */
export async function readTableRecords(client: ClientBase, flow: string, noted = false): Promise<TableRecord[]> {
  try {
    const there = await client.query<{ there: boolean }>("SELECT to_regclass('waybill.tables') IS NOT NULL AS there");
    if (there.rows[0]?.there !== true) return [];
    const { rows } = await client.query<Row>(
      `SELECT table_schema AS schema, table_name AS name, definition, kept, pending, state, reason
         FROM waybill.tables WHERE flow = $1 ${noted ? "AND state <> 'follows'" : ''} ORDER BY table_schema, table_name`,
      [flow],
    );
    return rows.map((row) => ({ ...row, definition: row.definition ?? undefined, reason: row.reason ?? undefined }));
  } catch (thrown) {
    throw targetError(thrown, `reading the tables of flow ${flow}`);
  }
}

export function storeRecordSql(flow: string, source: string, record: TableRecord): string {
  const { definition, kept, pending } = record;
  const values = [
    quoteLiteral(flow),
    quoteLiteral(source),
    quoteLiteral(record.schema),
    quoteLiteral(record.name),
    quoteNullable(definition === undefined ? null : JSON.stringify(definition)),
    quoteLiteral(JSON.stringify(kept)),
    quoteLiteral(JSON.stringify(pending)),
    quoteLiteral(record.state),
    quoteNullable(record.reason ?? null),
  ];
  return (
    'INSERT INTO waybill.tables (flow, source, table_schema, table_name, definition, kept, pending, state, reason)' +
    ` VALUES (${values.join(', ')}) ON CONFLICT (flow, source, table_schema, table_name) DO UPDATE SET` +
    ' definition = EXCLUDED.definition, kept = EXCLUDED.kept, pending = EXCLUDED.pending, state = EXCLUDED.state,' +
    ' reason = EXCLUDED.reason, updated_at = clock_timestamp()'
  );
}

export function deleteRecordSql(flow: string, source: string, table: { schema: string; name: string }): string {
  return (
    `DELETE FROM waybill.tables WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(source)}` +
    ` AND table_schema = ${quoteLiteral(table.schema)} AND table_name = ${quoteLiteral(table.name)}`
  );
}
