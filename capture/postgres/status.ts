/** What `waybill status` says of a source, read from the source and the stream themselves. */
import { cdcStreamName, readTail } from '../../core/cdc-stream.ts';
import { slotName, type NatsConfig, type SourceConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { asPgPosition, describePosition } from '../../core/position.ts';
import { connectSource } from './connection.ts';
import { readSlot, slotState } from './slot.ts';
import { readProgress } from './snapshot-request.ts';

export interface SourceStatus {
  readonly state: string;
  readonly position?: string;
  /** Bytes of the source's log behind the end of the stream. */
  readonly behindBytes?: number;
  readonly lagSeconds?: number;
  readonly retainedLogBytes?: number;
  readonly slotActive?: boolean;
  readonly snapshot?: string;
  readonly detail?: string;
}

export async function sourceStatus(name: string, settings: SourceConfig, config: NatsConfig): Promise<SourceStatus> {
  try {
    const nats = await connectNats(config, 'waybill status');
    const client = await connectSource(settings, 'waybill status');
    try {
      const tail = await readTail(nats, cdcStreamName(config.prefix, name));
      const slot = await readSlot(client, slotName(name, settings, config.prefix));
      const progress = await readProgress(await openBucket(nats, config), name);
      const { rows } = await client.query<{ database: string; lsn: string }>(
        "select current_database() as database, ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0')::text as lsn",
      );
      const open = progress?.tables.filter((table) => table.state !== 'done') ?? [];
      const state = slotState(slot, rows[0]!.database, tail.seq === 0 ? undefined : tail.end);
      const running = slot?.active === true ? (open.length > 0 ? 'snapshot' : 'streaming') : 'stopped';
      const states = {
        create: 'new',
        missing: 'slot_missing',
        lost: 'slot_lost',
        foreign: 'blocked',
        ahead: 'blocked',
        ready: running,
      } as const;
      return {
        state: states[state],
        ...(tail.seq === 0
          ? {}
          : {
              position: describePosition(tail.end),
              behindBytes: Math.max(0, Number(BigInt(rows[0]!.lsn) - asPgPosition(tail.end).lsn)),
            }),
        ...(slot === undefined ? {} : { retainedLogBytes: slot.retainedBytes, slotActive: slot.active }),
        ...(open.length === 0
          ? {}
          : { snapshot: `${progress!.tables.length - open.length}/${progress!.tables.length} tables` }),
      };
    } finally {
      await client.end();
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
