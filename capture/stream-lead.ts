/**
 * How far a stream runs ahead of the flows that apply it. Order is kept in one stream, so that what changes in other
 * tables waits behind the rows of a table that is being read. So no more is read than the flows write in a moment.
 *
 * A flow that is away, hangs or is far behind for another reason does not stop a snapshot: one that is silent is not
 * waited for, and of those that speak no chunk waits for longer than a while.
 */
import { hearApplied, type Applied } from '../core/applied.ts';
import type { FramePublisher } from '../core/frame-publisher.ts';
import type { Nats } from '../core/nats.ts';
import { abortableDelay } from '../core/run-service.ts';

/** So much work of a flow may lie ahead of it. */
const LEAD_MS = 400;
/** What may lie ahead of a flow of which one knows too little. */
const LEAST_BYTES = 128 << 10;
/** A chunk waits no longer. */
const PATIENCE_MS = 2000;
/**
 * A chunk of so many bytes or more may wait so long, a smaller one for its part of it: behind a flow that lags for another
 * reason, tables that grow would otherwise never be read to their ends in small chunks.
 */
const PATIENT_BYTES = LEAST_BYTES;
/** A flow that has work and does not speak for so long is away. */
const SILENT_MS = 5000;
const LOOK_EVERY_MS = 10;
/** Frames of which the sizes are remembered. */
const MOST_FRAMES = 4096;

interface Flow {
  readonly name: string;
  seq: number;
  /** What may lie ahead of it. */
  bytes: number;
  /** When it spoke, or was given work when it had none. */
  sinceMs: number;
}

interface StoredFrame {
  readonly seq: number;
  /** Bytes that were stored up to its end. */
  readonly end: number;
}

export class StreamLead {
  readonly #now: () => number;
  readonly #flows = new Map<string, Flow>();
  /** The flows for which chunks wait. */
  readonly #waits = new Set<Flow[]>();
  #frames: StoredFrame[];
  /** Bytes of chunks that are being read. */
  #reading = 0;
  #unsubscribe: (() => void) | undefined;

  /** `seq`: the end of the stream. */
  constructor(seq: number, now: () => number = () => performance.now()) {
    this.#now = now;
    this.#frames = [{ seq, end: 0 }];
  }

  /** Hears the flows of a stream, until it is closed. */
  static open(nats: Nats, prefix: string, { streamName, lastSeq }: FramePublisher): StreamLead {
    const lead = new StreamLead(lastSeq);
    const heard = hearApplied(nats, prefix, streamName, (applied) => lead.heard(applied));
    lead.#unsubscribe = () => heard.unsubscribe();
    return lead;
  }

  close(): void {
    this.#unsubscribe?.();
  }

  /** A frame was stored. */
  stored(seq: number, bytes: number): void {
    const last = this.#frames.at(-1)!;
    for (const flow of this.#flows.values()) if (flow.seq >= last.seq) flow.sinceMs = this.#now();
    this.#frames.push({ seq, end: last.end + bytes });
    // Every second one, and the last.
    if (this.#frames.length > MOST_FRAMES) this.#frames = this.#frames.filter((_, index) => index % 2 === 0);
  }

  /** A flow said how far it is. */
  heard({ flow, seq, bytesPerSecond }: Applied): void {
    const bytes = Math.max(LEAST_BYTES, (bytesPerSecond * LEAD_MS) / 1000);
    this.#flows.set(flow, { name: flow, seq, bytes, sinceMs: this.#now() });
  }

  /** Most bytes that may lie ahead of the flow that is slowest. Infinite where none is known. */
  get mostBytes(): number {
    return this.#waitedFor().reduce((least, { bytes }) => Math.min(least, bytes), Infinity);
  }

  /**
   * Waits until a chunk of about so many bytes (0: unknown) may be read, or for as long as it is worth it; resolves at once when the
   * signal has aborted. To be followed by `done` when the chunk is stored.
   */
  async room(bytes: number, signal: AbortSignal): Promise<void> {
    // Of one that nobody knows how large it is it may be large.
    const share = bytes === 0 ? 1 : Math.min(1, bytes / PATIENT_BYTES);
    const untilMs = this.#now() + PATIENCE_MS * share;
    for (;;) {
      const slow = this.#tooSlowFor(bytes);
      if (slow.length === 0 || signal.aborted || this.#now() >= untilMs) break;
      this.#waits.add(slow);
      await abortableDelay(LOOK_EVERY_MS, signal);
      this.#waits.delete(slow);
    }
    this.#reading += bytes;
  }

  /** A chunk for which there was room is stored, or will not be. */
  done(bytes: number): void {
    this.#reading -= bytes;
  }

  /** Whether each flow that speaks has half of what may lie ahead of it. False where none speaks. */
  get isFed(): boolean {
    const flows = this.#waitedFor();
    return flows.length > 0 && flows.every(({ seq, bytes }) => this.#ahead(seq) + this.#reading >= bytes / 2);
  }

  /** Names of the flows that are waited for now. */
  get waitsFor(): string[] {
    return [...new Set([...this.#waits].flat().map(({ name }) => name))];
  }

  #tooSlowFor(bytes: number): Flow[] {
    return this.#waitedFor().filter((flow) => {
      const ahead = this.#ahead(flow.seq) + this.#reading;
      return ahead > 0 && ahead + bytes > flow.bytes;
    });
  }

  #waitedFor(): Flow[] {
    return [...this.#flows.values()].filter((flow) => this.#isIdle(flow) || this.#now() - flow.sinceMs < SILENT_MS);
  }

  #isIdle({ seq }: Flow): boolean {
    return seq >= this.#frames.at(-1)!.seq;
  }

  /** Bytes of the frames behind a sequence. */
  #ahead(seq: number): number {
    const { end } = this.#frames.at(-1)!;
    if (seq < this.#frames[0]!.seq) return Infinity;
    let low = 0;
    let high = this.#frames.length - 1;
    // The last frame that is not behind it.
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.#frames[middle]!.seq <= seq) low = middle;
      else high = middle - 1;
    }
    return end - this.#frames[low]!.end;
  }
}
