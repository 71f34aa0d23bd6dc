/**
 * Names for sessions of MySQL and MariaDB: a lock by name, which a session holds to its end. It tells whoever takes over
 * from a process that hangs which sessions that one left behind; they may hold row locks, metadata locks or open
 * transactions for as long as the server's timeouts allow.
 */

/** Runs one statement in the session; rows as texts. */
export type SessionQuery = (sql: string) => Promise<readonly (readonly (string | null)[])[]>;

/** The thread has ended by itself meanwhile. */
const NO_SUCH_THREAD = 1094;

/** Ends the other session that holds `name`. A user may always end sessions of its own. True when there was one. */
export async function endSession(query: SessionQuery, name: string): Promise<boolean> {
  const [holder] = await query(`SELECT IS_USED_LOCK(${literal(name)}), CONNECTION_ID()`);
  const id = holder?.[0];
  if (id === null || id === undefined || id === holder?.[1]) return false;
  try {
    await query(`KILL CONNECTION ${id}`);
  } catch (thrown) {
    if (errnoOf(thrown) !== NO_SUCH_THREAD) throw thrown;
  }
  return true;
}

/** Takes `name` for this session, once its holder is gone; false when that takes longer than `waitSeconds`. */
export async function takeSessionName(query: SessionQuery, name: string, waitSeconds: number): Promise<boolean> {
  const [got] = await query(`SELECT GET_LOCK(${literal(name)}, ${waitSeconds})`);
  return got?.[0] === '1';
}

/** Names hold letters, digits, spaces, `_` and `-`; locks have at most 64 characters. */
function literal(name: string): string {
  return `'${name.replaceAll("'", "''").slice(0, 64)}'`;
}

function errnoOf(thrown: unknown): number | undefined {
  if (!(thrown instanceof Error)) return undefined;
  const { errno } = thrown as { errno?: unknown };
  return typeof errno === 'number' ? errno : errnoOf(thrown.cause);
}
