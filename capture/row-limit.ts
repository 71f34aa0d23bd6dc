/** A limit of rows a second that all readers of a snapshot keep together. */
import { abortableDelay } from '../core/run-service.ts';

export class RowLimit {
  readonly #rowsPerSecond: number;
  /** When the rows that were given out are paid for. */
  #freeMs = 0;

  /** Undefined: no limit. */
  constructor(rowsPerSecond: number | undefined) {
    this.#rowsPerSecond = rowsPerSecond ?? Infinity;
  }

  /** Rows to read at once, so that the limit holds within every second. */
  get mostAtOnce(): number {
    return Math.max(1, Math.floor(this.#rowsPerSecond / 2));
  }

  /** Waits until `rows` may be read. */
  async take(rows: number, signal: AbortSignal): Promise<void> {
    const startMs = Math.max(this.#freeMs, performance.now());
    this.#freeMs = startMs + (1000 * rows) / this.#rowsPerSecond;
    const waitMs = startMs - performance.now();
    if (waitMs > 0) await abortableDelay(waitMs, signal);
  }

  /** So many of the rows that were taken there were; more, where nobody knew before. */
  settle(taken: number, found: number): void {
    this.#freeMs += (1000 * (found - taken)) / this.#rowsPerSecond;
  }
}
