/**
 * The newest row of each key, found by the bytes of the key as they stand in frames: no text is made of any. For rows
 * whose key follows each other in the image and needs no escape, so that equal keys are equal bytes.
 */
import { giveUp } from '../core/buffer-memory.ts';
import type { IndexedFrame } from '../core/indexed-frame.ts';

/** What is kept of a key, in numbers: place of the row, hash, where the key begins and ends in the row's frame. */
const PLACE = 0;
const HASH = 1;
const START = 2;
const END = 3;
const WIDTH = 4;

export class PlainKeys {
  readonly #from: number;
  readonly #to: number;
  readonly #frameOf: (place: number) => IndexedFrame;
  #entries = new Uint32Array(64 * WIDTH);
  /** Numbers of entries by hash, plus one; zero where there is none. Never more than half full. */
  #slots = new Uint32Array(128);
  /** Number of keys. */
  size = 0;

  /** The key has the columns `[from, to)`; `frameOf` gives the frame of the row at a place. */
  constructor(from: number, to: number, frameOf: (place: number) => IndexedFrame) {
    this.#from = from;
    this.#to = to;
    this.#frameOf = frameOf;
  }

  /** Takes the row at `place` as the newest of its key. False, and nothing is taken, where its key is not plain. */
  set(frame: IndexedFrame, row: number, place: number): boolean {
    const hash = frame.hashTexts(row, this.#from, this.#to);
    if (hash < 0) return false;
    const { valueStart, valueEnd } = frame;
    const entries = this.#entries;
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (let number = this.#slots[slot]!; number !== 0; number = this.#slots[slot]!) {
      const at = (number - 1) * WIDTH;
      if (entries[at + HASH] === hash && this.#isSame(at, frame)) {
        entries[at + PLACE] = place;
        entries[at + START] = valueStart;
        entries[at + END] = valueEnd;
        return true;
      }
      slot = (slot + 1) & mask;
    }
    this.#add(slot, hash, place, valueStart, valueEnd);
    return true;
  }

  /** Places of the newest rows, in the order in which their keys first came. */
  *places(): Generator<number> {
    for (let number = 0; number < this.size; number++) yield this.#entries[number * WIDTH + PLACE]!;
  }

  /** Gives up the memory of the keys. None of them may be asked for any more. */
  giveUp(): void {
    giveUp(this.#entries);
    giveUp(this.#slots);
  }

  #isSame(at: number, { bytes, valueStart, valueEnd }: IndexedFrame): boolean {
    const start = this.#entries[at + START]!;
    if (this.#entries[at + END]! - start !== valueEnd - valueStart) return false;
    const other = this.#frameOf(this.#entries[at + PLACE]!).bytes;
    for (let i = valueStart; i < valueEnd; i++) if (bytes[i] !== other[start + i - valueStart]) return false;
    return true;
  }

  #add(slot: number, hash: number, place: number, start: number, end: number): void {
    const at = this.size * WIDTH;
    if (at === this.#entries.length) {
      const grown = new Uint32Array(2 * at);
      grown.set(this.#entries);
      giveUp(this.#entries);
      this.#entries = grown;
    }
    this.#entries[at + PLACE] = place;
    this.#entries[at + HASH] = hash;
    this.#entries[at + START] = start;
    this.#entries[at + END] = end;
    this.size += 1;
    this.#slots[slot] = this.size;
    if (2 * this.size >= this.#slots.length) this.#spread();
  }

  #spread(): void {
    const slots = new Uint32Array(2 * this.#slots.length);
    const mask = slots.length - 1;
    for (let number = 1; number <= this.size; number++) {
      let slot = this.#entries[(number - 1) * WIDTH + HASH]! & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = number;
    }
    giveUp(this.#slots);
    this.#slots = slots;
  }
}
