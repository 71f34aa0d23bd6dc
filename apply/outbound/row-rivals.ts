/**
 * Which records keep others from the rows that these want, as far as it was seen: so it is known without asking the target
 * which of those that wait could exchange rows, however many stand between them.
 */
export class RowRivals {
  /** By keys of records: keys of those that have rows of theirs. */
  readonly #rivals = new Map<string, Set<string>>();

  /** The record at `rival` has a row that the one at `key` wants. */
  note(key: string, rival: string): void {
    const known = this.#rivals.get(key);
    if (known === undefined) this.#rivals.set(key, new Set([rival]));
    else known.add(rival);
  }

  /** Forgets what kept records from their rows. */
  forget(keys: Iterable<string>): void {
    for (const key of keys) this.#rivals.delete(key);
  }

  /** Whether something is known to keep a record from a row. */
  has(key: string): boolean {
    return this.#rivals.has(key);
  }

  /** Parts a list of records, in its order, so that those that want rows of each other's are together. */
  groupsOf(keys: readonly string[]): string[][] {
    const near = new Map<string, string[]>(keys.map((key) => [key, []]));
    for (const key of keys)
      for (const rival of this.#rivals.get(key) ?? []) {
        if (!near.has(rival)) continue;
        near.get(key)!.push(rival);
        near.get(rival)!.push(key);
      }
    const groupOf = new Map<string, number>();
    let groups = 0;
    for (const first of keys) {
      if (groupOf.has(first)) continue;
      const open = [first];
      groupOf.set(first, groups);
      for (let key = open.pop(); key !== undefined; key = open.pop())
        for (const next of near.get(key)!)
          if (!groupOf.has(next)) {
            groupOf.set(next, groups);
            open.push(next);
          }
      groups += 1;
    }
    const parts = Array.from({ length: groups }, (): string[] => []);
    for (const key of keys) parts[groupOf.get(key)!]!.push(key);
    return parts;
  }

  /**
   * Groups of `waiting` in which everybody wants rows of the others and of nobody else, so that all could have what they want at
   * once: those to which one comes from the records in `keys`, along who wants whose row. Takes no longer than the way is.
   */
  ringsFrom(keys: Iterable<string>, waiting: ReadonlySet<string>): string[][] {
    const walk = new RingWalk((key) => (waiting.has(key) ? (this.#rivals.get(key) ?? []) : []));
    for (const key of keys) walk.from(key);
    return walk.rings;
  }
}

interface Visit {
  readonly key: string;
  readonly left: Iterator<string>;
}

/** Finds the strongly connected parts of a graph from which no way leads out (Tarjan 1972, without recursion). */
class RingWalk {
  readonly rings: string[][] = [];
  readonly #next: (key: string) => Iterable<string>;
  /** The order in which keys were met, and the first one that is known to be in the same part. */
  readonly #met = new Map<string, number>();
  readonly #low = new Map<string, number>();
  /** Of those whose part is not known as a whole yet; and keys from which a way leads to another part. */
  readonly #open: string[] = [];
  readonly #isOpen = new Set<string>();
  readonly #leaving = new Set<string>();

  constructor(next: (key: string) => Iterable<string>) {
    this.#next = next;
  }

  from(start: string): void {
    if (this.#met.has(start)) return;
    const path = [this.#meet(start)];
    for (let visit = path.at(-1); visit !== undefined; visit = path.at(-1)) {
      const { key, left } = visit;
      const { value, done } = left.next();
      if (done === true) {
        path.pop();
        this.#leave(key, path.at(-1)?.key);
      } else if (!this.#met.has(value)) path.push(this.#meet(value));
      else if (this.#isOpen.has(value)) this.#lower(key, this.#met.get(value)!);
      else this.#leaving.add(key);
    }
  }

  #meet(key: string): Visit {
    this.#met.set(key, this.#met.size);
    this.#low.set(key, this.#met.get(key)!);
    this.#open.push(key);
    this.#isOpen.add(key);
    return { key, left: this.#next(key)[Symbol.iterator]() };
  }

  #lower(key: string, to: number): void {
    if (to < this.#low.get(key)!) this.#low.set(key, to);
  }

  /** All ways from a key are gone; `before` is the one from which it was come to. */
  #leave(key: string, before: string | undefined): void {
    const low = this.#low.get(key)!;
    if (low < this.#met.get(key)!) {
      this.#lower(before!, low);
      return;
    }
    const part = this.#open.splice(this.#open.lastIndexOf(key));
    for (const each of part) this.#isOpen.delete(each);
    if (part.length > 1 && !part.some((each) => this.#leaving.has(each))) this.rings.push(part);
    if (before !== undefined) this.#leaving.add(before);
  }
}
