/** How long a source keeps the log that is still needed, at the rate at which it has been writing lately. */

interface Sample {
  readonly atMs: number;
  readonly logEnd: bigint;
}

const WINDOW_MS = 300_000;
const LEAST_MS = 10_000;

export class LogBudget {
  #samples: Sample[] = [];

  /**
   * Seconds until `safeBytes` more of log are written; undefined while the rate is unknown, where nothing is written,
   * and where the source keeps log without limit (`safeBytes` undefined).
   */
  observe(atMs: number, logEnd: bigint, safeBytes: number | undefined): number | undefined {
    this.#samples.push({ atMs, logEnd });
    while (this.#samples.length > 2 && this.#samples[1]!.atMs <= atMs - WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0]!;
    const written = Number(logEnd - first.logEnd);
    if (safeBytes === undefined || atMs - first.atMs < LEAST_MS || written <= 0) return undefined;
    return Math.max(0, safeBytes) / (written / ((atMs - first.atMs) / 1000));
  }
}
