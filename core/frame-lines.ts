/** The lines of COPY's text format that a frame holds behind its JSON (docs/frame-format.md, "Lines"), as they are written. */
import { MOST_COPY_ESCAPE_BYTES, TextCopier } from './json-text.ts';

const TAB = 0x09;
const LINE_FEED = 0x0a;
const BACKSLASH = 0x5c;
const UPPER_N = 0x4e;

export class FrameLines {
  readonly #usualBytes: number;
  readonly #texts = new TextCopier('copy');
  #buffer: Buffer | undefined;
  #length = 0;

  constructor(usualBytes: number) {
    this.#usualBytes = usualBytes;
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Forgets the lines; of a buffer that is larger than `mostBytes` also the memory. */
  reset(mostBytes: number): void {
    if (this.#buffer !== undefined && this.#buffer.length > mostBytes) this.#buffer = undefined;
    this.#length = 0;
    this.#texts.forget();
  }

  /** Adds lines that are complete, `source[start, end)`. */
  add(source: Buffer, start: number, end: number): void {
    const buffer = this.#reserve(end - start);
    this.#length += source.copy(buffer, this.#length, start, end);
  }

  /** UTF-8 text from `source[start, end)` as the next value of a line. */
  text(source: Uint8Array, start: number, end: number): void {
    const buffer = this.#reserve((end - start) * MOST_COPY_ESCAPE_BYTES + 1);
    const at = this.#texts.copy(source, start, end, buffer, this.#length);
    buffer[at] = TAB;
    this.#length = at + 1;
  }

  null(): void {
    const buffer = this.#reserve(3);
    const at = this.#length;
    buffer[at] = BACKSLASH;
    buffer[at + 1] = UPPER_N;
    buffer[at + 2] = TAB;
    this.#length = at + 3;
  }

  /** Ends a line that has a value. */
  end(): void {
    this.#buffer![this.#length - 1] = LINE_FEED;
  }

  /** Copies all lines to `target` from `at` on, which has room for them; gives their bytes. */
  copyTo(target: Buffer, at: number): number {
    return this.#buffer === undefined ? 0 : this.#buffer.copy(target, at, 0, this.#length);
  }

  #reserve(bytes: number): Buffer {
    const needed = this.#length + bytes;
    this.#buffer ??= Buffer.allocUnsafe(this.#usualBytes);
    if (needed > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, this.#length);
      this.#buffer = grown;
    }
    return this.#buffer;
  }
}
