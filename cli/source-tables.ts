/** The tables of a source, as its frames would describe them. */
import { matchingTables as matchingMysqlTables } from '../capture/mysql/catalog.ts';
import { connectChosen } from '../capture/mysql/choose-server.ts';
import { connectSource } from '../capture/postgres/connection.ts';
import { matchingTables } from '../capture/postgres/publication.ts';
import type { SourceConfig } from '../core/config.ts';
import type { TableSchema } from '../core/frame.ts';

/** Reads the catalog of a source. Throws `source_unreachable` or another classified error. */
export async function sourceTables(settings: SourceConfig): Promise<readonly TableSchema[]> {
  if (settings.kind !== 'postgres') {
    const { client } = await connectChosen(settings);
    try {
      return (await matchingMysqlTables(client, settings.kind, settings.tables)).map((table) => table.schema);
    } finally {
      client.end();
    }
  }
  const client = await connectSource(settings, 'waybill check');
  try {
    return (await matchingTables(client, settings.tables)).map((table) => table.schema);
  } finally {
    await client.end().catch(() => undefined);
  }
}
