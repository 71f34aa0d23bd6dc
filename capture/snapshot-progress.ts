/** How far a snapshot is, in numbers and in words. */
import type { SnapshotFacts } from '../core/metrics.ts';
import type { TableProgress } from './snapshot-request.ts';

/** The rate is that of so long a time. */
const RATE_MS = 20_000;

/** Watches the tables of one snapshot. */
export class SnapshotMeter {
  readonly #samples: { readonly atMs: number; readonly rows: number }[] = [];

  /** `tables`: those that are read or are to be; `nowMs` on any clock that goes forward. */
  observe(nowMs: number, tables: readonly TableProgress[]): SnapshotFacts {
    const rows = tables.reduce((sum, table) => sum + table.rows, 0);
    this.#samples.push({ atMs: nowMs, rows });
    while (this.#samples[0]!.atMs < nowMs - RATE_MS) this.#samples.shift();
    const { atMs, rows: before } = this.#samples[0]!;
    const rowsPerSecond = nowMs > atMs ? Math.max(0, (1000 * (rows - before)) / (nowMs - atMs)) : 0;
    // An estimate may be too low, and is none where a table has not got one.
    const expected = tables.map(({ state, rows: read, estimate }) =>
      state === 'done' ? read : estimate === undefined ? undefined : Math.max(read, estimate),
    );
    const known = expected.every((count) => count !== undefined);
    const expectedRows = known ? expected.reduce((sum, count) => sum + count, 0) : undefined;
    return {
      tables: tables.length,
      tablesDone: tables.filter(({ state }) => state === 'done').length,
      rows,
      expectedRows,
      rowsPerSecond,
      remainingSeconds:
        expectedRows === undefined || rowsPerSecond === 0 ? undefined : (expectedRows - rows) / rowsPerSecond,
    };
  }
}

/** `1 of 3 tables, 1,200,000 of about 2,000,000 rows (60 %), 150,000 rows/s, about 5 s left`. */
export function describeSnapshot(facts: SnapshotFacts): string {
  const { tables, tablesDone, rows, expectedRows, rowsPerSecond, remainingSeconds } = facts;
  const count = (n: number): string => Math.round(n).toLocaleString('en-US');
  const share = shareDone(facts);
  return [
    `${count(tablesDone)} of ${count(tables)} ${tables === 1 ? 'table' : 'tables'}`,
    expectedRows === undefined
      ? `${count(rows)} rows`
      : `${count(rows)} of about ${count(expectedRows)} rows${share === undefined ? '' : ` (${Math.floor(share * 100)} %)`}`,
    ...(rowsPerSecond > 0 ? [`${count(rowsPerSecond)} rows/s`] : []),
    ...(remainingSeconds === undefined ? [] : [`about ${duration(remainingSeconds)} left`]),
  ].join(', ');
}

/** From 0 to 1; undefined where nobody knows how much there is. */
export function shareDone({ rows, expectedRows }: SnapshotFacts): number | undefined {
  return expectedRows === undefined || expectedRows === 0 ? undefined : Math.min(1, rows / expectedRows);
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
