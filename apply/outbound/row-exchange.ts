/**
 * Who gets rows that several records want, where some are had by records that leave them for others. A record that does not
 * get another row keeps its own, and may so leave the next one without: what follows from that is followed along the records
 * that relied on it, so that a chain costs no more than its length.
 */

/** What a record wants to have. */
export interface RowRequest {
  readonly key: string;
  /** Ids of the row. */
  readonly rows: readonly string[];
}

/**
 * Finds the record that keeps the one at a place from its row, by who has what now. Of an owner that goes for another row
 * it is asked with `leaves` whether that leaves this one.
 */
export type RivalAt = (
  place: number,
  owners: ReadonlyMap<string, string>,
  leaves: (owner: string) => boolean,
) => string | undefined;

export class RowExchange {
  /** Who has the row, by the places of those that do not get it. */
  readonly others = new Map<number, string>();
  readonly #owners: Map<string, string>;
  readonly #before: ReadonlyMap<string, string>;
  readonly #rivalAt: RivalAt;
  /** Keys of records that keep what they have. */
  readonly #staying: Set<string>;
  /** By places of those that get their rows: the owners that leave these. */
  readonly #left = new Map<number, ReadonlySet<string>>();
  /** By keys: the places to be looked at again when such a record stays, or does not get a row after all. */
  readonly #relying = new Map<string, number[]>();

  /** `owners` are keys of records by rows; `staying` those of records that are not in, whatever they want. */
  constructor(owners: ReadonlyMap<string, string>, staying: ReadonlySet<string>, rivalAt: RivalAt) {
    this.#before = owners;
    this.#owners = new Map(owners);
    this.#staying = new Set(staying);
    this.#rivalAt = rivalAt;
  }

  /** Decides all requests, by their places; the first to ask for a row goes before the others. */
  decide(requests: ReadonlyMap<number, RowRequest>): void {
    const refused: string[] = [];
    for (const [place, request] of requests) if (!this.#decide(place, request)) refused.push(request.key);
    for (let key = refused.pop(); key !== undefined; key = refused.pop()) {
      const places = this.#relying.get(key) ?? [];
      this.#relying.delete(key);
      for (const place of places) {
        const request = requests.get(place)!;
        const had = this.#takeBack(place, request);
        if (!this.#decide(place, request) && had) refused.push(request.key);
      }
    }
  }

  /** Keys of records whose rows others get. */
  get handedOn(): Set<string> {
    return new Set([...this.#left.values()].flatMap((owners) => [...owners]));
  }

  /** Gives whether the record gets its row, as it stands. */
  #decide(place: number, { key, rows }: RowRequest): boolean {
    const left = new Set<string>();
    const other = this.#rivalAt(place, this.#owners, (owner) => {
      if (this.#staying.has(owner)) return false;
      left.add(owner);
      return true;
    });
    if (other !== undefined) {
      this.others.set(place, other);
      this.#rely(other, place);
      this.#staying.add(key);
      return false;
    }
    this.others.delete(place);
    this.#left.set(place, left);
    for (const row of rows) this.#owners.set(row, key);
    for (const owner of left) this.#rely(owner, place);
    return true;
  }

  /** Gives whether there was something to take back. */
  #takeBack(place: number, { key, rows }: RowRequest): boolean {
    if (!this.#left.delete(place)) return false;
    for (const row of rows) {
      if (this.#owners.get(row) !== key) continue;
      const owner = this.#before.get(row);
      if (owner === undefined) this.#owners.delete(row);
      else this.#owners.set(row, owner);
    }
    return true;
  }

  #rely(owner: string, place: number): void {
    const places = this.#relying.get(owner);
    if (places === undefined) this.#relying.set(owner, [place]);
    else places.push(place);
  }
}
