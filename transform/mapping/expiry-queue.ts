/** Rows that stop counting at a time though nothing in them changes. Held by second, since times are many and close. */
import type { Cause } from './engine.ts';

const SECOND_US = 1_000_000;
/** Measured in a heap of 300,000 rows: 380 where they expire within an hour, 540 where each has a second of its own. */
const ENTRY_BYTES = 400;

interface Entry {
  readonly second: number;
  readonly cause: Cause;
}

export class ExpiryQueue {
  readonly #rows = new Map<string, Entry>();
  readonly #seconds = new Map<number, Set<string>>();

  /** Estimated bytes held. */
  get bytes(): number {
    return this.#rows.size * ENTRY_BYTES;
  }

  /** Notes that the row `key` expires at `untilUs`, and not when it was said to before. */
  set(untilUs: number, key: string, cause: Cause): void {
    this.delete(key);
    const second = Math.ceil(untilUs / SECOND_US);
    this.#rows.set(key, { second, cause });
    const keys = this.#seconds.get(second);
    if (keys === undefined) this.#seconds.set(second, new Set([key]));
    else keys.add(key);
  }

  /** As `set`, of a row that may be noted with several times, of which it is not known which is right: it is looked at first. */
  setEarliest(untilUs: number, key: string, cause: Cause): void {
    const known = this.#rows.get(key);
    if (known === undefined || untilUs < known.second * SECOND_US) this.set(untilUs, key, cause);
  }

  /** The row does not expire, or is gone. */
  delete(key: string): void {
    const known = this.#rows.get(key);
    if (known === undefined) return;
    this.#rows.delete(key);
    const keys = this.#seconds.get(known.second)!;
    if (keys.size === 1) this.#seconds.delete(known.second);
    else keys.delete(key);
  }

  /** All that waits: the time up to which it does, rounded up to a second, with key and cause. */
  *entries(): Generator<{ untilUs: number; key: string; cause: Cause }> {
    for (const [key, { second, cause }] of this.#rows) yield { untilUs: second * SECOND_US, key, cause };
  }

  /** The rows whose time has come, each given once. */
  due(nowUs: number): { key: string; cause: Cause }[] {
    const due: { key: string; cause: Cause }[] = [];
    for (const [second, keys] of this.#seconds) {
      if (second * SECOND_US > nowUs) continue;
      this.#seconds.delete(second);
      for (const key of keys) {
        due.push({ key, cause: this.#rows.get(key)!.cause });
        this.#rows.delete(key);
      }
    }
    return due;
  }
}
