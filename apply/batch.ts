/** A batch: stretches of rows of whole source transactions (or of a part of one), as frames brought them. */
import type { ReceivedFrame } from '../core/cdc-stream.ts';
import type { Part, TransactionEntry } from '../core/frame.ts';
import type { IndexedFrame } from '../core/indexed-frame.ts';
import {
  comparePositions,
  entryLiesBefore,
  entryPosition,
  formatPosition,
  positionAfter,
  type Position,
} from '../core/position.ts';

/** The rows `[from, to)` of a frame: of its transactions `[firstEntry, endEntry)`, perhaps without some at either end. */
export interface Run {
  readonly frame: IndexedFrame;
  /** The frame's sequence in the stream. */
  readonly seq: number;
  /** Where the frame begins in the source's log. */
  readonly start: Position;
  /** The first row of transaction `firstEntry` in the frame. */
  readonly entryFrom: number;
  readonly from: number;
  readonly to: number;
  readonly firstEntry: number;
  readonly endEntry: number;
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

/** Gives up the memory of frames that a batch was the last to need. Nothing of the batch may be read any more. */
export function giveUpFrames(batch: Batch): void {
  for (const { frame, endEntry } of batch.runs) if (endEntry === frame.transactions) frame.giveUp();
}

/** The part of a run that belongs to one transaction. */
export interface TransactionRun {
  readonly entry: TransactionEntry;
  readonly index: number;
  /** The first row of the transaction in the frame; `from` may lie behind it. */
  readonly start: number;
  readonly from: number;
  readonly to: number;
}

/** A run, transaction by transaction. */
export function* transactionsOf(run: Run): Generator<TransactionRun, void, void> {
  let start = run.entryFrom;
  for (let index = run.firstEntry; index < run.endEntry; index++) {
    const entry = run.frame.tx[index]!;
    const end = start + entry[4];
    yield { entry, index, start, from: Math.max(start, run.from), to: Math.min(end, run.to) };
    start = end;
  }
}

/** The place of a row, as the quarantine names it: its transaction, and its ordinal there; and when that was committed. */
export interface RowPlace {
  readonly position: string;
  readonly ordinal: number;
  readonly commitTimeUs: number;
}

/** The places of rows of a run that are asked for in their order. */
export class RowPlaces {
  readonly #run: Run;
  readonly #transactions: Generator<TransactionRun, void, void>;
  #at: TransactionRun | undefined;
  #position: string | undefined;

  constructor(run: Run) {
    this.#run = run;
    this.#transactions = transactionsOf(run);
  }

  of(row: number): RowPlace {
    while (this.#at === undefined || row >= this.#at.to) {
      const { done, value } = this.#transactions.next();
      if (done === true)
        throw new RangeError(`row ${row} is not in a run of rows ${this.#run.from} to ${this.#run.to}`);
      this.#at = value;
      this.#position = undefined;
    }
    const { entry, start } = this.#at;
    this.#position ??= formatPosition(entryPosition(entry, 0));
    return { position: this.#position, ordinal: entry[6] + row - start, commitTimeUs: entry[3] };
  }
}

/**
 * A batch that begins inside of a transaction: the rest of that by itself, and what follows it, if anything does.
 */
export function divideBehindFirst(batch: Batch): readonly Batch[] {
  for (const [n, run] of batch.runs.entries())
    for (const { entry, index, start, to } of transactionsOf(run)) {
      if (!endsIn(entry[5])) continue;
      const ended = index + 1;
      const behind =
        ended === run.endEntry ? [] : [{ ...run, firstEntry: ended, entryFrom: start + entry[4], from: to }];
      const runs = [...behind, ...batch.runs.slice(n + 1)];
      if (runs.length === 0) return [batch];
      const first = { ...run, to, endEntry: ended };
      const earlier = batch.runs.slice(0, n);
      const rows = earlier.reduce((sum, one) => sum + one.to - one.from, to - first.from);
      return [
        {
          ...batch,
          runs: [...earlier, first],
          rows,
          transactions: 1,
          // Its frame may have been taken in part only.
          seq: ended === run.frame.transactions ? run.seq : run.seq - 1,
          next: positionAfter(run.start, run.frame.tx, index),
        },
        { ...batch, runs, rows: batch.rows - rows, transactions: batch.transactions - 1 },
      ];
    }
  return [batch];
}

/** The last transaction that a batch has rows of; undefined where it has of none. */
export function lastEntry({ runs }: Batch): TransactionEntry | undefined {
  const run = runs.findLast(({ firstEntry, endEntry }) => endEntry > firstEntry);
  return run?.frame.tx[run.endEntry - 1];
}

interface Piece {
  readonly run: Run;
  readonly transactions: number;
  readonly commitTimeUs: number;
  readonly bytes: number;
  readonly seq: number;
  /** After the piece no transaction is open, and the target may stand here. */
  readonly boundary: Position | undefined;
}

/** Whether a transaction of which a frame holds this part is complete there. */
function endsIn(part: Part | undefined): boolean {
  return part === 'whole' || part === 'last';
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

  /** Whether all that is there belongs to one transaction, and its end is not there. */
  get unfinished(): boolean {
    return !this.empty && this.#pieces.every((piece) => piece.boundary === undefined);
  }

  add(received: ReceivedFrame, frame: IndexedFrame): void {
    const bytesPerRow = received.payload.byteLength / Math.max(1, frame.length);
    let firstEntry = 0;
    let from = 0;
    // Everything is read again from there: in another history the numbers of this one mean something else.
    if (received.reset) this.#skipTo = received.end;
    else if (comparePositions(received.start, this.#skipTo) < 0)
      while (firstEntry < frame.transactions && entryLiesBefore(frame.tx[firstEntry]!, this.#skipTo))
        from += frame.rowsOf(firstEntry++);
    let to = from;
    let transactions = 0;
    const push = (endEntry: number, boundary: Position | undefined): void => {
      const bytes = Math.ceil((to - from) * bytesPerRow);
      const run = { frame, seq: received.seq, start: received.start, entryFrom: from, from, to, firstEntry, endEntry };
      const commitTimeUs = frame.newestTime(firstEntry, endEntry);
      this.#pieces.push({ run, transactions, commitTimeUs, bytes, seq: received.seq, boundary });
      this.#bytes += bytes;
      from = to;
      firstEntry = endEntry;
      transactions = 0;
    };
    for (let index = firstEntry; index < frame.transactions; index++) {
      to += frame.rowsOf(index);
      if (!endsIn(frame.partOf(index))) continue;
      transactions += 1;
      // Before a transaction that goes on in the next frame the target may stand too, at the end of the one before.
      if (frame.partOf(index + 1) === 'first') push(index + 1, positionAfter(received.start, frame.tx, index));
    }
    const last = frame.partOf(frame.transactions - 1);
    push(frame.transactions, (last === undefined ? this.#openBefore() : !endsIn(last)) ? undefined : received.end);
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
    let rows = 0;
    let transactions = 0;
    let commitTimeUs = 0;
    for (const piece of taken) {
      this.#bytes -= piece.bytes;
      rows += piece.run.to - piece.run.from;
      transactions += piece.transactions;
      commitTimeUs = Math.max(commitTimeUs, piece.commitTimeUs);
    }
    const last = taken.at(-1)!;
    this.#open = last.boundary === undefined;
    this.wake();
    const runs = taken.map((piece) => piece.run);
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
