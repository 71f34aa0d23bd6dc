/** The frames of a source from about now on: what changed while its tables are scanned, and after. */
import { cdcStreamName, parseFrameHeaders, readReset, type FrameHeaders } from '../../core/cdc-stream.ts';
import { natsError, type Nats } from '../../core/nats.ts';
import { hasReached, ORIGIN, type Position } from '../../core/position.ts';
import { findStartSequence } from '../../core/start-sequence.ts';
import type { History } from '../source-history.ts';

interface Stored {
  readonly headers: FrameHeaders;
  readonly storedMs: number;
}

/**
 * Where to begin so that everything is read behind a place of the log, or that was stored after a time (milliseconds since
 * 1970). Throws `stream_missing`.
 */
export async function framesSince(
  nats: Nats,
  prefix: string,
  source: string,
  since: Position | number,
): Promise<History> {
  const stream = cdcStreamName(prefix, source);
  try {
    const { state } = await nats.manager.streams.info(stream);
    if (state.messages === 0) {
      const seq = state.last_seq + 1;
      return { stream, startSeq: seq, position: ORIGIN, whole: true, end: { position: ORIGIN, seq: state.last_seq } };
    }
    const liesBefore = ({ headers, storedMs }: Stored): boolean =>
      typeof since === 'number' ? storedMs < since : hasReached(withAllReads(since), headers.end);
    const at = async (seq: number): Promise<Stored | undefined> => {
      const message = await nats.manager.streams.getMessage(stream, { seq });
      if (message === null) return undefined;
      return {
        headers: parseFrameHeaders(message.header, `${stream} sequence ${seq}`),
        storedMs: message.time.getTime(),
      };
    };
    // Positions rise from the newest reset on.
    let low = Math.max(state.first_seq, await readReset(nats, stream));
    let high = state.last_seq;
    // The last frame at the latest: it says where the ones to come begin.
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const found = await at(middle);
      if (found === undefined || liesBefore(found)) low = middle + 1;
      else high = middle;
    }
    const first = await at(low);
    const last = await at(state.last_seq);
    const end = { position: last?.headers.end ?? ORIGIN, seq: state.last_seq };
    const position = first?.headers.start ?? ORIGIN;
    // An oversize frame is in pieces, and begins with the first of them.
    const startSeq = (first?.headers.chunk?.index ?? 1) === 1 ? low : await findStartSequence(nats, stream, position);
    return { stream, startSeq, position, whole: true, end };
  } catch (thrown) {
    throw natsError(thrown, `looking for the newest frames of stream ${stream}`);
  }
}

/** Of MySQL and MariaDB: whatever chunks a capture has read, which it counts beside the transactions of the log. */
function withAllReads(position: Position): Position {
  if (position.kind !== 'mysql' && position.kind !== 'mariadb') return position;
  return { ...position, reads: Number.MAX_SAFE_INTEGER };
}
