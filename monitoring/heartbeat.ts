/**
 * A heartbeat through the whole path: a mark in the log of the source, and the time until the position in the target has
 * passed it. It asks both databases and none of the stages, so it cannot be fooled by what those believe of themselves.
 */
import { hasReached } from '../core/position.ts';
import type { Logger } from '../core/logger.ts';
import { abortableDelay, runService } from '../core/run-service.ts';
import type { Ends } from './drift/open-sides.ts';

export interface HeartbeatOptions {
  readonly flow: string;
  readonly everyMs: number;
  readonly open: () => Promise<Ends>;
  /** Told when a heartbeat has arrived, and again and again while one is under way. */
  readonly report: (seconds: number) => void;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

const POLL_MS = 50;
const MAX_POLL_MS = 1000;

/** Runs until the signal aborts. While a database cannot be reached, the heartbeat sent last goes on ageing. */
export async function runHeartbeat({ flow, everyMs, open, report, log, signal }: HeartbeatOptions): Promise<void> {
  let sentMs: number | undefined;
  await runService(
    async (run) => {
      if (sentMs !== undefined) report((performance.now() - sentMs) / 1000);
      const sides = await open();
      try {
        while (!signal.aborted) {
          sentMs ??= performance.now();
          const beganMs = performance.now();
          const place = await sides.source.watermark();
          await sides.source.nudge();
          for (let waitMs = POLL_MS; !signal.aborted; waitMs = Math.min(MAX_POLL_MS, waitMs * 1.2)) {
            const position = await sides.target.position();
            if (position !== undefined && hasReached(position, place)) break;
            report((performance.now() - sentMs) / 1000);
            await abortableDelay(waitMs, signal);
          }
          if (signal.aborted) return;
          report((performance.now() - beganMs) / 1000);
          sentMs = undefined;
          run.progressed();
          await abortableDelay(everyMs, signal);
        }
      } finally {
        await Promise.all([sides.source.close(), sides.target.close()]);
      }
    },
    { name: `heartbeat ${flow}`, signal, log },
  );
}
