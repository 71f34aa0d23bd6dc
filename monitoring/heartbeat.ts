/** A heartbeat through the whole path from a source into a target, and the time that it takes. */
import type { Logger } from '../core/logger.ts';
import { abortableDelay, runService } from '../core/run-service.ts';
import type { HeartbeatPath } from './heartbeat-path.ts';

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
  readonly open: () => Promise<HeartbeatPath>;
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
      const path = await open();
      try {
        while (!signal.aborted) {
          send();
          const beganMs = performance.now();
          await path.send();
          for (let waitMs = POLL_MS; !signal.aborted; waitMs = Math.min(MAX_POLL_MS, waitMs * 1.2)) {
            if (await path.hasArrived()) break;
            await abortableDelay(waitMs, signal);
          }
          if (signal.aborted) return;
          report.arrived((performance.now() - beganMs) / 1000);
          underWay = false;
          run.progressed();
          await abortableDelay(everyMs, signal);
        }
      } finally {
        await path.close();
      }
    },
    { name: `heartbeat ${flow}`, signal, log },
  );
}
