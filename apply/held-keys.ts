/** Keys with a change in quarantine: later changes of such a key wait behind it, and its neighbours go on. */
export class HeldKeys {
  readonly #tables = new Map<string, Set<string>>();

  get empty(): boolean {
    return this.#tables.size === 0;
  }

  copy(): HeldKeys {
    const copy = new HeldKeys();
    for (const [table, keys] of this.#tables) copy.#tables.set(table, new Set(keys));
    return copy;
  }

  add(table: string, key: string): void {
    const keys = this.#tables.get(table);
    if (keys === undefined) this.#tables.set(table, new Set([key]));
    else keys.add(key);
  }

  has(table: string, key: string): boolean {
    return this.#tables.get(table)?.has(key) === true;
  }

  releaseTable(table: string): void {
    this.#tables.delete(table);
  }
}
