/** One run of a flow on a session: frames are read and decoded while the batch before is being written. */
import type { AppliedTeller } from '../core/applied.ts';
import { keptSequences, parseFrameHeaders, readFrames } from '../core/cdc-stream.ts';
import { asReplicationError, ReplicationError } from '../core/errors.ts';
import { IndexedFrame } from '../core/indexed-frame.ts';
import type { Logger } from '../core/logger.ts';
import type { FlowReport } from '../core/metrics.ts';
import { natsError, type Nats } from '../core/nats.ts';
import { comparePositions, type Position } from '../core/position.ts';
import { findStartSequence } from '../core/start-sequence.ts';
import { BatchQueue, giveUpFrames } from './batch.ts';
import type { BatchSink } from './target-store.ts';

/** How long a source transaction may stand still in the middle before the target's locks are given back. */
const MID_TRANSACTION_MS = 10_000;
const IDLE_TICK_MS = 1000;
/**
 * Parts in which a transaction is written whose end has not come. A batch is large so that the last image of a key stands
 * for many; within one transaction there is seldom more than one, and memory shall not depend on its size.
 */
const PART_BYTES = 1 << 20;

/**
 * Where the stream ended when a part of a transaction was rolled back for want of the rest: until there is more, to write
 * it once more would only burden the target. One of a flow, for all its runs.
 */
export interface StreamTail {
  seq: number | undefined;
}

export interface FlowRunOptions {
  readonly nats: Nats;
  readonly stream: string;
  readonly sink: BatchSink;
  readonly batchBytes: number;
  readonly tail: StreamTail;
  readonly report: FlowReport;
  /** Whom to tell how far the flow is; left out: nobody. */
  readonly teller?: AppliedTeller;
  readonly log: Logger;
  /** Drain: the batch in hand is finished. */
  readonly signal: AbortSignal;
  /** The target's connection. */
  readonly lost: AbortSignal;
  readonly progressed: () => void;
  /** What the target gives; rejects when it no longer answers. */
  readonly unlessSilent: <T>(asked: Promise<T>) => Promise<T>;
}

export async function runFlow(options: FlowRunOptions): Promise<void> {
  const { nats, stream, sink, tail, signal, lost } = options;
  const start = await findStart(nats, stream, sink.position, sink.seq);
  options.report.reached(start.startSeq - 1);
  const queue = new BatchQueue(sink.position, start.startSeq);
  const limitBytes = (): number => (queue.unfinished ? Math.min(PART_BYTES, options.batchBytes) : options.batchBytes);
  const ended = new AbortController();
  const readSignal = AbortSignal.any([signal, lost, ended.signal]);
  let failure: { error: unknown } | undefined;
  let readSeq = start.startSeq - 1;
  const reading = (async () => {
    for await (const received of readFrames(nats, stream, { ...start, signal: readSignal })) {
      queue.add(received, IndexedFrame.open(received.payload, received.place));
      readSeq = received.seq;
      while (queue.bytes >= limitBytes() && !readSignal.aborted) await queue.changed();
    }
    if (!readSignal.aborted) throw new ReplicationError('nats_timeout', `reading stream ${stream} ended by itself`);
  })()
    .catch((error: unknown) => {
      failure = { error };
    })
    .finally(() => queue.wake());
  const wake = (): void => queue.wake();
  readSignal.addEventListener('abort', wake);
  const idle = new IdleReport(options, queue);
  try {
    while (!signal.aborted) {
      if (lost.aborted) throw asReplicationError(lost.reason);
      const queuedBytes = queue.bytes;
      const batch = queue.take(tail.seq === undefined ? limitBytes() : Infinity);
      if (batch !== undefined) {
        options.report.state('applying');
        idle.taking(batch.commitTimeUs);
        const bytes = queuedBytes - queue.bytes;
        const startedMs = performance.now();
        await options.unlessSilent(sink.write(batch));
        giveUpFrames(batch);
        const ms = performance.now() - startedMs;
        options.teller?.wrote(bytes, ms, batch.next === undefined ? undefined : batch.seq);
        options.log.debug({ rows: batch.rows, seq: batch.seq, ms: Math.round(ms) }, 'batch written');
        if (batch.next !== undefined) {
          options.progressed();
          options.report.reached(batch.seq);
        }
        idle.applied(batch.seq, batch.commitTimeUs);
        continue;
      }
      if (failure !== undefined) throw failure.error;
      const patienceMs = sink.open ? MID_TRANSACTION_MS : Math.min(sink.idleMs ?? IDLE_TICK_MS, IDLE_TICK_MS);
      const isQuiet = !(await queue.changedWithin(patienceMs));
      if (tail.seq !== undefined && (await keptSequences(nats, stream)).last !== tail.seq) tail.seq = undefined;
      if (isQuiet) {
        if (sink.idle !== undefined) await options.unlessSilent(sink.idle());
        if (sink.open) {
          tail.seq = readSeq;
          throw new ReplicationError(
            'nats_timeout',
            `the rest of a transaction did not come within ${MID_TRANSACTION_MS / 1000} s; it is rolled back`,
          );
        }
        idle.tick();
      }
    }
  } finally {
    ended.abort();
    readSignal.removeEventListener('abort', wake);
    queue.wake();
    await reading;
  }
}

/** Where to read from: a position inside a frame (a boundary between its transactions) starts at that frame. */
async function findStart(
  nats: Nats,
  stream: string,
  position: Position,
  seq: number,
): Promise<{ startSeq: number; position: Position }> {
  let startSeq: number;
  let gap: ReplicationError | undefined;
  try {
    startSeq = await findStartSequence(nats, stream, position, seq);
  } catch (thrown) {
    gap = asReplicationError(thrown);
    if (gap.code !== 'stream_gap') throw gap;
    startSeq = (await keptSequences(nats, stream)).first;
    // Never back to what the target has taken.
    if (startSeq <= seq) throw gap;
  }
  const message = await nats.manager.streams.getMessage(stream, { seq: startSeq }).catch((thrown: unknown) => {
    throw natsError(thrown, `reading sequence ${startSeq} of stream ${stream}`);
  });
  if (message === null) {
    if (gap !== undefined) throw gap;
    return { startSeq, position };
  }
  const headers = parseFrameHeaders(message.header, `${stream} sequence ${startSeq}`);
  // Over a hole only a frame leads after which every table is read again.
  if (gap !== undefined) {
    if (!headers.reset) throw gap;
    return { startSeq, position };
  }
  // What leads into another history is read from where it begins, whatever the numbers say.
  if (headers.reset) return { startSeq, position };
  return { startSeq, position: comparePositions(headers.start, position) < 0 ? headers.start : position };
}

/** Lag and backlog: after every batch what it was, and 0 once nothing is outstanding. */
class IdleReport {
  readonly #options: FlowRunOptions;
  readonly #queue: BatchQueue;
  #appliedSeq = 0;
  #asking = false;
  #askedMs = performance.now();
  #writing = false;

  constructor(options: FlowRunOptions, queue: BatchQueue) {
    this.#options = options;
    this.#queue = queue;
  }

  /** Work is at hand: a write that never ends must not look like having nothing to do. */
  taking(commitTimeUs: number): void {
    this.#writing = true;
    this.#lag(commitTimeUs);
  }

  #lag(commitTimeUs: number): void {
    if (commitTimeUs > 0) this.#options.report.lagSeconds(Math.max(0.001, Date.now() / 1000 - commitTimeUs / 1e6));
  }

  applied(seq: number, commitTimeUs: number): void {
    this.#writing = false;
    this.#appliedSeq = seq;
    this.#lag(commitTimeUs);
    // Frames without a commit (heartbeats) may come so often that it never rests: they say nothing of the lag.
    if (performance.now() - this.#askedMs > IDLE_TICK_MS) this.tick();
  }

  tick(): void {
    if (this.#asking) return;
    this.#asking = true;
    this.#askedMs = performance.now();
    void this.#ask()
      .catch(() => this.#options.report.lagSeconds(undefined))
      .finally(() => (this.#asking = false));
  }

  async #ask(): Promise<void> {
    const { nats, stream, report } = this.#options;
    const pending = Math.max(
      0,
      (await keptSequences(nats, stream)).last - Math.max(this.#appliedSeq, this.#queue.startSeq - 1),
    );
    report.pendingFrames(pending);
    if (pending > 0 || this.#writing || !this.#queue.empty) return;
    report.lagSeconds(0);
    report.state('idle');
  }
}
