/** What a server does not log: changes in databases, or all that it replicates. It is in no log that could be read. */
import { asReplicationError } from '../../core/errors.ts';
import type { Flavour } from './binlog-handler.ts';
import type { SqlClient } from './connection.ts';

/** A database of the log that captured tables are in, and the setting that keeps it out. */
export interface Unlogged {
  readonly database: string;
  readonly setting: 'binlog_do_db' | 'binlog_ignore_db';
}

/** The statement has another name from MySQL 8.2 on, and no longer the old one from 8.4 on. */
const STATEMENTS: Readonly<Record<Flavour, readonly string[]>> = {
  mysql: ['SHOW BINARY LOG STATUS', 'SHOW MASTER STATUS'],
  mariadb: ['SHOW MASTER STATUS'],
};
/** Places in its answer. */
const DO_DB = 2;
const IGNORE_DB = 3;

/** Which of these databases are not logged; none where the user may not ask (REPLICATION CLIENT, BINLOG MONITOR). */
export async function readUnlogged(
  client: SqlClient,
  flavour: Flavour,
  databases: Iterable<string>,
): Promise<Unlogged[]> {
  const [row] = await askStatus(client, STATEMENTS[flavour]);
  const names = (list: string | null | undefined): string[] => (list ?? '').split(',').filter((name) => name !== '');
  const [only, ignored] = [names(row?.[DO_DB]), names(row?.[IGNORE_DB])];
  return [...new Set(databases)].flatMap((database): Unlogged[] => {
    // The server looks at the second list only where the first is empty.
    if (only.length > 0) return only.includes(database) ? [] : [{ database, setting: 'binlog_do_db' }];
    return ignored.includes(database) ? [{ database, setting: 'binlog_ignore_db' }] : [];
  });
}

export function describeUnlogged({ database, setting }: Unlogged): string {
  return `${setting} keeps changes in database ${database} out of the log`;
}

/** Of a MySQL replica, from 8.0.22 on: whether what it takes from its source is being executed. */
const REPLICA_SQL_RUNNING = 11;

/** The setting by which a server that replicates at the moment keeps that out of its own log; undefined where it does not. */
export async function readUnloggedReplication(client: SqlClient, flavour: Flavour): Promise<string | undefined> {
  const doing = 'asking whether a replica logs what it replicates';
  const [row] = await client.query(
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_replica_updates', 'log_slave_updates')",
    doing,
  );
  const [setting, value] = row ?? [];
  if (setting === null || setting === undefined || value === 'ON') return undefined;
  if (flavour === 'mariadb') {
    const [running] = await client.query("SHOW GLOBAL STATUS LIKE 'Slaves_running'", doing);
    return Number(running?.[1] ?? 0) > 0 ? setting : undefined;
  }
  const channels = await askStatus(client, ['SHOW REPLICA STATUS']);
  return channels.some((channel) => channel[REPLICA_SQL_RUNNING] === 'Yes') ? setting : undefined;
}

export function describeUnloggedReplication(setting: string): string {
  return `${setting} is off: the server is a replica, and logs nothing of what it replicates`;
}

async function askStatus(
  client: SqlClient,
  [statement, ...others]: readonly string[],
): Promise<readonly (readonly (string | null)[])[]> {
  if (statement === undefined) return [];
  try {
    return await client.query(statement, 'asking what is logged');
  } catch (thrown) {
    const { code } = asReplicationError(thrown);
    if (code === 'source_privilege') return [];
    if (code !== 'source_query') throw thrown;
    return await askStatus(client, others);
  }
}
