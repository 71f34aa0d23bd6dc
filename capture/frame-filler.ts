/** The frame that is being filled from a source's log, and the buffers that frames are filled in. */
import type { SealedFrame } from '../core/frame-publisher.ts';
import { FrameWriter } from '../core/frame-writer.ts';
import type { Position } from '../core/position.ts';

/** A sealed frame together with the writer whose buffer it lies in; give the writer back with `recycle`. */
export interface PendingFrame<P extends Position> extends SealedFrame {
  readonly start: P;
  readonly end: P;
  readonly writer: FrameWriter;
  readonly bytes: number;
}

const MOST_SPARE_WRITERS = 2;
/** A frame holds so many times the bytes of its definitions in rows, unless it would be so many times as large as usual. */
const TABLES_TIMES = 2;
const MOST_TIMES = 4;

export class FrameFiller<P extends Position> {
  readonly #frameBytes: number;
  readonly #spare: FrameWriter[] = [];
  #writer: FrameWriter;
  #sealed: P;
  /** Commit time of the newest transaction that ended, microseconds since 1970. */
  newestTimeUs = 0;

  constructor(frameBytes: number, resume: P) {
    this.#frameBytes = frameBytes;
    this.#writer = new FrameWriter(frameBytes);
    this.#sealed = resume;
  }

  /** What rows are written into; another one after each `seal`. */
  get writer(): FrameWriter {
    return this.#writer;
  }

  get full(): boolean {
    return this.room <= 0;
  }

  /** Bytes until it is full. Rows of very many tables make it larger: their definitions would be most of it. */
  get room(): number {
    const { size, tablesBytes } = this.#writer;
    const most = Math.min(TABLES_TIMES * tablesBytes, MOST_TIMES * this.#frameBytes);
    return Math.max(this.#frameBytes, most) - size;
  }

  /** End of what has been sealed. */
  get sealed(): P {
    return this.#sealed;
  }

  /** Closes the frame at `end` and begins the next one. */
  seal(end: P, more: { readonly log?: string; readonly replay?: string } = {}): PendingFrame<P> {
    const writer = this.#writer;
    const { rows, transactions, version } = writer;
    const payload = writer.finish();
    const { newestTimeUs: timeUs } = this;
    const start = this.#sealed;
    this.#sealed = end;
    this.#writer = this.#spare.pop() ?? new FrameWriter(this.#frameBytes);
    return { version, payload, start, end, rows, transactions, timeUs, writer, bytes: payload.length, ...more };
  }

  recycle(writer: FrameWriter): void {
    if (this.#spare.length >= MOST_SPARE_WRITERS) return;
    writer.reset();
    this.#spare.push(writer);
  }
}
