/**
 * Saved states of a flow in a stream of their own: pieces of bounded size, then a message that names them. Only that one
 * makes a state valid, so that a process may be killed at any point of writing it; then the states before it are dropped.
 */
import { DeliverPolicy, JetStreamApiError, jetstream, ReplayPolicy, type JetStreamClient } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { ensureStateStream } from '../core/cdc-stream.ts';
import { ReplicationError } from '../core/errors.ts';
import { failpoint } from '../core/failpoint.ts';
import { natsError, type Nats } from '../core/nats.ts';
import { parseCheckpoint, type Checkpoint } from './checkpoint.ts';
import type { Layout } from './kept-layout.ts';
import { STATE_VERSION } from './saved-state.ts';

const SNAPSHOT_HEADER = 'Waybill-Snapshot';
/** Most bytes of a piece. */
const PIECE_BYTES = 256 << 10;
const FETCHED_PIECES = 16;
/** A server that has not given what it holds by then is taken to be away. */
const FETCH_MS = 10_000;
const LINE_FEED = 0x0a;
const NO_MESSAGE = 10037;

/** What names the pieces of a state. */
interface Manifest {
  readonly v: number;
  readonly id: string;
  readonly checkpoint: string;
  readonly firstSeq: number;
  readonly pieces: number;
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly savedAt: number;
  /** Sequence of the newest frame of records when the state was taken; left out by older versions. */
  readonly recordsSeq?: number;
  /** What it holds of rows; left out by older versions. */
  readonly layout?: Layout;
}

/** What a state says of the moment at which it was taken. */
export interface Taken {
  /** How much of each source it holds, as `formatCheckpoint` writes it. */
  readonly checkpoint: string;
  /** Sequence of the newest frame of records. */
  readonly recordsSeq: number;
  readonly layout: Layout;
}

export interface SavedState extends Omit<Manifest, 'v' | 'checkpoint'> {
  /** How much of each source the state holds. */
  readonly checkpoint: Checkpoint;
  /** Sequence of the message that names the pieces. */
  readonly lastSeq: number;
}

export class StateStore {
  readonly #nats: Nats;
  readonly #js: JetStreamClient;
  readonly #stream: string;
  readonly #subject: string;

  private constructor(nats: Nats, prefix: string, flow: string) {
    this.#nats = nats;
    this.#js = jetstream(nats.connection);
    this.#stream = `${prefix}_state_${flow}`;
    this.#subject = `${prefix}.state.${flow}`;
  }

  /** Makes the stream where it is not there. */
  static async open(nats: Nats, config: { prefix: string; replicas: number }, flow: string): Promise<StateStore> {
    const store = new StateStore(nats, config.prefix, flow);
    await ensureStateStream(nats, store.#stream, `${store.#subject}.*`, flow, config.replicas);
    return store;
  }

  /**
   * Writes a state, and drops the ones before it. Invariant 5: of two that are written at once, by a transform that has been
   * overtaken and the one that overtook it, the second to be complete is refused: the first has dropped a part of it. Throws
   * `stream_conflict` then.
   */
  async save(id: string, taken: Taken, lines: Iterable<string>): Promise<Pick<SavedState, 'bytes' | 'savedAt'>> {
    let firstSeq = 0;
    let pieces = 0;
    let bytes = 0;
    try {
      const lastSubjectSequence = (await this.#newestManifest())?.seq ?? 0;
      for (const piece of cut(lines)) {
        const seq = await this.#publish('piece', id, piece);
        if (pieces === 0) firstSeq = seq;
        pieces += 1;
        bytes += piece.length;
        failpoint('transform.mid-snapshot');
      }
      const savedAt = Date.now();
      const manifest: Manifest = { v: STATE_VERSION, id, ...taken, firstSeq, pieces, bytes, savedAt };
      await this.#publish('manifest', id, Buffer.from(JSON.stringify(manifest)), { lastSubjectSequence });
      failpoint('transform.snapshot-saved');
      await this.#nats.manager.streams.purge(this.#stream, { seq: firstSeq });
      return { bytes, savedAt };
    } catch (thrown) {
      throw natsError(thrown, `saving the state in stream ${this.#stream}`);
    }
  }

  async #publish(
    what: 'piece' | 'manifest',
    id: string,
    payload: Uint8Array,
    expect: { readonly lastSubjectSequence?: number } = {},
  ): Promise<number> {
    const named = headers();
    named.set(SNAPSHOT_HEADER, id);
    return (await this.#js.publish(`${this.#subject}.${what}`, payload, { headers: named, expect })).seq;
  }

  /** The newest state that is whole; undefined where there is none that this version reads. */
  async latest(): Promise<SavedState | undefined> {
    const message = await this.#newestManifest();
    if (message === undefined) return undefined;
    const { v, checkpoint, ...manifest } = JSON.parse(message.data.toString('utf8')) as Manifest;
    if (v !== STATE_VERSION) return undefined;
    const place = `${this.#stream} sequence ${message.seq}`;
    return { ...manifest, checkpoint: parseCheckpoint(checkpoint, place), lastSeq: message.seq };
  }

  /** Gives the lines of a state to `take`. False when pieces of it are gone: then only a part was given. */
  async read({ id, firstSeq, lastSeq, pieces }: SavedState, take: (line: string) => void): Promise<boolean> {
    const nothing = Buffer.alloc(0);
    let rest: Buffer = nothing;
    let read = 0;
    for await (const data of this.#pieces(id, firstSeq, lastSeq)) {
      read += 1;
      let from = 0;
      for (let end = data.indexOf(LINE_FEED); end >= 0; end = data.indexOf(LINE_FEED, from)) {
        const line = data.subarray(from, end);
        take((rest === nothing ? line : Buffer.concat([rest, line])).toString('utf8'));
        rest = nothing;
        from = end + 1;
      }
      if (from < data.length) rest = Buffer.concat([rest, data.subarray(from)]);
    }
    return read === pieces && rest === nothing;
  }

  /** The pieces of a state, by a consumer: asked for one by one, each would take a way there and back, and base64. */
  async *#pieces(id: string, firstSeq: number, lastSeq: number): AsyncGenerator<Buffer, void, void> {
    try {
      const consumer = await this.#js.consumers.get(this.#stream, {
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: firstSeq,
        replay_policy: ReplayPolicy.Instant,
      });
      for (let seq = firstSeq - 1; seq < lastSeq;) {
        const before = seq;
        const messages = await consumer.fetch({ max_messages: FETCHED_PIECES, expires: FETCH_MS });
        for await (const { seq: at, headers: named, data } of messages) {
          seq = at;
          if (seq >= lastSeq) break;
          if (named?.get(SNAPSHOT_HEADER) !== id) continue;
          yield Buffer.from(data.buffer, data.byteOffset, data.length);
        }
        // What names the pieces stands behind them: there is always one more message.
        if (seq === before)
          throw new ReplicationError('nats_timeout', `stream ${this.#stream} gave nothing behind sequence ${seq}`);
      }
    } catch (thrown) {
      throw natsError(thrown, `reading stream ${this.#stream}`);
    }
  }

  async #newestManifest(): Promise<{ seq: number; data: Buffer } | undefined> {
    try {
      const query = { last_by_subj: `${this.#subject}.manifest` };
      const message = await this.#nats.manager.streams.getMessage(this.#stream, query);
      if (message === null) return undefined;
      const { seq, data } = message;
      return { seq, data: Buffer.from(data.buffer, data.byteOffset, data.length) };
    } catch (thrown) {
      if (thrown instanceof JetStreamApiError && thrown.code === NO_MESSAGE) return undefined;
      throw natsError(thrown, `reading stream ${this.#stream}`);
    }
  }
}

/** Lines, each with its end, as pieces of at most `PIECE_BYTES`: a line may go on in the next piece. */
function* cut(lines: Iterable<string>): Generator<Buffer> {
  let piece = Buffer.allocUnsafe(PIECE_BYTES);
  let length = 0;
  for (const line of lines) {
    const bytes = Buffer.from(`${line}\n`);
    for (let from = 0; from < bytes.length;) {
      const copied = bytes.copy(piece, length, from);
      from += copied;
      length += copied;
      if (length < PIECE_BYTES) continue;
      yield piece;
      piece = Buffer.allocUnsafe(PIECE_BYTES);
      length = 0;
    }
  }
  if (length > 0) yield piece.subarray(0, length);
}
