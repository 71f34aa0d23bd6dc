/** The tables of a source, as its frames would describe them. */
import type { SourceConfig } from '../core/config.ts';
import type { TableSchema } from '../core/frame.ts';

/** Reads the catalog of a source. Throws `source_unreachable` or another classified error. */
export async function sourceTables(settings: SourceConfig): Promise<readonly TableSchema[]> {
  if (settings.kind !== 'postgres') {
    const { connectChosen } = await import('../capture/mysql/choose-server.ts');
    const { matchingTables } = await import('../capture/mysql/catalog.ts');
    const { client } = await connectChosen(settings);
    try {
      return (await matchingTables(client, settings.kind, settings.tables)).map((table) => table.schema);
    } finally {
      client.end();
    }
  }
  const { connectSource } = await import('../capture/postgres/connection.ts');
  const { matchingTables } = await import('../capture/postgres/publication.ts');
  const client = await connectSource(settings, 'waybill check');
  try {
    return (await matchingTables(client, settings.tables)).map((table) => table.schema);
  } finally {
    await client.end().catch(() => undefined);
  }
}
