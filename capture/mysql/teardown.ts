/** Leaving without a trace: on the source there is nothing; the stream and what the bucket holds go. */
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { NatsConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats, natsError } from '../../core/nats.ts';
import { forgetTables } from '../table-registry.ts';

/** What `teardownMysqlSource` would remove, a line each. */
export async function describeMysqlTeardown(name: string, config: NatsConfig): Promise<string[]> {
  const nats = await connectNats(config, 'waybill teardown');
  try {
    const stream = cdcStreamName(config.prefix, name);
    const info = await nats.manager.streams.info(stream).catch((thrown: unknown) => {
      const error = natsError(thrown, `stream ${stream}`);
      if (error.code === 'stream_missing') return undefined;
      throw error;
    });
    if (info === undefined) return [];
    return [
      `stream ${stream} with ${info.state.messages} frames (${info.state.bytes} bytes): targets that have not applied them never will`,
    ];
  } finally {
    await nats.close();
  }
}

/** Removes them, while nobody captures. Returns what was removed, a line each. */
export async function teardownMysqlSource(name: string, config: NatsConfig): Promise<string[]> {
  const nats = await connectNats(config, 'waybill teardown');
  try {
    const stream = cdcStreamName(config.prefix, name);
    const gone = await nats.manager.streams.delete(stream).catch((thrown: unknown) => {
      const error = natsError(thrown, `stream ${stream}`);
      if (error.code === 'stream_missing') return false;
      throw error;
    });
    const bucket = await openBucket(nats, config);
    for (const key of [`snapshot.${name}`, `snapshot-request.${name}`]) await bucket.purge(key);
    await forgetTables(bucket, name);
    return gone ? [`stream ${stream}`] : [];
  } finally {
    await nats.close();
  }
}
