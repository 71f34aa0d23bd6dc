/** What a flow keeps of one source: the state of its mapping, and how far its stream has been taken. */
import type { ReceivedFrame } from '../core/cdc-stream.ts';
import type { TransactionEntry } from '../core/frame.ts';
import { IndexedFrame } from '../core/indexed-frame.ts';
import { isOwnOrigin } from '../core/origin.ts';
import {
  entryLiesBefore,
  entryPosition,
  formatPosition,
  ORIGIN,
  positionAfter,
  type Position,
} from '../core/position.ts';
import type { SourcePlace } from './checkpoint.ts';
import { MappingEngine } from './mapping/engine.ts';

/** Most rows that are decoded together: enough to share the price, few enough to be gone soon. */
const DECODED_ROWS = 128;

/** A frame that is being taken, transaction by transaction. */
interface Cursor {
  readonly received: ReceivedFrame;
  readonly frame: IndexedFrame;
  /** Whether the mapping reads each of the frame's tables. */
  readonly reads: readonly boolean[];
  next: number;
  row: number;
}

export class SourceState {
  readonly name: string;
  readonly engine: MappingEngine;
  /** Behind the last transaction that was taken whole. */
  place: SourcePlace = { position: ORIGIN, seq: 0 };
  /** Where `place` was before the last transaction that was taken whole. */
  previous: SourcePlace = { position: ORIGIN, seq: 0 };
  /** Commit time that the source's stream has reached, microseconds since 1970: also of transactions that say nothing here. */
  reachedUs = 0;
  /** A transaction has been taken in part: what it did is not to be seen yet. */
  open = false;
  /** The transaction that was taken last is one that Waybill wrote into the source. */
  echo = false;
  /** Behind the last transaction that had a row which the mapping reads; where it began while there was none. */
  readUpTo: Position = ORIGIN;
  /** Says of transactions that they are not taken: what they did is known otherwise. */
  passesOver: ((entry: TransactionEntry) => boolean) | undefined;
  readonly #installation: string;
  #cursor: Cursor | undefined;

  /** `installation` is this one's id: what it wrote itself is no change of the source's. */
  constructor(name: string, engine: MappingEngine, installation: string) {
    this.name = name;
    this.engine = engine;
    this.#installation = installation;
  }

  /** Goes on where a saved state stands. */
  restore(place: SourcePlace): void {
    this.place = place;
    this.previous = place;
    this.readUpTo = place.position;
  }

  /** Nothing is left of the frame that was begun last. */
  get idle(): boolean {
    return this.#cursor === undefined;
  }

  /** Begins a frame. Only when idle; one without transactions has ended then, and only tells how far the source has come. */
  begin(received: ReceivedFrame): void {
    const frame = IndexedFrame.open(received.payload, received.place);
    const reads = frame.tables.map((table) => this.engine.reads(table));
    this.#cursor = { received, frame, reads, next: 0, row: 0 };
    if (frame.tx.length > 0) return;
    if (!this.open) this.#reach(received);
    this.#end();
  }

  #reach({ timeUs }: ReceivedFrame): void {
    if (timeUs > this.reachedUs) this.reachedUs = timeUs;
  }

  /** Whether everything up to `goal` has been taken, and nothing behind it. */
  reached(goal: SourcePlace): boolean {
    const cursor = this.#cursor;
    if (cursor === undefined) return this.place.seq >= goal.seq;
    const { received, frame, next } = cursor;
    if (received.seq !== goal.seq) return received.seq > goal.seq;
    return !entryLiesBefore(frame.tx[next]!, goal.position);
  }

  /** Takes the next transaction of the frame, or the part of it that is there. True when it is complete. */
  step(): boolean {
    const cursor = this.#cursor!;
    const { received, frame } = cursor;
    const index = cursor.next++;
    const entry = frame.tx[index]!;
    const isRead = this.passesOver?.(entry) === true ? this.#passOver(cursor, entry) : this.#apply(cursor, entry);
    if (entry[3] > this.reachedUs) this.reachedUs = entry[3];
    this.open = entry[5] === 'first' || entry[5] === 'middle';
    this.echo = isOwnOrigin(entry[7], this.#installation);
    const last = cursor.next === frame.tx.length;
    if (!this.open) {
      if (last) this.#reach(received);
      this.previous = this.place;
      const position = last ? received.end : positionAfter(received.start, frame.tx, index);
      this.place = { position, seq: received.seq };
    }
    if (isRead) this.readUpTo = this.open ? received.end : this.place.position;
    if (last) this.#end();
    return !this.open;
  }

  /** True when it had rows that the mapping reads. */
  #passOver(cursor: Cursor, entry: TransactionEntry): boolean {
    const { frame, reads } = cursor;
    const end = cursor.row + entry[4];
    let found = false;
    for (let row = cursor.row; row < end && !found; row++) found = reads[frame.tableIndex(row)] === true;
    cursor.row = end;
    return found;
  }

  /** True when it had rows that the mapping reads. */
  #apply(cursor: Cursor, entry: TransactionEntry): boolean {
    const { frame, reads } = cursor;
    const end = cursor.row + entry[4];
    let place: { position: string; timeUs: number } | undefined;
    const isRead = (row: number): boolean => reads[frame.tableIndex(row)] === true;
    for (let row = cursor.row; row < end; row++) {
      if (!isRead(row)) continue;
      let to = row + 1;
      while (to < end && to - row < DECODED_ROWS && isRead(to)) to += 1;
      place ??= { position: formatPosition(entryPosition(entry, 0)), timeUs: entry[3] };
      for (const change of frame.rows(row, to)) this.engine.apply(change, frame.tables, place);
      row = to - 1;
    }
    cursor.row = end;
    return place !== undefined;
  }

  #end(): void {
    const { received } = this.#cursor!;
    if (!this.open) this.place = { position: received.end, seq: received.seq };
    this.#cursor = undefined;
  }
}
