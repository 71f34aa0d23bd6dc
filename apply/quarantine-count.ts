/** How many keys wait in the quarantine of a flow: told when that may have changed, and while any do. */
import type { FlowReport } from '../core/metrics.ts';
import type { ReasonCount } from './quarantine-entry.ts';

/** People replay and discard behind the flow's back, so it is counted again this often while keys wait, */
const AGAIN_MS = 2000;
/** and at least this many times as long after it was counted as that took. */
const REST = 20;

export class QuarantineCount {
  readonly #count: () => Promise<ReasonCount[]>;
  readonly #report: Pick<FlowReport, 'quarantined'>;
  readonly #reasons = new Set<string>();
  #keys = 0;
  #changed = true;
  #nextMs = 0;

  /** `count` asks the target, outside of any transaction. */
  constructor(count: () => Promise<ReasonCount[]>, report: Pick<FlowReport, 'quarantined'>) {
    this.#count = count;
    this.#report = report;
  }

  /** The flow put a key there. */
  changed(): void {
    this.#changed = true;
  }

  /** Counts, unless nothing can have changed or it was counted a moment ago. Called while no transaction is open. */
  async tell(): Promise<void> {
    const startedMs = performance.now();
    if ((this.#keys === 0 && !this.#changed) || startedMs < this.#nextMs) return;
    this.#changed = false;
    const counts = new Map((await this.#count()).map(({ reason, count }) => [reason, count]));
    this.#nextMs = performance.now() + Math.max(AGAIN_MS, REST * (performance.now() - startedMs));
    this.#keys = 0;
    for (const reason of counts.keys()) this.#reasons.add(reason);
    for (const reason of this.#reasons) {
      const keys = counts.get(reason) ?? 0;
      this.#keys += keys;
      this.#report.quarantined(reason, keys);
    }
  }
}
