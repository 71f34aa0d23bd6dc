/** A terminal that is drawn again and again in place, and left as it was found. */

export interface TerminalStream {
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

const ENTER = '\u001B[?1049h\u001B[?25l';
const LEAVE = '\u001B[?25h\u001B[?1049l';
const HOME = '\u001B[H';
const TO_LINE_END = '\u001B[K';
const TO_SCREEN_END = '\u001B[J';
const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;

export class Screen {
  readonly #stream: TerminalStream;
  #entered = false;

  constructor(stream: TerminalStream) {
    this.#stream = stream;
  }

  get width(): number {
    return this.#stream.columns ?? DEFAULT_COLUMNS;
  }

  /** Puts the lines in the place of those that are there. What does not fit is counted. */
  draw(lines: readonly string[]): void {
    const rows = this.#stream.rows ?? DEFAULT_ROWS;
    const shown =
      lines.length <= rows ? lines : [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} more lines`];
    const text = `${shown.map((line) => line + TO_LINE_END).join('\n')}${TO_SCREEN_END}`;
    this.#stream.write(`${this.#entered ? '' : ENTER}${HOME}${text}`);
    this.#entered = true;
  }

  /** Gives the terminal back, with the lines as its last output. */
  leave(lines: readonly string[]): void {
    if (this.#entered) this.#stream.write(LEAVE);
    this.#entered = false;
    this.#stream.write(lines.map((line) => `${line}\n`).join(''));
  }
}
