/**
 * What a heartbeat passes on its way, and how its arrival is told: by something that capture, stream, transform and apply
 * have each brought on, and that was not there before. What stages believe of themselves counts for nothing.
 *
 * A source of Postgres bears a mark in its log, of which the target's position tells. In one of MySQL or MariaDB, and in a
 * standby of Postgres, nothing is written: there the capture is asked for a frame, and that one must come through.
 */
import { askForProgress } from '../core/asked-progress.ts';
import { cdcStreamName, readHeaders, type FrameHeaders } from '../core/cdc-stream.ts';
import { asReplicationError } from '../core/errors.ts';
import { natsError, type Nats } from '../core/nats.ts';
import { hasReached, parsePosition, type Position } from '../core/position.ts';
import type { DriftSource } from './drift/side.ts';
import type { SqlReader } from './sql-reader.ts';

/** How much of the stream of a source has come somewhere. */
export interface SourcePlace {
  readonly position: Position;
  /** The last frame of which that is so. */
  readonly seq: number;
}

export interface HeartbeatPath {
  /** Sends one on its way. */
  send(): Promise<void>;
  /** Whether the one that was sent last has arrived. */
  hasArrived(): Promise<boolean>;
  close(): Promise<void>;
}

export interface PathOptions {
  readonly nats: Nats;
  readonly prefix: string;
  readonly source: { readonly name: string; readonly log: DriftSource };
  readonly flow: string;
  readonly target: SqlReader;
  /** Of a flow of records. */
  readonly records?: {
    readonly stream: string;
    /** The flow whose transform makes them. */
    readonly maker: string;
    /** What the checkpoint of a frame of records says of the source. */
    readonly placeOf: (checkpoint: string) => SourcePlace | undefined;
  };
}

/** A plain message may be lost: the capture is asked again. */
const ASK_EVERY_MS = 5000;

/** `close` closes all that was given. */
export function createHeartbeatPath(options: PathOptions): HeartbeatPath {
  const { nats, prefix, source, target, flow, records } = options;
  const stream = cdcStreamName(prefix, source.name);
  let position: Position | undefined;
  /** A frame behind this one must come through. Undefined: the position alone tells. */
  let behindSeq: number | undefined;
  let askedMs = 0;

  /** Asks the capture for a frame. A stream that was made anew counts from the beginning. */
  const ask = async (): Promise<void> => {
    const last = await lastSequence(nats, stream);
    behindSeq = Math.min(behindSeq ?? last, last);
    askForProgress(nats, prefix, 'capture', source.name);
    askedMs = performance.now();
  };
  const reached = records === undefined ? mirrorPlace(target, flow, stream) : recordsPlace(nats, target, flow, records);
  return {
    async send() {
      behindSeq = undefined;
      position = await source.log.mark();
      if (position !== undefined) return;
      position = await source.log.watermark();
      await ask();
    },
    async hasArrived() {
      // A transform with no records to write says only now and then how far it is.
      if (records !== undefined) askForProgress(nats, prefix, 'transform', records.maker);
      const place = await reached();
      if (place !== undefined && hasReached(place.position, position!) && place.seq > (behindSeq ?? -1)) return true;
      if (behindSeq !== undefined && performance.now() - askedMs > ASK_EVERY_MS) await ask();
      return false;
    },
    async close() {
      await Promise.all([source.log.close(), target.close(), nats.close()]);
    },
  };
}

async function lastSequence(nats: Nats, stream: string): Promise<number> {
  try {
    return (await nats.manager.streams.info(stream)).state.last_seq;
  } catch (thrown) {
    throw natsError(thrown, `asking for the end of stream ${stream}`);
  }
}

interface TargetPlace extends SourcePlace {
  readonly stream: string;
}

/** Where a flow stands in its target; undefined while it has never run. */
async function targetPlace(target: SqlReader, flow: string): Promise<TargetPlace | undefined> {
  const tables =
    "SELECT 1 AS n FROM information_schema.tables WHERE table_schema = 'waybill' AND table_name = 'position'";
  if ((await target.query(tables)).length === 0) return undefined;
  const [row] = await target.query('SELECT position, stream, stream_seq AS seq FROM waybill.position WHERE flow = ?', [
    flow,
  ]);
  const position = parsePosition(row?.['position'] ?? '');
  return position === undefined ? undefined : { position, stream: row!['stream']!, seq: Number(row!['seq']) };
}

function mirrorPlace(target: SqlReader, flow: string, stream: string): () => Promise<SourcePlace | undefined> {
  return async () => {
    const place = await targetPlace(target, flow);
    return place?.stream === stream ? place : undefined;
  };
}

/** The place of a source in the last frame of records that a target has. */
function recordsPlace(
  nats: Nats,
  target: SqlReader,
  flow: string,
  { stream, placeOf }: NonNullable<PathOptions['records']>,
): () => Promise<SourcePlace | undefined> {
  let knownSeq = 0;
  let known: SourcePlace | undefined;
  return async () => {
    const place = await targetPlace(target, flow);
    if (place?.stream !== stream || place.seq === 0) return undefined;
    if (place.seq === knownSeq) return known;
    const { checkpoint } = await headersOf(nats, stream, place.seq);
    known = checkpoint === undefined ? undefined : placeOf(checkpoint);
    knownSeq = place.seq;
    return known;
  };
}

/** Of a frame that has expired nothing is known; the next one will tell. */
async function headersOf(nats: Nats, stream: string, seq: number): Promise<Partial<FrameHeaders>> {
  try {
    return await readHeaders(nats, stream, seq);
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code === 'stream_gap') return {};
    throw error;
  }
}
