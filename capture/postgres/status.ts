/** What `waybill status` asks of a Postgres source. */
import { slotName, type PostgresSourceConfig } from '../../core/config.ts';
import { asPgPosition } from '../../core/position.ts';
import type { SourceProbe, SourceReading } from '../source-status.ts';
import { connectSource } from './connection.ts';
import { LogBudget } from '../log-budget.ts';
import { readSlot, slotState } from './slot.ts';
import { sourceError } from './source-error.ts';

const STATES = {
  create: 'new',
  missing: 'slot_missing',
  lost: 'slot_lost',
  foreign: 'blocked',
  two_phase: 'blocked',
  ahead: 'blocked',
  ready: 'ready',
} as const;

const DETAILS: Readonly<Partial<Record<string, string>>> = {
  foreign: 'the slot belongs to another plugin or database',
  two_phase: 'the slot was made with two_phase',
  ahead: 'the slot is confirmed beyond the end of the stream',
};

/** Connects. Throws `source_unreachable`, `source_auth`. */
export async function openPostgresProbe(
  name: string,
  settings: PostgresSourceConfig,
  prefix: string,
): Promise<SourceProbe> {
  const client = await connectSource(settings, 'waybill status');
  const budget = new LogBudget();
  return {
    async read(tail): Promise<SourceReading> {
      const slot = await readSlot(client, slotName(name, settings, prefix));
      const { database, logEnd } = await readEnd();
      const end = tail === undefined || tail.seq === 0 ? undefined : tail.end;
      const found = slotState(slot, database, end);
      // Whoever reads the slot may have stored and confirmed more since the end of the stream was looked at.
      const state = found === 'ahead' && slot?.active === true ? 'ready' : found;
      const spare = slot?.safeBytes;
      const seconds = slot === undefined ? undefined : budget.observe(performance.now(), slot.logEnd, spare);
      const behind = end === undefined ? undefined : Math.max(0, Number(logEnd - asPgPosition(end).lsn));
      return {
        // Without the stream nobody can say whether the slot fits it.
        state:
          tail === undefined && state !== 'lost' && state !== 'foreign' && state !== 'two_phase'
            ? 'ready'
            : STATES[state],
        ...(DETAILS[state] === undefined ? {} : { detail: DETAILS[state] }),
        ...(behind === undefined ? {} : { behindBytes: behind, caughtUp: behind === 0 }),
        ...(slot === undefined ? {} : { slotActive: slot.active, retainedLogBytes: slot.retainedBytes }),
        ...(spare === undefined ? {} : { spareLogBytes: spare }),
        ...(seconds === undefined ? {} : { logBudgetSeconds: seconds }),
      };
    },
    close: () => client.end().catch(() => undefined),
  };

  async function readEnd(): Promise<{ database: string; logEnd: bigint }> {
    try {
      const { rows } = await client.query<{ database: string; lsn: string }>(
        "select current_database() as database, ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0')::text as lsn",
      );
      return { database: rows[0]!.database, logEnd: BigInt(rows[0]!.lsn) };
    } catch (thrown) {
      throw sourceError(thrown, 'reading the end of the log');
    }
  }
}
