/** Rows that stop counting at a time though nothing in them changes. Held by second, since times are many and close. */
import type { Cause } from './engine.ts';

const SECOND_US = 1_000_000;

export class ExpiryQueue {
  readonly #seconds = new Map<number, Map<string, Cause>>();

  /** Notes that the row `key` expires at `untilUs`. What it said before is looked at too, and does no harm. */
  add(untilUs: number, key: string, cause: Cause): void {
    const second = Math.ceil(untilUs / SECOND_US);
    const rows = this.#seconds.get(second);
    if (rows === undefined) this.#seconds.set(second, new Map([[key, cause]]));
    else rows.set(key, cause);
  }

  /** All that waits: the time up to which it does, rounded up to a second, with key and cause. */
  *entries(): Generator<{ untilUs: number; key: string; cause: Cause }> {
    for (const [second, rows] of this.#seconds)
      for (const [key, cause] of rows) yield { untilUs: second * SECOND_US, key, cause };
  }

  /** The rows whose time has come, each given once. */
  due(nowUs: number): { key: string; cause: Cause }[] {
    const due: { key: string; cause: Cause }[] = [];
    for (const [second, rows] of this.#seconds) {
      if (second * SECOND_US > nowUs) continue;
      this.#seconds.delete(second);
      for (const [key, cause] of rows) due.push({ key, cause });
    }
    return due;
  }
}
