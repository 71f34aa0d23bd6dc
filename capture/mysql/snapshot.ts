/**
 * Snapshots by chunks without writing to the source: the GTID sets before and after a chunk stand for the watermarks
 * of DBLog. What the log brings between the two is dropped from the chunk, and the rest is published once the log has
 * come to the second.
 */
import { asReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { spanFits } from '../key-span.ts';
import { RowLimit } from '../row-limit.ts';
import type { SnapshotTask } from '../snapshot-loop.ts';
import { beginContent, nameReading, type KeyTexts, type TableProgress } from '../snapshot-request.ts';
import { TableNews } from '../table-news.ts';
import type { CapturedTable } from './catalog.ts';
import { ChunkReader } from './chunk-reader.ts';
import { chunkSql, existSql, keysSql, keyTextIsKey } from './chunk-sql.ts';
import { keyText, type ChunkWindow } from './chunk-window.ts';
import { ChunkRows, guardRows, keyImage, type ReadRows } from './chunk-rows.ts';
import type { TakeRow } from './connection.ts';
import { readExecuted } from './executed.ts';
import type { LogPort } from './log-boundary.ts';
import { publishRead } from './published-table.ts';
import { beginReading, cancelContent, markReading, placeOf } from './reading-marks.ts';
import type { SnapshotPorts } from './snapshot-ports.ts';
import { failedForDdl } from './source-error.ts';
import { estimateSpan, estimateTables } from './table-estimates.ts';

const FIRST_CHUNK_ROWS = 1000;
const CHUNK_BYTES = 4 << 20;
/** So often a chunk is read before its table is set aside. */
const MOST_ATTEMPTS = 20;
/** Questions for single keys in one statement. */
const KEYS_A_STATEMENT = 100;
const MOST_SPARE = 2;
/** Tables that are read in turns. */
const MOST_IN_TURNS = 8;

interface Chunk {
  readonly table: CapturedTable;
  readonly rows: ChunkRows;
  /** Keys that were asked for by name and that no row has. */
  readonly absent: readonly KeyTexts[];
}

/** A chunk that was published; `rest`: rows that were not counted yet. */
interface Published extends Chunk {
  readonly rest: number;
}

/** A chunk of which a part was published cannot be brought to its end. */
class ChunkLost extends Error {}

/** A table that is being read. */
interface Reading {
  readonly table: TableProgress;
  readonly id: string;
  captured: CapturedTable;
  /** Undefined: in one piece. */
  limit: number | undefined;
  rowBytes: number;
  /** The key behind which the next chunk begins; null before the first. */
  cursor: KeyTexts | null;
  /** Its last chunk was read. */
  over?: boolean;
}

/**
 * Reads tables one after another; those that are asked for meanwhile in turns with the one at hand. One instance per run of
 * a capture's snapshot.
 */
export class SnapshotReader {
  readonly #ports: SnapshotPorts;
  readonly #task: SnapshotTask;
  readonly #chunks: ChunkReader;
  readonly #limit: RowLimit;
  readonly #news: TableNews;
  /** Of a row on average, as the server keeps count; 0 where it does not. */
  readonly #rowBytes = new WeakMap<TableProgress, number>();
  /** Of `client`, as the server knows it. */
  #connectionId: string | undefined;
  readonly #spare: ReadRows[] = [];
  /** Of the chunk at hand: rows that were published already. */
  #pieceRows = 0;
  /** The chunk that was published last is on its way into the stream, and its cursor into the progress. */
  #storing: Promise<void> = Promise.resolve();

  constructor(ports: SnapshotPorts, task: SnapshotTask) {
    this.#ports = ports;
    this.#task = task;
    this.#news = new TableNews(task);
    this.#chunks = new ChunkReader(ports);
    this.#limit = new RowLimit(ports.maxRowsPerSecond);
  }

  get #stopped(): boolean {
    return this.#ports.signal.aborted || this.#task.cancelled();
  }

  /** Reads every table that is due, storing the cursor after each chunk. */
  async run(): Promise<void> {
    const waiting = await this.#look();
    const asked: TableProgress[] = [];
    const underWay: Reading[] = [];
    for (let turn = 0; !this.#stopped; turn++) {
      asked.push(...(await this.#look()));
      asked.sort((a, b) => sizeOf(a) - sizeOf(b));
      const table = this.#next(asked, underWay.length < MOST_IN_TURNS);
      if (table === undefined && underWay.length === 0 && waiting.length === 0) return;
      const next = table ?? (underWay.length === 0 ? waiting.shift() : undefined);
      const opened = next === undefined || !this.#news.isWanted(next) ? undefined : await this.#open(next);
      if (opened !== undefined) underWay.push(opened);
      const at = turn % Math.max(1, underWay.length);
      const reading = underWay[at];
      if (reading !== undefined && (await this.#readOn(reading))) continue;
      if (reading !== undefined) underWay.splice(at, 1);
      await this.#store();
    }
    // So that what was cancelled is known as far as it came.
    if (!this.#ports.signal.aborted) await this.#storing;
  }

  /** The smallest table that was asked for; single rows always, and first. */
  #next(asked: TableProgress[], mayBegin: boolean): TableProgress | undefined {
    const [first] = asked;
    return mayBegin || first?.keys !== undefined ? asked.shift() : undefined;
  }

  /** Tables that are due and were not known. */
  async #look(): Promise<TableProgress[]> {
    const found = this.#news.take();
    const rowBytes = await estimateTables(this.#ports.client, found);
    for (const [table, bytes] of rowBytes) this.#rowBytes.set(table, bytes);
    return found;
  }

  /** Begins with a table; undefined where that is all that is to be done. */
  async #open(table: TableProgress): Promise<Reading | undefined> {
    const { log, readTable } = this.#ports;
    const captured = await readTable(table.schema, table.name);
    if (!this.#news.isWanted(table)) return undefined;
    if (captured === 'absent' || captured === undefined) {
      log.warn({ table: `${table.schema}.${table.name}` }, 'a table of the snapshot is gone; left out');
      table.state = 'done';
    } else if (table.keys !== undefined && !this.#hasGuardedKey(captured))
      await this.#readKeys(table, table.keys, captured);
    else if (table.span !== undefined && !spanFits(table.span, captured.schema)) await this.#spanLost(table);
    else return await this.#begin(table, captured);
    return undefined;
  }

  /** Of rows whose key is hashed or the like nobody can ask by name. */
  #hasGuardedKey(table: CapturedTable): boolean {
    const { guards } = publishRead(table, this.#ports.rules);
    return table.schema.columns.some(({ name }, i) => guards?.[i] !== undefined && table.schema.key.includes(name));
  }

  async #store(): Promise<void> {
    await this.#ports.progress.write(this.#task.progress);
  }

  /** Undefined where the table is gone by then, or is not to be read any more. */
  async #begin(table: TableProgress, first: CapturedTable): Promise<Reading | undefined> {
    const id = nameReading(this.#task.progress, table, placeOf(table));
    let captured = first;
    if (table.state === 'pending') {
      const begun = await beginReading(this.#ports, table, id, () => !this.#stopped && this.#news.isWanted(table));
      if (begun === undefined) return undefined;
      captured = begun;
      await estimateSpan(this.#ports, table, captured);
      table.state = 'running';
      await this.#ports.stored();
      await this.#store();
    }
    const keyless = captured.schema.key.length === 0;
    const rowBytes = this.#rowBytes.get(table) ?? 0;
    const limit = keyless ? undefined : Math.min(FIRST_CHUNK_ROWS, this.#rowsOf(rowBytes));
    const { rules } = this.#ports;
    const cursor = rules.openCursor(rules.publish(captured.schema), table.cursor);
    return { table, id, captured, limit, rowBytes, cursor };
  }

  /** Reads one more chunk of a table; false when no more is to be read of it: what was read is stored by then. */
  async #readOn(reading: Reading): Promise<boolean> {
    const goesOn = this.#news.isWanted(reading.table) && (await this.#readChunk(reading));
    if (goesOn) return true;
    await this.#storing;
    if (reading.over === true) await this.#end(reading);
    return false;
  }

  async #readChunk(reading: Reading): Promise<boolean> {
    const { lead } = this.#ports;
    const { table, id, limit, cursor } = reading;
    const keyless = limit === undefined;
    await this.#limit.take(limit ?? 0, this.#ports.signal);
    const bytes = reading.rowBytes * (limit ?? 0);
    await lead.room(bytes, this.#ports.signal);
    const chunk = await this.#publishChunk(table, reading.captured, async (current) => {
      if (table.span !== undefined && !spanFits(table.span, current.schema)) return undefined;
      const begin = keyless ? (port: LogPort) => this.#publishAt(port, current, beginContent(id, table)) : undefined;
      return await this.#read(
        table,
        current,
        (excluded) => [chunkSql(current, cursor, limit, excluded, table.span)],
        [],
        begin,
      );
    });
    if (chunk === 'aside' || chunk === undefined) lead.done(bytes);
    if (chunk === 'aside') return false;
    if (chunk === undefined) {
      // What is left unread must not count as not there. Of a table that is gone the stream says so.
      if (table.span !== undefined) await this.#spanLost(table);
      else {
        this.#ports.log.warn({ table: placeOf(table) }, 'a table went away while it was read');
        table.state = 'done';
      }
      return false;
    }
    reading.captured = chunk.table;
    const { count, bytes: read, lastKey } = chunk.rows;
    this.#limit.settle(limit ?? 0, limit === undefined ? 0 : count);
    reading.over = limit === undefined || count < limit || lastKey === undefined;
    this.#storeBehind(table, chunk, bytes, reading.over ? undefined : lastKey);
    if (reading.over || lastKey === undefined) return false;
    reading.cursor = lastKey;
    reading.rowBytes = read / count;
    reading.limit = this.#rowsOf(reading.rowBytes);
    return true;
  }

  /**
   * Has the cursor stored once the chunk is (Invariant 1), while the next one is read: that one is published behind it. Cut
   * off in between, the chunk is read again.
   */
  #storeBehind(table: TableProgress, { table: { schema }, rest }: Published, bytes: number, last?: KeyTexts): void {
    const { lead, rules, stored } = this.#ports;
    const store = async (): Promise<void> => {
      try {
        await stored();
      } finally {
        lead.done(bytes);
      }
      table.rows += rest;
      if (last === undefined) return;
      table.cursor = rules.sealCursor(rules.publish(schema), last);
      await this.#store();
    };
    this.#storing = store();
    // Whoever waits for it hears of its failure.
    this.#storing.catch(() => undefined);
  }

  /** Rows of a chunk, by what one of them takes on average; 0 where nobody knows. */
  #rowsOf(rowBytes: number): number {
    const { lead, maxChunkRows } = this.#ports;
    // Half of what may lie ahead of a flow is written while the other half is read.
    const most = rowBytes === 0 ? FIRST_CHUNK_ROWS : Math.floor(Math.min(CHUNK_BYTES, lead.mostBytes / 2) / rowBytes);
    return Math.max(1, Math.min(maxChunkRows, this.#limit.mostAtOnce, most));
  }

  async #end({ table, captured, id }: Reading): Promise<void> {
    if (this.#stopped || !this.#news.isWanted(table)) return;
    const { rules } = this.#ports;
    await this.#ports.atBoundary(
      () => true,
      (port) => markReading(port, rules, captured, id, 'end', table),
    );
    await this.#ports.stored();
    table.state = 'done';
    this.#ports.log.info({ table: placeOf(table), rows: table.rows }, 'table read');
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
          ? await this.#read(table, current, (excluded) => keyStatements(current, keys, excluded), keys)
          : undefined,
      );
      if (chunk === 'aside' || this.#stopped) return;
      await this.#ports.stored();
      table.rows += chunk?.rest ?? 0;
      log.info({ table: `${table.schema}.${table.name}`, rows: table.rows, keys: keys.length }, 'rows read again');
    }
    table.state = 'done';
  }

  /**
   * Reads a chunk and publishes what is left of it, again and again until the table stood still meanwhile. Gives the
   * chunk; undefined when the table is gone; `aside` when it changes too fast, is no longer to be read, or all is stopped.
   */
  async #publishChunk(
    table: TableProgress,
    first: CapturedTable,
    read: (table: CapturedTable) => Promise<{ chunk: Chunk; high: GtidSet } | undefined>,
  ): Promise<Published | undefined | 'aside'> {
    const { readTable, signal } = this.#ports;
    let captured = first;
    this.#pieceRows = 0;
    for (let attempt = 1; !this.#stopped && this.#news.isWanted(table); attempt++) {
      table.rows -= this.#pieceRows;
      this.#pieceRows = 0;
      const found = await read(captured).catch(async (thrown: unknown) => {
        if (thrown instanceof ChunkLost) await this.#settleLost();
        if (failedForDdl(thrown) || thrown instanceof ChunkLost) return 'altered' as const;
        throw thrown;
      });
      if (found === undefined) return undefined;
      failpoint('capture.mid-snapshot');
      // Memory holds frames of one chunk, and what was read of the next. Invariant 6.
      await this.#storing;
      // From here on nothing may be waited for but the log's place: a table that is dropped meanwhile would have its rows
      // published behind the mark that says so, and be made again by targets.
      const now = await readTable(table.schema, table.name);
      const unchanged = now !== 'absent' && now?.schema.version === captured.schema.version;
      if (unchanged && found !== 'altered' && (await this.#publish(found.chunk, found.high)))
        return { ...found.chunk, rest: found.chunk.rows.count - this.#pieceRows };
      if (now === 'absent' || now === undefined) return undefined;
      // The window of the chunk stays until the next one replaces it.
      captured = now;
      if (attempt === MOST_ATTEMPTS) {
        this.#news.setAside(
          table,
          `${attempt} times running it was ${unchanged ? 'written to' : 'altered'} while a chunk of it was read`,
        );
        return 'aside';
      }
      await abortableDelay(20 * attempt, signal);
    }
    return 'aside';
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
        const logged = publishRead(table, this.#ports.rules).table;
        port.publish(
          logged,
          'd',
          gone.map((key) => keyImage(logged.schema, key)),
        );
        this.#publishRows(port, window, table, rows.take());
        return true;
      },
    );
  }

  #publishRows(port: LogPort, window: ChunkWindow, table: CapturedTable, rows: ReadRows): void {
    const { rules } = this.#ports;
    const { table: logged } = publishRead(table, rules);
    const guarded = guardRows(table, rules, rows);
    if (guarded === undefined)
      port.publishLines(logged, rows, (row) => !window.touched || window.keeps(keyText(rows.key(row))));
    else {
      const kept = guarded.filter(({ key }) => window.keeps(keyText(key)));
      port.publish(
        logged,
        'r',
        kept.map(({ json }) => json),
      );
    }
    rows.clear();
    if (this.#spare.length < MOST_SPARE) this.#spare.push(rows);
  }

  /**
   * Publishes what has been read of a chunk that turns out to be large, while its statement goes on. That sees the table
   * as it was when it began, so the window of the chunk stays open, and what changes meanwhile counts for all that is
   * still to come. Throws where that cannot be; the statement is ended then.
   */
  async #publishPiece(progress: TableProgress, table: CapturedTable, rows: ReadRows, high: GtidSet): Promise<void> {
    const { lead, lookups, readTable, signal } = this.#ports;
    const { bytes, length } = rows;
    try {
      const isKeyless = table.schema.key.length === 0;
      if (isKeyless) await this.#limit.take(rows.length, signal);
      await lead.room(bytes, signal);
      const now = await readTable(table.schema.schema, table.schema.name);
      const isSame = now !== 'absent' && now?.schema.version === table.schema.version;
      const published =
        isSame &&
        !this.#stopped &&
        this.#news.isWanted(progress) &&
        (await this.#ports.atBoundary(
          (port) => port.contains(high),
          (port) => {
            if (isKeyless && port.window!.touched) return false;
            this.#publishRows(port, port.window!, table, rows);
            return true;
          },
        ));
      if (!published) throw new ChunkLost();
      await this.#ports.stored();
      progress.rows += length;
      this.#pieceRows += length;
    } catch (thrown) {
      if (thrown instanceof ChunkLost)
        await lookups.query(`KILL QUERY ${this.#connectionId}`, 'ending the reading of a chunk');
      throw thrown;
    } finally {
      lead.done(bytes);
    }
  }

  /** Where the statement had come to its end by itself, its killing may meet the next one. */
  async #settleLost(): Promise<void> {
    await this.#ports.client.query('DO 0', 'ending the reading of a chunk').catch((thrown: unknown) => {
      if (asReplicationError(thrown).code !== 'source_query') throw thrown;
    });
  }

  async #read(
    progress: TableProgress,
    table: CapturedTable,
    statements: (excluded: ReadonlySet<string>) => readonly string[],
    keys: readonly KeyTexts[],
    atLow?: (port: LogPort) => void,
  ): Promise<{ chunk: Chunk; high: GtidSet }> {
    const { client, flavour, lookups, rules } = this.#ports;
    const doing = `reading a chunk of ${table.schema.schema}.${table.schema.name}`;
    this.#connectionId ??= (await client.query('SELECT CONNECTION_ID()', doing))[0]![0]!;
    const { result, high } = await this.#chunks.read(
      table,
      doing,
      async () => {
        // While a piece waits for its turn the source waits as well, and not for ever.
        const most = table.schema.key.length === 0 ? this.#limit.mostAtOnce : Infinity;
        const rows = new ChunkRows(table, this.#spare, most);
        let seen: GtidSet | undefined;
        const publish = async (): Promise<void> => {
          // What the statement sees had been executed when its first rows came.
          seen ??= await readExecuted(lookups, flavour);
          await this.#publishPiece(progress, table, rows.take(), seen);
        };
        const there = new Set<string>();
        const take: TakeRow = (buffer, start, end) => {
          const isFull = rows.add(buffer, start, end);
          if (keys.length > 0) there.add(keyText(rows.lastKey!));
          return isFull ? publish() : undefined;
        };
        for (const sql of statements(publishRead(table, rules).excluded)) await client.each(sql, doing, take);
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

/** Single rows are less than any table. */
function sizeOf({ keys, estimate }: TableProgress): number {
  return keys === undefined ? (estimate ?? Number.MAX_VALUE) : -1;
}

function keyStatements(table: CapturedTable, keys: readonly KeyTexts[], excluded: ReadonlySet<string>): string[] {
  return [...inGroups(keys)].map((some) => keysSql(table, some, excluded));
}

function* inGroups<T>(items: readonly T[]): Generator<T[]> {
  for (let at = 0; at < items.length; at += KEYS_A_STATEMENT) yield items.slice(at, at + KEYS_A_STATEMENT);
}
