/** Counts broken invariants of stock, and names some of the records that show them in the log. */
import type { Logger } from '../core/logger.ts';
import type { TransformReport } from '../core/metrics.ts';
import { INVARIANTS, type Breach, type Invariant } from './canonical/inventory-invariants.ts';

/** A line of the log for each invariant, so often at most: a source that is wrong throughout would fill it. */
const LOG_MS = 10_000;

export interface BreachTellerOptions {
  readonly flow: string;
  /** The invariants that are checked: their counts begin at zero, so that the first breach is seen as a rise. */
  readonly checked: readonly Invariant[];
  readonly report: Pick<TransformReport, 'invariant'>;
  readonly log: Logger;
}

export class BreachTeller {
  readonly #options: BreachTellerOptions;
  readonly #loggedMs = new Map<Invariant, number>();
  /** Breaches that no line of the log has told of. */
  readonly #untold = new Map<Invariant, number>();

  constructor(options: BreachTellerOptions) {
    this.#options = options;
    for (const invariant of options.checked) options.report.invariant(invariant, 0);
  }

  tell(breaches: readonly Breach[]): void {
    if (breaches.length === 0) return;
    const { flow, report, log } = this.#options;
    const nowMs = performance.now();
    for (const { invariant, key } of breaches) {
      report.invariant(invariant, 1);
      const count = (this.#untold.get(invariant) ?? 0) + 1;
      this.#untold.set(invariant, count);
      if (nowMs - (this.#loggedMs.get(invariant) ?? Number.NEGATIVE_INFINITY) < LOG_MS) continue;
      this.#loggedMs.set(invariant, nowMs);
      this.#untold.set(invariant, 0);
      log.warn({ flow, invariant, rule: INVARIANTS[invariant], key, count }, 'an invariant of stock is broken');
    }
  }
}
