/**
 * Reads a chunk between two places in the log. The first must not be ahead of what the chunk sees: `gtid_executed` of
 * MySQL never is; `gtid_binlog_pos` of MariaDB may be, so there the place in the log that belongs to the chunk's own
 * snapshot counts.
 */
import { parseGtidSet } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { abortableDelay } from '../../core/run-service.ts';
import type { Flavour } from './binlog-handler.ts';
import type { CapturedTable } from './catalog.ts';
import { ChunkWindow } from './chunk-window.ts';
import { quoteLiteral, type SqlClient } from './connection.ts';
import { contains, readExecuted } from './executed.ts';
import type { LogPort } from './log-boundary.ts';

const RETRY_MS = 5;

export interface ChunkReaderOptions {
  readonly client: SqlClient;
  readonly flavour: Flavour;
  readonly signal: AbortSignal;
  /** Runs `work` when no group is open and `ready` says so. Rejects when the signal aborts. */
  readonly atBoundary: <T>(ready: (port: LogPort) => boolean, work: (port: LogPort) => T) => Promise<T>;
}

interface Low {
  readonly taken: GtidSet;
  readonly place: LogPort['place'];
}

export class ChunkReader {
  readonly #o: ChunkReaderOptions;

  constructor(options: ChunkReaderOptions) {
    this.#o = options;
  }

  /**
   * What `read` gives, which may run statements and sees the table at some time between the log's place now, where a
   * window for the table is opened, and `high`. `atLow` is done at that very place: a row that came between a mark that
   * empties the target's table and the window would be in the log and in what is read, and so be there twice.
   */
  async read<T>(
    table: CapturedTable,
    doing: string,
    read: () => Promise<T>,
    atLow: (port: LogPort) => void = () => {},
  ): Promise<{ result: T; high: GtidSet }> {
    const { client, flavour, atBoundary } = this.#o;
    // Close to the log's end first, so that the window stays short.
    const now = await readExecuted(client, flavour);
    const low = await atBoundary(
      (port) => contains(port.taken, now),
      (port) => {
        port.window = new ChunkWindow(table.schema.schema, table.schema.name);
        atLow(port);
        return { taken: port.taken, place: port.place };
      },
    );
    const result = flavour === 'mysql' ? await this.#mysql(read, low.taken) : await this.#mariadb(read, low, doing);
    return { result, high: await readExecuted(client, flavour) };
  }

  /** The log may have brought a transaction that a new snapshot does not see for another moment. */
  async #mysql<T>(read: () => Promise<T>, taken: GtidSet): Promise<T> {
    const { client, flavour, signal } = this.#o;
    while (!contains(await readExecuted(client, flavour), taken)) {
      signal.throwIfAborted();
      await abortableDelay(RETRY_MS, signal);
    }
    return await read();
  }

  async #mariadb<T>(read: () => Promise<T>, low: Low, doing: string): Promise<T> {
    const { client, signal } = this.#o;
    for (;;) {
      await client.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ', doing);
      await client.query('START TRANSACTION WITH CONSISTENT SNAPSHOT', doing);
      const rows = await client.query("SHOW STATUS LIKE 'binlog_snapshot_%'", doing);
      const status = new Map(rows.map(([key, value]) => [key!.toLowerCase(), value ?? '']));
      const place = {
        file: status.get('binlog_snapshot_file') ?? '',
        offset: Number(status.get('binlog_snapshot_position') ?? 0),
      };
      if (await this.#covers(place, low)) {
        const result = await read();
        await client.query('COMMIT', doing);
        return result;
      }
      await client.query('ROLLBACK', doing);
      signal.throwIfAborted();
      await abortableDelay(RETRY_MS, signal);
    }
  }

  /** Whether a snapshot at `place` sees all that the log has brought. */
  async #covers(place: LogPort['place'], low: Low): Promise<boolean> {
    if (low.place.file !== '') return !isBefore(place, low.place);
    // Nothing has come yet: ask the server what the place means, which costs it a pass over its newest file.
    const [[text] = []] = await this.#o.client.query(
      `SELECT BINLOG_GTID_POS(${quoteLiteral(place.file)}, ${place.offset})`,
      'reading the GTID position of a snapshot',
    );
    const set = parseGtidSet(text ?? '', 'mariadb');
    return set !== undefined && contains(set, low.taken);
  }
}

/** Files of a log are numbered: `binlog.000009`, `binlog.1000000`. */
function isBefore(a: LogPort['place'], b: LogPort['place']): boolean {
  const number = (file: string): number => Number(/(\d+)$/.exec(file)?.[1] ?? 0);
  const order = number(a.file) - number(b.file);
  return order < 0 || (order === 0 && a.offset < b.offset);
}
