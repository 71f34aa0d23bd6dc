import { setTimeout as delay } from 'node:timers/promises';

/**
 * Waits until `probe` gives something truthy; throws with `what` and the last error when the deadline passes. Looks less
 * often the longer it lasts: a look takes the processor from what is waited for.
 */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined | false | null>,
  deadlineMs = 120_000,
): Promise<T> {
  const until = performance.now() + deadlineMs;
  let last: unknown;
  let pauseMs = 25;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false && value !== null) return value;
    } catch (thrown) {
      last = thrown;
    }
    if (performance.now() > until)
      throw new Error(`waited ${deadlineMs} ms for ${what}`, last === undefined ? undefined : { cause: last });
    await delay(pauseMs);
    pauseMs = Math.min(100, pauseMs * 1.1);
  }
}
