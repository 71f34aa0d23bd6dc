/** Sessions of MySQL and MariaDB for comparing: values print as in capture and apply, and rows come as texts. */
import type { Readable } from 'node:stream';
import { createConnection, type Connection, type TypeCastField } from 'mysql2';
import type { TlsConfig } from '../../../core/config.ts';
import { dropConnection } from '../../../core/drop-connection.ts';
import { messageOf, ReplicationError, type ErrorCode } from '../../../core/errors.ts';
import { isLoginRefusal, NO_STATEMENT_LIMIT, tlsOptions } from '../../../core/mysql-login.ts';
import type { Flavour } from '../../../core/mysql-column-text.ts';

export type Role = 'source' | 'target';
export type TextRow = readonly (string | null)[];

export interface MysqlEndpoint {
  readonly kind: Flavour;
  readonly url: string;
  readonly tls?: TlsConfig | undefined;
}

/** Texts in UTC and in full; one snapshot for all statements of a transaction; no long wait behind DDL. */
const SETTINGS =
  "SET SESSION time_zone = '+00:00', sql_mode = '', wait_timeout = 28800, net_write_timeout = 600, lock_wait_timeout = 10," +
  " optimizer_switch = 'derived_merge=off', transaction_isolation = 'REPEATABLE-READ'";

/** Names of columns whose bytes are to be read, encoded so. */
export const ENCODED = { hex: 'waybill_hex', base64: 'waybill_base64' } as const;

function textOf(field: TypeCastField): string | null {
  if (field.name === ENCODED.hex) return field.buffer()?.toString('hex') ?? null;
  if (field.name === ENCODED.base64) return field.buffer()?.toString('base64') ?? null;
  return field.string('utf8');
}

export class CompareSession {
  readonly role: Role;
  readonly flavour: Flavour;
  readonly #connection: Connection;

  private constructor(role: Role, flavour: Flavour, connection: Connection) {
    this.role = role;
    this.flavour = flavour;
    this.#connection = connection;
  }

  /** Connects. Throws `source_unreachable`, `target_auth` and the like. */
  static async open(role: Role, { kind, url, tls }: MysqlEndpoint, programName: string): Promise<CompareSession> {
    const connection = createConnection({
      uri: url,
      charset: 'utf8mb4_general_ci',
      connectTimeout: 10_000,
      enableKeepAlive: true,
      connectAttributes: { program_name: programName },
      ...tlsOptions(tls),
    });
    // A connection that breaks while idle is noticed by the next query.
    connection.on('error', () => {});
    const session = new CompareSession(role, kind, connection);
    try {
      // MariaDB before 11.1 knows the isolation level by its old name.
      await session.query(
        kind === 'mysql' ? SETTINGS : SETTINGS.replace('transaction_isolation', 'tx_isolation'),
        'connecting for a comparison',
      );
      await session.query(NO_STATEMENT_LIMIT, 'connecting for a comparison');
    } catch (thrown) {
      connection.destroy();
      throw thrown;
    }
    return session;
  }

  /** The rows of one statement, every value as text; `doing` says in errors what for. */
  async query(sql: string, doing: string): Promise<TextRow[]> {
    return await new Promise((resolve, reject) => {
      this.#connection.query({ sql, rowsAsArray: true, typeCast: textOf }, (error: Error | null, rows: unknown) => {
        if (error !== null) reject(sideError(this.role, error, doing));
        else resolve(Array.isArray(rows) ? (rows as TextRow[]) : []);
      });
    });
  }

  /** The rows of one statement one by one, so that no more of them is held than a buffer. */
  async *stream(sql: string, doing: string): AsyncGenerator<TextRow, void, void> {
    let rows: Readable | undefined;
    let broken: Error | undefined;
    const onBreak = (error: Error): void => {
      broken = error;
      rows?.destroy(error);
    };
    // Of a connection that breaks or is closed mysql2 tells statements with a callback, and else the connection alone.
    this.#connection.on('error', onBreak);
    try {
      rows = this.#connection.query({ sql, rowsAsArray: true, typeCast: textOf }).stream({ highWaterMark: 256 });
      if (broken !== undefined) throw broken;
      for await (const row of rows) yield row as TextRow;
    } catch (thrown) {
      throw sideError(this.role, thrown, doing);
    } finally {
      this.#connection.off('error', onBreak);
    }
  }

  /** Closes the connection; what waits for an answer fails. */
  close(): void {
    dropConnection(this.#connection);
  }
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}

/** A text as a literal, whatever `sql_mode` says of backslashes. */
export function quoteText(text: string): string {
  return text === '' ? "_utf8mb4''" : `_utf8mb4 0x${Buffer.from(text).toString('hex')}`;
}

const AUTH = new Set(['ER_ACCESS_DENIED_ERROR', 'ER_ACCOUNT_HAS_BEEN_LOCKED', 'ER_HOST_NOT_PRIVILEGED']);
/** Account locked (both servers), no TLS where it is demanded. */
const AUTH_NUMBERS = new Set<number | undefined>([3118, 4151, 3159]);
const PRIVILEGE = new Set([
  'ER_DBACCESS_DENIED_ERROR',
  'ER_TABLEACCESS_DENIED_ERROR',
  'ER_COLUMNACCESS_DENIED_ERROR',
  'ER_SPECIFIC_ACCESS_DENIED_ERROR',
]);

/** Classifies what mysql2 threw. */
export function sideError(role: Role, thrown: unknown, doing: string): Error {
  if (thrown instanceof ReplicationError) return thrown;
  // What a pace throws when it is told to stop is not an error of the database.
  if (thrown instanceof Error && thrown.name === 'AbortError') return thrown;
  const { code = '', errno, sqlState } = thrown as { code?: string; errno?: number; sqlState?: string };
  const pick = (source: ErrorCode, target: ErrorCode): ErrorCode => (role === 'source' ? source : target);
  const fail = (errorCode: ErrorCode): ReplicationError =>
    new ReplicationError(errorCode, `${doing}: ${messageOf(thrown)}`, {
      cause: thrown,
      ...(sqlState === undefined ? {} : { context: { sqlState } }),
    });
  if (AUTH.has(code) || AUTH_NUMBERS.has(errno) || isLoginRefusal(thrown))
    return fail(pick('source_auth', 'target_auth'));
  if (PRIVILEGE.has(code)) return fail(pick('source_privilege', 'target_privilege'));
  if (
    errno !== undefined &&
    errno >= 1000 &&
    errno < 2000 &&
    code !== 'ER_SERVER_SHUTDOWN' &&
    code !== 'ER_CON_COUNT_ERROR'
  )
    return fail(pick('source_query', 'target_query'));
  if (thrown instanceof TypeError || thrown instanceof RangeError || thrown instanceof SyntaxError)
    return fail('internal');
  return fail(pick('source_unreachable', 'target_unreachable'));
}
