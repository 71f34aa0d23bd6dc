/** A batch: runs of rows of whole source transactions (or of a part of one), as frames brought them. */
import type { FramePayload, TransactionEntry } from '../../core/frame.ts';
import { comparePositions, formatPosition, pgPosition, type Position } from '../../core/position.ts';
import type { ReceivedFrame } from '../../core/cdc-stream.ts';

/** The rows `[from, to)` of a frame, which belong to one transaction. */
export interface Run {
  readonly frame: FramePayload;
  readonly entry: TransactionEntry;
  readonly from: number;
  readonly to: number;
}

export interface Batch {
  readonly runs: readonly Run[];
  readonly rows: number;
  readonly transactions: number;
  readonly seq: number;
  readonly commitTimeUs: number;
  /** Where the target stands after it; undefined when its last transaction goes on in a later batch. */
  readonly next: Position | undefined;
}

/** The place of a row, as the quarantine names it. */
export function rowPosition(run: Run): string {
  return formatPosition(pgPosition(BigInt(`0x${run.entry[1]}`)));
}

interface Piece {
  readonly runs: Run[];
  readonly bytes: number;
  readonly seq: number;
  /** After the piece no transaction is open, and the target may stand here. */
  readonly boundary: Position | undefined;
}

/** Collects decoded frames and cuts batches out of them. */
export class BatchQueue {
  #pieces: Piece[] = [];
  #bytes = 0;
  #skipTo: Position;
  #wake: (() => void)[] = [];
  #open = false;
  readonly startSeq: number;

  /** Transactions before `position` are applied already: a frame that it lies in is trimmed. */
  constructor(position: Position, startSeq: number) {
    this.#skipTo = position;
    this.startSeq = startSeq;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get empty(): boolean {
    return this.#pieces.length === 0;
  }

  add(received: ReceivedFrame, frame: FramePayload): void {
    let row = 0;
    let runs: Run[] = [];
    const trim = comparePositions(received.start, this.#skipTo) < 0;
    const bytesPerRow = received.payload.byteLength / Math.max(1, frame.rows.length);
    const push = (boundary: Position | undefined): void => {
      const rows = runs.reduce((sum, run) => sum + run.to - run.from, 0);
      const bytes = Math.ceil(rows * bytesPerRow);
      this.#pieces.push({ runs, bytes, seq: received.seq, boundary });
      this.#bytes += bytes;
      runs = [];
    };
    for (const [index, entry] of frame.tx.entries()) {
      const from = row;
      row += entry[4];
      if (trim && comparePositions(pgPosition(BigInt(`0x${entry[1]}`), entry[6]), this.#skipTo) < 0) continue;
      runs.push({ frame, entry, from, to: row });
      const ends = entry[5] === 'whole' || entry[5] === 'last';
      // Before a transaction that goes on in the next frame the target may stand too, at the end of the one before.
      if (ends && frame.tx[index + 1]?.[5] === 'first' && entry[1] < entry[2] && entry[2] <= frame.tx[index + 1]![1])
        push(pgPosition(BigInt(`0x${entry[2]}`)));
    }
    const last = frame.tx.at(-1)?.[5];
    const open = last === undefined ? this.#openBefore() : last === 'first' || last === 'middle';
    push(open ? undefined : received.end);
    this.wake();
  }

  #openBefore(): boolean {
    const last = this.#pieces.at(-1);
    return last === undefined ? this.#open : last.boundary === undefined;
  }

  /**
   * Everything up to the last boundary; without one, and over `limitBytes`, what is there of an unfinished
   * transaction; undefined when it is better to wait.
   */
  take(limitBytes: number): Batch | undefined {
    let count = this.#pieces.length;
    while (count > 0 && this.#pieces[count - 1]!.boundary === undefined) count -= 1;
    if (count === 0) {
      if (this.#pieces.length === 0 || this.#bytes < limitBytes) return undefined;
      count = this.#pieces.length;
    }
    const taken = this.#pieces.splice(0, count);
    for (const piece of taken) this.#bytes -= piece.bytes;
    const runs = taken.flatMap((piece) => piece.runs);
    let rows = 0;
    let transactions = 0;
    let commitTimeUs = 0;
    for (const run of runs) {
      rows += run.to - run.from;
      if (run.entry[5] === 'whole' || run.entry[5] === 'last') transactions += 1;
      commitTimeUs = Math.max(commitTimeUs, run.entry[3]);
    }
    const last = taken.at(-1)!;
    this.#open = last.boundary === undefined;
    this.wake();
    return { runs, rows, transactions, seq: last.seq, commitTimeUs, next: last.boundary };
  }

  /** Resolves at the next change of the queue. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  /** Like `changed`, but gives false when nothing changed for `ms`. */
  async changedWithin(ms: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), ms);
    });
    try {
      return await Promise.race([this.changed().then(() => true), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Wakes whoever waits for a change. */
  wake(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const resolve of waiting) resolve();
  }
}
