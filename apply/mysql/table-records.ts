/** `waybill.tables`: what each flow knows of the tables that it follows, in the same transaction as their rows. */
import type { TableSchema } from '../../core/frame.ts';
import type { TableRecord } from '../followed-tables.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { targetError } from './target-error.ts';
import { waybillTables } from './waybill-database.ts';

/** The records of a flow, none where the target has never been written to; with `noted` only those not followed. */
export async function readTableRecords(session: MysqlSession, flow: string, noted = false): Promise<TableRecord[]> {
  try {
    if (!(await waybillTables(session)).has('tables')) return [];
    const rows = await session.rows(
      `SELECT table_schema, table_name, definition, kept, pending, state, reason FROM waybill.\`tables\`
        WHERE flow = ${quoteLiteral(flow)} ${noted ? "AND state <> 'follows'" : ''} ORDER BY table_schema, table_name`,
    );
    return rows.map(([schema, name, definition, kept, pending, state, reason]) => ({
      schema: schema!,
      name: name!,
      definition: definition === null || definition === undefined ? undefined : (JSON.parse(definition) as TableSchema),
      kept: JSON.parse(kept!) as string[],
      pending: JSON.parse(pending!) as string[],
      state: state as TableRecord['state'],
      reason: reason ?? undefined,
    }));
  } catch (thrown) {
    throw targetError(thrown, `reading the tables of flow ${flow}`);
  }
}

export function storeRecordSql(flow: string, source: string, record: TableRecord): string {
  const { definition, kept, pending, reason } = record;
  const values = [
    quoteLiteral(flow),
    quoteLiteral(source),
    quoteLiteral(record.schema),
    quoteLiteral(record.name),
    definition === undefined ? 'NULL' : quoteLiteral(JSON.stringify(definition)),
    quoteLiteral(JSON.stringify(kept)),
    quoteLiteral(JSON.stringify(pending)),
    quoteLiteral(record.state),
    reason === undefined ? 'NULL' : quoteLiteral(reason),
    'UTC_TIMESTAMP(6)',
  ];
  return (
    'REPLACE INTO waybill.`tables` (flow, source, table_schema, table_name, definition, kept, pending, state, reason,' +
    ` updated_at) VALUES (${values.join(', ')})`
  );
}

export function deleteRecordSql(flow: string, source: string, table: { schema: string; name: string }): string {
  return (
    `DELETE FROM waybill.\`tables\` WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(source)}` +
    ` AND table_schema = ${quoteLiteral(table.schema)} AND table_name = ${quoteLiteral(table.name)}`
  );
}
