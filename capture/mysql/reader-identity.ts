/** As whom a capture reads a server's log: the server ends an older reader with the same id, and knows no other bound. */
import { createHash } from 'node:crypto';

/**
 * The server id and the uuid under which a source is read. They are the same for all processes of an installation, of
 * which only one may read, and others in another installation that uses the same names on the same server.
 *
 * @param configured the server id that the configuration gives; else it is in the upper half, where few servers are
 */
export function readerIdentity(
  source: string,
  of: { readonly prefix: string; readonly installation: string; readonly configured: number | undefined },
): { readonly serverId: number; readonly replicaUuid: string } {
  const digest = createHash('sha256').update(`${of.installation}/${of.prefix}/${source}`).digest();
  const hex = digest.toString('hex');
  return {
    serverId: of.configured ?? 2 ** 31 + (digest.readUInt32BE(0) % (2 ** 31 - 1)),
    replicaUuid: `${hex.slice(8, 16)}-${hex.slice(16, 20)}-4${hex.slice(21, 24)}-8${hex.slice(25, 28)}-${hex.slice(28, 40)}`,
  };
}
