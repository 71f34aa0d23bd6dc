/** What the target says of comparisons, for `waybill status`. */
import { ABANDONED, INTERRUPTED } from './drift-store.ts';

/** The latest comparisons of one flow. */
export interface Verification {
  /** Everything that the source had committed up to then was proven equal; absent: never, or long ago. */
  readonly provenAt?: Date;
  /** How the latest comparison ended, or that it is under way. */
  readonly state: 'equal' | 'drift' | 'unresolved' | 'failed' | 'interrupted' | 'running';
  readonly startedAt: Date;
  /** Rows that are known to differ. */
  readonly driftRows: number;
}

/** One row of `waybill.drift_run`, newest first among those of a flow. */
export interface RunRow {
  readonly state: string;
  /** Why it has failed. */
  readonly error: string | null;
  readonly startedAt: Date;
  /** How many tables it looked at: one that found none proves nothing. */
  readonly tables: number;
  /** Findings and rows that escaped, over all tables. */
  readonly findings: number;
  readonly unresolved: number;
}

/** How many runs are looked through for one that proved a flow equal. */
export const LATEST_RUNS = 30;

/** What the latest runs of a flow say together; undefined without any. */
export function summarize(runs: readonly RunRow[], driftRows: number): Verification | undefined {
  const [latest] = runs;
  if (latest === undefined) return undefined;
  const proven = runs.find((run) => stateOf(run) === 'equal');
  return {
    ...(proven === undefined ? {} : { provenAt: proven.startedAt }),
    state: stateOf(latest),
    startedAt: latest.startedAt,
    driftRows,
  };
}

/** Whether a run that has failed was only told to stop, or its process was: that says nothing against either side. */
export function wasInterrupted(error: string | null): boolean {
  return error === INTERRUPTED || error === ABANDONED;
}

function stateOf(run: RunRow): Verification['state'] {
  if (run.state === 'running') return 'running';
  if (run.state === 'failed') return wasInterrupted(run.error) ? 'interrupted' : 'failed';
  if (run.tables === 0) return 'failed';
  if (run.findings > 0) return 'drift';
  return run.unresolved > 0 ? 'unresolved' : 'equal';
}
