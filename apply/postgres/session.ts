/** The connection to a Postgres target: one client, the session settings that values rely on, and when it was lost. */
import type { Duplex } from 'node:stream';
import { Client, type ClientConfig } from 'pg';
import type { TargetConfig } from '../../core/config.ts';
import { postgresSession } from '../../core/postgres-session.ts';
import { readTlsFiles } from '../../core/tls-files.ts';
import { targetError } from './target-error.ts';

export interface TargetSession {
  readonly client: Client;
  /** Aborts when the connection breaks, also while nothing is being asked. */
  readonly lost: AbortSignal;
  close(): Promise<void>;
}

/** Frames carry values in the form that these settings print and read. Rows that a policy hides are an error, not absent. */
const SETTINGS =
  "SET datestyle TO 'ISO, YMD'; SET intervalstyle TO iso_8601; SET timezone TO 'UTC';" +
  ' SET standard_conforming_strings TO on; SET bytea_output TO hex; SET row_security TO off; SET client_min_messages TO warning;' +
  ' SET idle_in_transaction_session_timeout TO 120000';

/** Connects. Throws `target_unreachable`, `target_auth` or another classified error. */
export async function openTargetSession(target: TargetConfig, applicationName: string): Promise<TargetSession> {
  const lost = new AbortController();
  const client = new Client(clientConfig(target, applicationName));
  client.on('error', (error) => lost.abort(targetError(error, 'the connection to the target broke')));
  client.on('end', () =>
    lost.abort(targetError(new Error('closed by the server'), 'the connection to the target broke')),
  );
  try {
    await client.connect();
    await client.query(SETTINGS);
  } catch (thrown) {
    await closeQuietly(client);
    throw targetError(thrown, 'connecting to the target');
  }
  return { client, lost: lost.signal, close: () => closeQuietly(client) };
}

async function closeQuietly(client: Client): Promise<void> {
  // A server that is gone without a word never answers the goodbye.
  const late = AbortSignal.timeout(2000);
  const given = new Promise<void>((resolve) => late.addEventListener('abort', () => resolve(), { once: true }));
  await Promise.race([client.end().catch(() => undefined), given]);
  if (late.aborted)
    (client as unknown as { readonly connection: { readonly stream: Duplex } }).connection.stream.destroy();
}

function clientConfig(target: TargetConfig, applicationName: string): ClientConfig {
  const { tls } = target;
  return {
    ...postgresSession(target.url, applicationName),
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: 10_000,
    ...(tls === undefined ? {} : { ssl: readTlsFiles(tls) }),
  };
}
