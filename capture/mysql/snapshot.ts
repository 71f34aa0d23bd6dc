/**
 * Snapshots by chunks without writing to the source: the GTID sets before and after a chunk stand for the watermarks
 * of DBLog. What the log brings between the two is dropped from the chunk, and the rest is published once the log has
 * come to the second. The first must not be ahead of what the chunk sees: `gtid_executed` of MySQL never is;
 * `gtid_binlog_pos` of MariaDB may be, so there the place in the log that belongs to the chunk's own snapshot counts.
 */
import { failpoint } from '../../core/failpoint.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import { parseGtidSet } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay } from '../../core/run-service.ts';
import type { ProgressStore, SnapshotProgress, TableProgress } from '../snapshot-request.ts';
import type { Flavour } from './binlog-handler.ts';
import { readTable, type CapturedTable, type LoggedTable } from './catalog.ts';
import { ChunkWindow, keyText } from './chunk-window.ts';
import { quoteIdent, quoteLiteral, type SqlClient } from './connection.ts';
import { contains, readExecuted } from './executed.ts';
import { baseType } from './log-type.ts';
import { guarded, publishRead } from './published-table.ts';

const FIRST_CHUNK_ROWS = 1000;
const CHUNK_BYTES = 4 << 20;
const RETRY_MS = 5;

/** The log as the snapshot sees it. */
export interface LogPort {
  readonly taken: GtidSet;
  /** End of the last group, in the source's files; '' before the first. */
  readonly place: { readonly file: string; readonly offset: number };
  window: ChunkWindow | undefined;
  publish(table: LoggedTable, op: 'r' | 's', rows: readonly Buffer[]): void;
}

export interface SnapshotPorts {
  readonly client: SqlClient;
  readonly flavour: Flavour;
  readonly rules: ColumnRules;
  readonly progress: ProgressStore;
  readonly maxChunkRows: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Runs `work` when no group is open and `ready` says so. Rejects when the signal aborts. */
  readonly atBoundary: <T>(ready: (port: LogPort) => boolean, work: (port: LogPort) => T) => Promise<T>;
  /** Resolves when all that was published is stored. Rejects when the signal aborts (Invariant 1). */
  readonly stored: () => Promise<void>;
  readonly cancelled: () => boolean;
}

interface ChunkRow {
  readonly json: Buffer;
  /** As the source has it: the place in the table. */
  readonly key: readonly string[];
  /** As frames carry it. */
  readonly published: readonly string[];
}

/** Reads tables one after another. One instance per run of a capture. */
export class SnapshotReader {
  readonly #ports: SnapshotPorts;

  constructor(ports: SnapshotPorts) {
    this.#ports = ports;
  }

  /** Reads every table of `progress` that is not done, storing the cursor after each chunk. */
  async run(progress: SnapshotProgress): Promise<void> {
    const { log, signal, client, flavour } = this.#ports;
    for (const table of progress.tables) {
      if (table.state === 'done' || signal.aborted || this.#ports.cancelled()) continue;
      const captured = await readTable(client, flavour, table.schema, table.name);
      if (captured === 'absent' || captured === undefined) {
        log.warn({ table: `${table.schema}.${table.name}` }, 'a table of the snapshot is gone; left out');
        table.state = 'done';
      } else await this.#readTable(progress, table, captured);
      await this.#ports.progress.write(progress);
    }
  }

  async #readTable(progress: SnapshotProgress, table: TableProgress, first: CapturedTable): Promise<void> {
    const { signal, log, client, flavour } = this.#ports;
    let captured = first;
    const id = `${progress.id}_${table.schema}.${table.name}`;
    const keyless = captured.schema.key.length === 0;
    if (table.state === 'pending') {
      if (!keyless) await this.#mark(captured, id, 'begin');
      table.state = 'running';
      await this.#ports.stored();
      await this.#ports.progress.write(progress);
    }
    const { rules } = this.#ports;
    let cursor = rules.openCursor(rules.publish(captured.schema), table.cursor);
    let limit = keyless ? undefined : FIRST_CHUNK_ROWS;
    for (let attempt = 1; !signal.aborted && !this.#ports.cancelled();) {
      if (keyless) await this.#mark(captured, id, 'begin');
      const { rows, high } = await this.#readChunk(captured, cursor, limit);
      failpoint('capture.mid-snapshot');
      const now = await readTable(client, flavour, table.schema, table.name);
      const changed = now === 'absent' || now?.schema.version !== captured.schema.version;
      const kept = changed ? undefined : await this.#publish(captured, rows, high);
      if (kept === undefined) {
        if (now === 'absent' || now === undefined) break;
        // The window of the chunk stays until the next one replaces it.
        captured = now;
        attempt += 1;
        if (attempt % 10 === 0)
          log.warn({ table: table.name, attempt }, 'a chunk changed while it was read; reading it again');
        await abortableDelay(Math.min(2000, 20 * attempt), signal);
        continue;
      }
      attempt = 1;
      await this.#ports.stored();
      table.rows += rows.length;
      const last = rows.at(-1);
      if (limit === undefined || rows.length < limit || last === undefined) break;
      cursor = last.key;
      table.cursor = rules.sealCursor(rules.publish(captured.schema), cursor);
      await this.#ports.progress.write(progress);
      const bytes = rows.reduce((sum, row) => sum + row.json.length, 0);
      limit = Math.max(100, Math.min(this.#ports.maxChunkRows, Math.floor(CHUNK_BYTES / (bytes / rows.length))));
    }
    if (signal.aborted || this.#ports.cancelled()) return;
    await this.#mark(captured, id, 'end');
    await this.#ports.stored();
    table.state = 'done';
    log.info({ table: `${table.schema}.${table.name}`, rows: table.rows }, 'table read');
  }

  async #mark(table: CapturedTable, id: string, kind: 'begin' | 'end'): Promise<void> {
    const content = Buffer.from(JSON.stringify([id, kind]));
    await this.#ports.atBoundary(
      () => true,
      (port) => port.publish(publishRead(table, this.#ports.rules).table, 's', [content]),
    );
  }

  /** Publishes what is left of a chunk once the log has come to `high`; undefined when it must be read again. */
  async #publish(table: CapturedTable, rows: readonly ChunkRow[], high: GtidSet): Promise<number | undefined> {
    return await this.#ports.atBoundary(
      (port) => contains(port.taken, high),
      (port) => {
        const window = port.window!;
        port.window = undefined;
        if (table.schema.key.length === 0 && window.touched) return undefined;
        const kept = rows.filter((row) => window.keeps(keyText(row.published)));
        port.publish(
          publishRead(table, this.#ports.rules).table,
          'r',
          kept.map((row) => row.json),
        );
        return kept.length;
      },
    );
  }

  async #readChunk(
    table: CapturedTable,
    cursor: readonly string[] | null,
    limit: number | undefined,
  ): Promise<{ rows: ChunkRow[]; high: GtidSet }> {
    const { client, flavour, atBoundary } = this.#ports;
    const doing = `reading a chunk of ${table.schema.schema}.${table.schema.name}`;
    // Close to the log's end first, so that the window stays short.
    const now = await readExecuted(client, flavour);
    const low = await atBoundary(
      (port) => contains(port.taken, now),
      (port) => {
        port.window = new ChunkWindow(table.schema.schema, table.schema.name);
        return { taken: port.taken, place: port.place };
      },
    );
    const { guards, excluded } = publishRead(table, this.#ports.rules);
    const sql = chunkSql(table, cursor, limit, excluded);
    const result =
      flavour === 'mysql' ? await this.#readMysql(sql, low.taken, doing) : await this.#readMariadb(sql, low, doing);
    const high = await readExecuted(client, flavour);
    const keyIndexes = table.schema.key.map((key) => table.schema.columns.findIndex(({ name }) => name === key));
    const keyOf = (row: readonly (string | null)[]): string[] => keyIndexes.map((index) => row[index] ?? '');
    if (guards === undefined)
      return {
        rows: result.map((row) => ({ json: Buffer.from(JSON.stringify(row)), key: keyOf(row), published: keyOf(row) })),
        high,
      };
    const omitted = table.schema.columns.map(({ name }) => excluded.has(name));
    const rows = result.map((row) => {
      const values = row.map((text, i) => (text === null || guards[i] === undefined ? text : guarded(guards[i], text)));
      const json = Buffer.from(JSON.stringify(values.filter((_, i) => !omitted[i]!)));
      return { json, key: keyOf(row), published: keyOf(values) };
    });
    return { rows, high };
  }

  /** The log may have brought a transaction that a new snapshot does not see for another moment. */
  async #readMysql(sql: string, taken: GtidSet, doing: string): Promise<readonly (readonly (string | null)[])[]> {
    const { client, flavour, signal } = this.#ports;
    while (!contains(await readExecuted(client, flavour), taken)) {
      signal.throwIfAborted();
      await abortableDelay(RETRY_MS, signal);
    }
    return await client.query(sql, doing);
  }

  async #readMariadb(
    sql: string,
    low: { taken: GtidSet; place: LogPort['place'] },
    doing: string,
  ): Promise<readonly (readonly (string | null)[])[]> {
    const { client, signal } = this.#ports;
    for (;;) {
      await client.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ', doing);
      await client.query('START TRANSACTION WITH CONSISTENT SNAPSHOT', doing);
      const status = new Map(
        (await client.query("SHOW STATUS LIKE 'binlog_snapshot_%'", doing)).map(([key, value]) => [
          key!.toLowerCase(),
          value ?? '',
        ]),
      );
      const place = {
        file: status.get('binlog_snapshot_file') ?? '',
        offset: Number(status.get('binlog_snapshot_position') ?? 0),
      };
      if (await this.#covers(place, low)) {
        const rows = await client.query(sql, doing);
        await client.query('COMMIT', doing);
        return rows;
      }
      await client.query('ROLLBACK', doing);
      signal.throwIfAborted();
      await abortableDelay(RETRY_MS, signal);
    }
  }

  /** Whether a snapshot at `place` sees all that the log has brought. */
  async #covers(place: LogPort['place'], low: { taken: GtidSet; place: LogPort['place'] }): Promise<boolean> {
    if (low.place.file !== '') return !isBefore(place, low.place);
    // Nothing has come yet: ask the server what the place means, which costs it a pass over its newest file.
    const [[text] = []] = await this.#ports.client.query(
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

/**
 * The statement that reads one chunk in key order after `cursor`: all columns of the table's schema, those that are
 * `excluded` as NULL.
 */
export function chunkSql(
  table: CapturedTable,
  cursor: readonly string[] | null,
  limit: number | undefined,
  excluded?: ReadonlySet<string>,
): string {
  const { schema } = table;
  const columns = table.columns
    .filter((column) => !column.generated)
    .map((column) => (excluded?.has(column.schema.name) === true ? 'NULL' : column.textSql));
  const parts = schema.key.map((name, index) => {
    const { type } = schema.columns.find((column) => column.name === name)!;
    return { sql: orderedBy(name, type), literal: cursor === null ? '' : keyLiteral(cursor[index]!, type) };
  });
  // Written out: a comparison of rows would read the index from its beginning.
  const after = parts
    .map((part, index) => {
      const equal = parts.slice(0, index).map(({ sql, literal }) => `${sql} = ${literal}`);
      return `(${[...equal, `${part.sql} > ${part.literal}`].join(' AND ')})`;
    })
    .join(' OR ');
  const where = cursor === null || parts.length === 0 ? '' : ` WHERE ${after}`;
  const order = parts.length === 0 ? '' : ` ORDER BY ${parts.map(({ sql }) => sql).join(', ')}`;
  const from = `${quoteIdent(schema.schema)}.${quoteIdent(schema.name)}`;
  return `SELECT ${columns.join(', ')} FROM ${from}${where}${order}${limit === undefined ? '' : ` LIMIT ${limit}`}`;
}

/** Enums sort by their number and compare by their label: both by label here. */
function orderedBy(name: string, type: string): string {
  const column = quoteIdent(name);
  return /^(?:enum|set)\b/.test(type) ? `CAST(${column} AS CHAR)` : column;
}

const NUMERIC = /^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i;

function keyLiteral(text: string, type: string): string {
  const base = baseType(type);
  if (/^(?:tiny|small|medium|big)?int$|^(?:decimal|float|double|year)$/.test(base) && NUMERIC.test(text)) return text;
  if (base === 'bit') return `b'${text.replaceAll(/[^01]/g, '')}'`;
  if (/^(?:binary|varbinary|\w*blob)$/.test(base)) return `X'${Buffer.from(text, 'base64').toString('hex')}'`;
  return quoteLiteral(text);
}
