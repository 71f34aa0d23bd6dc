/** The MySQL and MariaDB store: sessions of a target, and the sinks that flows write to. */
import { createHash } from 'node:crypto';
import type { TargetConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { endSession, takeSessionName } from '../../core/session-lock.ts';
import { BatchWriter } from '../batch-writer.ts';
import type { BatchSink, SinkOptions, StoreSession, TargetStore } from '../target-store.ts';
import { MysqlBatches } from './mysql-batches.ts';
import { claimFlow, requireIdleFlow, showAtWork } from './flow-owner.ts';
import { readPosition } from './position.ts';
import { databaseOf, MysqlSession } from './session.ts';
import { targetError } from './target-error.ts';
import { prepareWaybillDatabase } from './waybill-database.ts';

/** How long an overtaken session may take to end. */
const TAKEOVER_SECONDS = 10;

/** A MySQL or MariaDB target as flows see it. */
export function createMysqlStore(target: TargetConfig): TargetStore {
  return {
    async open(applicationName): Promise<StoreSession> {
      const session = await MysqlSession.open(target, applicationName);
      return {
        lost: session.lost,
        close: () => session.close(),
        async openSink(options: SinkOptions): Promise<BatchSink> {
          const { flow, installation } = options;
          const claim = { flow, installation, exclusive: false };
          await requireIdleFlow(session, claim);
          await takeOver(session, `${options.stream} ${flow}`);
          await prepareWaybillDatabase(session);
          await claimFlow(session, claim);
          await showAtWork(session, claim);
          const at = await readPosition(session, options.flow, options.settings.mirror, options.stream);
          const batches = new MysqlBatches(session, databaseOf(target.url), options.flow, options.settings);
          return await BatchWriter.create(batches, options, at);
        },
      };
    },
  };
}

/**
 * Ends the session of a process that was overtaken: one that hangs may hold the row of the position in an open
 * transaction for ever. A lock by name, which its session holds to its end, tells which one that is.
 */
export async function takeOver(session: MysqlSession, name: string): Promise<void> {
  const lock = `waybill ${createHash('sha256').update(name).digest('hex').slice(0, 40)}`;
  const query = (sql: string): Promise<(string | null)[][]> => session.rows(sql);
  try {
    await endSession(query, lock);
    if (!(await takeSessionName(query, lock, TAKEOVER_SECONDS)))
      throw new ReplicationError('target_conflict', 'the session of an overtaken process has not ended yet');
  } catch (thrown) {
    throw targetError(thrown, 'ending the session of an overtaken process');
  }
}
