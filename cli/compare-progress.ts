/** How far a comparison is, on the terminal of whoever waits for it. */

/** What of `process.stderr` is used. */
export interface Terminal {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const CLEAR = '\r\u001B[K';

/** One line that is written over; nothing where nobody looks. */
export class CompareProgress {
  readonly #flow: string;
  readonly #terminal: Terminal | undefined;
  #shown: string | undefined;

  constructor(flow: string, terminal: Terminal) {
    this.#flow = flow;
    this.#terminal = terminal.isTTY === true ? terminal : undefined;
    this.#show('comparing');
  }

  /** `share` of the rows has been gone through. */
  share(share: number): void {
    this.#show(`${Math.floor(share * 100)} % of the rows read`);
  }

  #show(text: string): void {
    if (text === this.#shown) return;
    this.#shown = text;
    this.#terminal?.write(`${CLEAR}flow ${this.#flow}: ${text}`);
  }

  /** Takes the line away, for what is printed next. */
  end(): void {
    this.#terminal?.write(CLEAR);
  }
}
