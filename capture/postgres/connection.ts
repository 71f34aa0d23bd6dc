import { readFileSync } from 'node:fs';
import pg from 'pg';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { sourceError } from './source-error.ts';

/**
 * Session settings that make every value's text canonical, the same on the replication connection and on the
 * connections that read chunks: ISO dates in UTC, ISO 8601 intervals, hexadecimal bytea, exact floats.
 */
const SESSION_OPTIONS =
  '-c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC -c bytea_output=hex -c extra_float_digits=1 -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0';

export function clientConfig(settings: PostgresSourceConfig, applicationName: string): pg.ClientConfig {
  return {
    connectionString: settings.url,
    application_name: applicationName,
    options: SESSION_OPTIONS,
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    ...(settings.tls === undefined
      ? {}
      : {
          ssl: {
            rejectUnauthorized: settings.tls.reject_unauthorized,
            ...(settings.tls.ca_file === undefined ? {} : { ca: readFileSync(settings.tls.ca_file) }),
            ...(settings.tls.cert_file === undefined ? {} : { cert: readFileSync(settings.tls.cert_file) }),
            ...(settings.tls.key_file === undefined ? {} : { key: readFileSync(settings.tls.key_file) }),
          },
        }),
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
