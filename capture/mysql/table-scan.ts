/** Reads tables of a MySQL or MariaDB source in pieces, each by a statement of its own: no lock, no long transaction. */
import { ColumnRules } from '../../core/column-rules.ts';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { FIRST_ROWS, nextPieceRows, type ScannedRow, type TableScan, type Work } from '../table-scan.ts';
import { matchingTables, type CapturedTable } from './catalog.ts';
import { connectChosen } from './choose-server.ts';
import { readTexts } from './chunk-rows.ts';
import { chunkSql } from './chunk-sql.ts';
import type { SqlClient } from './connection.ts';
import { guarded, publishRead } from './published-table.ts';

export async function openMysqlScan(settings: MysqlSourceConfig, work: Work): Promise<TableScan> {
  const { client } = await connectChosen(settings);
  try {
    const rules = ColumnRules.compile(settings.columns);
    const found = await matchingTables(client, settings.kind, settings.tables);
    const tables = new Map(found.map((table) => [publishRead(table, rules).table.schema, table]));
    return {
      tables: [...tables.keys()],
      pieces: (table) => pieces(client, tables.get(table)!, rules, work),
      close: async () => client.end(),
    };
  } catch (thrown) {
    client.end();
    throw thrown;
  }
}

async function* pieces(
  client: SqlClient,
  table: CapturedTable,
  rules: ColumnRules,
  work: Work,
): AsyncGenerator<readonly ScannedRow[], void, void> {
  const { schema } = table;
  const { guards, excluded } = publishRead(table, rules);
  const omitted = schema.columns.map(({ name }) => excluded.has(name));
  const keyIndexes = schema.key.map((key) => schema.columns.findIndex(({ name }) => name === key));
  const published = (row: ScannedRow): ScannedRow => {
    if (guards === undefined) return row;
    return row
      .map((text, i) => (text === null || guards[i] === undefined ? text : guarded(guards[i], text)))
      .filter((_, i) => !omitted[i]!);
  };
  let cursor: readonly string[] | null = null;
  let limit: number | undefined = keyIndexes.length === 0 ? undefined : FIRST_ROWS;
  for (;;) {
    const sql = chunkSql(table, cursor, limit, excluded);
    const rows = await work(() => readTexts(client, table, sql, `reading ${schema.schema}.${schema.name}`));
    yield rows.map(published);
    const last = rows.at(-1);
    if (limit === undefined || rows.length < limit || last === undefined) return;
    cursor = keyIndexes.map((index) => last[index] ?? '');
    const bytes = rows.reduce((sum, row) => sum + row.reduce((width, text) => width + (text?.length ?? 0), 0), 0);
    limit = nextPieceRows(rows.length, bytes);
  }
}
