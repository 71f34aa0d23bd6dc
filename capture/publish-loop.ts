/**
 * Publishing by stop-and-wait: one frame in flight, while the next is filled from the log (group commit). With a full
 * one waiting behind it, reading stops. Invariant 6.
 */
import type { FramePublisher } from '../core/frame-publisher.ts';
import type { FrameWriter } from '../core/frame-writer.ts';
import type { CaptureReport } from '../core/metrics.ts';
import { formatPosition, type Position } from '../core/position.ts';
import { untilAborted } from '../core/run-service.ts';
import type { SnapshotStatus } from './snapshot-loop.ts';
import type { PendingFrame } from './frame-filler.ts';
import type { StreamLead } from './stream-lead.ts';

/** What turns a source's log into frames. */
export interface FrameSource<P extends Position> {
  /** The frame at hand when there is something to publish and no transaction is open. */
  sealAtBoundary(): PendingFrame<P> | undefined;
  recycle(writer: FrameWriter): void;
  /** Row counts by table and operation since the last call. */
  takeCounts(): Iterable<{
    readonly table: { readonly schema: { readonly schema: string; readonly name: string } };
    readonly op: string;
    readonly count: number;
  }>;
  /** Whether something of the log lies in no frame yet that was given away. */
  readonly outstanding: boolean;
  /** Commit time of the newest transaction seen, microseconds since 1970; 0 before the first. */
  readonly newestTimeUs: number;
}

export interface PublishLoopOptions<P extends Position> {
  readonly publisher: FramePublisher;
  readonly source: FrameSource<P>;
  /** End of what the stream holds. */
  readonly resume: P;
  readonly report: CaptureReport;
  readonly progressed: () => void;
  /** Stops reading the log, and goes on. */
  readonly pause: () => void;
  readonly goOn: () => void;
  readonly onStored?: (frame: PendingFrame<P>) => void;
  /** Called when there is nothing to publish; what it throws ends the loop. */
  readonly onIdle?: () => void;
}

/** After this long without a frame, and with none to come, a source is idle. */
const IDLE_AFTER_MS = 2000;

export class PublishLoop<P extends Position> {
  readonly #o: PublishLoopOptions<P>;
  readonly #ready: PendingFrame<P>[] = [];
  #acked: P;
  #inFlight = false;
  #wake: (() => void) | undefined;
  #woken = false;
  #roomWaiters: (() => void)[] = [];
  #storedWaiters: { readonly reached: (acked: P) => boolean; readonly resolve: () => void }[] = [];
  #lastCommitUs = 0;
  #lastStoredMs = performance.now();
  /** Told of every frame that is stored, while tables are read. */
  lead: StreamLead | undefined;
  readonly #beganMs = performance.now();

  constructor(options: PublishLoopOptions<P>) {
    this.#o = options;
    this.#acked = options.resume;
  }

  /** End of what the stream holds. */
  get acked(): P {
    return this.#acked;
  }

  /** Whether a frame waits, so that the log is not read. */
  get waiting(): boolean {
    return this.#ready.length > 0;
  }

  /** Whether the log brought what the stream does not hold yet. */
  get outstanding(): boolean {
    return this.#inFlight || this.#ready.length > 0 || this.#o.source.outstanding;
  }

  /** Time since the last frame was stored. */
  get quietMs(): number {
    return performance.now() - this.#lastStoredMs;
  }

  /** Age of the newest transaction that was seen and is not stored yet; 0 when there is none. */
  get lagSeconds(): number {
    const { newestTimeUs } = this.#o.source;
    if (!this.outstanding || newestTimeUs <= this.#lastCommitUs) return 0;
    return Math.max(0, Date.now() / 1000 - newestTimeUs / 1e6);
  }

  /** Takes a frame that is full. */
  enqueue(frame: PendingFrame<P>): void {
    this.#ready.push(frame);
    this.#o.pause();
    this.wake();
  }

  /** Something may be there to publish. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** Publishes until the signal aborts and nothing is left at hand. */
  async run(signal: AbortSignal): Promise<void> {
    const { source, onIdle } = this.#o;
    for (;;) {
      const frame = this.#ready.shift() ?? source.sealAtBoundary();
      if (frame !== undefined) {
        await this.#publish(frame);
        continue;
      }
      if (signal.aborted) return;
      onIdle?.();
      if (!this.#woken) await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
      this.#woken = false;
    }
  }

  async #publish(frame: PendingFrame<P>): Promise<void> {
    const { publisher, source, report, progressed, onStored } = this.#o;
    const startedMs = performance.now();
    this.#inFlight = true;
    const stored = publisher.publish(frame);
    // The log is read on while the frame is in flight; the next one to be full stops it again.
    this.#makeRoom();
    await stored;
    this.#inFlight = false;
    this.#acked = frame.end;
    if (frame.timeUs > 0) this.#lastCommitUs = frame.timeUs;
    this.#lastStoredMs = performance.now();
    report.published({
      rows: frame.rows,
      transactions: frame.transactions,
      bytes: frame.bytes,
      seconds: (this.#lastStoredMs - startedMs) / 1000,
      commitTimeUs: frame.timeUs,
    });
    source.recycle(frame.writer);
    progressed();
    onStored?.(frame);
    this.lead?.stored(publisher.lastSeq, frame.bytes);
    const waiters = this.#storedWaiters;
    this.#storedWaiters = waiters.filter(({ reached }) => !reached(this.#acked));
    for (const { reached, resolve } of waiters) if (reached(this.#acked)) resolve();
  }

  #makeRoom(): void {
    if (this.#ready.length > 0) return;
    const waiting = this.#roomWaiters;
    this.#roomWaiters = [];
    for (const resolve of waiting) resolve();
    this.#o.goOn();
  }

  /** Resolves when no frame waits. */
  async room(): Promise<void> {
    if (this.#ready.length === 0) return;
    await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
  }

  /** Resolves when the stream holds enough. Rejects when the signal aborts first. */
  async stored(reached: (acked: P) => boolean, signal: AbortSignal): Promise<void> {
    if (reached(this.#acked)) return;
    const stored = new Promise<void>((resolve) => this.#storedWaiters.push({ reached, resolve }));
    this.wake();
    await untilAborted(stored, signal);
  }

  /** Reports rows, state, position and lag. Called about once a second. */
  reportStatus(snapshot: SnapshotStatus): void {
    const { source, report } = this.#o;
    for (const { table, op, count } of source.takeCounts())
      report.rows(table.schema.schema, table.schema.name, op, count);
    const { outstanding } = this;
    const idle = !outstanding && this.quietMs > IDLE_AFTER_MS;
    const waitsFor = this.lead?.waitsFor ?? [];
    const pace = waitsFor.length === 0 ? [] : [`at the pace of ${waitsFor.join(', ')}`];
    const detail = [...(snapshot.detail === undefined ? [] : [snapshot.detail]), ...pace].join('; ');
    report.state(snapshot.running ? 'snapshot' : idle ? 'idle' : 'streaming', detail === '' ? undefined : detail);
    report.snapshot(snapshot.facts);
    report.position(formatPosition(this.#acked));
    // Before the log brought something, or had the time to, nobody knows whether something waits: what was known of the
    // lag before an error goes on to grow. Frames of a snapshot may come all the time, and say nothing of it.
    const hadTime = performance.now() - this.#beganMs > IDLE_AFTER_MS;
    if (source.newestTimeUs > 0 || outstanding || hadTime) report.lagSeconds(this.lagSeconds);
  }
}
