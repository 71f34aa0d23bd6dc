/**
 * Notices a source that no longer answers. A server that is frozen, or a host that is gone without a word, closes no
 * connection: whatever was asked of it would wait for as long as the operating system repeats what nobody confirms.
 */
import type pg from 'pg';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { connectSource, dropClient, endClient } from './connection.ts';

/** So long an answer may take before it is looked whether the source still lets anybody connect. */
const UNANSWERED_MS = 30_000;
const LOOK_EVERY_MS = 1000;
/** So long a session that is told to stop may wait for the source. */
const LEAVE_MS = 10_000;

/** The connections of a session, by which it can leave a source that holds them. */
export class SourceConnections {
  readonly #open = new Set<pg.Client>();

  /** Gives the client back. It is forgotten when it has ended. */
  add(client: pg.Client): pg.Client {
    this.#open.add(client);
    client.once('end', () => this.#open.delete(client));
    return client;
  }

  /** Closes all at once, without a goodbye: what waits for an answer fails. */
  drop(): void {
    for (const client of this.#open) dropClient(client);
  }
}

export interface SilenceOptions {
  readonly settings: PostgresSourceConfig;
  readonly connections: SourceConnections;
  readonly applicationName: string;
  /** When the source answered last, as `performance.now` counts. It is asked every few seconds. */
  readonly answeredMs: () => number;
}

/**
 * Watches until the signal aborts. Throws `source_unreachable`, and drops the connections, when the source has not answered
 * for 30 s and lets nobody connect either: a statement that takes long is no silence.
 */
export async function watchForSilence(options: SilenceOptions, signal: AbortSignal): Promise<void> {
  const { settings, connections, applicationName, answeredMs } = options;
  while (!signal.aborted) {
    await abortableDelay(LOOK_EVERY_MS, signal);
    const silentMs = performance.now() - answeredMs();
    if (signal.aborted || silentMs < UNANSWERED_MS) continue;
    if (await answers(settings, applicationName)) {
      await abortableDelay(UNANSWERED_MS, signal);
      continue;
    }
    connections.drop();
    throw new ReplicationError(
      'source_unreachable',
      `the source has not answered for ${Math.round(silentMs / 1000)} s, and lets nobody connect`,
    );
  }
}

/** Runs `session`; drops its connections where it has not ended ten seconds after `signal` aborted. */
export async function leavingInTime(
  signal: AbortSignal,
  connections: SourceConnections,
  session: () => Promise<void>,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const onStop = (): void => {
    timer = setTimeout(() => connections.drop(), LEAVE_MS);
  };
  signal.addEventListener('abort', onStop, { once: true });
  try {
    await session();
  } finally {
    signal.removeEventListener('abort', onStop);
    clearTimeout(timer);
  }
}

/** Whether somebody can connect; any answer is one, a refusal too. */
async function answers(settings: PostgresSourceConfig, applicationName: string): Promise<boolean> {
  try {
    const client = await connectSource(settings, applicationName);
    await endClient(client);
    return true;
  } catch (thrown) {
    return thrown instanceof ReplicationError && thrown.code !== 'source_unreachable';
  }
}
