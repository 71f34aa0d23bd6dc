/**
 * Sessions that an overtaken process left behind in a database. A process that hangs keeps its connections, and with
 * them a replication slot, a row lock, an open transaction, for as long as the server's own timeouts allow, or for
 * ever. Whoever holds the lease ends them. Invariant 5 does not rest on this; the time of a takeover does.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { KV } from '@nats-io/kv';
import { natsError } from './nats.ts';

const KEY = 'installation';
const GONE_WITHIN_MS = 5000;

/**
 * The id of this installation: made once and kept in its bucket, so that all its processes agree on it and no other
 * installation does, also where both use one database under the same names.
 */
export async function installationId(bucket: KV): Promise<string> {
  try {
    const entry = await bucket.get(KEY);
    if (entry !== null && entry.operation === 'PUT') return entry.string();
    const id = randomBytes(3).toString('hex');
    await bucket.create(KEY, id);
    return id;
  } catch (thrown) {
    // Two processes that make it at once: the second finds it when it tries again (stream_conflict).
    throw natsError(thrown, 'reading the id of this installation');
  }
}

/** The application_name of a session: what it is for, and whose. */
export function sessionName(
  purpose: 'apply' | 'capture' | 'stream' | 'slices' | 'load' | 'schema' | 'probe',
  name: string,
  installation: string,
): string {
  // At most 63 bytes, or Postgres cuts it: names of sources and flows have at most 40, the id has 6.
  return `waybill ${purpose} ${name} ${installation}`;
}

/** The part of a Postgres client that is needed here. */
interface Queryable {
  query(sql: string, values: unknown[]): Promise<{ rowCount: number | null }>;
}

const TERMINATE = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid()
    AND application_name = ANY ($1)`;

/**
 * Ends the other sessions of this database and role that bear one of `names`, and waits until they are gone, for at
 * most five seconds. Call it with the lease held, before any session of one's own of these names is opened besides
 * `client`'s. A role may always end sessions of its own. Returns how many there were; throws what the client throws.
 */
export async function endStaleSessions(client: Queryable, names: readonly string[]): Promise<number> {
  const end = async (): Promise<number> => (await client.query(TERMINATE, [names])).rowCount ?? 0;
  const ended = await end();
  const until = performance.now() + GONE_WITHIN_MS;
  // Told once, a walsender whose client does not read dies only when it has said goodbye to it; told twice, it dies.
  for (let left = ended; left > 0 && performance.now() < until; left = await end()) await delay(50);
  return ended;
}
