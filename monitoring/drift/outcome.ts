/** What a comparison found, and what follows from it. */
import type { DriftKind, Finding } from './findings.ts';
import type { TableProgress } from './verify-table.ts';

export interface TableOutcome {
  readonly schema: string;
  readonly name: string;
  readonly progress: TableProgress;
  readonly estimatedRows: number;
  readonly skippedColumns: readonly string[];
  /** What a repair was asked for, and what still differs after it. */
  readonly repaired?: { readonly asked: number; readonly left: readonly Finding[] };
}

export interface FlowOutcome {
  readonly flow: string;
  /** Everything that was committed before this moment has been compared. */
  readonly startedAt: Date;
  readonly tables: readonly TableOutcome[];
}

/** Findings that an outcome leaves standing. */
export function openFindings(table: TableOutcome): readonly Finding[] {
  return table.repaired?.left ?? table.progress.findings;
}

export function countKinds(findings: readonly Finding[]): Record<DriftKind, number> {
  const counts = { missing: 0, extra: 0, different: 0 };
  for (const { kind, copies } of findings) counts[kind] += copies;
  return counts;
}

/**
 * True when both sides were proven equal: something was compared, nothing differs, and no row escaped by changing all the
 * time.
 */
export function isProven({ tables }: FlowOutcome): boolean {
  return (
    tables.length > 0 && tables.every((table) => openFindings(table).length === 0 && table.progress.unresolved === 0)
  );
}

/** The share of rows that were compared and settled; of records also of what of them could be proven. */
export function coverage(tables: readonly TableOutcome[]): number {
  let rows = 0;
  let settled = 0;
  for (const { progress, estimatedRows } of tables) {
    // A table that differs all over is not read to its end.
    rows += progress.truncated ? Math.max(progress.rows, estimatedRows) : progress.rows;
    let leftOut = 0;
    for (const { what, records, share } of progress.leftOut ?? [])
      // Of whole records it is not even known that they are there, so that they are not among the rows.
      if (what === '*') rows += records;
      else leftOut += records * share;
    settled += progress.rows - Math.min(progress.rows, progress.unresolved + leftOut);
  }
  return rows === 0 ? 1 : settled / rows;
}

/** Told of comparisons as they go. */
export interface DriftReport {
  /** What earlier comparisons, of whatever process, left open: before the first one here has come so far. */
  standing(open: ReadonlyMap<string, Readonly<Record<DriftKind, number>>>): void;
  compared(table: TableOutcome): void;
  /** The share of rows that the comparison under way has been through. */
  coverage(share: number): void;
  finished(outcome: FlowOutcome): void;
  /** Comparisons begin: since when there is no proof, as far as that is known before the first of them has one. */
  awaited(since: Date): void;
  /** What earlier runs, of whatever process, have proven: when the newest of them began. */
  proven(at: Date): void;
  /** Another process compares the flow from now on: what was found here is of then. */
  left(): void;
}
