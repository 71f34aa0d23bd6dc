/** Where the results of verifications are kept: next to the data they are about. */
import type { TableProgress } from './verify-table.ts';

/** A verification of one flow, as far as it is. */
export interface DriftRun {
  readonly id: string;
  readonly startedAt: Date;
  /** By `schema.name` of the source. */
  readonly tables: Map<string, TableProgress>;
}

export interface DriftStore {
  /** Begins a run, or takes the newest one up that has not finished when `resume` is set. */
  begin(resume: boolean): Promise<DriftRun>;
  /** When the newest run began that proved both sides equal; undefined: none did. */
  provenAt(): Promise<Date | undefined>;
  /** Stores how far a table is. */
  save(run: DriftRun, table: string): Promise<void>;
  /** Makes the findings of a table that is done the open ones, and closes those that are gone. */
  settle(run: DriftRun, schema: string, name: string): Promise<void>;
  finish(run: DriftRun, outcome: { readonly state: 'done' | 'failed'; readonly error?: string }): Promise<void>;
  close(): Promise<void>;
}
