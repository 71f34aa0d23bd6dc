/** The Postgres store: sessions of a target, and the sinks that flows write to. */
import type { Client } from 'pg';
import type { TargetConfig } from '../../core/config.ts';
import { endStaleSessions } from '../../core/stale-sessions.ts';
import { BatchWriter } from '../batch-writer.ts';
import type { BatchSink, SinkOptions, StoreSession, TargetStore } from '../target-store.ts';
import { targetError } from './target-error.ts';
import { claimFlow, requireIdleFlow } from './flow-owner.ts';
import { readPosition } from './position.ts';
import { PostgresBatches } from './postgres-batches.ts';
import { openTargetSession, type TargetSession } from './session.ts';
import { prepareWaybillSchema } from './waybill-schema.ts';

/** A Postgres target as flows see it. */
export function createPostgresStore(target: TargetConfig): TargetStore {
  return {
    async open(applicationName): Promise<StoreSession> {
      const session = await openTargetSession(target, applicationName);
      return {
        lost: session.lost,
        close: () => session.close(),
        async openSink(options: SinkOptions): Promise<BatchSink> {
          const { client } = session;
          const { flow, installation } = options;
          const claim = { flow, installation, exclusive: false };
          await requireIdleFlow(client, claim);
          await endOvertaken(client, applicationName);
          await prepareWaybillSchema(client);
          await claimFlow(client, claim);
          const at = await readPosition(client, options.flow, options.settings.mirror, options.stream);
          const connect = (): Promise<TargetSession> => openTargetSession(target, applicationName);
          const batches = new PostgresBatches(client, flow, options.settings, connect);
          return await BatchWriter.create(batches, options, at);
        },
      };
    },
  };
}

/** A holder that hangs may hold the row of the position, in an open transaction, or in the middle of a COPY for ever. */
export async function endOvertaken(client: Client, applicationName: string): Promise<void> {
  try {
    await endStaleSessions(client, [applicationName]);
  } catch (thrown) {
    throw targetError(thrown, 'ending the sessions of an overtaken process');
  }
}
