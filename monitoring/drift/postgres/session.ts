/** Sessions for comparing: values print as in capture and apply, and a statement never takes more than one core. */
import pg from 'pg';
import type { TlsConfig } from '../../../core/config.ts';
import { messageOf, ReplicationError, type ErrorCode } from '../../../core/errors.ts';
import { postgresSession } from '../../../core/postgres-session.ts';
import { readTlsFiles } from '../../../core/tls-files.ts';

export type Role = 'source' | 'target';

/**
 * Canonical text of values (ISO dates in UTC, ISO 8601 intervals, hexadecimal bytea, exact floats); plans that follow
 * an index or the physical order and do not sort or hash a table; no parallel workers; no long wait behind DDL; rows
 * that a policy hides are an error.
 */
const SETTINGS =
  '-c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC -c bytea_output=hex -c extra_float_digits=1' +
  ' -c max_parallel_workers_per_gather=0 -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off' +
  ' -c jit=off -c row_security=off -c lock_timeout=10s -c statement_timeout=0 -c client_min_messages=warning' +
  ' -c idle_in_transaction_session_timeout=0 -c standard_conforming_strings=on';

/** Connects. Throws `source_unreachable`, `target_auth` and the like. */
export async function openSession(
  role: Role,
  settings: { readonly url: string; readonly tls?: TlsConfig | undefined },
  applicationName: string,
): Promise<pg.Client> {
  const { url, tls } = settings;
  const client = new pg.Client({
    ...postgresSession(url, applicationName, SETTINGS),
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    ...(tls === undefined ? {} : { ssl: readTlsFiles(tls) }),
  });
  // A connection that breaks while idle is noticed by the next query.
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (thrown) {
    throw sideError(role, thrown, 'connecting for a comparison');
  }
  return client;
}

const CODES: readonly (readonly [prefix: string, source: ErrorCode, target: ErrorCode])[] = [
  ['28', 'source_auth', 'target_auth'],
  ['3D000', 'source_auth', 'target_auth'],
  ['42501', 'source_privilege', 'target_privilege'],
  ['08', 'source_unreachable', 'target_unreachable'],
  ['57P', 'source_unreachable', 'target_unreachable'],
  ['53100', 'source_query', 'target_full'],
  ['40', 'source_query', 'target_conflict'],
];

/** Classifies what pg threw, by SQLSTATE. */
export function sideError(role: Role, thrown: unknown, doing: string): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  const pick = (source: ErrorCode, target: ErrorCode): ErrorCode => (role === 'source' ? source : target);
  if (thrown instanceof pg.DatabaseError) {
    const sqlState = thrown.code ?? '';
    const found = CODES.find(([prefix]) => sqlState.startsWith(prefix));
    const code = found === undefined ? pick('source_query', 'target_query') : pick(found[1], found[2]);
    return new ReplicationError(code, `${doing}: ${thrown.message} (SQLSTATE ${sqlState})`, {
      cause: thrown,
      context: { sqlState },
    });
  }
  const defect = thrown instanceof TypeError || thrown instanceof RangeError || thrown instanceof SyntaxError;
  return new ReplicationError(
    defect ? 'internal' : pick('source_unreachable', 'target_unreachable'),
    `${doing}: ${messageOf(thrown)}`,
    { cause: thrown },
  );
}
