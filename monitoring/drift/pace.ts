/** Keeps a verification from being noticed: after each piece of work it rests, so that work is at most `maxLoad` of time. */
import { abortableDelay } from '../../core/run-service.ts';

export class Pace {
  readonly maxLoad: number;
  readonly signal: AbortSignal;

  /** `maxLoad` in (0, 1]: the share of time in which one session may keep its server busy. */
  constructor(maxLoad: number, signal: AbortSignal) {
    if (!(maxLoad > 0 && maxLoad <= 1)) throw new RangeError(`a load must lie in (0, 1], not ${maxLoad}`);
    this.maxLoad = maxLoad;
    this.signal = signal;
  }

  /** Does a piece of work and rests in proportion. Throws the signal's reason once it has aborted. */
  async work<T>(piece: () => Promise<T>): Promise<{ result: T; ms: number }> {
    this.signal.throwIfAborted();
    const started = performance.now();
    const result = await piece();
    const ms = performance.now() - started;
    if (this.maxLoad < 1) await abortableDelay(ms * (1 / this.maxLoad - 1), this.signal);
    this.signal.throwIfAborted();
    return { result, ms };
  }
}

/** Sizes pieces so that each takes about `goalMs`. */
export class PieceSize {
  readonly #goalMs: number;
  readonly #max: number;
  #size: number;

  constructor(first: number, max: number, goalMs: number) {
    this.#size = first;
    this.#max = max;
    this.#goalMs = goalMs;
  }

  get size(): number {
    return this.#size;
  }

  /** Learns from a piece that took `ms`: at most doubles or quarters. */
  took(ms: number): void {
    const factor = Math.min(2, Math.max(0.25, this.#goalMs / Math.max(1, ms)));
    this.#size = Math.max(1, Math.min(this.#max, Math.round(this.#size * factor)));
  }
}
