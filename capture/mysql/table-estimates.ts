/** How much there is to be read of tables, as the server guesses. */
import type { TableProgress } from '../snapshot-request.ts';
import type { Flavour } from './binlog-handler.ts';
import type { CapturedTable } from './catalog.ts';
import { guessSql } from './chunk-sql.ts';
import { quoteLiteral, type SqlClient } from './connection.ts';
import { failedForDdl } from './source-error.ts';

/** Tables that one question names. */
const MOST_NAMED = 100;
/** Where EXPLAIN says how many rows it reckons with. */
const MYSQL_ROWS = 9;
const MARIADB_ROWS = 8;

/** How many rows there are about, as the server keeps count. Gives the bytes of one on average; 0 where it does not tell. */
export async function estimateTables(
  client: SqlClient,
  tables: readonly TableProgress[],
): Promise<Map<TableProgress, number>> {
  const whole = tables.filter(({ keys, span }) => keys === undefined && span === undefined);
  if (whole.length === 0) return new Map();
  const names = whole.map(({ schema, name }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`);
  const named = names.length > MOST_NAMED ? '' : ` AND (TABLE_SCHEMA, TABLE_NAME) IN (${names.join(', ')})`;
  const rows = await client.query(
    `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, AVG_ROW_LENGTH FROM information_schema.TABLES WHERE TABLE_ROWS IS NOT NULL${named}`,
    'estimating the rows of tables',
  );
  const found = new Map(rows.map(([schema, name, ...counts]) => [`${schema}.${name}`, counts.map(Number)]));
  const bytes = new Map<TableProgress, number>();
  for (const table of whole) {
    const [count, rowBytes] = found.get(`${table.schema}.${table.name}`) ?? [];
    if (count !== undefined) table.estimate = count;
    bytes.set(table, rowBytes ?? 0);
  }
  return bytes;
}

/** How many rows of a range there are about, as the server plans with. */
export async function estimateSpan(
  { client, flavour }: { readonly client: SqlClient; readonly flavour: Flavour },
  table: TableProgress,
  captured: CapturedTable,
): Promise<void> {
  if (table.span === undefined) return;
  const plan = await client
    .query(guessSql(captured, table.span), 'estimating the rows of a range')
    .catch((thrown: unknown) => {
      if (failedForDdl(thrown)) return [];
      throw thrown;
    });
  const count = Number(plan[0]?.[flavour === 'mysql' ? MYSQL_ROWS : MARIADB_ROWS] ?? Number.NaN);
  if (Number.isFinite(count)) table.estimate = count;
}
