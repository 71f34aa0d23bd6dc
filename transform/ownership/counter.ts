/**
 * A counter that several sources change: local + (new − old) for each change of which the old value is known, and an
 * absolute figure of the reset source (a count) that replaces all changes up to its time.
 *
 * Changes are compared by commit time and source, never by arrival: a change that arrives late, but was made before the
 * count, is a part of what was counted.
 */
import { addDecimals, subtractDecimals } from '../canonical/decimal.ts';

/** Measured as the bytes of a record are (ownership/resolver.ts). */
const COUNTER_BYTES = 400;
const KNOWN_BYTES = 100;
const CHANGE_BYTES = 150;

interface Change {
  readonly source: string;
  readonly timeUs: number;
  readonly delta: string;
}

/** A counter as a saved state holds it. */
export interface SavedCounter {
  readonly known: readonly (readonly [source: string, value: string])[];
  readonly reset?: { readonly value: string; readonly source: string; readonly timeUs: number } | undefined;
  readonly changes: readonly Change[];
}

export class SharedCounter {
  readonly #known = new Map<string, string>();
  #reset: { readonly value: string; readonly source: string; readonly timeUs: number } | undefined;
  #changes: Change[] = [];

  save(): SavedCounter {
    return { known: [...this.#known], reset: this.#reset, changes: [...this.#changes] };
  }

  static restore({ known, reset, changes }: SavedCounter): SharedCounter {
    const counter = new SharedCounter();
    for (const [source, value] of known) counter.#known.set(source, value);
    counter.#reset = reset;
    counter.#changes = [...changes];
    return counter;
  }

  /** Estimated bytes held. */
  get bytes(): number {
    return COUNTER_BYTES + this.#known.size * KNOWN_BYTES + this.#changes.length * CHANGE_BYTES;
  }

  /** A source's new figure: what changed since its last one. The first one has no old value, and changes nothing. */
  changed(source: string, value: string, timeUs: number): void {
    const old = this.#known.get(source);
    this.#known.set(source, value);
    if (old === undefined || old === value) return;
    // Made before the count, and so a part of it. It must not be kept: folding would carry it beyond the count.
    if (this.#reset !== undefined && timeUs <= this.#reset.timeUs) return;
    this.#changes.push({ source, timeUs, delta: subtractDecimals(value, old) });
  }

  /** What Waybill wrote into a source: the figure from which its next change counts, and no change itself. */
  rebase(source: string, value: string): void {
    this.#known.set(source, value);
  }

  /** The count as another mapping makes it. False where the source has not counted. */
  recount(source: string, value: string): boolean {
    if (this.#reset?.source !== source) return false;
    this.#reset = { ...this.#reset, value };
    return true;
  }

  /** Sources whose figure is known, or was the count. */
  get sources(): Set<string> {
    return new Set([...this.#known.keys(), ...(this.#reset === undefined ? [] : [this.#reset.source])]);
  }

  /** An absolute figure: what was changed up to then is in it. */
  reset(source: string, value: string, timeUs: number): void {
    const before = this.#reset;
    if (before !== undefined && before.timeUs > timeUs) return;
    this.#reset = { value, source, timeUs };
    this.#changes = this.#changes.filter((change) => change.timeUs > timeUs);
  }

  /** A source that no longer has the record: its next figure has no old value. Gives the bytes that this frees. */
  forget(source: string): number {
    return this.#known.delete(source) ? KNOWN_BYTES : 0;
  }

  /** Whether it is as one that has never been told anything. */
  get isBlank(): boolean {
    return this.value === null && this.#changes.length === 0;
  }

  /** The count and the changes after it; null while neither is known. */
  get value(): string | null {
    if (this.#reset === undefined && this.#known.size === 0) return null;
    return addDecimals([this.#reset?.value ?? '0', ...this.#changes.map((change) => change.delta)]);
  }

  /**
   * Folds changes that every later reset will replace as a whole: those up to `timeUs`, the time that the reset source
   * has reached; all of them where there is no such source. Memory then does not grow with the number of changes.
   */
  fold(timeUs: number): void {
    const old = this.#changes.filter((change) => change.timeUs <= timeUs);
    if (old.length < 2) return;
    const last = old.reduce((a, b) => (b.timeUs > a.timeUs ? b : a));
    const folded = { source: last.source, timeUs: last.timeUs, delta: addDecimals(old.map((change) => change.delta)) };
    this.#changes = [folded, ...this.#changes.filter((change) => change.timeUs > timeUs)];
  }
}
