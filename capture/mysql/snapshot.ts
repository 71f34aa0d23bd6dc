/**
 * Snapshots by chunks without writing to the source: the GTID sets before and after a chunk stand for the watermarks
 * of DBLog. What the log brings between the two is dropped from the chunk, and the rest is published once the log has
 * come to the second.
 */
import type { ColumnRules } from '../../core/column-rules.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { TableSchema } from '../../core/frame.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { isOrdered, rangeMark } from '../../core/key-order.ts';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { spanFits } from '../key-span.ts';
import { RowLimit } from '../row-limit.ts';
import type { SnapshotTask } from '../snapshot-loop.ts';
import {
  cancelMark,
  nameReading,
  type KeyTexts,
  type ProgressStore,
  type SnapshotProgress,
  type TableProgress,
} from '../snapshot-request.ts';
import type { StreamLead } from '../stream-lead.ts';
import type { CapturedTable } from './catalog.ts';
import { ChunkReader, type ChunkReaderOptions } from './chunk-reader.ts';
import { chunkSql, existSql, guessSql, keysSql, keyTextIsKey } from './chunk-sql.ts';
import { keyText } from './chunk-window.ts';
import type { TextRow } from './connection.ts';
import type { LogPort } from './log-boundary.ts';
import { guarded, publishRead } from './published-table.ts';
import { failedForDdl } from './source-error.ts';

const FIRST_CHUNK_ROWS = 1000;
const CHUNK_BYTES = 4 << 20;
/** So often a chunk is read before its table is set aside. */
const MOST_ATTEMPTS = 20;
/** Questions for single keys in one statement. */
const KEYS_A_STATEMENT = 100;
/** Where EXPLAIN says how many rows it reckons with. */
const MYSQL_ROWS = 9;
const MARIADB_ROWS = 8;

export interface SnapshotPorts extends ChunkReaderOptions {
  /** A table as the catalog has it now. */
  readonly readTable: (schema: string, name: string) => Promise<CapturedTable | 'absent' | undefined>;
  readonly rules: ColumnRules;
  readonly progress: ProgressStore;
  readonly maxChunkRows: number;
  readonly maxRowsPerSecond: number | undefined;
  readonly log: Logger;
  /** How far the stream is ahead of the flows that apply it. */
  readonly lead: StreamLead;
  /** Resolves when all that was published is stored. Rejects when the signal aborts (Invariant 1). */
  readonly stored: () => Promise<void>;
}

interface Chunk {
  readonly table: CapturedTable;
  readonly rows: readonly ChunkRow[];
  /** Keys that were asked for by name and that no row has. */
  readonly absent: readonly KeyTexts[];
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
  readonly #task: SnapshotTask;
  readonly #chunks: ChunkReader;
  readonly #limit: RowLimit;

  constructor(ports: SnapshotPorts, task: SnapshotTask) {
    this.#ports = ports;
    this.#task = task;
    this.#chunks = new ChunkReader(ports);
    this.#limit = new RowLimit(ports.maxRowsPerSecond);
  }

  get #stopped(): boolean {
    return this.#ports.signal.aborted || this.#task.cancelled();
  }

  /** Reads every table that is not done, storing the cursor after each chunk. */
  async run(): Promise<void> {
    const { log, readTable } = this.#ports;
    const { progress, isDue } = this.#task;
    await this.#estimate(progress.tables.filter((table) => isDue(table)));
    for (const table of progress.tables) {
      if (this.#stopped) return;
      if (!isDue(table)) continue;
      const captured = await readTable(table.schema, table.name);
      if (captured === 'absent' || captured === undefined) {
        log.warn({ table: `${table.schema}.${table.name}` }, 'a table of the snapshot is gone; left out');
        table.state = 'done';
      } else if (table.keys !== undefined && !this.#hasGuardedKey(captured))
        await this.#readKeys(table, table.keys, captured);
      else if (table.span !== undefined && !spanFits(table.span, captured.schema)) await this.#spanLost(table);
      else await this.#readTable(table, captured);
      await this.#store();
    }
  }

  /** How many rows there are about, as the server keeps count. */
  async #estimate(tables: readonly TableProgress[]): Promise<void> {
    const rows = await this.#ports.client.query(
      'SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_ROWS IS NOT NULL',
      'estimating the rows of tables',
    );
    const counts = new Map(rows.map(([schema, name, count]) => [`${schema}.${name}`, Number(count)]));
    for (const table of tables) {
      const count = counts.get(`${table.schema}.${table.name}`);
      if (count !== undefined && table.keys === undefined && table.span === undefined) table.estimate = count;
    }
  }

  /** How many rows of a range there are about, as the server plans with. */
  async #estimateSpan(table: TableProgress, captured: CapturedTable): Promise<void> {
    if (table.span === undefined) return;
    const { client } = this.#ports;
    const plan = await client
      .query(guessSql(captured, table.span), 'estimating the rows of a range')
      .catch((thrown: unknown) => {
        if (failedForDdl(thrown)) return [];
        throw thrown;
      });
    const count = Number(plan[0]?.[this.#ports.flavour === 'mysql' ? MYSQL_ROWS : MARIADB_ROWS] ?? Number.NaN);
    if (Number.isFinite(count)) table.estimate = count;
  }

  /** Of rows whose key is hashed or the like nobody can ask by name. */
  #hasGuardedKey(table: CapturedTable): boolean {
    const { guards } = publishRead(table, this.#ports.rules);
    return table.schema.columns.some(({ name }, i) => guards?.[i] !== undefined && table.schema.key.includes(name));
  }

  async #store(): Promise<void> {
    await this.#ports.progress.write(this.#task.progress);
  }

  async #readTable(table: TableProgress, first: CapturedTable): Promise<void> {
    const { lead, log } = this.#ports;
    const id = nameReading(this.#task.progress, table, placeOf(table));
    const keyless = first.schema.key.length === 0;
    let captured = first;
    if (table.state === 'pending') {
      if (!keyless) await this.#mark(captured, id, 'begin', table);
      await this.#estimateSpan(table, captured);
      table.state = 'running';
      await this.#ports.stored();
      await this.#store();
    }
    const { rules } = this.#ports;
    let cursor = rules.openCursor(rules.publish(captured.schema), table.cursor);
    let limit = keyless ? undefined : Math.min(FIRST_CHUNK_ROWS, this.#limit.mostAtOnce);
    let rowBytes = 0;
    while (!this.#stopped) {
      await this.#limit.take(limit ?? 0, this.#ports.signal);
      const bytes = rowBytes * (limit ?? 0);
      await lead.room(bytes, this.#ports.signal);
      const chunk = await this.#publishChunk(table, captured, async (current) => {
        if (table.span !== undefined && !spanFits(table.span, current.schema)) return undefined;
        const begin = keyless ? (port: LogPort) => this.#publishAt(port, current, [id, 'begin']) : undefined;
        return await this.#read(
          current,
          (excluded) => [chunkSql(current, cursor, limit, excluded, table.span)],
          [],
          begin,
        );
      });
      if (chunk === 'aside' || chunk === undefined) {
        lead.done(bytes);
        if (chunk === 'aside') return;
        // What is left unread must not count as not there. Of a table that is gone the stream says so.
        if (table.span !== undefined) return await this.#spanLost(table);
        log.warn({ table: placeOf(table) }, 'a table went away while it was read');
        table.state = 'done';
        return;
      }
      captured = chunk.table;
      await this.#ports.stored();
      lead.done(bytes);
      const { rows } = chunk;
      table.rows += rows.length;
      this.#limit.settle(limit ?? 0, rows.length);
      const last = rows.at(-1);
      if (limit === undefined || rows.length < limit || last === undefined) break;
      cursor = last.key;
      table.cursor = rules.sealCursor(rules.publish(captured.schema), cursor);
      await this.#store();
      rowBytes = rows.reduce((sum, row) => sum + row.json.length, 0) / rows.length;
      // Half of what may lie ahead of a flow is written while the other half is read.
      const byBytes = Math.min(CHUNK_BYTES, lead.mostBytes / 2) / rowBytes;
      const most = Math.min(this.#ports.maxChunkRows, this.#limit.mostAtOnce, byBytes);
      limit = Math.max(Math.min(100, this.#ports.maxChunkRows, this.#limit.mostAtOnce), Math.floor(most));
    }
    if (this.#stopped) return;
    await this.#mark(captured, id, 'end', table);
    await this.#ports.stored();
    table.state = 'done';
    log.info({ table: `${table.schema}.${table.name}`, rows: table.rows }, 'table read');
  }

  async #spanLost(table: TableProgress): Promise<void> {
    this.#ports.log.warn(
      { table: placeOf(table) },
      'a table has another key than when a range of it was asked for, or is gone; the rest of the range is left out',
    );
    const current = await this.#ports.readTable(table.schema, table.name);
    // Of one that is gone the stream says so.
    if (table.state === 'running' && current !== 'absent' && current !== undefined) {
      await this.#publishMark(current, cancelContent(this.#task.progress, table));
      await this.#ports.stored();
    }
    table.state = 'done';
  }

  /** Reads single rows again. What others of the table are there stays as it is: no begin, no end. */
  async #readKeys(table: TableProgress, keys: readonly KeyTexts[], captured: CapturedTable): Promise<void> {
    const { log } = this.#ports;
    const fits = (current: CapturedTable): boolean => keys.every((key) => key.length === current.schema.key.length);
    if (captured.schema.key.length > 0 && fits(captured)) {
      const chunk = await this.#publishChunk(table, captured, async (current) =>
        fits(current)
          ? await this.#read(current, (excluded) => keyStatements(current, keys, excluded), keys)
          : undefined,
      );
      if (chunk === 'aside' || this.#stopped) return;
      await this.#ports.stored();
      table.rows = chunk?.rows.length ?? 0;
      log.info({ table: `${table.schema}.${table.name}`, rows: table.rows, keys: keys.length }, 'rows read again');
    }
    table.state = 'done';
  }

  /**
   * Reads a chunk and publishes what is left of it, again and again until the table stood still meanwhile. Gives the
   * chunk; undefined when the table is gone; `aside` when it changes too fast, or the snapshot was stopped.
   */
  async #publishChunk(
    table: TableProgress,
    first: CapturedTable,
    read: (table: CapturedTable) => Promise<{ chunk: Chunk; high: GtidSet } | undefined>,
  ): Promise<Chunk | undefined | 'aside'> {
    const { readTable, signal } = this.#ports;
    let captured = first;
    for (let attempt = 1; !this.#stopped; attempt++) {
      const found = await read(captured).catch((thrown: unknown) => {
        if (failedForDdl(thrown)) return 'altered' as const;
        throw thrown;
      });
      if (found === undefined) return undefined;
      failpoint('capture.mid-snapshot');
      const now = await readTable(table.schema, table.name);
      const unchanged = now !== 'absent' && now?.schema.version === captured.schema.version;
      if (unchanged && found !== 'altered' && (await this.#publish(found.chunk, found.high))) return found.chunk;
      if (now === 'absent' || now === undefined) return undefined;
      // The window of the chunk stays until the next one replaces it.
      captured = now;
      if (attempt === MOST_ATTEMPTS) {
        this.#task.setAside(
          table,
          `${attempt} times running it was ${unchanged ? 'written to' : 'altered'} while a chunk of it was read`,
        );
        return 'aside';
      }
      await abortableDelay(20 * attempt, signal);
    }
    return 'aside';
  }

  /** Tells targets what is read: of a range, where they can tell which rows those are. */
  async #mark(table: CapturedTable, id: string, kind: 'begin' | 'end', { span }: TableProgress): Promise<void> {
    const published = publishRead(table, this.#ports.rules).table;
    if (span !== undefined && !isOrdered(published.schema, span)) return;
    const content = span === undefined ? [id, kind] : rangeMark(id, `${kind}_range`, span);
    await this.#publishMark(table, Buffer.from(JSON.stringify(content)));
  }

  #publishAt(port: LogPort, table: CapturedTable, content: readonly string[]): void {
    port.publish(publishRead(table, this.#ports.rules).table, 's', [Buffer.from(JSON.stringify(content))]);
  }

  async #publishMark(table: CapturedTable, content: Buffer): Promise<void> {
    const published = publishRead(table, this.#ports.rules).table;
    await this.#ports.atBoundary(
      () => true,
      (port) => port.publish(published, 's', [content]),
    );
  }

  /** Publishes what is left of a chunk once the log has come to `high`; false when it must be read again. */
  async #publish({ table, rows, absent }: Chunk, high: GtidSet): Promise<boolean> {
    return await this.#ports.atBoundary(
      (port) => port.contains(high),
      (port) => {
        const window = port.window!;
        port.window = undefined;
        if (table.schema.key.length === 0 && window.touched) return false;
        // Where equal keys may have different texts, a change of an absent key might not be known as one: then none is
        // said to be deleted, and whoever asked asks again.
        const gone = window.touched && !keyTextIsKey(table) ? [] : absent.filter((key) => window.keeps(keyText(key)));
        const kept = rows.filter((row) => window.keeps(keyText(row.published)));
        const logged = publishRead(table, this.#ports.rules).table;
        port.publish(
          logged,
          'd',
          gone.map((key) => keyImage(logged.schema, key)),
        );
        port.publish(
          logged,
          'r',
          kept.map((row) => row.json),
        );
        return true;
      },
    );
  }

  async #read(
    table: CapturedTable,
    statements: (excluded: ReadonlySet<string>) => readonly string[],
    keys: readonly KeyTexts[],
    atLow?: (port: LogPort) => void,
  ): Promise<{ chunk: Chunk; high: GtidSet }> {
    const { client } = this.#ports;
    const doing = `reading a chunk of ${table.schema.schema}.${table.schema.name}`;
    const { guards, excluded } = publishRead(table, this.#ports.rules);
    const omitted = table.schema.columns.map(({ name }) => excluded.has(name));
    const keyIndexes = table.schema.key.map((key) => table.schema.columns.findIndex(({ name }) => name === key));
    const keyOf = (row: TextRow): string[] => keyIndexes.map((index) => row[index] ?? '');
    const chunkRow = (row: TextRow): ChunkRow => {
      if (guards === undefined) {
        const key = keyOf(row);
        return { json: Buffer.from(JSON.stringify(row)), key, published: key };
      }
      const values = row.map((text, i) => (text === null || guards[i] === undefined ? text : guarded(guards[i], text)));
      const json = Buffer.from(JSON.stringify(values.filter((_, i) => !omitted[i]!)));
      return { json, key: keyOf(row), published: keyOf(values) };
    };
    const { result, high } = await this.#chunks.read(
      table,
      doing,
      async () => {
        const found: TextRow[] = [];
        for (const sql of statements(excluded)) for (const row of await client.query(sql, doing)) found.push(row);
        const rows = found.map(chunkRow);
        const there = new Set(rows.map(({ key }) => keyText(key)));
        const unseen = keys.filter((key) => !there.has(keyText(key)));
        const absent: KeyTexts[] = [];
        for (const some of inGroups(unseen)) {
          // The source decides: equal keys may have different texts.
          const [exist = []] = await client.query(existSql(table, some), doing);
          absent.push(...some.filter((_, index) => exist[index] === '0'));
        }
        return { table, rows, absent };
      },
      atLow,
    );
    return { chunk: result, high };
  }
}

/** The content of the mark of a reading that is not brought to its end. */
export function cancelContent(progress: SnapshotProgress, table: TableProgress): Buffer {
  return Buffer.from(JSON.stringify([nameReading(progress, table, placeOf(table)), cancelMark(table)]));
}

function placeOf({ schema, name }: TableProgress): string {
  return `${schema}.${name}`;
}

function keyStatements(table: CapturedTable, keys: readonly KeyTexts[], excluded: ReadonlySet<string>): string[] {
  return [...inGroups(keys)].map((some) => keysSql(table, some, excluded));
}

function* inGroups<T>(items: readonly T[]): Generator<T[]> {
  for (let at = 0; at < items.length; at += KEYS_A_STATEMENT) yield items.slice(at, at + KEYS_A_STATEMENT);
}

/** A row of which only the key is known, as frames carry it. */
function keyImage(schema: TableSchema, key: KeyTexts): Buffer {
  const image: (string | null)[] = schema.columns.map(() => null);
  for (const [i, name] of schema.key.entries()) image[schema.columns.findIndex((c) => c.name === name)] = key[i]!;
  return Buffer.from(JSON.stringify(image));
}
