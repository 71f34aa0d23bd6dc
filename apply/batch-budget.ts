/**
 * How many bytes a batch may take. Where later rows stand for earlier ones, many: each batch writes a key once. Where they
 * do not (a table that is being read, a load of new rows), a larger batch saves nothing and holds up what comes behind it: it
 * is written within a moment.
 */

/** What a batch was. */
export interface WrittenBatch {
  readonly bytes: number;
  readonly ms: number;
  /** Rows that came to be written, for each row that it had; undefined where that is not known. */
  readonly netShare: number | undefined;
}

/** A batch that saves little is to be written in so long a time: two of them, and a part of a third, may stand before a row. */
const MOMENT_MS = 250;
/** From this share of rows on that are written, a larger batch saves little. */
const SAVES_LITTLE = 0.8;
/** A batch begins with so many, and never has to do with fewer: what each batch costs by itself, where the target is far, is shared. */
const LEAST_BYTES = 4 << 20;

export class BatchBudget {
  readonly #mostBytes: number;
  #bytes: number;

  /** `mostBytes`: what memory allows. */
  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
    this.#bytes = Math.min(mostBytes, LEAST_BYTES);
  }

  /** Bytes of the next batch. */
  get bytes(): number {
    return this.#bytes;
  }

  note({ bytes, ms, netShare }: WrittenBatch): void {
    const isFull = bytes >= this.#bytes / 2;
    const twice = Math.min(this.#mostBytes, 2 * this.#bytes);
    if (netShare === undefined || netShare < SAVES_LITTLE) {
      if (isFull) this.#bytes = twice;
    } else if (ms > MOMENT_MS) {
      const fitting = Math.max(LEAST_BYTES, (bytes * MOMENT_MS) / ms);
      this.#bytes = Math.min(this.#bytes, this.#mostBytes, fitting);
    } else if (isFull) this.#bytes = Math.min(twice, Math.max(this.#bytes, (bytes * MOMENT_MS) / Math.max(1, ms)));
  }
}
