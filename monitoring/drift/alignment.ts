/** Brings both sides to one place of the log: the source is read first, then the target once it has passed that place. */
import { ReplicationError } from '../../core/errors.ts';
import { comparePositions, describePosition, hasReached, type Position } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import type { DriftSource, DriftTarget } from './side.ts';

const POLL_MS = 20;
const MAX_POLL_MS = 500;
const NUDGE_EVERY_MS = 5000;
/** How long the flow may stand still before its watermark before the verification gives up. */
const STALL_MS = 120_000;

/** Waits until the flow has applied everything before `watermark`. Throws `verify_stalled` when it stands still. */
export async function passed(
  source: Pick<DriftSource, 'nudge'>,
  target: Pick<DriftTarget, 'position'>,
  watermark: Position,
  signal: AbortSignal,
  stallMs = STALL_MS,
): Promise<void> {
  let last: Position | undefined;
  let movedMs = performance.now();
  let nudgedMs = -Infinity;
  for (let waitMs = POLL_MS; ; waitMs = Math.min(MAX_POLL_MS, waitMs * 1.5)) {
    const position = await target.position();
    if (position !== undefined && hasReached(position, watermark)) return;
    const now = performance.now();
    if (position !== undefined && (last === undefined || comparePositions(position, last) !== 0)) {
      last = position;
      movedMs = now;
    }
    if (now - movedMs > stallMs)
      throw new ReplicationError(
        'verify_stalled',
        `the target stands at ${position === undefined ? 'no position' : describePosition(position)} and did not come nearer to ${describePosition(watermark)} in ${Math.round(stallMs / 1000)} s`,
      );
    // An idle source writes no log, and then nothing passes its end.
    if (now - nudgedMs > NUDGE_EVERY_MS) {
      nudgedMs = now;
      await source.nudge();
    }
    await abortableDelay(waitMs, signal);
    signal.throwIfAborted();
  }
}
