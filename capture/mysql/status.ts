/** What `waybill status` asks of a MySQL or MariaDB source. */
import type { MysqlSourceConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { asGtidPosition } from '../../core/position.ts';
import type { SourceProbe, SourceReading } from '../source-status.ts';
import { connectChosen } from './choose-server.ts';
import type { SqlClient } from './connection.ts';
import { contains, readExecuted, requireLineage } from './executed.ts';
import { readRetainedBytes } from './retained-log.ts';

/** Connects. Throws `source_unreachable`, `source_auth`. */
export async function openMysqlProbe(name: string, settings: MysqlSourceConfig): Promise<SourceProbe> {
  const { client } = await connectChosen(settings);
  const { kind } = settings;
  return {
    async read(tail): Promise<SourceReading> {
      const retained = await readRetainedBytes(client);
      const keeps = await readRetention(client);
      const position = tail === undefined ? undefined : asGtidPosition(tail.end);
      let reading: SourceReading = { state: tail === undefined ? 'ready' : 'new' };
      if (position !== undefined)
        try {
          await requireLineage(client, kind, position.gtids, name);
          const executed = await readExecuted(client, kind);
          reading = {
            state: 'ready',
            caughtUp: position.open === undefined && contains(position.gtids, executed),
            ...behind(executed, position.gtids),
          };
        } catch (thrown) {
          const { code, message } = asReplicationError(thrown);
          if (code === 'source_unreachable') throw thrown;
          reading = {
            state: code === 'source_log_purged' ? 'slot_lost' : 'blocked',
            detail: `${code}: ${message}`,
          };
        }
      return {
        ...reading,
        ...(retained === undefined ? {} : { retainedLogBytes: retained }),
        ...(keeps === 0 ? {} : { keepsLogSeconds: keeps }),
      };
    },
    close: async () => client.end(),
  };
}

function behind(executed: GtidSet, taken: GtidSet): Pick<SourceReading, 'behindTransactions'> {
  if (executed.kind !== 'mysql') return {};
  return { behindTransactions: executed.subtract(taken as MysqlGtidSet).size };
}

/** Seconds for which the source keeps a log after it was written; 0: for ever. */
async function readRetention(client: SqlClient): Promise<number> {
  const rows = await client.query(
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', 'expire_logs_days')",
    'reading how long the log is kept',
  );
  const value = (variable: string): number => Number(rows.find(([key]) => key === variable)?.[1] ?? 0);
  return value('binlog_expire_logs_seconds') || value('expire_logs_days') * 86_400;
}
