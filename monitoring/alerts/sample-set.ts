/** Samples of all processes, and sums over them as Prometheus would make them. */
import type { Observation, Sample } from '../observation.ts';

export type Labels = Readonly<Record<string, string>>;

/** A series of an expression at one moment. */
export interface Point {
  readonly labels: Labels;
  readonly value: number;
}

export class SampleSet {
  readonly #byName = new Map<string, Sample[]>();

  constructor(samples: Iterable<Sample>) {
    for (const sample of samples) {
      const known = this.#byName.get(sample.name);
      if (known === undefined) this.#byName.set(sample.name, [sample]);
      else known.push(sample);
    }
  }

  static of(observations: readonly Observation[]): SampleSet {
    return new SampleSet(observations.flatMap((observation) => observation.samples));
  }

  all(name: string): readonly Sample[] {
    return this.#byName.get(name) ?? [];
  }

  /** The largest value of each set of the labels named: several processes may report the same. */
  max(name: string, by: readonly string[]): Point[] {
    return this.#fold(this.all(name), by, Math.max);
  }

  sum(name: string, by: readonly string[], counts: (labels: Labels) => number = () => 1): Point[] {
    const weighed = this.all(name).map((sample) => ({ ...sample, value: sample.value * counts(sample.labels) }));
    return this.#fold(weighed, by, (a, b) => a + b);
  }

  #fold(samples: readonly Sample[], by: readonly string[], join: (a: number, b: number) => number): Point[] {
    const groups = new Map<string, Point>();
    for (const { labels, value } of samples) {
      const kept = Object.fromEntries(by.map((label) => [label, labels[label] ?? '']));
      const id = JSON.stringify(kept);
      const known = groups.get(id);
      groups.set(id, { labels: kept, value: known === undefined ? value : join(known.value, value) });
    }
    return [...groups.values()];
  }
}
