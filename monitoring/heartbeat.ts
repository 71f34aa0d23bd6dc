/**
 * A heartbeat through the whole path: a mark in the log of the source, and the time until the position in the target has
 * passed it. It asks both databases and none of the stages, so it cannot be fooled by what those believe of themselves.
 */
import { hasReached } from '../core/position.ts';
import type { Logger } from '../core/logger.ts';
import { abortableDelay, runService } from '../core/run-service.ts';
import type { Ends } from './drift/open-sides.ts';

/** What is told of heartbeats. How old one is that has not arrived is worked out when somebody looks. */
export interface HeartbeatReport {
  /** One is on its way, or would be, if the databases could be reached. */
  sent(): void;
  /** It has arrived, after so many seconds. */
  arrived(seconds: number): void;
}

export interface HeartbeatOptions {
  readonly flow: string;
  readonly everyMs: number;
  readonly open: () => Promise<Ends>;
  readonly report: HeartbeatReport;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

const POLL_MS = 50;
const MAX_POLL_MS = 1000;

/**
 * Runs until the signal aborts. A heartbeat goes on ageing while a database cannot be reached or does not answer, and when
 * what it says ends this: throws classified errors.
 */
export async function runHeartbeat({ flow, everyMs, open, report, log, signal }: HeartbeatOptions): Promise<void> {
  let underWay = false;
  const send = (): void => {
    if (!underWay) report.sent();
    underWay = true;
  };
  await runService(
    async (run) => {
      send();
      const sides = await open();
      try {
        while (!signal.aborted) {
          send();
          const beganMs = performance.now();
          const place = await sides.source.watermark();
          await sides.source.nudge();
          for (let waitMs = POLL_MS; !signal.aborted; waitMs = Math.min(MAX_POLL_MS, waitMs * 1.2)) {
            const position = await sides.target.position();
            if (position !== undefined && hasReached(position, place)) break;
            await abortableDelay(waitMs, signal);
          }
          if (signal.aborted) return;
          report.arrived((performance.now() - beganMs) / 1000);
          underWay = false;
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
