/** The parts of a capture's run (log, publishing, status, …): they end together. */
import { isAbort, ReplicationError } from '../core/errors.ts';
import type { Nats } from '../core/nats.ts';

/**
 * Runs all parts until `outer` aborts (they drain) or one of them fails or ends, which stops the others. Throws the
 * first failure. `onEnd` is called whenever a part has ended, to wake those that wait for something.
 */
export async function runParts(
  outer: AbortSignal,
  nats: Nats,
  onEnd: () => void,
  parts: readonly ((signal: AbortSignal) => Promise<void>)[],
): Promise<void> {
  // A signal that aborted while the run was prepared tells nobody any more.
  if (outer.aborted) return;
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  let failure: unknown;
  const watched = async (part: (signal: AbortSignal) => Promise<void>): Promise<void> => {
    try {
      await part(signal);
      if (!signal.aborted) throw new ReplicationError('source_unreachable', 'the replication connection was closed');
    } catch (thrown) {
      if (isAbort(thrown, signal)) return;
      failure ??= thrown;
    } finally {
      if (!stop.signal.aborted) stop.abort();
      onEnd();
    }
  };
  nats.connection.closed().then(
    (error) => {
      if (!(error instanceof Error)) return;
      failure ??= new ReplicationError('nats_unreachable', `the connection to NATS was closed: ${error.message}`, {
        cause: error,
      });
      stop.abort();
    },
    () => {},
  );
  await Promise.all(parts.map(watched));
  if (failure !== undefined) throw failure;
}
