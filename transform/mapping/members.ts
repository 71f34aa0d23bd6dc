/** The rows of a record by their keys. One alone is held without a map around it: most records have one row. */
export class Members<T> {
  #key: string | undefined;
  #only: T | undefined;
  #all: Map<string, T> | undefined;

  set(key: string, member: T): void {
    if (this.#all !== undefined) this.#all.set(key, member);
    else if (this.#key === undefined || this.#key === key) {
      this.#key = key;
      this.#only = member;
    } else {
      this.#all = new Map([
        [this.#key, this.#only!],
        [key, member],
      ]);
      this.#key = undefined;
      this.#only = undefined;
    }
  }

  /** The one that is there alone; undefined where there is none, or have been several. */
  get only(): T | undefined {
    return this.#only;
  }

  delete(key: string): void {
    if (this.#all !== undefined) this.#all.delete(key);
    else if (this.#key === key) {
      this.#key = undefined;
      this.#only = undefined;
    }
  }

  keys(): string[] {
    if (this.#all !== undefined) return [...this.#all.keys()];
    return this.#key === undefined ? [] : [this.#key];
  }

  /** All of them, in the order of their keys. */
  sorted(): T[] {
    if (this.#all !== undefined) return [...this.#all.keys()].sort().map((key) => this.#all!.get(key)!);
    return this.#key === undefined ? [] : [this.#only!];
  }
}
