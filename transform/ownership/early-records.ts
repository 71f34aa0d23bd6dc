/** Records with a commit time that lies too far ahead, and when it counts. */
export class EarlyRecords {
  readonly #countsUs = new Map<string, number>();
  /** Nothing counts before; there may be nothing that counts just then. */
  #firstUs = Infinity;

  /** Notes when the first of a record's times counts. */
  set(key: string, countsUs: number): void {
    this.#countsUs.set(key, countsUs);
    if (countsUs < this.#firstUs) this.#firstUs = countsUs;
  }

  delete(key: string): void {
    this.#countsUs.delete(key);
  }

  /** Takes the records of which a time has come. Asked with each transaction, so that all are looked at only where one may be. */
  takeDue(nowUs: number): readonly string[] {
    if (nowUs < this.#firstUs) return [];
    const due: string[] = [];
    this.#firstUs = Infinity;
    for (const [key, countsUs] of this.#countsUs)
      if (countsUs <= nowUs) due.push(key);
      else if (countsUs < this.#firstUs) this.#firstUs = countsUs;
    for (const key of due) this.#countsUs.delete(key);
    return due;
  }
}
