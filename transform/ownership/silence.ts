/**
 * Which owner is silent, so that a fallback stands in for it. How long one has said nothing is measured by the commit times
 * that the streams of the others had reached when its own was last seen read to its end: what is still to be read of it, after
 * an outage or in a burst, is no silence.
 */

/** By source, the commit time that its stream has reached, in microseconds. */
type Reached = Readonly<Record<string, number>>;

export interface SavedSilence {
  readonly reached: Reached;
  /** By source: what all had reached when its stream was last seen read to its end. Absent in states that were saved before there was this. */
  readonly ends?: Readonly<Record<string, Reached>>;
}

export class Silence {
  readonly #reached = new Map<string, number>();
  readonly #ends = new Map<string, ReadonlyMap<string, number>>();

  /** Notes how far the stream of a source has been taken. It never goes back. */
  reach(source: string, us: number): void {
    const before = this.#reached.get(source);
    if (before === undefined || us > before) this.#reached.set(source, Math.max(us, 0));
  }

  reached(source: string): number | undefined {
    return this.#reached.get(source);
  }

  /** Notes that all there is of a source's stream has been taken. */
  atEnd(source: string): void {
    this.#ends.set(source, new Map(this.#reached));
  }

  /**
   * The owner, or the first fallback that stands in for it. What lies ahead of the clock counts as said now, so that a wrong
   * clock does not make the others stale.
   */
  inCharge(owner: string, fallback: readonly { source: string; staleAfterUs: number }[], nowUs: number): string {
    let silent = owner;
    for (const { source, staleAfterUs } of fallback) {
      const end = this.#ends.get(silent);
      if (end === undefined) return silent;
      const reachedUs = timeIn(this.#reached, silent, nowUs);
      let newestUs = Math.max(reachedUs, timeIn(end, owner, nowUs));
      for (const other of fallback) newestUs = Math.max(newestUs, timeIn(end, other.source, nowUs));
      if (newestUs - reachedUs <= staleAfterUs) return silent;
      silent = source;
    }
    // The last in line stands in only where something has come from it at all.
    return this.#reached.has(silent) ? silent : owner;
  }

  save(): SavedSilence {
    const ends = [...this.#ends].map(([source, reached]) => [source, Object.fromEntries(reached)] as const);
    return { reached: Object.fromEntries(this.#reached), ends: Object.fromEntries(ends) };
  }

  restore({ reached, ends }: SavedSilence): void {
    for (const [source, us] of Object.entries(reached)) this.#reached.set(source, us);
    // Without them whoever was silent by what had been taken is so until more of it is.
    for (const source of Object.keys(reached)) if (ends === undefined) this.#ends.set(source, new Map(this.#reached));
    for (const [source, each] of Object.entries(ends ?? {})) this.#ends.set(source, new Map(Object.entries(each)));
  }
}

function timeIn(reached: ReadonlyMap<string, number>, source: string, nowUs: number): number {
  return Math.min(reached.get(source) ?? Number.NEGATIVE_INFINITY, nowUs);
}
