/** Whether transactions in progress are kept now, where the configuration wants it. It outlives the sessions of a capture. */
import type { PostgresSourceConfig } from '../../core/config.ts';

/** So long transactions are received at their commit after one could not be kept while it was in progress. */
const WITHOUT_SPOOL_MS = 15 * 60_000;

export class SpoolSwitch {
  readonly #isWanted: boolean;
  /** How long it stays off. */
  readonly offMs: number;
  #offUntilMs = -Infinity;

  constructor({ streaming }: Pick<PostgresSourceConfig, 'streaming'>, offMs = WITHOUT_SPOOL_MS) {
    this.#isWanted = streaming === 'on';
    this.offMs = offMs;
  }

  get isOn(): boolean {
    return this.#isWanted && this.waitMs === 0;
  }

  /** Time until it is tried again; infinite where it is not wanted. */
  get waitMs(): number {
    return this.#isWanted ? Math.max(0, this.#offUntilMs - performance.now()) : Infinity;
  }

  turnOff(): void {
    this.#offUntilMs = performance.now() + this.offMs;
  }
}
