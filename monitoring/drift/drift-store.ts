/** Where the results of verifications are kept: next to the data they are about. */
import { ReplicationError } from '../../core/errors.ts';
import type { DriftKind } from './findings.ts';
import type { RowImages } from './row-images.ts';
import type { TableProgress } from './verify-table.ts';

/** A verification of one flow, as far as it is. */
export interface DriftRun {
  readonly id: string;
  readonly startedAt: Date;
  /** By `schema.name` of the source. */
  readonly tables: Map<string, TableProgress>;
}

/** What is kept with findings for people to look at. */
export interface ShownRows {
  /** Names of the columns whose values `Finding.key` has. */
  readonly key: readonly string[];
  /** Both rows of some of them, by their ids. */
  readonly images: ReadonlyMap<string, RowImages>;
}

export type RunEnd =
  | { readonly state: 'done'; /** As `DriftRun.tables`. */ readonly compared: readonly string[] }
  | { readonly state: 'failed'; readonly error: string };

export interface DriftStore {
  /**
   * Begins a run, or goes on with the newest one where it has not finished and `resume` is set. Either way whoever worked on
   * a run before is done with it: its `save` and `finish` throw `lease_lost`. So a run that is resumed has another id.
   */
  begin(resume: boolean): Promise<DriftRun>;
  /** When the newest run began that proved both sides equal; undefined: none did. */
  provenAt(): Promise<Date | undefined>;
  /** Rows of the flow that are known to differ, by `schema.name` of the source and kind. */
  openRows(): Promise<Map<string, Record<DriftKind, number>>>;
  /** Stores how far a table is. */
  save(run: DriftRun, table: string): Promise<void>;
  /** Makes the findings of a table that is done the open ones, and closes those that are gone. */
  settle(run: DriftRun, schema: string, name: string, shown: ShownRows): Promise<void>;
  /** Ends a run. Where it is done, findings of tables that it did not compare are closed: the flow has them no more. */
  finish(run: DriftRun, outcome: RunEnd): Promise<void>;
  close(): Promise<void>;
}

/** Why a run has failed that was interrupted and cannot be resumed. */
export const INTERRUPTED = 'it was interrupted';
/** Why a run has failed that was interrupted and not resumed. */
export const ABANDONED = `${INTERRUPTED}, and another comparison has begun`;

/** What a store throws that finds its run taken over. */
export function takenOver(flow: string): ReplicationError {
  return new ReplicationError('lease_lost', `another comparison of flow ${flow} has begun`);
}

/** Sums up what a store has of open findings. */
export function sumOpen(
  rows: Iterable<{ readonly schema: string; readonly name: string; readonly kind: string; readonly rows: number }>,
): Map<string, Record<DriftKind, number>> {
  const open = new Map<string, Record<DriftKind, number>>();
  for (const { schema, name, kind, rows: number } of rows) {
    const table = `${schema}.${name}`;
    const kinds = open.get(table) ?? { missing: 0, extra: 0, different: 0 };
    kinds[kind as DriftKind] += number;
    open.set(table, kinds);
  }
  return open;
}
