/** Connections to MySQL and MariaDB sources: what the url and TLS settings mean, and SQL with texts as results. */
import { createConnection, type Connection, type ConnectionOptions } from 'mysql2';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { dropConnection } from '../../core/drop-connection.ts';
import { messageOf, ReplicationError } from '../../core/errors.ts';
import { NO_STATEMENT_LIMIT, tlsOptions } from '../../core/mysql-login.ts';
import { endSession, takeSessionName } from '../../core/session-lock.ts';
import { sourceError } from './source-error.ts';

const DEFAULT_PORT = 3306;
const CONNECT_TIMEOUT_MS = 10_000;
/** How long an overtaken session may take to end. What comes does not rest on that. */
export const TAKEOVER_SECONDS = 5;

/**
 * Every value's text is canonical in a session with these settings; the same on all connections that read rows. Whatever
 * the server's own isolation is, none reads what has not been committed.
 */
const ISOLATION = 'SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ';
const SETTINGS =
  "SET SESSION time_zone = '+00:00', sql_mode = '', wait_timeout = 28800, net_write_timeout = 600," +
  ' sql_select_limit = 18446744073709551615, NAMES utf8mb4';

/** Host, user, TLS of a source's url, as mysql2 takes them. Throws `config_invalid`. */
export function connectionOptions(settings: MysqlSourceConfig): ConnectionOptions {
  let url: URL;
  try {
    url = new URL(settings.url);
  } catch (cause) {
    throw new ReplicationError('config_invalid', 'the url of the source is not a url', { cause });
  }
  return {
    host: url.hostname.replaceAll(/^\[|\]$/g, ''),
    port: url.port === '' ? DEFAULT_PORT : Number(url.port),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    connectTimeout: CONNECT_TIMEOUT_MS,
    charset: 'utf8mb4_general_ci',
    ...tlsOptions(settings.tls),
  };
}

export type TextRow = readonly (string | null)[];

/** Takes the content of a row's packet, `buffer[start, end)`. */
export type TakeRow = (buffer: Buffer, start: number, end: number) => Promise<void> | undefined;

const PACKET_HEADER_BYTES = 4;

/** What mysql2 has of a query, and gives it; not in its types. */
interface WireQuery {
  /** What the next packet is given to: `row`, while rows come. */
  readonly next: unknown;
  readonly row: unknown;
  execute(packet: WirePacket | undefined, connection: unknown): boolean;
}

/** Reused between calls. */
interface WirePacket {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  isEOF(): boolean;
  isError(): boolean;
}

/** How long a query may last before the server is asked whether it still answers anybody; and again after each such time. */
const PATIENCE_MS = 10_000;

/** A connection for SQL. Every value comes as text. */
export class SqlClient {
  readonly #connection: Connection;
  readonly #requireAnswer: () => Promise<void>;
  readonly #patienceMs: number;
  #asking = false;
  #ended: { readonly reason: unknown } | undefined;
  /** Called when it ends. */
  onEnd: (() => void) | undefined;

  /** `requireAnswer` rejects when the server does not answer a new connection either. */
  constructor(connection: Connection, requireAnswer: () => Promise<void>, patienceMs = PATIENCE_MS) {
    this.#connection = connection;
    this.#requireAnswer = requireAnswer;
    this.#patienceMs = patienceMs;
  }

  /** Runs one statement; `doing` says in errors what for. Fails with `source_unreachable` where the server hangs. */
  async query(sql: string, doing: string): Promise<TextRow[]> {
    const watch = setInterval(() => void this.#lookAfterServer(doing), this.#patienceMs);
    try {
      return await this.#query(sql, doing);
    } finally {
      clearInterval(watch);
    }
  }

  async #query(sql: string, doing: string): Promise<TextRow[]> {
    return await new Promise((resolve, reject) => {
      this.#connection.query(
        { sql, rowsAsArray: true, typeCast: (field) => field.string('utf8') },
        (error: unknown, rows: unknown) => {
          if (error === null || error === undefined) resolve(Array.isArray(rows) ? (rows as TextRow[]) : []);
          else reject(this.#ended === undefined ? sourceError(error, doing) : (this.#ended.reason as Error));
        },
      );
    });
  }

  /**
   * Runs a statement whose rows are not kept: `take` is given the packet of each, which is valid until it returns. While
   * what it gives is under way the server waits with more. Rejects at once where that does, or `take` throws; what else comes
   * of the statement is passed over, before the next one begins. Fails with `source_unreachable` where the server hangs.
   */
  async each(sql: string, doing: string, take: TakeRow): Promise<void> {
    const watch = setInterval(() => void this.#lookAfterServer(doing), this.#patienceMs);
    try {
      await this.#each(sql, doing, take);
    } finally {
      clearInterval(watch);
    }
  }

  async #each(sql: string, doing: string, take: TakeRow): Promise<void> {
    const connection = this.#connection;
    let broke: ((error: unknown) => void) | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        let failed = false;
        const fail = (thrown: unknown): void => {
          failed = true;
          reject(thrown as Error);
        };
        broke = (error) => fail(this.#ended === undefined ? sourceError(error, doing) : this.#ended.reason);
        // Of a connection that breaks or is closed mysql2 tells statements with a callback, and else the connection alone.
        connection.on('error', broke);
        const query = connection.query({ sql, rowsAsArray: true });
        query.on('error', broke);
        query.on('end', () => resolve());
        const command = query as unknown as WireQuery;
        const execute = command.execute.bind(command);
        command.execute = (packet, wire) => {
          // A value of its own for each column of each row costs more than all else that is done with it.
          if (packet === undefined || command.next !== command.row || packet.isEOF() || packet.isError())
            return execute(packet, wire);
          if (failed) return false;
          let work: Promise<void> | undefined;
          try {
            work = take(packet.buffer, packet.start + PACKET_HEADER_BYTES, packet.end);
          } catch (thrown) {
            fail(thrown);
          }
          if (work === undefined) return false;
          connection.pause();
          void work.catch(fail).finally(() => connection.resume());
          return false;
        };
      });
    } finally {
      if (broke !== undefined) connection.off('error', broke);
    }
  }

  /** A query may take its time. A server that hangs would never say so: its sockets stay open. */
  async #lookAfterServer(doing: string): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      await this.#requireAnswer();
    } catch (thrown) {
      this.end(
        new ReplicationError('source_unreachable', `${doing}: the source answers nobody: ${messageOf(thrown)}`, {
          cause: thrown,
        }),
      );
    } finally {
      this.#asking = false;
    }
  }

  /** Closes the connection; what waits for an answer fails, with `reason` if one is given. */
  end(reason?: unknown): void {
    if (reason !== undefined) this.#ended ??= { reason };
    this.onEnd?.();
    dropConnection(this.#connection);
  }
}

export interface ConnectOptions {
  /** Tells a successor of this process which session this is; the session of an overtaken process that bears it is ended. */
  readonly name?: string | undefined;
  /** Ends the connection when it aborts: what waits for an answer fails with its reason. */
  readonly signal?: AbortSignal | undefined;
  readonly patienceMs?: number;
}

/** Connects to a source for SQL. Throws `source_unreachable`, `source_auth`. */
export async function connectSource(settings: MysqlSourceConfig, how: ConnectOptions = {}): Promise<SqlClient> {
  const { name, signal } = how;
  signal?.throwIfAborted();
  const options = connectionOptions(settings);
  const connection = createConnection({ ...options, enableKeepAlive: true });
  // A connection that breaks while idle is noticed by the next query.
  connection.on('error', () => {});
  const client = new SqlClient(connection, () => requireAnswer(options), how.patienceMs);
  const onAbort = (): void => client.end(signal!.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  client.onEnd = () => signal?.removeEventListener('abort', onAbort);
  try {
    await client.query(SETTINGS, 'cannot connect to the source');
    await client.query(ISOLATION, 'cannot connect to the source');
    await client.query(NO_STATEMENT_LIMIT, 'cannot connect to the source');
    if (settings.kind === 'mysql') await showMadeKeys(client);
    if (name !== undefined) await takeSession(client, name);
  } catch (thrown) {
    client.end();
    throw thrown;
  }
  return client;
}

/** Asks a server for a sign of life over a connection of its own. Whatever it answers, a refusal too, is one. */
async function requireAnswer(options: ConnectionOptions): Promise<void> {
  const connection = createConnection(options);
  connection.on('error', () => {});
  try {
    await new Promise<void>((resolve, reject) => {
      connection.query({ sql: 'SELECT 1', timeout: CONNECT_TIMEOUT_MS }, (error) => {
        if (error === null || error.errno! > 0) resolve();
        else reject(error);
      });
    });
  } finally {
    dropConnection(connection);
  }
}

/** The log has primary keys that the server made itself (`my_row_id`, from 8.0.30 on), and the catalog may hide them. */
async function showMadeKeys(client: SqlClient): Promise<void> {
  const [variable] = await client.query(
    "SHOW VARIABLES LIKE 'show_gipk_in_create_table_and_information_schema'",
    'cannot connect to the source',
  );
  if (variable?.[1] !== 'OFF') return;
  await client.query(`SET SESSION ${variable[0]} = ON`, 'cannot connect to the source');
}

/** Gives a session its name; the session of an overtaken process that bears it is ended. */
export async function takeSession(client: SqlClient, name: string): Promise<void> {
  const query = async (sql: string): Promise<TextRow[]> => await client.query(sql, 'taking over a session');
  await endSession(query, name);
  await takeSessionName(query, name, TAKEOVER_SECONDS);
}

export function quoteIdent(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}

/** A text as a string literal, whatever `sql_mode` says of backslashes. */
export function quoteLiteral(text: string): string {
  return text === '' ? "''" : `_utf8mb4 0x${Buffer.from(text).toString('hex')}`;
}
