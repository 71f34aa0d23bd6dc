/** What all connections to MySQL and MariaDB have in common: TLS, limits, and what stands in the way of a login. */
import { connect, isIP, type Socket } from 'node:net';
import type { ConnectionOptions } from 'mysql2';
import type { TlsConfig } from './config.ts';
import { readTlsFiles } from './tls-files.ts';

/**
 * A limit for statements that the server has by default is for its applications: a large table takes the time it
 * takes. Each server reads the name of its own variable here and takes the other for a comment, so that a server of the
 * other kind than configured gets as far as the question what it is.
 */
export const NO_STATEMENT_LIMIT = 'SET SESSION /*!80000 max_execution_time *//*M!100100 max_statement_time */ = 0';

/** What mysql2 takes for the TLS settings of a database; nothing without them. Throws `config_invalid`. */
export function tlsOptions(tls: TlsConfig | undefined): ConnectionOptions {
  if (tls === undefined) return {};
  // Otherwise a certificate that the authority gave to anybody would do.
  const verifyIdentity = tls.reject_unauthorized;
  return { ssl: { ...readTlsFiles(tls), verifyIdentity }, stream: openSocket };
}

/**
 * A socket as mysql2 opens one. Node compares the certificate with the host's name that it finds in the socket; of an
 * address it would find none, and mysql2 names none either: `localhost` would be compared instead.
 */
function openSocket({ config }: { readonly config: { readonly host: string; readonly port: number } }): Socket {
  const socket = connect({ host: config.host, port: config.port, noDelay: true, keepAlive: true });
  if (isIP(config.host) !== 0) Object.assign(socket, { _host: config.host });
  return socket;
}

/** Of mysql2: no TLS at the server, no agreement on it or a certificate that is refused, no such way to log in. */
const REFUSALS = ['HANDSHAKE_NO_SSL_SUPPORT', 'HANDSHAKE_SSL_ERROR', 'AUTH_SWITCH_PLUGIN_ERROR'] as const;

/** Whether what mysql2 threw is a login that cannot succeed, though no server said so by an error number. */
export function isLoginRefusal(thrown: unknown): boolean {
  const { code, syscall, localAddress } = thrown as { code?: unknown; syscall?: unknown; localAddress?: unknown };
  // A connection that broke meanwhile is none; Node says in such errors which one it was.
  return REFUSALS.some((refusal) => refusal === code) && syscall === undefined && localAddress === undefined;
}

/**
 * Whether a server with this value of `read_only` takes writes of everybody: `0` or `OFF`. From MariaDB 12 on there is more
 * than one way to take none.
 */
export function acceptsWrites(readOnly: string | null | undefined): boolean {
  return readOnly === '0' || readOnly === 'OFF';
}
