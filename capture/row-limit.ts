/** A limit of rows a second that all readers of a snapshot keep together. */
import { abortableDelay } from '../core/run-service.ts';

export class RowLimit {
  readonly #rowsPerSecond: number;
  /** When the rows that were read are paid for. */
  #freeMs = 0;

  /** Undefined: no limit. */
  constructor(rowsPerSecond: number | undefined) {
    this.#rowsPerSecond = rowsPerSecond ?? Infinity;
  }

  /** Rows to read at once, so that the limit holds within about a second. */
  get mostAtOnce(): number {
    return this.#rowsPerSecond;
  }

  /** Waits until rows may be read. */
  async wait(signal: AbortSignal): Promise<void> {
    for (let leftMs = this.#freeMs - performance.now(); leftMs > 0; leftMs = this.#freeMs - performance.now()) {
      if (signal.aborted) return;
      await abortableDelay(leftMs, signal);
    }
  }

  count(rows: number): void {
    this.#freeMs = Math.max(this.#freeMs, performance.now()) + (1000 * rows) / this.#rowsPerSecond;
  }
}
