/** What a source has executed, and whether it is the one that a stream was captured from. */
import { ReplicationError } from '../../core/errors.ts';
import { parseGtidSet } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { acceptsWrites } from '../../core/mysql-login.ts';
import type { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import type { Flavour } from './binlog-handler.ts';
import type { SqlClient } from './connection.ts';

const DOING = 'reading the GTID set of the source';

/** Every transaction in the source's log. */
export async function readExecuted(client: SqlClient, flavour: Flavour): Promise<GtidSet> {
  const variable = flavour === 'mysql' ? '@@global.gtid_executed' : '@@global.gtid_binlog_pos';
  const [[text] = []] = await client.query(`SELECT ${variable}`, DOING);
  return requireSet(text, flavour);
}

function requireSet(text: string | null | undefined, flavour: Flavour): GtidSet {
  const set = parseGtidSet(text ?? '', flavour);
  if (set === undefined) throw new ReplicationError('source_protocol', `the source gave the GTID set "${text}"`);
  return set;
}

/** Whether `set` holds all of `part`; both of one flavour. */
export function contains(set: GtidSet, part: GtidSet): boolean {
  return part.kind === 'mysql' ? part.isSubset(set as MysqlGtidSet) : part.isSubset(set as MariadbGtidSet);
}

/**
 * Checks that the source goes on where the stream ends. Its lineage is its history and not its server: a replica that
 * has executed what the stream holds may take over. Throws `source_identity_mismatch` for another history,
 * `source_behind` for a replica that has yet to execute some of it, `source_diverged` for a server that never will,
 * and `source_log_purged` when it has removed what the stream lacks.
 */
export async function requireLineage(client: SqlClient, flavour: Flavour, taken: GtidSet, name: string): Promise<void> {
  if (taken.empty) return;
  const executed = await readExecuted(client, flavour);
  if (flavour === 'mariadb') return requireMariadbLineage(client, taken as MariadbGtidSet, name);
  const ours = taken as MysqlGtidSet;
  const theirs = executed as MysqlGtidSet;
  const missing = ours.subtract(theirs);
  if (missing.size === ours.size) throw foreign(name, taken);
  if (!missing.empty) throw await behind(client, name, missing.toString());
  const [[purgedText] = []] = await client.query('SELECT @@global.gtid_purged', DOING);
  const purged = (requireSet(purgedText, flavour) as MysqlGtidSet).subtract(ours);
  if (!purged.empty)
    throw new ReplicationError(
      'source_log_purged',
      `source ${name} has removed ${purged.toString()} from its log, which the stream does not hold`,
    );
}

/** By domain and server: sequence numbers alone are alike on servers that have nothing to do with each other. */
async function requireMariadbLineage(client: SqlClient, taken: MariadbGtidSet, name: string): Promise<void> {
  const [[state] = []] = await client.query('SELECT @@global.gtid_binlog_state', DOING);
  const last = new Map<string, number>();
  for (const part of (state ?? '').split(',')) {
    const [domain, server, seq] = part.trim().split('-');
    if (seq !== undefined) last.set(`${domain}-${server}`, Number(seq));
  }
  const missing: string[] = [];
  let known = 0;
  for (const domain of taken.domains) {
    const gtid = taken.last(domain)!;
    const seq = last.get(`${domain}-${gtid.server}`);
    if (seq !== undefined) known += 1;
    if (seq === undefined || seq < gtid.seq) missing.push(`${domain}-${gtid.server}-${gtid.seq}`);
  }
  if (missing.length === 0) return;
  if (known === 0) throw foreign(name, taken);
  throw await behind(client, name, missing.join(','));
}

function foreign(name: string, taken: GtidSet): ReplicationError {
  return new ReplicationError(
    'source_identity_mismatch',
    `source ${name} has executed nothing of what its stream was captured from (${taken.toString()}): it is another server`,
  );
}

async function behind(client: SqlClient, name: string, missing: string): Promise<ReplicationError> {
  const [[readOnly] = []] = await client.query('SELECT @@global.read_only', DOING);
  return !acceptsWrites(readOnly)
    ? new ReplicationError('source_behind', `source ${name} is a replica that has yet to execute ${missing}`)
    : new ReplicationError(
        'source_diverged',
        `source ${name} has not executed ${missing}, which its stream holds, and is not a replica (read_only is off)`,
      );
}
