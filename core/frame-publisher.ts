/** Publishing by stop-and-wait on the observed sequence: the stream is the checkpoint, and the fence. */
import { jetstream, type JetStreamClient } from '@nats-io/jetstream';
import { headers as createHeaders } from '@nats-io/transport-node';
import { buffersUsed } from './buffer-memory.ts';
import { cdcStreamName, cdcSubject, type StreamTail } from './cdc-stream.ts';
import type { NatsConfig } from './config.ts';
import { ReplicationError } from './errors.ts';
import { failpoint } from './failpoint.ts';
import { FRAME_VERSION, HEADER } from './frame.ts';
import { natsError, type Nats } from './nats.ts';
import { formatPosition, type Position } from './position.ts';

/** Below this a server's max_payload makes no sense for frames. */
export const MIN_PAYLOAD_BYTES = 64 * 1024;
/** What JetStream takes (nats-server, JSStreamHeaderExceedsMaximumErr). */
const MOST_HEADER_BYTES = 64 * 1024;
/** Room in a message below which frames would go in pieces without number, or not at all. */
const LEAST_PIECE_BYTES = 16 * 1024;
/** Room for the headers of a message, which count against max_payload. */
const HEADER_BYTES = 1024;

/** A finished frame, ready to be published. */
export interface SealedFrame {
  /** Of its format; left out: that of frames without lines. */
  readonly version?: number;
  readonly payload: Uint8Array;
  readonly start: Position;
  readonly end: Position;
  readonly rows: number;
  readonly transactions: number;
  /** Newest commit time, microseconds since 1970; 0 where unknown. */
  readonly timeUs: number;
  readonly reset?: boolean;
  /** Place in the source's log, for people. */
  readonly log?: string;
  /** Where the log is read again from, when that is not `end`. */
  readonly replay?: string;
  /** What the writer must know to go on after this frame, and what before it; for streams made from other streams. */
  readonly checkpoint?: { readonly before: string; readonly after: string };
}

/** The largest payload that the connected server takes, or `nats_payload_too_small`. */
export function maxFrameBytes(nats: Nats, wantedBytes: number): number {
  const limit = nats.connection.info?.max_payload ?? 1 << 20;
  if (limit < MIN_PAYLOAD_BYTES)
    throw new ReplicationError(
      'nats_payload_too_small',
      `max_payload of NATS is ${limit} bytes; frames need ${MIN_PAYLOAD_BYTES}`,
    );
  return Math.min(wantedBytes, limit - HEADER_BYTES);
}

export class FramePublisher {
  readonly #js: JetStreamClient;
  readonly #nats: Nats;
  readonly #subject: string;
  readonly #source: string;
  readonly #origin: string;
  readonly #timeline: number | undefined;
  readonly #epoch: number;
  #lastSeq: number;

  constructor(
    nats: Nats,
    config: NatsConfig,
    options: {
      source: string;
      origin: string;
      /** Postgres: of the source's log, where it cannot change meanwhile. */
      timeline?: number | undefined;
      epoch: number;
      tail: Pick<StreamTail, 'seq'>;
      /** Left out: the CDC stream of the source. */
      stream?: { readonly name: string; readonly subject: string };
    },
  ) {
    this.#nats = nats;
    this.#js = jetstream(nats.connection, { timeout: 10_000 });
    this.#subject = options.stream?.subject ?? cdcSubject(config.prefix, options.source);
    this.#source = options.source;
    this.#origin = options.origin;
    this.#timeline = options.timeline;
    this.#epoch = options.epoch;
    this.#lastSeq = options.tail.seq;
    this.streamName = options.stream?.name ?? cdcStreamName(config.prefix, options.source);
  }

  readonly streamName: string;

  get lastSeq(): number {
    return this.#lastSeq;
  }

  /**
   * Publishes one frame and resolves when it is stored. At most one call may be under way. After any error this
   * publisher is done: whether the frame was stored is read from the stream's tail by the next run.
   */
  async publish(frame: SealedFrame): Promise<void> {
    // GTID sets have no limit of their own.
    const positionBytes = formatPosition(frame.start).length + formatPosition(frame.end).length;
    const { before = '', after = '' } = frame.checkpoint ?? {};
    const headerBytes =
      HEADER_BYTES + positionBytes + (frame.replay?.length ?? 0) + Math.max(before.length, after.length);
    const limit = (this.#nats.connection.info?.max_payload ?? 1 << 20) - headerBytes;
    if (headerBytes > MOST_HEADER_BYTES || limit < LEAST_PIECE_BYTES)
      throw new ReplicationError(
        'nats_payload_too_small',
        `a frame has ${headerBytes} bytes of headers, for the GTID set of the source has very many gaps or servers: JetStream takes ${MOST_HEADER_BYTES}, and max_payload leaves ${limit} for what the frame holds`,
      );
    if (frame.payload.length <= limit) {
      await this.#send(frame, frame.payload, frame.end, undefined, after);
      return;
    }
    // A row larger than a message goes in pieces. Only the last piece brings the position forward, so that a capture
    // that dies between pieces begins the frame again, and a reader drops the pieces that were begun.
    const pieces = Math.ceil(frame.payload.length / limit);
    for (let i = 0; i < pieces; i++) {
      const piece = frame.payload.subarray(i * limit, (i + 1) * limit);
      const last = i === pieces - 1;
      await this.#send(frame, piece, last ? frame.end : frame.start, `${i + 1}/${pieces}`, last ? after : before);
    }
  }

  async #send(
    frame: SealedFrame,
    payload: Uint8Array,
    end: Position,
    chunk: string | undefined,
    checkpoint: string,
  ): Promise<void> {
    const headers = createHeaders();
    headers.set(HEADER.format, String(frame.version ?? FRAME_VERSION));
    headers.set(HEADER.source, this.#source);
    headers.set(HEADER.origin, this.#origin);
    if (this.#timeline !== undefined) headers.set(HEADER.timeline, String(this.#timeline));
    headers.set(HEADER.start, formatPosition(frame.start));
    headers.set(HEADER.end, formatPosition(end));
    headers.set(HEADER.epoch, String(this.#epoch));
    headers.set(HEADER.rows, String(frame.rows));
    if (frame.timeUs > 0) headers.set(HEADER.time, formatMicros(frame.timeUs));
    if (frame.reset === true) headers.set(HEADER.reset, '1');
    if (frame.log !== undefined) headers.set(HEADER.log, frame.log);
    if (frame.replay !== undefined) headers.set(HEADER.replay, frame.replay);
    if (chunk !== undefined) headers.set(HEADER.chunk, chunk);
    if (checkpoint !== '') headers.set(HEADER.checkpoint, checkpoint);
    try {
      const pending = this.#js.publish(this.#subject, payload, { headers, expect: { lastSequence: this.#lastSeq } });
      failpoint('capture.published-before-ack');
      const ack = await pending;
      if (ack.duplicate)
        throw new ReplicationError('stream_conflict', `stream ${this.streamName} called a frame a duplicate`);
      // Invariant 5: the next frame expects the sequence observed here, never one predicted.
      this.#lastSeq = ack.seq;
      // Its copy in the client, and what it was made from.
      buffersUsed(2 * payload.byteLength);
      failpoint('capture.acked');
    } catch (thrown) {
      throw natsError(thrown, `publishing to ${this.#subject} after sequence ${this.#lastSeq}`);
    }
  }
}

/** Microseconds since 1970 as RFC 3339 in UTC with six digits. */
export function formatMicros(timeUs: number): string {
  const ms = Math.floor(timeUs / 1000);
  return `${new Date(ms).toISOString().slice(0, -1)}${String(timeUs - ms * 1000).padStart(3, '0')}Z`;
}
