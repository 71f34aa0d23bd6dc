/** The exception inbox of a target, apart from the store that keeps it. */
import type { RowChange, TableSchema } from '../core/frame.ts';

import { keyShape, touchedKeys, type KeyShape } from './row-key.ts';

export interface RowFailure {
  readonly reason: string;
  readonly sqlState: string | null;
  readonly message: string | null;
}

export const HELD: RowFailure = { reason: 'held', sqlState: null, message: null };

/** What `waybill.quarantine.change` holds: enough to apply the change later without the stream. */
export interface QuarantinedChange {
  readonly change: RowChange;
  readonly table: TableSchema;
  readonly target: { readonly schema: string; readonly name: string };
}

export interface QuarantineEntry {
  readonly id: string;
  readonly flow: string;
  readonly source: string;
  readonly schema: string;
  readonly table: string;
  /** JSON array of the key's values; null for a table without a key. */
  readonly key: string | null;
  /** Names of the key's columns; null where it is none of a table. */
  readonly keyColumns: readonly string[] | null;
  readonly position: string;
  readonly ordinal: number;
  readonly op: string;
  readonly reason: string;
  readonly sqlState: string | null;
  readonly message: string | null;
  readonly createdAt: Date;
}

export interface QuarantineDetail extends QuarantineEntry {
  readonly change: QuarantinedChange;
}

export interface ReplayFailure {
  readonly reason: string;
  readonly sqlState: string;
  readonly message: string;
}

export interface ReplayResult {
  readonly applied: number;
  readonly failed: readonly (ReplayFailure & { readonly id: string })[];
}

/** Which quarantined changes to replay. */
export interface ReplayChoice {
  readonly ids?: readonly (string | number)[];
  readonly all?: boolean;
}

/** A part of the inbox of a flow, oldest first. */
export interface QuarantineSlice {
  readonly offset: number;
  readonly limit: number;
  /** Only those with this reason. */
  readonly reason?: string;
}

export interface ReasonCount {
  readonly reason: string;
  readonly count: number;
}

/** The key of a row as a JSON array of its key values; null in a table without a key. */
export function keyJson({ plan, row }: { plan: KeyShape; row: RowChange }): string | null {
  if (plan.key.length === 0) return null;
  const image = row[2] ?? row[4]!;
  return JSON.stringify(
    plan.key.map((index) => (typeof image[index] === 'string' ? image[index] : (row[4]?.[index] ?? null))),
  );
}

function keysOf(entry: QuarantineDetail): string[] {
  const shape = keyShape(entry.change.table);
  return touchedKeys(shape, entry.change.change).map((key) => `${shape.id}\0${key}`);
}

/** The chosen changes and all that share a key with one of them, also by way of a change of key. */
export function chooseEntries(rows: readonly QuarantineDetail[], which: ReplayChoice): readonly QuarantineDetail[] {
  if (which.all === true) return rows;
  const wanted = new Set((which.ids ?? []).map(String));
  const chosen = new Set(rows.filter((row) => wanted.has(row.id)));
  const keys = new Set([...chosen].flatMap(keysOf));
  for (let grew = true; grew;) {
    grew = false;
    for (const row of rows) {
      const own = keysOf(row);
      if (chosen.has(row) || !own.some((key) => keys.has(key))) continue;
      chosen.add(row);
      for (const key of own) keys.add(key);
      grew = true;
    }
  }
  return rows.filter((row) => chosen.has(row));
}

/**
 * Tries the changes in order, the later ones of a key that failed not at all. What fails may be waiting for one that
 * comes later, so it goes round while that helps. `attempt` gives the failure, or undefined for a change that went in.
 */
export async function replayRounds(
  selected: readonly QuarantineDetail[],
  attempt: (entry: QuarantineDetail) => Promise<ReplayFailure | undefined>,
): Promise<{ applied: string[]; failed: (ReplayFailure & { id: string })[] }> {
  const applied: string[] = [];
  const failed: (ReplayFailure & { id: string })[] = [];
  for (let pending = selected; pending.length > 0;) {
    const left: QuarantineDetail[] = [];
    const blocked = new Set<string>();
    failed.length = 0;
    for (const entry of pending) {
      const keys = keysOf(entry);
      const waits = keys.some((key) => blocked.has(key));
      const failure = waits ? undefined : await attempt(entry);
      if (!waits && failure === undefined) {
        applied.push(entry.id);
        continue;
      }
      left.push(entry);
      if (failure !== undefined) failed.push({ id: entry.id, ...failure });
      for (const key of keys) blocked.add(key);
    }
    if (left.length === pending.length) break;
    pending = left;
  }
  return { applied, failed };
}
