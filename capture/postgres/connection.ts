import type { Duplex } from 'node:stream';
import pg from 'pg';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { postgresSession } from '../../core/postgres-session.ts';
import { readTlsFiles } from '../../core/tls-files.ts';
import { sourceError } from './source-error.ts';

/**
 * Session settings that make every value's text canonical, the same on the replication connection and on the
 * connections that read chunks: ISO dates in UTC, ISO 8601 intervals, hexadecimal bytea, exact floats. Rows that a policy
 * hides from this user are an error, for the log has them. What is written (marks) is flushed at once, for a walsender
 * sends only what was, and waits for no standby.
 */
const SESSION_OPTIONS =
  '-c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC -c bytea_output=hex -c extra_float_digits=1 -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0 -c row_security=off -c synchronous_commit=local -c standard_conforming_strings=on';

export function clientConfig(settings: PostgresSourceConfig, applicationName: string): pg.ClientConfig {
  return {
    ...postgresSession(settings.url, applicationName, SESSION_OPTIONS),
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    connectionTimeoutMillis: 10_000,
    ...(settings.tls === undefined ? {} : { ssl: readTlsFiles(settings.tls) }),
  };
}

/** Connects to a source for SQL. The caller ends the client. Throws `source_unreachable` or `source_auth`. */
export async function connectSource(settings: PostgresSourceConfig, applicationName: string): Promise<pg.Client> {
  const client = new pg.Client(clientConfig(settings, applicationName));
  // A connection that breaks while idle is noticed by the next query.
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (thrown) {
    throw sourceError(thrown, `cannot connect to the source as ${applicationName}`);
  }
  return client;
}

/** A server that is frozen never answers the goodbye. */
const GOODBYE_MS = 2000;

/** Ends a connection, without an answer if there is none. */
export async function endClient(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => dropClient(client), GOODBYE_MS);
  try {
    await client.end();
  } catch {
    // It is broken, and so has ended.
  } finally {
    clearTimeout(timer);
  }
}

/** Closes a connection at once: what waits for an answer fails. */
export function dropClient(client: pg.Client): void {
  (client as unknown as { readonly connection: { readonly stream: Duplex } }).connection.stream.destroy();
}

/** Asks a source one question. Throws classified errors: a connection may break at any of them, and that is no defect. */
export async function askSource<T extends pg.QueryResultRow>(
  client: pg.Client,
  sql: string,
  doing: string,
): Promise<T[]> {
  try {
    return (await client.query<T>(sql)).rows;
  } catch (thrown) {
    throw sourceError(thrown, doing);
  }
}

/** Whether the source follows another server: nothing can be written into its log then. */
export async function isStandby(client: pg.Client): Promise<boolean> {
  const sql = 'select pg_is_in_recovery() as standby';
  const [row] = await askSource<{ standby: boolean }>(client, sql, 'asking whether the source is a standby');
  return row?.standby === true;
}

/**
 * Connects like `connectSource`, for several loops that share the connection: each statement waits here until the one
 * before it is done. Statements only, no streams and no transactions over several of them.
 */
export async function connectShared(settings: PostgresSourceConfig, applicationName: string): Promise<pg.Client> {
  const client = await connectSource(settings, applicationName);
  const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (...args: unknown[]): Promise<unknown> => {
    const result = last.then(() => query(...args));
    last = result.catch(() => {});
    return result;
  };
  return Object.assign(client, { query: inTurn as typeof client.query });
}
