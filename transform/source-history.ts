/** Where the frames of a source begin from which state can be rebuilt, and whether they lead to a place. */
import { cdcStreamName, parseFrameHeaders, resetOf, type FrameHeaders } from '../core/cdc-stream.ts';
import { ReplicationError } from '../core/errors.ts';
import { natsError, type Nats } from '../core/nats.ts';
import { describePosition, orderPositions, ORIGIN, type Position } from '../core/position.ts';
import { missingSequences } from '../core/start-sequence.ts';
import type { SourcePlace } from './checkpoint.ts';

export interface History {
  readonly stream: string;
  readonly startSeq: number;
  readonly position: Position;
  /** Nothing came before: the frames bring everything that there is. Else every table is read again after its start. */
  readonly whole: boolean;
  /** The end of the stream at this moment. */
  readonly end: SourcePlace;
}

/** Throws `stream_missing` while there is no stream, and `transform_history` when what came first has expired. */
export async function findHistory(nats: Nats, prefix: string, source: string): Promise<History> {
  const stream = cdcStreamName(prefix, source);
  try {
    const info = await nats.manager.streams.info(stream);
    const { state } = info;
    if (state.last_seq === 0)
      return { stream, startSeq: 1, position: ORIGIN, whole: true, end: { position: ORIGIN, seq: 0 } };
    const last = await headersAt(nats, stream, state.last_seq);
    const end = { position: last?.end ?? ORIGIN, seq: state.last_seq };
    const first = await headersAt(nats, stream, state.first_seq);
    const resetSeq = resetOf(info);
    // Over a hole only what was read again behind it leads.
    const holed = (await missingSequences(nats, info)).some((seq) => seq < resetSeq);
    if (first?.start.kind === 'origin' && (first.chunk?.index ?? 1) === 1 && !holed)
      return { stream, startSeq: state.first_seq, position: ORIGIN, whole: true, end };
    const reset = resetSeq >= state.first_seq ? await headersAt(nats, stream, resetSeq) : undefined;
    if (reset !== undefined) return { stream, startSeq: resetSeq, position: reset.start, whole: false, end };
    throw new ReplicationError(
      'transform_history',
      `stream ${stream} begins at ${first === undefined ? 'a frame that is gone' : describePosition(first.start)}: what the mapping needs of the time before has expired`,
      { context: { stream, firstSeq: state.first_seq } },
    );
  } catch (thrown) {
    throw natsError(thrown, `looking for the beginning of stream ${stream}`);
  }
}

/**
 * The frames behind `place`, where a saved state stands: it must be the end of a frame. Undefined where they do not follow
 * on it: it has expired together with frames behind it, or the stream is another one.
 */
export async function historyAfter(
  nats: Nats,
  prefix: string,
  source: string,
  { position, seq }: SourcePlace,
): Promise<History | undefined> {
  const stream = cdcStreamName(prefix, source);
  try {
    const info = await nats.manager.streams.info(stream);
    const { state } = info;
    if (seq === 0 || seq > state.last_seq || seq + 1 < state.first_seq) return undefined;
    const resetSeq = resetOf(info);
    if ((await missingSequences(nats, info)).some((gone) => gone > seq && gone < resetSeq)) return undefined;
    // Emptied behind the place: whoever reads what comes next sees whether it follows.
    if (state.messages === 0) return { stream, startSeq: seq + 1, position, whole: true, end: { position, seq } };
    const last = await headersAt(nats, stream, state.last_seq);
    const end = { position: last?.end ?? position, seq: state.last_seq };
    const after: History = { stream, startSeq: seq + 1, position, whole: true, end };
    if (seq >= state.first_seq) {
      const headers = await headersAt(nats, stream, seq);
      return headers !== undefined && orderPositions(headers.end, position) === 0 ? after : undefined;
    }
    const headers = await headersAt(nats, stream, seq + 1);
    const follows = headers !== undefined && (headers.reset || orderPositions(headers.start, position) === 0);
    return follows ? after : undefined;
  } catch (thrown) {
    throw natsError(thrown, `looking for what follows on a saved state in stream ${stream}`);
  }
}

async function headersAt(nats: Nats, stream: string, seq: number): Promise<FrameHeaders | undefined> {
  const message = await nats.manager.streams.getMessage(stream, { seq });
  return message === null ? undefined : parseFrameHeaders(message.header, `${stream} sequence ${seq}`);
}

/**
 * Whether reading from the beginning of `history` passes through `place`. False when the stream is another one than
 * that of the place. Throws `stream_behind` when it ends before the place: then the capture will fill it again.
 */
export async function leadsTo(nats: Nats, history: History, { position, seq }: SourcePlace): Promise<boolean> {
  if (seq === 0) return history.whole;
  if (seq < history.startSeq) return false;
  try {
    if (seq > history.end.seq) {
      if (orderPositions(history.end.position, position) === -1)
        throw new ReplicationError(
          'stream_behind',
          `the records hold ${describePosition(position)}, beyond the end of stream ${history.stream} (${describePosition(history.end.position)})`,
          { context: { stream: history.stream } },
        );
      return false;
    }
    const headers = await headersAt(nats, history.stream, seq);
    if (headers === undefined) return false;
    const fromStart = headers.reset ? 1 : orderPositions(position, headers.start);
    const toEnd = orderPositions(position, headers.end);
    return fromStart !== undefined && fromStart >= 0 && toEnd !== undefined && toEnd <= 0;
  } catch (thrown) {
    throw natsError(thrown, `looking for ${describePosition(position)} in stream ${history.stream}`);
  }
}
