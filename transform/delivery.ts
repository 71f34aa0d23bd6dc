/**
 * Passes changes of records on when the tiers of their groups say so. What waits is kept as the view that was passed on
 * last, beside the record as it is: of any number of changes in between only the last state is sent.
 */
import { deriveStock } from './canonical/inventory.ts';
import type { Entity, RecordValues } from './canonical/entity.ts';
import type { Lineage } from './canonical/envelope.ts';
import type { Tier, Tiers } from './delivery-tiers.ts';

/** A record as it was passed on, and as it is to be now; undefined where it is not there. */
export interface Passing {
  readonly key: string;
  readonly before: RecordValues | undefined;
  readonly after: RecordValues | undefined;
  /** Of the newest change among the record's values, where it is at hand. */
  readonly lineage?: Lineage;
  /** Whether that change made all of them, where that is at hand. */
  readonly isOfOneChange?: boolean;
}

export class Delivery {
  readonly #entity: Entity;
  readonly #tiers: Tiers;
  /** Fields of each delayed tier, by position. */
  readonly #fields: ReadonlyMap<Tier, readonly number[]>;
  /** What was passed on of records of which something waits. */
  readonly #views = new Map<string, RecordValues | undefined>();
  readonly #waiting: ReadonlyMap<Tier, Set<string>>;
  /** Those among them that were passed on before a restart, with values that it does not know for certain. */
  readonly #unsure = new Set<string>();
  /** Changes that need not be sent because a later one stands for them, and the characters of their values. */
  savedWrites = 0;
  savedBytes = 0;

  constructor(entity: Entity, tiers: Tiers) {
    this.#entity = entity;
    this.#tiers = tiers;
    this.#fields = new Map(
      tiers.delayed.map((tier) => [tier, tier.groups.flatMap((group) => entity.groupIndexes.get(group)!)]),
    );
    this.#waiting = new Map(tiers.delayed.map((tier) => [tier, new Set()]));
  }

  /** Records of which something waits. */
  get waiting(): number {
    return this.#views.size;
  }

  /**
   * Takes a change; gives what of it is passed on at once. `replayed`: it is one from before a restart, and what it gives
   * was passed on then. Sources are read again in another order than they came in, so that a record which appeared as a
   * whole may have had older values in its slow groups: those are sent again when it is their time.
   */
  take(change: Passing, replayed = false): Passing | undefined {
    const { key, after } = change;
    const { delayed, existence } = this.#tiers;
    if (delayed.length === 0) return change;
    const known = this.#views.has(key);
    const view = known ? this.#views.get(key) : change.before;
    if (view === undefined || after === undefined) {
      if (existence === undefined) {
        this.#settle(key);
        if (replayed && after !== undefined) this.#doubt(key, after, delayed);
        return view === undefined && after === undefined ? undefined : { key, before: view, after };
      }
      if (known) this.#saved(after ?? view);
      this.#views.set(key, view);
      this.#waiting.get(existence)!.add(key);
      return undefined;
    }
    const next = this.#merge(view, after, delayed);
    let waits = false;
    for (const [tier, fields] of this.#fields) {
      const waiting = this.#waiting.get(tier)!;
      const waited = waiting.has(key) && this.#unsure.has(key);
      if (!waited && fields.every((field) => next[field] === after[field])) {
        waiting.delete(key);
        continue;
      }
      if (waiting.has(key)) this.#saved(after);
      waiting.add(key);
      waits = true;
    }
    if (waits) this.#views.set(key, next);
    else this.#views.delete(key);
    if (isSame(view, next)) {
      // Back to what was passed on: neither this change nor the one that waited is sent.
      if (known && !waits) {
        this.#saved(after);
        this.#saved(after);
      }
      return undefined;
    }
    return { key, before: view, after: next };
  }

  /** Passes on what waits for a tier, in the order of keys. `current` gives records as they are; `replayed` as above. */
  release(tier: Tier, current: (key: string) => RecordValues | undefined, replayed = false): Passing[] {
    const waiting = this.#waiting.get(tier)!;
    const passed: Passing[] = [];
    for (const key of [...waiting].sort()) {
      const view = this.#views.get(key);
      const record = current(key);
      const unsure = this.#unsure.has(key);
      waiting.delete(key);
      // That a record appears, or goes, waits for a tier of its own.
      const { existence } = this.#tiers;
      if ((view === undefined || record === undefined) && existence !== undefined && existence !== tier) continue;
      let next = record;
      if (view !== undefined && record !== undefined) {
        const others = this.#tiers.delayed.filter((other) => other !== tier && this.#waiting.get(other)!.has(key));
        next = this.#merge(view, record, others);
        if (others.length > 0) this.#views.set(key, next);
        else this.#settle(key);
      } else {
        this.#settle(key);
        const others = this.#tiers.delayed.filter((other) => other !== tier);
        if (replayed && record !== undefined && others.length > 0) this.#doubt(key, record, others);
      }
      const same = view === undefined ? next === undefined : next !== undefined && isSame(view, next);
      if (same && !unsure) this.#saved(record);
      else passed.push({ key, before: view, after: next });
    }
    return passed;
  }

  /** What was passed on of records of which something waits, with the tiers that it waits for. */
  *saved(): Generator<[key: string, view: RecordValues | null, tiers: string[], unsure: boolean]> {
    for (const [key, view] of this.#views) {
      const tiers = [...this.#waiting].flatMap(([tier, keys]) => (keys.has(key) ? [tier.id] : []));
      yield [key, view ?? null, tiers, this.#unsure.has(key)];
    }
  }

  /** A record that is there, as it was passed on; undefined: it was not, and waits. */
  passedOn(key: string, record: RecordValues): RecordValues | undefined {
    return this.#views.has(key) ? this.#views.get(key) : record;
  }

  waits(key: string): boolean {
    return this.#views.has(key);
  }

  restore(key: string, view: RecordValues | null, tiers: readonly string[], unsure = false): void {
    this.#views.set(key, view ?? undefined);
    if (unsure) this.#unsure.add(key);
    for (const [tier, keys] of this.#waiting) if (tiers.includes(tier.id)) keys.add(key);
  }

  /** Nothing waits any more: all records are passed on as they are. */
  clear(): void {
    this.#views.clear();
    this.#unsure.clear();
    for (const waiting of this.#waiting.values()) waiting.clear();
  }

  #settle(key: string): void {
    this.#views.delete(key);
    this.#unsure.delete(key);
    for (const waiting of this.#waiting.values()) waiting.delete(key);
  }

  /** Notes that a record was passed on before a restart, but perhaps not with these values of some tiers. */
  #doubt(key: string, view: RecordValues, tiers: readonly Tier[]): void {
    this.#views.set(key, view.slice());
    this.#unsure.add(key);
    for (const tier of tiers) this.#waiting.get(tier)!.add(key);
  }

  /** The record with the fields of `held` as they were passed on. */
  #merge(view: RecordValues, record: RecordValues, held: readonly Tier[]): RecordValues {
    if (held.length === 0) return record;
    const next = [...record];
    for (const tier of held) for (const field of this.#fields.get(tier)!) next[field] = view[field]!;
    return this.#entity.name === 'inventory_position' ? deriveStock(next) : next;
  }

  #saved(values: RecordValues | undefined): void {
    this.savedWrites += 1;
    for (const value of values ?? []) this.savedBytes += value?.length ?? 0;
  }
}

function isSame(a: RecordValues, b: RecordValues): boolean {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
