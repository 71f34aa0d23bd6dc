/** Rows that passed, by table and operation, until somebody asks. */
import type { Op } from '../core/frame.ts';

export class RowCounts<T> {
  readonly #counts = new Map<T, Partial<Record<Op, number>>>();

  add(table: T, op: Op, rows: number): void {
    let counts = this.#counts.get(table);
    if (counts === undefined) this.#counts.set(table, (counts = {}));
    counts[op] = (counts[op] ?? 0) + rows;
  }

  /** What was counted since the last call. */
  *take(): Generator<{ table: T; op: Op; count: number }> {
    for (const [table, counts] of this.#counts)
      for (const op of Object.keys(counts) as Op[]) if (counts[op]! > 0) yield { table, op, count: counts[op]! };
    this.#counts.clear();
  }
}
