import { setTimeout as delay } from 'node:timers/promises';

/** Waits until `probe` gives something truthy; throws with `what` and the last error when the deadline passes. */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined | false | null>,
  deadlineMs = 120_000,
): Promise<T> {
  const until = performance.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false && value !== null) return value;
    } catch (thrown) {
      last = thrown;
    }
    if (performance.now() > until)
      throw new Error(`waited ${deadlineMs} ms for ${what}`, last === undefined ? undefined : { cause: last });
    await delay(25);
  }
}
