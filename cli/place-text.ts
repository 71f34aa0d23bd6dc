/** Where a flow stands, for people. */
import { describePosition, parsePosition } from '../core/position.ts';

/** What a target, or the stream of a fan-out, has of a flow. */
export interface FlowPlace {
  /** As `formatPosition` writes it. */
  readonly position: string;
  /** The last frame of its stream that it has. */
  readonly streamSeq: number;
}

/**
 * A place of the source's log; of a flow that reads records, the frame of their stream: positions in that are numbers of its
 * own, and would be taken for those of a log.
 */
export function placeText({ position, streamSeq }: FlowPlace, readsRecords: boolean): string {
  const parsed = parsePosition(position);
  if (parsed === undefined) return position;
  return readsRecords && parsed.kind !== 'origin' ? `frame ${streamSeq}` : describePosition(parsed);
}
