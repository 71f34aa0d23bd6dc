/** Reads a database of any kind with values as the server prints them: for people who look, and never for data on its way. */
import type { Connection } from 'mysql2';
import type { TlsConfig } from '../core/config.ts';
import { messageOf, ReplicationError } from '../core/errors.ts';
import { isLoginRefusal, tlsOptions } from '../core/mysql-login.ts';
import type { Role } from './drift/postgres/session.ts';

export type SqlRow = Readonly<Record<string, string | null>>;

export interface SqlReader {
  readonly kind: 'postgres' | 'mysql' | 'mariadb';
  /** Values are put in for `?`, one after the other. Throws classified errors. */
  query(sql: string, values?: readonly (string | number | null)[]): Promise<SqlRow[]>;
  quote(name: string): string;
  close(): Promise<void>;
}

export interface ReadableDatabase {
  readonly kind: SqlReader['kind'];
  readonly url: string;
  readonly tls?: TlsConfig | undefined;
}

/** Connects. Throws `source_unreachable`, `target_auth` and the like. */
export async function openReader(role: Role, database: ReadableDatabase, name: string): Promise<SqlReader> {
  return database.kind === 'postgres'
    ? await openPostgres(role, database, name)
    : await openMysql(role, database, name);
}

/** A quoted name or text, in which a question mark is one, or the place of a value. */
const QUOTED_OR_PLACE = /"(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\?/g;

/** A statement with what `place` gives for each value, in the order of the question marks that stand for them. */
export function filled(sql: string, place: (index: number) => string): string {
  let index = 0;
  return sql.replaceAll(QUOTED_OR_PLACE, (part) => (part === '?' ? place(index++) : part));
}

const asText = (value: string): string => value;

async function openPostgres(role: Role, database: ReadableDatabase, name: string): Promise<SqlReader> {
  // Loaded when it is asked for, as what is of MySQL: most processes hold no more than they need.
  const { openSession, sideError } = await import('./drift/postgres/session.ts');
  const client = await openSession(role, database, name);
  return {
    kind: 'postgres',
    quote: (column) => `"${column.replaceAll('"', '""')}"`,
    async query(sql, values = []) {
      try {
        const { rows } = await client.query<SqlRow>({
          text: filled(sql, (index) => `$${index + 1}`),
          values: [...values],
          types: { getTypeParser: () => asText },
        });
        return rows;
      } catch (thrown) {
        throw sideError(role, thrown, 'reading');
      }
    },
    close: () => client.end().catch(() => undefined),
  };
}

async function openMysql(role: Role, { kind, url, tls }: ReadableDatabase, name: string): Promise<SqlReader> {
  const { createConnection } = await import('mysql2');
  const connection = createConnection({
    uri: url,
    charset: 'utf8mb4',
    timezone: 'Z',
    connectTimeout: 10_000,
    connectAttributes: { program_name: name },
    ...tlsOptions(tls),
  });
  // A connection that breaks while idle is noticed by the next query.
  connection.on('error', () => undefined);
  const ask = (sql: string, values: readonly (string | number | null)[] = []): Promise<SqlRow[]> =>
    new Promise((resolve, reject) => {
      connection.query(
        { sql: filled(sql, (index) => connection.escape(values[index])), typeCast: (field) => field.string() },
        (error: Error | null, rows: unknown) => {
          if (error === null) resolve(rows as SqlRow[]);
          else reject(mysqlError(role, error));
        },
      );
    });
  try {
    // Values are put in with backslashes, which a mode of the server's may turn off.
    await ask("SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'");
  } catch (thrown) {
    connection.destroy();
    throw thrown;
  }
  return {
    kind,
    quote: (column) => `\`${column.replaceAll('`', '``')}\``,
    query: ask,
    close: () => endConnection(connection),
  };
}

function endConnection(connection: Connection): Promise<void> {
  return new Promise((resolve) => {
    connection.end(() => {
      connection.destroy();
      resolve();
    });
  });
}

const AUTH = new Set([1044, 1045, 1698, 1049, 1130, 3118, 3159, 4151]);
const PRIVILEGE = new Set([1142, 1143, 1227, 1370]);

/** Classifies by errno: what the server answered has a SQLSTATE, what broke on the way has none. */
function mysqlError(role: Role, thrown: Error & { errno?: number; sqlState?: string }): ReplicationError {
  const { errno = 0, sqlState } = thrown;
  const kind =
    AUTH.has(errno) || isLoginRefusal(thrown)
      ? 'auth'
      : PRIVILEGE.has(errno)
        ? 'privilege'
        : sqlState === undefined || sqlState.startsWith('08')
          ? 'unreachable'
          : 'query';
  return new ReplicationError(`${role}_${kind}`, `reading: ${messageOf(thrown)}`, { cause: thrown });
}
