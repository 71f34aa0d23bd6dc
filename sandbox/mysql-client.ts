import { createConnection, type RowDataPacket } from 'mysql2/promise';

/** The first row of what a statement gives, as text; empty for none. One connection is made for it. */
export async function queryRow(url: string, sql: string): Promise<(string | null)[]> {
  const connection = await createConnection({ uri: url, connectTimeout: 10_000 });
  // A connection may break at any time; whatever it was asked then rejects, which is enough.
  connection.on('error', () => undefined);
  try {
    const [rows] = await connection.query<RowDataPacket[]>({
      sql,
      rowsAsArray: true,
      typeCast: (field) => field.string(),
    });
    await connection.end();
    // A statement without a result set gives a header instead of rows.
    const [first = []] = Array.isArray(rows) ? rows : [];
    return first as unknown as (string | null)[];
  } finally {
    connection.destroy();
  }
}

/** A name as an identifier in SQL. */
export function quoteName(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}
