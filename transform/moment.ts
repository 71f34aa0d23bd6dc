/**
 * A map as it was at one moment, read bit by bit while it goes on changing. Whoever is about to change or remove a value
 * says so first: what has not been read by then is put aside as it was. What is new belongs to a later moment. So reading
 * holds nobody up, and takes no more memory than what changes meanwhile.
 */

/** A value of such a map. */
export interface Dated {
  /** The moment as of which it was read or put aside last; of a new one, that of its making (`Moment.now`). */
  moment: number;
}

export class Moment<V extends Dated> {
  readonly #copy: (value: V) => V;
  #now = 0;
  #reading = false;
  #aside: [key: string, value: V][] = [];

  /** `copy` gives what stays as it is while the value changes. */
  constructor(copy: (value: V) => V) {
    this.#copy = copy;
  }

  /** The moment of a value that is made now. */
  get now(): number {
    return this.#now;
  }

  /** From here on the map is to be read as it is now. What was being read before is given up. */
  begin(): void {
    this.#now += 1;
    this.#reading = true;
    this.#aside = [];
  }

  /** To be called before a value changes or goes. */
  changes(key: string, value: V): void {
    if (!this.#reading || value.moment === this.#now) return;
    value.moment = this.#now;
    this.#aside.push([key, this.#copy(value)]);
  }

  /**
   * What the map held when reading began, in no order. A value is good until the next one is asked for: it may change then.
   */
  *read(map: ReadonlyMap<string, V>): Generator<readonly [key: string, value: V]> {
    for (const [key, value] of map) {
      if (value.moment !== this.#now) {
        value.moment = this.#now;
        yield [key, value];
      }
      yield* this.#aside.splice(0);
    }
    yield* this.#aside.splice(0);
  }

  /** Nobody reads any more. */
  end(): void {
    this.#reading = false;
    this.#aside = [];
  }
}
