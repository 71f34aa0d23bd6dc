/** The little of the past that alert rules look back on. */
import { METRIC } from '../metric-names.ts';
import type { SampleSet } from './sample-set.ts';

interface Moment {
  readonly atMs: number;
  readonly sources: ReadonlySet<string>;
  /** Keys in quarantine by flow and reason. */
  readonly quarantine: ReadonlyMap<string, { readonly flow: string; readonly keys: number }>;
}

const KEPT_MS = 31 * 60_000;
const RESOLUTION_MS = 15_000;

export class History {
  readonly #resolutionMs: number;
  #moments: Moment[] = [];

  /** At most one moment is kept for each `resolutionMs`. */
  constructor(resolutionMs = RESOLUTION_MS) {
    this.#resolutionMs = resolutionMs;
  }

  observe(nowMs: number, samples: SampleSet): void {
    const last = this.#moments.at(-1);
    if (last !== undefined && nowMs - last.atMs < this.#resolutionMs) return;
    this.#moments.push({
      atMs: nowMs,
      sources: new Set(samples.all(METRIC.captureState[0]).map(({ labels }) => labels['source'] ?? '')),
      quarantine: new Map(
        samples
          .max(METRIC.quarantineKeys[0], ['flow', 'reason'])
          .map(({ labels, value }) => [JSON.stringify(labels), { flow: labels['flow']!, keys: value }]),
      ),
    });
    const from = this.#moments.findIndex((moment) => nowMs - moment.atMs <= KEPT_MS);
    if (from > 0) this.#moments = this.#moments.slice(from);
  }

  /** The sources that were reported `agoMs` before `nowMs`. */
  sourcesAt(nowMs: number, agoMs: number): ReadonlySet<string> {
    return this.#moments.findLast((moment) => moment.atMs <= nowMs - agoMs)?.sources ?? new Set();
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
