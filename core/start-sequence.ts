/** Where in a stream a consumer begins to read, also where frames are missing from it. */
import type { StreamInfo } from '@nats-io/jetstream';
import { parseFrameHeaders, resetOf, type FrameHeaders } from './cdc-stream.ts';
import { ReplicationError } from './errors.ts';
import { natsError, type Nats } from './nats.ts';
import { comparePositions, describePosition, orderPositions, ORIGIN, type Position } from './position.ts';

/** The sequences that are missing between the first and the last message of a stream, in their order. */
export async function missingSequences(nats: Nats, { config, state }: StreamInfo): Promise<readonly number[]> {
  if ((state.num_deleted ?? 0) === 0) return [];
  const detailed = await nats.manager.streams.info(config.name, { deleted_details: true });
  return (detailed.state.deleted ?? []).toSorted((a, b) => a - b);
}

/**
 * The sequence from which a consumer at `position` must read: the first frame that ends after it. `ORIGIN` stands
 * for a consumer that has nothing yet. Binary search over the headers, since sequences and positions rise together.
 * Where frames that it needs are missing, it is the newest frame from which everything is read again, if that lies behind.
 *
 * `seq` is the sequence at which the consumer took that position, if it knows: a position from before a reset may bear
 * higher numbers than what came after it, and only the sequence tells (MariaDB counts on in each history).
 *
 * Throws `stream_missing`; `stream_gap` when frames behind the position are gone; `stream_behind` when the position lies
 * beyond the stream's own end.
 */
export async function findStartSequence(nats: Nats, stream: string, position: Position, seq?: number): Promise<number> {
  try {
    const info = await nats.manager.streams.info(stream);
    const { state } = info;
    const context = {
      stream,
      position: describePosition(position),
      firstSeq: state.first_seq,
      lastSeq: state.last_seq,
    };
    if (state.messages === 0) {
      if (comparePositions(position, ORIGIN) === 0 && state.last_seq === 0) return 1;
      // All of it had been taken when it was emptied: the next frame tells whether it follows.
      if (state.last_seq > 0 && seq === state.last_seq) return seq + 1;
      throw new ReplicationError(
        state.last_seq === 0 ? 'stream_behind' : 'stream_gap',
        `stream ${stream} is empty, and the target stands at ${describePosition(position)}`,
        { context },
      );
    }
    const missing = await missingSequences(nats, info);
    const isMissing = new Set(missing);
    const gapAt = (gone: number): ReplicationError =>
      new ReplicationError('stream_gap', `sequence ${gone} of stream ${stream} is gone`, { context });
    const headersAt = async (at: number): Promise<FrameHeaders> => {
      const message = await nats.manager.streams.getMessage(stream, { seq: at });
      if (message === null) throw gapAt(at);
      return parseFrameHeaders(message.header, `${stream} sequence ${at}`);
    };
    const first = await headersAt(state.first_seq);
    let lastSeq = state.last_seq;
    while (isMissing.has(lastSeq)) lastSeq -= 1;
    const last = await headersAt(lastSeq);
    // It is noted after it has been published: of the newest frame, and of one behind which a process was killed, only
    // the frame itself may tell.
    const noted = Math.max(resetOf(info), first.reset ? state.first_seq : 0, last.reset ? lastSeq : 0);
    const resetSeq = noted >= state.first_seq && !isMissing.has(noted) ? noted : 0;
    const reset = resetSeq > 0 ? await headersAt(resetSeq) : undefined;
    let low = state.first_seq;
    if (reset !== undefined) {
      const order = orderPositions(reset.end, position);
      // The position belongs to a history that was given up there.
      if (order === undefined) return resetSeq;
      if (order <= 0) {
        // Taken before the reset, it belongs to what was given up there as well.
        if (seq !== undefined && seq < resetSeq && position.kind !== 'origin') return resetSeq;
        low = resetSeq;
      }
    }
    if (low !== resetSeq && comparePositions(first.start, position) > 0) {
      // A hole, unless everything is read again after it: then the frame that says so is the place to begin.
      if (reset !== undefined) return resetSeq;
      throw new ReplicationError(
        'stream_gap',
        `stream ${stream} begins at ${describePosition(first.start)}, after the target's position ${describePosition(position)}`,
        { context },
      );
    }
    // What it has taken does not concern it, though it may be gone since. Who stands somewhere and has taken nothing of this
    // stream took it from another one, and only the position tells.
    const isKnown = seq !== undefined && seq <= state.last_seq && (seq > 0 || position.kind === 'origin');
    const taken = isKnown ? seq : undefined;
    if (comparePositions(last.end, position) < 0) {
      if (taken !== undefined && taken > lastSeq) return taken + 1;
      throw new ReplicationError(
        'stream_behind',
        `the target stands at ${describePosition(position)}, beyond the end of stream ${stream} (${describePosition(last.end)})`,
        { context },
      );
    }
    let high = state.last_seq + 1;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      let there = middle;
      while (there < high && isMissing.has(there)) there += 1;
      if (there === high || comparePositions((await headersAt(there)).end, position) > 0) high = middle;
      else low = there + 1;
    }
    while (isMissing.has(low)) low += 1;
    // The pieces of an oversize frame share their start; begin at the first of them.
    while (low > state.first_seq && low <= lastSeq && !isMissing.has(low)) {
      const chunk = (await headersAt(low)).chunk;
      if (chunk === undefined || chunk.index === 1) break;
      low -= 1;
    }
    const needed = taken === undefined ? low : Math.min(taken + 1, low);
    const gone = missing.find((each) => each >= needed);
    if (gone === undefined) return low;
    if (gone < resetSeq) return resetSeq;
    // Further on, whoever reads comes to it.
    if (gone > low || (await beginsAnew(headersAt, low, lastSeq))) return low;
    throw gapAt(gone);
  } catch (thrown) {
    throw natsError(thrown, `finding ${describePosition(position)} in stream ${stream}`);
  }
}

async function beginsAnew(
  headersAt: (seq: number) => Promise<FrameHeaders>,
  seq: number,
  lastSeq: number,
): Promise<boolean> {
  return seq <= lastSeq && (await headersAt(seq)).reset;
}
