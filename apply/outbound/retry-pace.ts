/**
 * When records that wait are tried again: at first at once, later less and less often. A record that begins to wait makes it
 * soon again, but puts nothing off: else one that is refused over and over would keep all others waiting.
 */

const FIRST_MS = 50;
const LAST_MS = 5000;

export class RetryPace {
  #pauseMs = FIRST_MS;
  /** Undefined while nothing waits. */
  #dueMs: number | undefined;
  /** Trying takes no more than about half of the time, however much waits. */
  #earliestMs = 0;

  /** How long until records are to be tried again; undefined where none wait. Times are those of one clock, in ms. */
  waitMs(nowMs: number): number | undefined {
    return this.#dueMs === undefined ? undefined : Math.max(0, this.#dueMs - nowMs);
  }

  /** A record has begun to wait, or waits for something else than before. */
  failed(nowMs: number): void {
    this.#pauseMs = FIRST_MS;
    this.#dueMs = Math.max(this.#earliestMs, Math.min(this.#dueMs ?? Infinity, nowMs + FIRST_MS));
  }

  /** Records have been tried again. `helped`: some of them went in. */
  tried(beganMs: number, nowMs: number, helped: boolean): void {
    this.#pauseMs = helped ? FIRST_MS : Math.min(LAST_MS, this.#pauseMs * 2);
    this.#earliestMs = nowMs + (nowMs - beganMs);
    this.#dueMs = Math.max(this.#earliestMs, nowMs + this.#pauseMs);
  }

  /** Nothing waits any more. */
  done(): void {
    this.#dueMs = undefined;
  }
}
