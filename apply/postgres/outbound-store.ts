/** A Postgres system as outbound flows see it: its own tables are written, and what is ours lies in schema `waybill`. */
import type { Client } from 'pg';
import type { TargetConfig } from '../../core/config.ts';
import { ORIGIN_MESSAGE, originName } from '../../core/origin.ts';
import type { OutboundPlan } from '../../core/outbound.ts';
import { OutboundSink } from '../outbound/outbound-sink.ts';
import type { BatchSink, SinkOptions, StoreSession, TargetStore } from '../target-store.ts';
import { PostgresOutboundSession } from './outbound-session.ts';
import { claimFlow } from './flow-owner.ts';
import { readPosition } from './position.ts';
import { openTargetSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { endOvertaken } from './store.ts';
import { sqlStateOf, targetError } from './target-error.ts';
import { prepareWaybillSchema } from './waybill-schema.ts';

export function createPostgresOutboundStore(target: TargetConfig, plan: OutboundPlan): TargetStore {
  return {
    async open(applicationName): Promise<StoreSession> {
      const session = await openTargetSession(target, applicationName);
      return {
        lost: session.lost,
        close: () => session.close(),
        async openSink(options: SinkOptions): Promise<BatchSink> {
          const { client } = session;
          const { flow, settings, stream, installation } = options;
          await endOvertaken(client, applicationName);
          await prepareWaybillSchema(client);
          await claimFlow(client, { flow, installation, exclusive: true });
          const at = await readPosition(client, flow, settings.mirror, stream);
          const markSql = await takeOrigin(client, originName(flow, installation));
          const own = new PostgresOutboundSession({ client, flow, source: settings.mirror, at, markSql });
          return await OutboundSink.create(own, options, plan);
        },
      };
    },
  };
}

/** Transactions of the session are marked, and bear the time at which they begin: else the commit time of its first one. */
const TIMED = `SELECT pg_replication_origin_xact_setup('0/0', clock_timestamp())`;

/**
 * Marks what this session writes by a replication origin, which native subscriptions heed too. Where the user may not
 * (it takes a grant), or the server has no room for another one, each transaction carries a logical message instead.
 * Gives the SQL that each transaction begins with.
 */
async function takeOrigin(client: Client, name: string): Promise<string> {
  const message = `SELECT pg_logical_emit_message(true, ${quoteLiteral(ORIGIN_MESSAGE)}, ${quoteLiteral(name)})`;
  try {
    const { rows } = await client.query<{ may: boolean }>(
      `SELECT has_function_privilege('pg_replication_origin_xact_setup(pg_lsn, timestamptz)', 'EXECUTE') AS may`,
    );
    if (rows[0]?.may !== true) return message;
    await client.query(
      `SELECT pg_replication_origin_create($1) WHERE NOT EXISTS (SELECT 1 FROM pg_replication_origin WHERE roname = $1)`,
      [name],
    );
    await client.query('SELECT pg_replication_origin_session_setup($1)', [name]);
    return TIMED;
  } catch (thrown) {
    // insufficient_privilege, configuration_limit_exceeded
    if (!['42501', '53400'].includes(sqlStateOf(thrown) ?? ''))
      throw targetError(thrown, 'taking a replication origin');
    return message;
  }
}
