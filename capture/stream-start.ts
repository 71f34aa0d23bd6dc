/** How a stream begins, or begins anew. */
import { noteReset, type StreamTail } from '../core/cdc-stream.ts';
import type { FramePublisher } from '../core/frame-publisher.ts';
import { FrameWriter } from '../core/frame-writer.ts';
import type { Logger } from '../core/logger.ts';
import type { Nats } from '../core/nats.ts';
import { describePosition, ORIGIN, type Position } from '../core/position.ts';

/**
 * Publishes the frame that a stream begins with: no rows, only the place `from` which everything is captured. Readers
 * take it as the end of what came before.
 */
export async function beginStream(
  nats: Nats,
  publisher: FramePublisher,
  tail: StreamTail,
  from: Position,
  log: Logger,
): Promise<void> {
  await publisher.publish({
    payload: new FrameWriter(64).finish(),
    start: tail.seq === 0 ? ORIGIN : tail.end,
    end: from,
    rows: 0,
    transactions: 0,
    timeUs: 0,
    reset: true,
  });
  await noteReset(nats, publisher.streamName, publisher.lastSeq);
  log.info({ position: describePosition(from) }, 'capture starts here');
}
