/** The connection to a MySQL or MariaDB target: the session settings that values rely on, and when it was lost. */
import { Readable } from 'node:stream';
import { createConnection, type Connection, type ConnectionOptions, type ResultSetHeader } from 'mysql2';
import { abortableDelay } from '../../core/run-service.ts';
import { dropConnection } from '../../core/drop-connection.ts';
import type { TargetConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { acceptsWrites, NO_STATEMENT_LIMIT, tlsOptions } from '../../core/mysql-login.ts';
import { targetError } from './target-error.ts';

/** What a statement did. */
export interface Outcome {
  /** Rows that it found, inserted or deleted. */
  readonly rows: number;
  readonly warnings: number;
}

/** Facts about the server that decide how it is written to. */
export interface ServerFacts {
  readonly flavour: 'mysql' | 'mariadb';
  readonly version: string;
  readonly localInfile: boolean;
  readonly maxPacketBytes: number;
  readonly readOnly: boolean;
}

/**
 * Strict, so that a value is refused rather than bent; zero and partial dates are values like others; 0 in an
 * AUTO_INCREMENT column is 0.
 */
const SQL_MODE = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';
const SETTINGS =
  `SET NAMES utf8mb4; SET SESSION time_zone = '+00:00', sql_mode = '${SQL_MODE},NO_BACKSLASH_ESCAPES', autocommit = 1,` +
  ' foreign_key_checks = 1, unique_checks = 1, sql_notes = 1, sql_safe_updates = 0, innodb_lock_wait_timeout = 50,' +
  ' sql_select_limit = 18446744073709551615, lock_wait_timeout = 60, wait_timeout = 28800, net_read_timeout = 120, net_write_timeout = 120';
const GOODBYE_MS = 2000;
const READ_COMMITTED = 'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED';

export class MysqlSession {
  readonly #connection: Connection;
  readonly #lost = new AbortController();
  #facts: ServerFacts | undefined;

  private constructor(connection: Connection) {
    this.#connection = connection;
    connection.on('error', (error: unknown) =>
      this.#lost.abort(targetError(error, 'the connection to the target broke')),
    );
    connection.on('end', () =>
      this.#lost.abort(targetError(new Error('closed by the server'), 'the connection to the target broke')),
    );
  }

  /** Connects. Throws `target_unreachable`, `target_auth` or another classified error. */
  static async open(target: TargetConfig, programName: string): Promise<MysqlSession> {
    let connection: Connection | undefined;
    try {
      const opening = createConnection(connectionOptions(target, programName));
      connection = opening;
      const session = new MysqlSession(opening);
      await new Promise<void>((resolve, reject) => {
        opening.connect((error) => {
          if (error === null) resolve();
          else reject(error);
        });
      });
      await session.#prepare();
      return session;
    } catch (thrown) {
      // A server that refused never answers a goodbye.
      if (connection !== undefined) dropConnection(connection);
      throw targetError(thrown, 'connecting to the target');
    }
  }

  async #prepare(): Promise<void> {
    await this.run(SETTINGS);
    const rows = await this.rows(
      "SHOW VARIABLES WHERE Variable_name IN ('version', 'local_infile', 'max_allowed_packet', 'binlog_format', 'read_only')",
    );
    const values = new Map(rows.map(([name, value]) => [name, value]));
    // The isolation in which a batch meets nobody else's old snapshot; a log of statements does not allow it.
    if (values.get('binlog_format') !== 'STATEMENT') await this.run(READ_COMMITTED);
    const version = values.get('version') ?? '';
    this.#facts = {
      flavour: /mariadb/i.test(version) ? 'mariadb' : 'mysql',
      version,
      localInfile: values.get('local_infile') === 'ON',
      maxPacketBytes: Number(values.get('max_allowed_packet') ?? 16 * 1024 * 1024),
      readOnly: !acceptsWrites(values.get('read_only')),
    };
    await this.run(NO_STATEMENT_LIMIT);
  }

  get facts(): ServerFacts {
    return this.#facts!;
  }

  /** Aborts when the connection breaks, also while nothing is being asked. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Runs statements, separated by `;`, up to the first that fails. */
  run(sql: string): Promise<readonly Outcome[]> {
    return new Promise((resolve, reject) => {
      this.#connection.query(sql, (error: Error | null, results: unknown) => {
        if (error !== null) reject(error);
        else resolve((Array.isArray(results) ? results : [results]).map(toOutcome));
      });
    });
  }

  /** The rows of one statement, every value as text. */
  rows(sql: string): Promise<(string | null)[][]> {
    return new Promise((resolve, reject) => {
      this.#connection.query(
        { sql, rowsAsArray: true, typeCast: (field) => field.string() },
        (error: Error | null, rows: unknown) => {
          if (error === null) resolve(rows as (string | null)[][]);
          else reject(error);
        },
      );
    });
  }

  /** Runs a LOAD DATA LOCAL statement, whose file is `pieces`. */
  load(sql: string, pieces: Iterable<Buffer>): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      this.#connection.query(
        { sql, infileStreamFactory: () => Readable.from(pieces, { objectMode: false }) },
        (error: Error | null, result: unknown) => {
          if (error === null) resolve(toOutcome(result));
          else reject(error);
        },
      );
    });
  }

  async close(): Promise<void> {
    const answered = new AbortController();
    await Promise.race([
      new Promise<void>((resolve) => this.#connection.end(() => resolve())),
      // A server that is gone without a word never answers the goodbye.
      abortableDelay(GOODBYE_MS, answered.signal),
    ]);
    answered.abort();
    dropConnection(this.#connection);
  }
}

function toOutcome(result: unknown): Outcome {
  const header = result as Partial<ResultSetHeader>;
  return { rows: header.affectedRows ?? 0, warnings: header.warningStatus ?? 0 };
}

function connectionOptions(target: TargetConfig, programName: string): ConnectionOptions {
  return {
    uri: target.url,
    charset: 'utf8mb4',
    multipleStatements: true,
    connectTimeout: 10_000,
    enableKeepAlive: true,
    connectAttributes: { program_name: programName },
    ...tlsOptions(target.tls),
  };
}

/** The database that the url names; undefined when it names none. */
export function databaseOf(url: string): string | undefined {
  try {
    const path = decodeURIComponent(new URL(url).pathname.slice(1));
    return path === '' ? undefined : path;
  } catch (cause) {
    throw new ReplicationError('config_invalid', 'the url of this target is not a url', { cause });
  }
}
