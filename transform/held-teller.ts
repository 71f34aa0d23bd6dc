/**
 * Passes on what comes to be held, and what is no longer: few of it with the records of their transaction, many behind them,
 * in pieces, so that what comes after a burst of bad rows does not wait for all of them.
 */
import type { FrameWriter } from '../core/frame-writer.ts';
import { HeldCounts } from './held-counts.ts';
import type { HeldChange, HeldGroup } from './ownership/resolved.ts';
import type { RecordRows } from './record-rows.ts';

/** So many go with the records, and stand in a piece: a target takes some tens of milliseconds for them. */
export const HELD_AT_ONCE = 500;
/** A piece is passed on so often while others are at hand: the target has time for other things in between. */
const PIECE_EVERY_MS = 50;

export interface HeldTellerOptions {
  readonly rows: RecordRows;
  /** What is held under an id now. */
  readonly held: (id: string) => HeldGroup | undefined;
  readonly report: { held(reason: string, keys: number): void; records(outcome: 'rejected', count: number): void };
}

export class HeldTeller {
  readonly #options: HeldTellerOptions;
  readonly #counts: HeldCounts;
  /** Ids that have changed and have not been passed on, in the order in which they did. */
  #waiting = new Set<string>();
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(options: HeldTellerOptions) {
    const { report } = options;
    this.#options = options;
    this.#counts = new HeldCounts((reason, keys) => report.held(reason, keys));
  }

  /** Notes what was held before this run. */
  restore(entries: Iterable<HeldChange>): void {
    for (const { id, held } of entries) if (isShown(held)) this.#counts.note(id, true);
  }

  /** Whether something has not been passed on. */
  get waits(): boolean {
    return this.#waiting.size > 0;
  }

  /** Milliseconds until the next piece may be passed on. */
  get dueInMs(): number {
    return Math.max(0, this.#toldMs + PIECE_EVERY_MS - performance.now());
  }

  /** Takes what a transaction changed. Gives what is to be passed on with its records; the rest waits. */
  take(changes: readonly HeldChange[]): readonly HeldChange[] {
    if (changes.length <= HELD_AT_ONCE && !this.waits) return changes;
    // What came behind the burst and is good may be at hand: that goes first.
    if (!this.waits) this.#toldMs = performance.now();
    for (const { id } of changes) this.#waiting.add(id);
    return [];
  }

  /** Writes the next piece of what waits, as it is now. */
  writePiece(writer: FrameWriter): void {
    this.#toldMs = performance.now();
    let left = HELD_AT_ONCE;
    for (const id of this.#waiting) {
      if (left-- === 0) return;
      this.#waiting.delete(id);
      this.write(writer, { id, held: this.#options.held(id) });
    }
    // A set that is emptied keeps its room.
    this.#waiting = new Set();
  }

  write(writer: FrameWriter, { id, held }: HeldChange): void {
    const shown = isShown(held) ? held : undefined;
    const was = this.#counts.note(id, shown !== undefined);
    if (shown !== undefined) this.#options.report.records('rejected', 1);
    if (was || shown !== undefined) this.#options.rows.hold(writer, id, shown);
  }
}

/** What merely lacks something that has yet to come is nobody's concern. */
export function isShown(held: HeldGroup | undefined): held is HeldGroup {
  return held !== undefined && held.incomplete !== true;
}
