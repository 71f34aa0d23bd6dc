/** The CDC stream of one source: its names, its creation, its tail (the capture's checkpoint), and reading frames in order. */
import {
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  jetstream,
  ReplayPolicy,
  RetentionPolicy,
  StorageType,
  StoreCompression,
  type StreamInfo,
} from '@nats-io/jetstream';
import type { MsgHdrs } from '@nats-io/transport-node';
import { buffersUsed, giveUpMessage, ownCopy } from './buffer-memory.ts';
import type { NatsConfig } from './config.ts';
import { isAbort, ReplicationError } from './errors.ts';
import { HEADER, LINES_VERSION } from './frame.ts';
import { natsError, type Nats } from './nats.ts';
import {
  comparePositions,
  describePosition,
  orderPositions,
  parsePosition,
  ORIGIN,
  type Position,
} from './position.ts';

export function cdcStreamName(prefix: string, source: string): string {
  return `${prefix}_cdc_${source}`;
}

export function cdcSubject(prefix: string, source: string): string {
  return `${prefix}.cdc.${source}`;
}

/** Stream metadata: the sequence of the newest frame after which everything is read again. */
const RESET_METADATA = 'waybill.reset';

/** Notes in the stream's metadata that every table is read again after sequence `seq`. */
export async function noteReset(nats: Nats, stream: string, seq: number): Promise<void> {
  try {
    const { config } = await nats.manager.streams.info(stream);
    await nats.manager.streams.update(stream, { metadata: { ...config.metadata, [RESET_METADATA]: String(seq) } });
  } catch (thrown) {
    throw natsError(thrown, `noting a reset of stream ${stream}`);
  }
}

/** The sequence that `noteReset` noted last; 0 when there was none. */
export async function readReset(nats: Nats, stream: string): Promise<number> {
  try {
    return resetOf(await nats.manager.streams.info(stream));
  } catch (thrown) {
    throw natsError(thrown, `reading the metadata of stream ${stream}`);
  }
}

/** The same, of a stream of which the answer of `info` is at hand. */
export function resetOf({ config }: StreamInfo): number {
  return Number(config.metadata?.[RESET_METADATA] ?? 0);
}

/** What the headers of a frame say. */
export interface FrameHeaders {
  readonly source: string;
  readonly origin: string;
  /** Postgres: the timeline of the log; absent where it was not known, as on a standby. */
  readonly timeline?: number;
  readonly start: Position;
  readonly end: Position;
  readonly epoch: number;
  readonly rows: number;
  /** Newest commit time, microseconds since 1970; 0 where unknown. */
  readonly timeUs: number;
  /** Every table is read again after this frame. */
  readonly reset: boolean;
  /** MySQL, MariaDB: from where a capture reads the log again, because of transactions in doubt; absent: from `end`. */
  readonly replay?: string;
  readonly chunk?: { readonly index: number; readonly of: number };
  /** Streams of records: what their writer must know to go on. */
  readonly checkpoint?: string;
}

/** The last message of the stream: the sequence the next publish must expect, and the capture's position. */
export interface StreamTail {
  readonly seq: number;
  readonly end: Position;
  readonly origin?: string;
  readonly timeline?: number;
  readonly epoch: number;
  readonly replay?: string;
  readonly checkpoint?: string;
}

/** Makes the stream of a source when it is not there; updates limits that the configuration changed. */
export async function ensureCdcStream(nats: Nats, config: NatsConfig, source: string): Promise<StreamInfo> {
  return await ensureFrameStream(nats, config, {
    name: cdcStreamName(config.prefix, source),
    subject: cdcSubject(config.prefix, source),
    description: `Waybill: row changes of source ${source}`,
  });
}

/** Makes a stream of frames when it is not there; updates limits that the configuration changed. */
export async function ensureFrameStream(
  nats: Nats,
  config: NatsConfig,
  stream: { readonly name: string; readonly subject: string; readonly description: string },
): Promise<StreamInfo> {
  const wanted = {
    name: stream.name,
    subjects: [stream.subject],
    description: stream.description,
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    compression: StoreCompression.S2,
    num_replicas: config.replicas,
    max_age: config.stream.max_age * 1_000_000,
    max_bytes: config.stream.max_bytes,
    deny_delete: false,
    allow_direct: false,
  };
  try {
    const info = await nats.manager.streams.info(wanted.name);
    const have = info.config;
    if (have.retention !== RetentionPolicy.Limits || have.subjects?.join() !== wanted.subjects.join())
      throw new ReplicationError('stream_foreign', `stream ${wanted.name} exists with other subjects or retention`);
    if (
      have.max_bytes === wanted.max_bytes &&
      have.max_age === wanted.max_age &&
      have.num_replicas === wanted.num_replicas
    )
      return info;
    return await nats.manager.streams.update(wanted.name, {
      max_bytes: wanted.max_bytes,
      max_age: wanted.max_age,
      num_replicas: wanted.num_replicas,
    });
  } catch (thrown) {
    if (!(thrown instanceof JetStreamApiError) || thrown.code !== 10059)
      throw natsError(thrown, `stream ${wanted.name}`);
  }
  try {
    return await nats.manager.streams.add(wanted);
  } catch (thrown) {
    throw natsError(thrown, `cannot create stream ${wanted.name}`);
  }
}

/** Makes the stream in which a transform saves its state, when it is not there. Nothing expires from it. */
export async function ensureStateStream(
  nats: Nats,
  name: string,
  subject: string,
  flow: string,
  replicas: number,
): Promise<void> {
  try {
    await nats.manager.streams.info(name);
    return;
  } catch (thrown) {
    if (!(thrown instanceof JetStreamApiError) || thrown.code !== 10059) throw natsError(thrown, `stream ${name}`);
  }
  try {
    await nats.manager.streams.add({
      name,
      subjects: [subject],
      description: `Waybill: saved state of the transform of flow ${flow}`,
      retention: RetentionPolicy.Limits,
      storage: StorageType.File,
      discard: DiscardPolicy.Old,
      compression: StoreCompression.S2,
      num_replicas: replicas,
      allow_direct: false,
    });
  } catch (thrown) {
    throw natsError(thrown, `cannot create stream ${name}`);
  }
}

/**
 * Reads the tail through the leader (never by direct get, which a lagging replica may answer). Throws `stream_gap` where the
 * last message has expired or was purged, unless all is to be written `anew`: then only its sequence counts.
 */
export async function readTail(nats: Nats, stream: string, { anew = false } = {}): Promise<StreamTail> {
  try {
    const info = await nats.manager.streams.info(stream);
    const seq = info.state.last_seq;
    if (seq === 0) return { seq: 0, end: ORIGIN, epoch: 0 };
    const message = await nats.manager.streams.getMessage(stream, { seq });
    if (message === null && anew) return { seq, end: ORIGIN, epoch: 0 };
    if (message === null)
      throw new ReplicationError('stream_gap', `the last message of stream ${stream} (sequence ${seq}) is gone`, {
        context: { stream, seq },
      });
    const headers = parseFrameHeaders(message.header, `${stream} sequence ${seq}`);
    const { end, origin, timeline, epoch, replay, checkpoint } = headers;
    return {
      seq,
      end,
      origin,
      epoch,
      ...(timeline === undefined ? {} : { timeline }),
      ...(replay === undefined ? {} : { replay }),
      ...(checkpoint === undefined ? {} : { checkpoint }),
    };
  } catch (thrown) {
    throw natsError(thrown, `reading the end of stream ${stream}`);
  }
}

/** Checks and parses the headers of a frame. Throws `frame_unreadable` or `frame_version`, naming `place`. */
export function parseFrameHeaders(headers: MsgHdrs | undefined, place: string): FrameHeaders {
  const get = (key: string): string => headers?.get(key) ?? '';
  const format = get(HEADER.format);
  if (!/^\d+$/.test(format))
    throw new ReplicationError('frame_unreadable', `${place} is not a frame: it has no ${HEADER.format} header`);
  if (Number(format) > LINES_VERSION)
    throw new ReplicationError(
      'frame_version',
      `${place} has format ${format}; this process reads up to ${LINES_VERSION}`,
    );
  const start = parsePosition(get(HEADER.start));
  const end = parsePosition(get(HEADER.end));
  const reset = get(HEADER.reset) === '1';
  // A frame from which everything is read again may lead into another history.
  if (start === undefined || end === undefined || !(reset || comparePositions(start, end) <= 0))
    throw new ReplicationError('frame_unreadable', `${place} has no valid ${HEADER.start} and ${HEADER.end}`);
  const chunk = /^(\d+)\/(\d+)$/.exec(get(HEADER.chunk));
  const time = Date.parse(get(HEADER.time));
  const timeline = Number(get(HEADER.timeline));
  const replay = get(HEADER.replay);
  const checkpoint = get(HEADER.checkpoint);
  return {
    source: get(HEADER.source),
    origin: get(HEADER.origin),
    start,
    end,
    epoch: Number(get(HEADER.epoch)) || 0,
    rows: Number(get(HEADER.rows)) || 0,
    timeUs: Number.isNaN(time) ? 0 : time * 1000,
    reset,
    ...(timeline > 0 ? { timeline } : {}),
    ...(replay === '' ? {} : { replay }),
    ...(chunk === null ? {} : { chunk: { index: Number(chunk[1]), of: Number(chunk[2]) } }),
    ...(checkpoint === '' ? {} : { checkpoint }),
  };
}

/** The headers of the message of one sequence. Throws `stream_gap` when it is gone. */
export async function readHeaders(nats: Nats, stream: string, seq: number): Promise<FrameHeaders> {
  try {
    const message = await nats.manager.streams.getMessage(stream, { seq });
    if (message !== null) return parseFrameHeaders(message.header, `${stream} sequence ${seq}`);
  } catch (thrown) {
    throw natsError(thrown, `reading sequence ${seq} of stream ${stream}`);
  }
  throw new ReplicationError('stream_gap', `sequence ${seq} of stream ${stream} is gone`, { context: { stream, seq } });
}

/** The sequences that a stream holds; `last` is smaller than `first` when there are none. */
export async function keptSequences(nats: Nats, stream: string): Promise<{ first: number; last: number }> {
  try {
    const { state } = await nats.manager.streams.info(stream);
    return { first: Math.max(1, state.first_seq), last: state.last_seq };
  } catch (thrown) {
    throw natsError(thrown, `stream ${stream}`);
  }
}

/** The first sequence from `seq` on at which a frame begins: the first pieces of one may be gone. Undefined: none does. */
export async function findFirstWhole(nats: Nats, stream: string, seq: number): Promise<number | undefined> {
  const { first, last } = await keptSequences(nats, stream);
  for (let at = Math.max(seq, first); at <= last; at++) {
    const { chunk } = await readHeaders(nats, stream, at);
    if (chunk === undefined || chunk.index === 1) return at;
  }
  return undefined;
}

/** A frame as a consumer receives it: headers checked, continuous with the one before, payload not yet decoded. */
export interface ReceivedFrame extends FrameHeaders {
  /** Sequence of the frame's (last) message. */
  readonly seq: number;
  /** Owns its memory: whoever is done with it may give it up. */
  readonly payload: Uint8Array;
  /** Names stream and sequence, for errors. */
  readonly place: string;
}

/** After so long without a message it is looked whether the stream is still the one that is read. */
const QUIET_MS = 2000;
/** So often in a row it may be seen that there is more than has come, before whoever reads begins anew. */
const MOST_STALLED_LOOKS = 15;

/**
 * Yields the frames of a stream from `startSeq` on, for ever, in order, each continuous with the one before it (the
 * first with `position`): a frame that lies wholly before is dropped as a repeat, a hole throws `stream_gap` (unless
 * everything is read again behind it).
 * At most `prefetchBytes` (4 MB when left out), and never fewer than four messages, are held in this process. They
 * are asked for by number: where client and server count the bytes of a message differently, a request by bytes can
 * leave both waiting for the other until it expires. Throws `stream_missing` when the stream is removed meanwhile, and
 * `nats_timeout` when nothing of what it has comes for half a minute (`stalledLooks` looks, one each two seconds): a consumer
 * may go on saying that it lives and deliver nothing.
 */
export async function* readFrames(
  nats: Nats,
  stream: string,
  options: {
    startSeq: number;
    position: Position;
    signal: AbortSignal;
    prefetchBytes?: number;
    stalledLooks?: number;
  },
): AsyncGenerator<ReceivedFrame, void, void> {
  const { signal, stalledLooks = MOST_STALLED_LOOKS } = options;
  const maxPayload = nats.connection.info?.max_payload ?? 1 << 20;
  const prefetchMessages = Math.max(4, Math.floor((options.prefetchBytes ?? 4 << 20) / maxPayload));
  const js = jetstream(nats.connection);
  let position = options.position;
  let nextSeq = options.startSeq;
  let pieces: Uint8Array[] = [];
  let failure: unknown;
  try {
    const { created } = await nats.manager.streams.info(stream);
    const consumer = await js.consumers.get(stream, {
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: options.startSeq,
      replay_policy: ReplayPolicy.Instant,
      inactive_threshold: 30_000,
    });
    const messages = await consumer.consume({ max_messages: prefetchMessages, expires: 5000 });
    const stop = (): void => messages.stop();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    let lookedAt = nextSeq;
    let isTaken = false;
    let stalled = 0;
    // The client asks a stream that was removed and made anew for what it would have next, and waits until it has that.
    const look = async (): Promise<ReplicationError | undefined> => {
      if (nextSeq !== lookedAt || isTaken) stalled = 0;
      if (nextSeq !== lookedAt) {
        lookedAt = nextSeq;
        return undefined;
      }
      // What comes while it is asked may be newer than the answer.
      const seen = nextSeq - 1;
      const { created: since, state } = await nats.manager.streams.info(stream);
      if (since !== created || state.last_seq < seen)
        return new ReplicationError('stream_missing', `stream ${stream} was removed, or has lost its newest frames`);
      stalled = !isTaken && state.messages > 0 && state.last_seq >= nextSeq ? stalled + 1 : 0;
      if (stalled < stalledLooks) return undefined;
      const seconds = (stalled * QUIET_MS) / 1000;
      return new ReplicationError(
        'nats_timeout',
        `nothing has come of stream ${stream} after sequence ${nextSeq - 1} for ${seconds} s; it goes on to ${state.last_seq}`,
      );
    };
    const watch = setInterval(() => {
      const stopFor = (error: ReplicationError | undefined): void => {
        if (error === undefined) return;
        failure = error;
        stop();
      };
      // A broker that does not answer is met by whoever reads.
      look().then(stopFor, () => {});
    }, QUIET_MS);
    try {
      for await (const message of messages) {
        if (signal.aborted) return;
        const place = `${stream} sequence ${message.seq}`;
        if (message.seq < nextSeq) continue;
        const headers = parseFrameHeaders(message.headers, place);
        // What is gone before a frame from which everything is read again comes with that.
        if (message.seq > nextSeq && !headers.reset)
          throw new ReplicationError('stream_gap', `${place} follows ${nextSeq - 1}: the frames between are gone`, {
            context: { stream, seq: message.seq },
          });
        nextSeq = message.seq + 1;
        if (headers.chunk !== undefined) {
          if (headers.chunk.index === 1) pieces = [];
          if (headers.chunk.index !== pieces.length + 1)
            throw new ReplicationError(
              'stream_gap',
              `${place} is piece ${headers.chunk.index} of a frame, after ${pieces.length}`,
            );
          pieces.push(message.data);
          if (headers.chunk.index < headers.chunk.of) continue;
        }
        // Whoever comes to a frame from which everything is read again comes from before it.
        const ends = headers.reset ? 1 : comparePositions(headers.end, position);
        if (ends === -1 || (ends === 0 && orderPositions(headers.start, position) === -1)) continue;
        // Invariant 1: a frame must start where the one before ended.
        if (!headers.reset && comparePositions(headers.start, position) !== 0)
          throw new ReplicationError(
            'stream_gap',
            `${place} starts at ${describePosition(headers.start)}, but the one before ended at ${describePosition(position)}`,
            { context: { stream, seq: message.seq } },
          );
        position = headers.end;
        // The client's own buffer of a message that came in several packets is up to twice as large.
        const parts = headers.chunk === undefined ? [message.data] : pieces;
        const payload = ownCopy(...parts);
        for (const part of parts) giveUpMessage(part);
        pieces = [];
        buffersUsed(payload.byteLength);
        isTaken = true;
        yield { ...headers, seq: message.seq, payload, place };
        isTaken = false;
      }
    } finally {
      clearInterval(watch);
      signal.removeEventListener('abort', stop);
      await messages.close();
    }
    if (failure !== undefined) throw failure;
  } catch (thrown) {
    if (isAbort(thrown, signal) || signal.aborted) return;
    throw natsError(thrown, `reading stream ${stream}`);
  }
}
