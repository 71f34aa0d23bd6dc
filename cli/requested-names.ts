/** The tables that `waybill snapshot` names, looked at before anything is asked for. */
import { readProgress } from '../capture/snapshot-request.ts';
import type { NatsConfig, SourceConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { openBucket } from '../core/lease.ts';
import { connectNats } from '../core/nats.ts';
import { unknownName } from './context.ts';
import { sourceTables } from './source-tables.ts';

/**
 * Throws `config_invalid` for a table that the source does not have, or that its configuration does not choose. The
 * source is asked only about tables that its capture has not read before.
 */
export async function requireTables(
  config: NatsConfig,
  source: string,
  settings: SourceConfig,
  tables: readonly string[],
): Promise<void> {
  const bare = tables.find((table) => !table.includes('.'));
  if (bare !== undefined) throw new ReplicationError('config_invalid', `table ${bare} must be given as schema.table`);
  if (tables.length === 0) return;
  const read = new Set(await namesRead(config, source));
  if (tables.every((table) => read.has(table))) return;
  const there = (await sourceTables(settings)).map(({ schema, name }) => `${schema}.${name}`);
  const wrong = tables.find((table) => !there.includes(table));
  if (wrong !== undefined)
    unknownName('captured table', wrong, there, 'tables of the source that its configuration chooses');
}

async function namesRead(config: NatsConfig, source: string): Promise<string[]> {
  const nats = await connectNats(config, 'waybill snapshot');
  try {
    const progress = await readProgress(await openBucket(nats, config), source);
    return (progress?.tables ?? []).map(({ schema, name }) => `${schema}.${name}`);
  } finally {
    await nats.close();
  }
}
