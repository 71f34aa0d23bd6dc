/** What `waybill status` says of a MySQL or MariaDB source, read from the source and the stream themselves. */
import { cdcStreamName, readTail } from '../../core/cdc-stream.ts';
import type { MysqlSourceConfig, NatsConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { asGtidPosition, describePosition } from '../../core/position.ts';
import { readProgress } from '../snapshot-request.ts';
import type { SourceStatus } from '../source-status.ts';
import { connectChosen } from './choose-server.ts';
import { contains, readExecuted, requireLineage } from './executed.ts';
import { readRetainedBytes } from './retained-log.ts';

interface LeaseView {
  readonly released?: boolean;
}

export async function mysqlSourceStatus(
  name: string,
  settings: MysqlSourceConfig,
  config: NatsConfig,
): Promise<SourceStatus> {
  try {
    const nats = await connectNats(config, 'waybill status');
    const { client } = await connectChosen(settings).catch(async (thrown: unknown) => {
      await nats.close();
      throw thrown;
    });
    try {
      const tail = await readTail(nats, cdcStreamName(config.prefix, name));
      const bucket = await openBucket(nats, config);
      const progress = await readProgress(bucket, name);
      const lease = await bucket.get(`lease.capture.${name}`);
      const held = lease !== null && lease.operation === 'PUT' && lease.json<LeaseView>().released !== true;
      const retained = await readRetainedBytes(client, settings.kind);
      const open = progress?.tables.filter((table) => table.state !== 'done') ?? [];
      const position = asGtidPosition(tail.end);
      let state = position === undefined ? 'new' : held ? (open.length > 0 ? 'snapshot' : 'streaming') : 'stopped';
      let detail: string | undefined;
      if (position !== undefined)
        try {
          await requireLineage(client, settings.kind, position.gtids, name);
          const executed = await readExecuted(client, settings.kind);
          if (state === 'streaming' && contains(position.gtids, executed)) state = 'idle';
        } catch (thrown) {
          const error = asReplicationError(thrown);
          state = error.code === 'source_log_purged' ? 'slot_lost' : 'blocked';
          detail = `${error.code}: ${error.message}`;
        }
      return {
        state,
        ...(position === undefined ? {} : { position: describePosition(position) }),
        ...(retained === undefined ? {} : { retainedLogBytes: retained }),
        ...(open.length === 0
          ? {}
          : { snapshot: `${progress!.tables.length - open.length}/${progress!.tables.length} tables` }),
        ...(detail === undefined ? {} : { detail }),
      };
    } finally {
      client.end();
      await nats.close();
    }
  } catch (thrown) {
    const error = asReplicationError(thrown);
    return {
      state: error.code === 'stream_missing' ? 'new' : 'unreachable',
      detail: `${error.code}: ${error.message}`,
    };
  }
}
