/**
 * A budget of bytes with a gate: producers add what they hold, consumers remove it, and a producer that is over the
 * budget waits on `room()`. Invariant 6: buffers are budgeted in bytes.
 */
export class ByteBudget {
  readonly limitBytes: number;
  #heldBytes = 0;
  #waiting: (() => void)[] = [];

  constructor(limitBytes: number) {
    if (!(limitBytes > 0)) throw new RangeError(`a byte budget must be positive, not ${limitBytes}`);
    this.limitBytes = limitBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get full(): boolean {
    return this.#heldBytes >= this.limitBytes;
  }

  /** Counts bytes as held. One item may exceed the budget: a row is never refused for its size. */
  add(bytes: number): void {
    this.#heldBytes += bytes;
  }

  /** Gives bytes back and lets waiting producers on once the budget has room. */
  remove(bytes: number): void {
    this.#heldBytes -= bytes;
    if (this.#heldBytes < 0) throw new RangeError('a byte budget was given back more than was taken');
    if (!this.full) this.#release();
  }

  /** Resolves at once while there is room, otherwise when there is again. */
  room(): Promise<void> {
    if (!this.full) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
