/**
 * How long streams keep what has not been taken of them. Watched beside the stages of a process, so that it is also known
 * of one that is blocked or waits for its target: that is when frames gather.
 */
import { resetOf } from '../core/cdc-stream.ts';
import type { NatsConfig } from '../core/config.ts';
import { asReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import { connectNats, natsError, type Nats } from '../core/nats.ts';
import { abortableDelay, runService } from '../core/run-service.ts';

export interface ConsumerLabels extends Record<string, string> {
  readonly stream: string;
  readonly consumer: string;
}

interface Consumer {
  readonly labels: ConsumerLabels;
  seq: number;
  readonly estimate: RetentionEstimate;
  /** When the frame behind `seq` was stored. */
  waiting?: { readonly seq: number; readonly sinceMs: number };
}

/** What a stream holds, and keeps. */
export interface StreamReading {
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly bytes: number;
  /** 0: frames do not expire. */
  readonly maxAgeMs: number;
  /** Negative: as many as there is room for. */
  readonly maxBytes: number;
  /** From this frame on everything is read again, so that none before it is needed; 0 for none. */
  readonly resetSeq: number;
}

const EVERY_MS = 5000;
const WINDOW_MS = 300_000;
const LEAST_MS = 10_000;

/** Seconds until a stream drops what one consumer needs. */
export class RetentionEstimate {
  #samples: { readonly atMs: number; readonly waitingBytes: number }[] = [];

  /**
   * Takes what is so at `atMs`, of a consumer that has taken frames up to `seq`, and whose next one is `ageMs` old.
   * Undefined: nothing waits, or what waits is never dropped; 0: it has been.
   */
  observe(atMs: number, stream: StreamReading, seq: number, ageMs: number): number | undefined {
    const { firstSeq, lastSeq, bytes, maxAgeMs, maxBytes, resetSeq } = stream;
    const needed = Math.max(seq + 1, resetSeq);
    const frames = Math.max(0, lastSeq - needed + 1);
    const waitingBytes = (bytes / Math.max(1, lastSeq - firstSeq + 1)) * frames;
    this.#samples.push({ atMs, waitingBytes });
    while (this.#samples.length > 2 && this.#samples[1]!.atMs <= atMs - WINDOW_MS) this.#samples.shift();
    if (frames === 0) return undefined;
    if (firstSeq > needed) return 0;
    const byAge = maxAgeMs > 0 ? (maxAgeMs - ageMs) / 1000 : Infinity;
    // A flow that keeps up loses nothing, however much is written.
    const first = this.#samples[0]!;
    const seconds = (atMs - first.atMs) / 1000;
    const grown = waitingBytes - first.waitingBytes;
    const known = maxBytes > 0 && seconds * 1000 >= LEAST_MS && grown > 0;
    const bySize = known ? (maxBytes - waitingBytes) / (grown / seconds) : Infinity;
    const least = Math.min(byAge, bySize);
    return least === Infinity ? undefined : Math.max(0, least);
  }
}

/** Those who read streams in this process, as they tell of themselves. */
export class StreamConsumers {
  readonly #show: (labels: ConsumerLabels, seconds: number | undefined) => void;
  readonly #consumers = new Map<string, Consumer>();

  constructor(show: (labels: ConsumerLabels, seconds: number | undefined) => void) {
    this.#show = show;
  }

  /** Frames up to `seq` have been taken. */
  reached(stream: string, consumer: string, seq: number): void {
    const id = JSON.stringify([stream, consumer]);
    const known = this.#consumers.get(id);
    if (known !== undefined) known.seq = seq;
    else this.#consumers.set(id, { labels: { stream, consumer }, seq, estimate: new RetentionEstimate() });
  }

  /** Another process reads the stream from now on. */
  leave(stream: string, consumer: string): void {
    this.#consumers.delete(JSON.stringify([stream, consumer]));
    this.#show({ stream, consumer }, undefined);
  }

  /** Looks at the streams. */
  async look(nats: Nats): Promise<void> {
    const streams = new Map<string, { readonly nowMs: number; readonly reading: StreamReading } | undefined>();
    for (const [id, consumer] of this.#consumers) {
      const { stream } = consumer.labels;
      if (!streams.has(stream)) streams.set(stream, await readStream(nats, stream));
      const found = streams.get(stream);
      if (found === undefined) continue;
      // It goes on meanwhile: what it needs must not change between one question and the next.
      const { seq } = consumer;
      const ageMs = await this.#ageMs(nats, consumer, seq, found);
      const seconds = consumer.estimate.observe(performance.now(), found.reading, seq, ageMs);
      if (this.#consumers.has(id)) this.#show(consumer.labels, seconds);
    }
  }

  async #ageMs(
    nats: Nats,
    consumer: Consumer,
    taken: number,
    { nowMs, reading }: { readonly nowMs: number; readonly reading: StreamReading },
  ): Promise<number> {
    const seq = Math.max(taken + 1, reading.resetSeq);
    if (seq > reading.lastSeq || seq < reading.firstSeq) return 0;
    if (consumer.waiting?.seq !== seq) {
      const sinceMs = await storedMs(nats, consumer.labels.stream, seq);
      if (sinceMs === undefined) return 0;
      consumer.waiting = { seq, sinceMs };
    }
    return nowMs - consumer.waiting.sinceMs;
  }
}

/** Looks again and again, until the signal aborts. */
export async function runRetention(options: {
  readonly nats: NatsConfig;
  readonly consumers: StreamConsumers;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { consumers, log, signal } = options;
  await runService(
    async (run) => {
      const nats = await connectNats(options.nats, 'waybill retention');
      try {
        while (!signal.aborted) {
          await consumers.look(nats);
          run.progressed();
          await abortableDelay(EVERY_MS, signal);
        }
      } finally {
        await nats.close();
      }
    },
    { name: 'retention', signal, log },
  );
}

/** When a frame was stored; undefined where it is gone. */
async function storedMs(nats: Nats, stream: string, seq: number): Promise<number | undefined> {
  try {
    return (await nats.manager.streams.getMessage(stream, { seq }))?.time.getTime();
  } catch (thrown) {
    throw natsError(thrown, `reading sequence ${seq} of stream ${stream}`);
  }
}

/** Undefined while the stream is not there. */
async function readStream(
  nats: Nats,
  stream: string,
): Promise<{ readonly nowMs: number; readonly reading: StreamReading } | undefined> {
  try {
    const info = await nats.manager.streams.info(stream);
    const { state, config, ts } = info;
    return {
      // Frames bear the time of the broker.
      nowMs: ts === undefined ? Date.now() : new Date(ts).getTime(),
      reading: {
        firstSeq: Math.max(1, state.first_seq),
        lastSeq: state.last_seq,
        bytes: state.bytes,
        maxAgeMs: config.max_age / 1_000_000,
        maxBytes: config.max_bytes,
        resetSeq: resetOf(info),
      },
    };
  } catch (thrown) {
    const error = asReplicationError(natsError(thrown, `looking at stream ${stream}`));
    if (error.code === 'stream_missing') return undefined;
    throw error;
  }
}
