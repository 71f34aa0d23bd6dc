/** A MySQL or MariaDB system as outbound flows see it: its own tables are written, and what is ours lies in `waybill`. */
import type { TargetConfig } from '../../core/config.ts';
import type { OutboundPlan } from '../../core/outbound.ts';
import { OutboundSink } from '../outbound/outbound-sink.ts';
import type { BatchSink, SinkOptions, StoreSession, TargetStore } from '../target-store.ts';
import { MysqlOutboundSession } from './outbound-session.ts';
import { claimFlow } from './flow-owner.ts';
import { readPosition } from './position.ts';
import { databaseOf, MysqlSession } from './session.ts';
import { takeOver } from './store.ts';
import { prepareWaybillDatabase } from './waybill-database.ts';

export function createMysqlOutboundStore(target: TargetConfig, plan: OutboundPlan): TargetStore {
  return {
    async open(applicationName): Promise<StoreSession> {
      const session = await MysqlSession.open(target, applicationName);
      return {
        lost: session.lost,
        close: () => session.close(),
        async openSink(options: SinkOptions): Promise<BatchSink> {
          const { flow, settings, stream, installation } = options;
          await takeOver(session, `${stream} ${flow}`);
          await prepareWaybillDatabase(session);
          await claimFlow(session, { flow, installation, exclusive: true });
          const at = await readPosition(session, flow, settings.mirror, stream);
          const database = databaseOf(target.url);
          const own = new MysqlOutboundSession({ session, database, flow, source: settings.mirror, installation, at });
          return await OutboundSink.create(own, options, plan);
        },
      };
    },
  };
}
