/** What must be true of a source before it is captured. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { sourceError } from './source-error.ts';

const MIN_SERVER_VERSION = 140_000;

export interface SourceFacts {
  readonly version: number;
  readonly database: string;
  /** System identifier and database oid: tells this database from every other. */
  readonly origin: string;
  /** Of its log; undefined for a standby, which may be promoted at any moment. */
  readonly timeline: number | undefined;
}

/** Reads what must be true of a source before anything is made on it. Throws the error that says what is not. */
export async function inspectSource(client: pg.Client): Promise<SourceFacts> {
  try {
    const result = await client.query<{
      version: string;
      wal_level: string;
      encoding: string;
      database: string;
      system: string;
      oid: string;
      segment: string | null;
    }>(
      `select current_setting('server_version_num') as version, current_setting('wal_level') as wal_level,
         pg_encoding_to_char(d.encoding) as encoding, current_database() as database,
         (select system_identifier::text from pg_control_system()) as system, d.oid::text as oid,
         case when not pg_is_in_recovery() then pg_walfile_name(pg_current_wal_lsn()) end as segment
       from pg_database d where d.datname = current_database()`,
    );
    const row = result.rows[0]!;
    const version = Number(row.version);
    if (version < MIN_SERVER_VERSION)
      throw new ReplicationError(
        'config_invalid',
        `the source is PostgreSQL ${Math.floor(version / 10_000)}; 14 is the oldest supported`,
      );
    if (row.wal_level !== 'logical')
      throw new ReplicationError('source_not_logical', `wal_level of the source is ${row.wal_level}, not logical`);
    if (row.encoding === 'SQL_ASCII')
      throw new ReplicationError('source_encoding', 'the source database has encoding SQL_ASCII');
    // The name of a segment begins with its timeline, as eight hexadecimal digits.
    const timeline = row.segment === null ? undefined : Number.parseInt(row.segment.slice(0, 8), 16);
    return { version, database: row.database, origin: `${row.system}/${row.oid}`, timeline };
  } catch (thrown) {
    throw sourceError(thrown, 'inspecting the source');
  }
}
