/** The frames of a source from shortly before now on: what changed while its tables are scanned, and after. */
import { cdcStreamName, findStartSequence, parseFrameHeaders, type FrameHeaders } from '../../core/cdc-stream.ts';
import { natsError, type Nats } from '../../core/nats.ts';
import { ORIGIN } from '../../core/position.ts';
import type { History } from '../source-history.ts';

/**
 * Where to begin so that every change is read that was stored after `sinceMs` (milliseconds since 1970); whatever was
 * stored before that is visible to statements that begin now. Frames that are read once more do no harm: the last one
 * tells what a row is. Throws `stream_missing`.
 */
export async function framesSince(nats: Nats, prefix: string, source: string, sinceMs: number): Promise<History> {
  const stream = cdcStreamName(prefix, source);
  try {
    const { state } = await nats.manager.streams.info(stream);
    if (state.messages === 0) {
      const seq = state.last_seq + 1;
      return { stream, startSeq: seq, position: ORIGIN, whole: true, end: { position: ORIGIN, seq: state.last_seq } };
    }
    const at = async (seq: number): Promise<{ headers: FrameHeaders; storedMs: number } | undefined> => {
      const message = await nats.manager.streams.getMessage(stream, { seq });
      if (message === null) return undefined;
      return {
        headers: parseFrameHeaders(message.header, `${stream} sequence ${seq}`),
        storedMs: message.time.getTime(),
      };
    };
    let low = state.first_seq;
    let high = state.last_seq;
    // The last frame at the latest: it says where the ones to come begin.
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const found = await at(middle);
      if (found === undefined || found.storedMs < sinceMs) low = middle + 1;
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
