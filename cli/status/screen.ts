/** A terminal that is drawn again and again in place, scrolled by keys, and left as it was found. */

export interface TerminalStream {
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

/** Where keys scroll to, in lines, in pages, or to one of the ends. */
export type Scroll = { readonly lines: number } | { readonly pages: number } | 'top' | 'bottom';

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
  /** Lines of the body that are above what is shown. */
  #above = 0;
  /** How far down it goes, and how much a page is, as of the last drawing. */
  #most = 0;
  #page = 1;

  constructor(stream: TerminalStream) {
    this.#stream = stream;
  }

  get width(): number {
    return this.#stream.columns ?? DEFAULT_COLUMNS;
  }

  /** How many lines a body has room for below a head of so many. */
  roomBelow(head: number): number {
    return Math.max(2, (this.#stream.rows ?? DEFAULT_ROWS) - head);
  }

  scroll(by: Scroll): void {
    if (by === 'top') this.#above = 0;
    else if (by === 'bottom') this.#above = this.#most;
    else this.#above += 'lines' in by ? by.lines : by.pages * this.#page;
    this.#above = Math.min(this.#most, Math.max(0, this.#above));
  }

  /**
   * Puts the lines in the place of those that are there. The head stays; of a body that does not fit a part is shown, and
   * how much of it is elsewhere.
   */
  draw(head: readonly string[], body: readonly string[]): void {
    const room = this.roomBelow(head.length);
    let shown = body;
    this.#page = room - 1;
    this.#most = body.length <= room ? 0 : body.length - this.#page;
    this.#above = Math.min(this.#above, this.#most);
    if (this.#most > 0) {
      const below = this.#most - this.#above;
      const elsewhere = [
        ...(this.#above > 0 ? [`${this.#above} above`] : []),
        ...(below > 0 ? [`${below} more line${below === 1 ? '' : 's'} below`] : []),
      ];
      const note = `… ${elsewhere.join(', ')}: arrows, PgUp, PgDn`;
      shown = [...body.slice(this.#above, this.#above + this.#page), note.slice(0, this.width)];
    }
    const text = `${[...head, ...shown].map((line) => line + TO_LINE_END).join('\n')}${TO_SCREEN_END}`;
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
