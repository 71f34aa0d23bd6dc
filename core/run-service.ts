import { setTimeout as delay } from 'node:timers/promises';
import { asReplicationError, isAbort, policyFor, type ReplicationError } from './errors.ts';
import type { Logger } from './logger.ts';

/** Waits between tries: doubling from `minMs` to `maxMs`, with up to 20 % of jitter so that a fleet does not march. */
export interface Backoff {
  readonly minMs: number;
  readonly maxMs: number;
}

export const DEFAULT_BACKOFF: Backoff = { minMs: 100, maxMs: 10_000 };

/** The wait before try number `attempt` (from 1). `random` is in [0, 1). */
export function backoffMs(backoff: Backoff, attempt: number, random: number): number {
  const base = Math.min(backoff.maxMs, backoff.minMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(base * (0.8 + 0.2 * random));
}

export interface RunOptions {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly backoff?: Backoff;
  /** Told of every error before the wait, with whether it will be tried again. */
  readonly onError?: (error: ReplicationError, willRetry: boolean) => void;
}

/** What one run of a service gets: it calls `progressed()` when its position moved, which resets the backoff. */
export interface Run {
  readonly signal: AbortSignal;
  readonly progressed: () => void;
}

/**
 * Runs a service until its signal aborts. This is the only place that retries: an error whose policy is `retry` is
 * tried again after the backoff, any other ends the service and is thrown to the caller.
 */
export async function runService(service: (run: Run) => Promise<void>, options: RunOptions): Promise<void> {
  const { signal, log, name, backoff = DEFAULT_BACKOFF } = options;
  let attempt = 0;
  const progressed = (): void => {
    attempt = 0;
  };
  while (!signal.aborted) {
    try {
      await service({ signal, progressed });
      return;
    } catch (thrown) {
      if (isAbort(thrown, signal)) return;
      const error = asReplicationError(thrown);
      const willRetry = policyFor(error.code).action === 'retry';
      options.onError?.(error, willRetry);
      if (!willRetry) throw error;
      attempt += 1;
      const waitMs = backoffMs(backoff, attempt, Math.random());
      log.warn({ service: name, code: error.code, context: error.context, attempt, waitMs }, error.message);
      await abortableDelay(waitMs, signal);
    }
  }
}

/** Sleeps, and returns early (without throwing) when the signal aborts. */
export async function abortableDelay(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  try {
    await delay(ms, undefined, { signal });
  } catch (thrown) {
    if (!isAbort(thrown, signal)) throw thrown;
  }
}

/** What `work` gives, or, when the signal aborts first, a rejection with the signal's reason. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let onAbort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
