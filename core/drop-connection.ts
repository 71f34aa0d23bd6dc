import type { Duplex } from 'node:stream';
import type { Connection } from 'mysql2';

/**
 * Closes a connection to MySQL or MariaDB at once. mysql2's own `destroy` only says goodbye and goes on receiving: a
 * server that is sending a log does not listen, and would keep the socket, and this process, alive for ever. What still
 * waits for an answer fails; the connection has a listener for errors.
 */
export function dropConnection(connection: Connection): void {
  const { stream } = connection as unknown as { readonly stream: Duplex };
  // It hung up, and mysql2 fails what waits when it hears of that a moment later; not if it was told to close before.
  if (stream.destroyed) return;
  connection.destroy();
  stream.destroy(new Error('the connection was closed'));
}
