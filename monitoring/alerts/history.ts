/** The little of the past that alert rules look back on. */
import { METRIC } from '../metric-names.ts';
import { driftNow, proofsNow } from './drift-rules.ts';
import type { Point, SampleSet } from './sample-set.ts';

interface Moment {
  readonly atMs: number;
  /** Keys in quarantine by flow and reason. */
  readonly quarantine: ReadonlyMap<string, { readonly flow: string; readonly keys: number }>;
}

const KEPT_MS = 31 * 60_000;
const RESOLUTION_MS = 15_000;

export class History {
  readonly #resolutionMs: number;
  #moments: Moment[] = [];
  #drift: readonly Point[] = [];
  #proofs: readonly Point[] = [];

  /** At most one moment is kept for each `resolutionMs`. */
  constructor(resolutionMs = RESOLUTION_MS) {
    this.#resolutionMs = resolutionMs;
  }

  /** Rows that differ, by flow, table and kind, as far as anybody has said. */
  get drift(): readonly Point[] {
    return this.#drift;
  }

  /** When flows were proven equal, in seconds since 1970. */
  get proofs(): readonly Point[] {
    return this.#proofs;
  }

  observe(nowMs: number, samples: SampleSet): void {
    this.#drift = driftNow(samples, this.#drift);
    this.#proofs = proofsNow(samples, this.#proofs);
    const last = this.#moments.at(-1);
    if (last !== undefined && nowMs - last.atMs < this.#resolutionMs) return;
    this.#moments.push({
      atMs: nowMs,
      quarantine: new Map(
        samples
          .max(METRIC.quarantineKeys[0], ['flow', 'reason'])
          .map(({ labels, value }) => [JSON.stringify(labels), { flow: labels['flow']!, keys: value }]),
      ),
    });
    const from = this.#moments.findIndex((moment) => nowMs - moment.atMs <= KEPT_MS);
    if (from > 0) this.#moments = this.#moments.slice(from);
  }

  /** By how much the keys of each flow rose within the last `windowMs`. */
  quarantineRise(nowMs: number, windowMs: number): Map<string, number> {
    const first = new Map<string, number>();
    const rise = new Map<string, number>();
    const last = new Map<string, { flow: string; keys: number }>();
    for (const moment of this.#moments) {
      if (nowMs - moment.atMs > windowMs) continue;
      for (const [series, entry] of moment.quarantine) {
        if (!first.has(series)) first.set(series, entry.keys);
        last.set(series, entry);
      }
    }
    for (const [series, { flow, keys }] of last) rise.set(flow, (rise.get(flow) ?? 0) + keys - first.get(series)!);
    return rise;
  }
}
