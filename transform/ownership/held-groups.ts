/** What is held of records and contributions, and what of it has changed since somebody asked. */
import type { HeldChange, HeldGroup } from './resolved.ts';

export class HeldGroups {
  readonly #groups = new Map<string, HeldGroup>();
  /** Ids of what is held of one contribution or record. */
  readonly #idsOf = new Map<string, readonly string[]>();
  #changed = new Set<string>();

  get size(): number {
    return this.#groups.size;
  }

  get(id: string): HeldGroup | undefined {
    return this.#groups.get(id);
  }

  /** Everything held, by record and group. */
  get all(): HeldGroup[] {
    return [...this.#groups.values()];
  }

  /** Everything held, with the ids that `takeChanges` names. */
  *entries(): Generator<HeldChange> {
    for (const [id, held] of this.#groups) yield { id, held };
  }

  /** Everything held, by the contribution or record that it is held of: what `restore` takes. */
  *byBase(): Generator<[base: string, groups: HeldGroup[]]> {
    for (const [base, ids] of this.#idsOf) yield [base, ids.map((id) => this.#groups.get(id)!)];
  }

  /** What came to be held, or is no longer, since the last call. */
  takeChanges(): HeldChange[] {
    if (this.#changed.size === 0) return [];
    const changes = [...this.#changed].map((id) => ({ id, held: this.#groups.get(id) }));
    this.#changed = new Set();
    return changes;
  }

  /** Takes what was held when a state was saved: that is no change. */
  restore(base: string, groups: readonly HeldGroup[]): void {
    this.set(base, groups);
    this.#changed = new Set();
  }

  /** Replaces what is held of a contribution or a record. */
  set(base: string, groups: readonly HeldGroup[]): void {
    const before = this.#idsOf.get(base);
    if (before === undefined && groups.length === 0) return;
    for (const id of before ?? []) {
      this.#groups.delete(id);
      this.#changed.add(id);
    }
    const ids = groups.map((held) => {
      const id = `${base}#${held.group}`;
      this.#groups.set(id, held);
      this.#changed.add(id);
      return id;
    });
    if (ids.length === 0) this.#idsOf.delete(base);
    else this.#idsOf.set(base, ids);
  }
}
