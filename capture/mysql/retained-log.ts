/** The binary log that a source keeps: how much it is, and how long what is unread is safe. */
import { asReplicationError } from '../../core/errors.ts';
import { LogBudget } from '../log-budget.ts';
import type { SqlClient } from './connection.ts';

export interface LogFile {
  readonly name: string;
  readonly bytes: number;
}

const DOING = 'reading the size of the log';

/** The files of the log, oldest first; undefined without the right to ask (REPLICATION CLIENT, BINLOG MONITOR). */
export async function readLogFiles(client: SqlClient): Promise<LogFile[] | undefined> {
  try {
    const files = await client.query('SHOW BINARY LOGS', DOING);
    return files.map(([name, bytes]) => ({ name: name ?? '', bytes: Number(bytes ?? 0) }));
  } catch (thrown) {
    if (asReplicationError(thrown).code === 'source_privilege') return undefined;
    throw thrown;
  }
}

/** Bytes of binary log that the source keeps; undefined without the right to ask. */
export async function readRetainedBytes(client: SqlClient): Promise<number | undefined> {
  const files = await readLogFiles(client);
  return files === undefined ? undefined : totalBytes(files);
}

function totalBytes(files: readonly LogFile[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** When a source removes files of its log. */
export interface Expiry {
  /** Files last written to before that; undefined: never for their age. */
  readonly seconds: number | undefined;
  /** The oldest files when all are more than that; undefined: never for their size. */
  readonly totalBytes: number | undefined;
}

/** MySQL: `binlog_expire_logs_*`; MariaDB also `expire_logs_days`, 11.4 and later `max_binlog_total_size`. */
const VARIABLES = ['binlog_expire_logs_seconds', 'binlog_expire_logs_auto_purge', 'expire_logs_days']
  .concat(['max_binlog_total_size', 'binlog_space_limit'])
  .map((name) => `'${name}'`)
  .join(', ');
const DAY_SECONDS = 86_400;

export async function readExpiry(client: SqlClient): Promise<Expiry> {
  const rows = await client.query(`SHOW GLOBAL VARIABLES WHERE Variable_name IN (${VARIABLES})`, DOING);
  const values = new Map(rows.map(([name, value]) => [name!.toLowerCase(), value ?? '']));
  const positive = (...texts: (string | undefined)[]): number | undefined =>
    texts.map(Number).find((value) => Number.isFinite(value) && value > 0);
  const days = positive(values.get('expire_logs_days'));
  const seconds =
    positive(values.get('binlog_expire_logs_seconds')) ?? (days === undefined ? undefined : days * DAY_SECONDS);
  return {
    seconds: values.get('binlog_expire_logs_auto_purge') === 'OFF' ? undefined : seconds,
    totalBytes: positive(values.get('max_binlog_total_size'), values.get('binlog_space_limit')),
  };
}

/** How long the log that a reader still needs is kept, at the rate at which the source has been writing lately. */
export class BinlogBudget {
  readonly #sizes = new LogBudget();
  #newest: LogFile | undefined;
  #writtenBytes = 0n;

  /**
   * Seconds until the source removes what is unread; undefined where it never does, or the rate is not known yet.
   * `readingFile`: the file that the reader is in, '' when it is not known; `lagSeconds`: the age of the oldest
   * transaction that it has not stored, 0 when there is none.
   */
  observe(
    atMs: number,
    files: readonly LogFile[],
    expiry: Expiry,
    reader: { readonly readingFile: string; readonly lagSeconds: number },
  ): number | undefined {
    this.#count(files);
    const from = Math.max(
      0,
      files.findIndex(({ name }) => name === reader.readingFile),
    );
    const safeBytes = expiry.totalBytes === undefined ? undefined : expiry.totalBytes - totalBytes(files.slice(from));
    const bySize = this.#sizes.observe(atMs, this.#writtenBytes, safeBytes);
    // A file is kept for that long after its newest transaction, which is not older than the oldest one unread.
    const byAge = expiry.seconds === undefined ? undefined : Math.max(0, expiry.seconds - reader.lagSeconds);
    if (bySize === undefined || byAge === undefined) return bySize ?? byAge;
    return Math.min(bySize, byAge);
  }

  /** Adds what was written since the last call. */
  #count(files: readonly LogFile[]): void {
    const before = this.#newest;
    this.#newest = files.at(-1);
    if (before === undefined) return;
    const at = files.findIndex(({ name }) => name === before.name);
    // All files are new ones: how much came before them is not known.
    const grown = at < 0 ? totalBytes(files) : totalBytes(files.slice(at)) - before.bytes;
    this.#writtenBytes += BigInt(Math.max(0, grown));
  }
}
