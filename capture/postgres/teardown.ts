/** Leaving without a trace: the slot, the publication, the stream and what the bucket holds of a source. */
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { publicationName, slotName, type NatsConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats, natsError } from '../../core/nats.ts';
import { forgetTables } from '../table-registry.ts';
import { connectSource } from './connection.ts';
import { ddlTraces } from './ddl-trigger-traces.ts';
import { quoteIdent } from './publication.ts';
import { readSlot } from './slot.ts';
import { sourceError } from './source-error.ts';

/** What was removed; `kept`: why it was not. */
export interface TornDown {
  readonly what: string;
  readonly kept?: string;
}

/** What `teardownSource` would remove, a line each. */
export async function describeTeardown(
  name: string,
  settings: PostgresSourceConfig,
  config: NatsConfig,
): Promise<string[]> {
  const lines: string[] = [];
  const client = await connectSource(settings, 'waybill teardown');
  try {
    const slot = slotName(name, settings, config.prefix);
    const info = await readSlot(client, slot);
    if (info !== undefined)
      lines.push(
        `replication slot ${slot}${info.active ? ' (in use: stop the capture first)' : ''}, which keeps ${info.retainedBytes} bytes of WAL`,
      );
    const publication = publicationName(name, settings, config.prefix);
    const found = await client.query('select 1 from pg_publication where pubname = $1', [publication]);
    if (found.rowCount === 1) lines.push(`publication ${publication}`);
    for (const { what, kept } of await ddlTraces(client, slot))
      lines.push(kept === undefined ? what : `${what}: ${kept}`);
  } finally {
    await client.end();
  }
  const nats = await connectNats(config, 'waybill teardown');
  try {
    const stream = cdcStreamName(config.prefix, name);
    const info = await nats.manager.streams.info(stream).catch((thrown: unknown) => {
      const error = natsError(thrown, `stream ${stream}`);
      if (error.code === 'stream_missing') return undefined;
      throw error;
    });
    if (info !== undefined)
      lines.push(
        `stream ${stream} with ${info.state.messages} frames (${info.state.bytes} bytes): targets that have not applied them never will`,
      );
  } finally {
    await nats.close();
  }
  return lines;
}

/**
 * Removes them, while nobody captures. Returns what was removed, and what had to stay. A slot in use is refused
 * (`source_slot_in_use`).
 */
export async function teardownSource(
  name: string,
  settings: PostgresSourceConfig,
  config: NatsConfig,
): Promise<TornDown[]> {
  const torn: TornDown[] = [];
  const client = await connectSource(settings, 'waybill teardown');
  try {
    const slot = slotName(name, settings, config.prefix);
    if ((await readSlot(client, slot)) !== undefined) {
      await client.query('select pg_drop_replication_slot($1)', [slot]);
      torn.push({ what: `replication slot ${slot}` });
    }
    const publication = publicationName(name, settings, config.prefix);
    if ((await client.query('select 1 from pg_publication where pubname = $1', [publication])).rowCount === 1) {
      await client.query(`drop publication ${quoteIdent(publication)}`);
      torn.push({ what: `publication ${publication}` });
    }
    for (const { what, dropSql, kept } of await ddlTraces(client, slot)) {
      if (kept === undefined) await client.query(dropSql);
      torn.push({ what, ...(kept === undefined ? {} : { kept }) });
    }
  } catch (thrown) {
    throw sourceError(thrown, `tearing source ${name} down`);
  } finally {
    await client.end();
  }
  const nats = await connectNats(config, 'waybill teardown');
  try {
    const stream = cdcStreamName(config.prefix, name);
    const gone = await nats.manager.streams.delete(stream).catch((thrown: unknown) => {
      const error = natsError(thrown, `stream ${stream}`);
      if (error.code === 'stream_missing') return false;
      throw error;
    });
    if (gone) torn.push({ what: `stream ${stream}` });
    const bucket = await openBucket(nats, config);
    for (const key of [`snapshot.${name}`, `snapshot-request.${name}`]) await bucket.purge(key);
    await forgetTables(bucket, name);
  } finally {
    await nats.close();
  }
  return torn;
}
