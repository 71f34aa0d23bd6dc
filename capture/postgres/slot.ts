/** The replication slot: one function that says what state it is in, and one that makes it. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { asPgPosition, comparePositions, formatLsn, parseLsn, pgPosition, type Position } from '../../core/position.ts';
import { NO_SLOT, sourceError } from './source-error.ts';

export interface SlotInfo {
  readonly active: boolean;
  readonly activePid: number | undefined;
  readonly plugin: string;
  readonly database: string;
  /** reserved, extended, unreserved, lost. */
  readonly walStatus: string;
  readonly confirmedLsn: bigint;
  readonly retainedBytes: number;
  /** Bytes that may still be written before the slot loses log; undefined: no limit. */
  readonly safeBytes: number | undefined;
  /** Where the log ends. */
  readonly logEnd: bigint;
  /** The server follows another one. */
  readonly standby: boolean;
  /** It sends transactions when they are prepared. */
  readonly twoPhase: boolean;
}

/** The facts of a slot, or undefined when there is none of that name. */
export async function readSlot(client: pg.Client, slot: string): Promise<SlotInfo | undefined> {
  try {
    const result = await client.query<{
      active: boolean;
      active_pid: number | null;
      plugin: string | null;
      database: string | null;
      wal_status: string | null;
      confirmed: string | null;
      retained: string | null;
      safe: string | null;
      log_end: string;
      standby: boolean;
      two_phase: boolean;
    }>(
      `select active, active_pid, plugin, database, wal_status, confirmed_flush_lsn::text as confirmed,
         pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn)::text as retained,
         safe_wal_size::text as safe,
         (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text as log_end,
         pg_is_in_recovery() as standby, coalesce((to_jsonb(s) ->> 'two_phase')::bool, false) as two_phase
       from pg_replication_slots s where slot_name = $1`,
      [slot],
    );
    const row = result.rows[0];
    if (row === undefined) return undefined;
    return {
      active: row.active,
      activePid: row.active_pid ?? undefined,
      plugin: row.plugin ?? '',
      database: row.database ?? '',
      walStatus: row.wal_status ?? 'lost',
      confirmedLsn: parseLsn(row.confirmed ?? '0/0') ?? 0n,
      retainedBytes: Number(row.retained ?? 0),
      safeBytes: row.safe === null ? undefined : Number(row.safe),
      logEnd: parseLsn(row.log_end) ?? 0n,
      standby: row.standby,
      twoPhase: row.two_phase,
    };
  } catch (thrown) {
    throw sourceError(thrown, `reading replication slot ${slot}`);
  }
}

/** What is to be done about a slot, given how far the stream reaches. Pure. */
export type SlotState = 'create' | 'missing' | 'lost' | 'foreign' | 'two_phase' | 'ahead' | 'ready';

/**
 * The one state machine of slots. `streamEnd` is undefined while the stream has no frames. Being in use by another
 * process is found by trying: START_REPLICATION is refused with 55006 (`source_slot_in_use`).
 */
export function slotState(slot: SlotInfo | undefined, database: string, streamEnd: Position | undefined): SlotState {
  if (slot === undefined) return streamEnd === undefined ? 'create' : 'missing';
  if (slot.plugin !== 'pgoutput' || slot.database !== database) return 'foreign';
  if (slot.twoPhase) return 'two_phase';
  if (slot.walStatus === 'lost') return 'lost';
  // Invariant 1: only positions that the stream holds are ever confirmed, so a slot beyond its end has lost changes.
  if (streamEnd !== undefined && comparePositions(pgPosition(slot.confirmedLsn), streamEnd) > 0) return 'ahead';
  return 'ready';
}

/** What is wrong with a slot that sends prepared transactions, and the SQL for one that has not been read from yet. */
export function twoPhaseSlot(name: string): { readonly message: string; readonly sql: string } {
  return {
    message: `replication slot ${name} was made with two_phase: it sends transactions that may yet be rolled back`,
    sql: `SELECT pg_drop_replication_slot('${name}'); SELECT pg_create_logical_replication_slot('${name}', 'pgoutput');`,
  };
}

/** Throws the error of a slot state that stops a capture. */
export function requireUsableSlot(
  state: SlotState,
  name: string,
  slot: SlotInfo | undefined,
  streamEnd: Position | undefined,
): void {
  const context = { slot: name };
  switch (state) {
    case 'missing':
      throw new ReplicationError('source_slot_missing', `replication slot ${name} is gone, but its stream has frames`, {
        context,
      });
    case 'lost':
      throw new ReplicationError(
        'source_slot_lost',
        `replication slot ${name} is lost: the source removed WAL that it needed`,
        { context },
      );
    case 'foreign':
      throw new ReplicationError(
        'config_invalid',
        `replication slot ${name} belongs to plugin ${slot?.plugin} in database ${slot?.database}; choose another name with sources.*.slot`,
        { context },
      );
    case 'two_phase':
      throw new ReplicationError('config_invalid', `${twoPhaseSlot(name).message}; run: ${twoPhaseSlot(name).sql}`, {
        context,
      });
    case 'ahead':
      throw new ReplicationError(
        'source_slot_ahead',
        `replication slot ${name} is confirmed up to ${formatLsn(slot?.confirmedLsn ?? 0n)}, beyond the end of its stream at ${formatLsn(streamEnd === undefined ? 0n : asPgPosition(streamEnd).lsn)}`,
        { context },
      );
    case 'create':
    case 'ready':
  }
}

/**
 * What is captured was flushed before. A log that ends earlier is another one: of a standby that was promoted without the
 * newest of it, or of a backup. What it goes on with would be passed over as taken already, up to where the stream ends.
 */
export function requireLog({ logEnd, standby }: SlotInfo, streamEnd: bigint): void {
  if (logEnd >= streamEnd) return;
  throw new ReplicationError(
    standby ? 'source_behind' : 'source_diverged',
    `the log of the source ends at ${formatLsn(logEnd)}, before the end of its stream at ${formatLsn(streamEnd)}`,
  );
}

/** Creates the slot (a failover slot on 17 and later) and returns its consistent point. */
export async function createSlot(client: pg.Client, slot: string, serverVersion: number): Promise<bigint> {
  try {
    const primary = await client.query<{ standby: boolean }>('select pg_is_in_recovery() as standby');
    const failover = serverVersion >= 170_000 && primary.rows[0]?.standby === false ? ', false, false, true' : '';
    const result = await client.query<{ lsn: string }>(
      `select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput'${failover})`,
      [slot],
    );
    return parseLsn(result.rows[0]!.lsn)!;
  } catch (thrown) {
    throw sourceError(thrown, `creating replication slot ${slot}`, {
      '53400': 'source_no_free_slot',
      '55000': 'source_not_logical',
      '0A000': 'source_not_logical',
    });
  }
}

/** Confirms a slot that nobody reads at `lsn`. A slot that is in use or gone meanwhile is left to who reads it. */
export async function advanceSlot(client: pg.Client, slot: string, lsn: bigint): Promise<void> {
  try {
    await client.query(
      `select pg_replication_slot_advance(slot_name, $2) from pg_replication_slots
        where slot_name = $1 and not active and confirmed_flush_lsn < $2`,
      [slot, formatLsn(lsn)],
    );
  } catch (thrown) {
    throw sourceError(thrown, `confirming replication slot ${slot}`, NO_SLOT);
  }
}

/** Bytes of log behind `lsn`. */
export async function logDistanceBytes(client: pg.Client, lsn: bigint): Promise<number> {
  try {
    const { rows } = await client.query<{ bytes: string }>(
      `select pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, $1)::text as bytes`,
      [formatLsn(lsn)],
    );
    return Number(rows[0]!.bytes);
  } catch (thrown) {
    throw sourceError(thrown, 'reading the end of the log');
  }
}
