/**
 * Snapshots by watermarked chunks (after DBLog, Andreakis and Papapanagiotou 2020): while the log streams, a low mark
 * is written into it, a chunk is read, a high mark is written; the assembler drops from the chunk what changed between
 * the two and publishes the rest at the high mark's place. No lock, no long transaction, durable cursors.
 *
 * Several connections read at once: small tables each by one of them, large ones in ranges of their keys.
 */
import type pg from 'pg';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { spanFits } from '../key-span.ts';
import { RowLimit } from '../row-limit.ts';
import { isOrdered, type RangeMark } from '../../core/key-order.ts';
import type { SnapshotTask } from '../snapshot-loop.ts';
import type { StreamLead } from '../stream-lead.ts';
import {
  cancelMark,
  nameReading,
  newSnapshotId,
  type KeyRange,
  type ProgressStore,
  type TableProgress,
} from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { ChunkReader, currentSnapshot, type ChunkOutcome, type ReadChunk } from './chunk-reader.ts';
import { absentSql, chunkSql, ESTIMATE_SQL, keysSql, sampleSql } from './chunk-sql.ts';
import type { Chunk } from './chunk-windows.ts';
import { hasGuardedKey, type PublishedTable } from './published-table.ts';
import { framedBounds } from './key-span.ts';
import { guessRows } from './row-guess.ts';
import { sourceError } from './source-error.ts';

const FIRST_CHUNK_ROWS = 1000;
const LEAST_CHUNK_ROWS = 10;
/** What the chunks of all connections take together. */
const CHUNK_BYTES = 8 << 20;
/** A chunk is to take no longer to read: its window gathers what changes meanwhile. */
const CHUNK_MS = 500;
/** So often a chunk is read before its table is set aside. */
const MOST_ATTEMPTS = 20;
/** Rows for which another connection is worth its price. */
const ROWS_A_CONNECTION = 50_000;
/** Keys from which the ranges of a table are chosen. */
const SAMPLE_ROWS = 5000;
/** How often the progress is stored: what a kill loses of it is read again. */
const STORE_EVERY_MS = 500;

export interface SnapshotPorts {
  /** A connection of its own for each reader. */
  readonly connect: () => Promise<pg.Client>;
  readonly mostConnections: number;
  readonly progress: ProgressStore;
  readonly markPrefix: string;
  readonly maxChunkRows: number;
  readonly maxRowsPerSecond: number | undefined;
  readonly log: Logger;
  /** How far the stream is ahead of the flows that apply it. */
  readonly lead: StreamLead;
  readonly signal: AbortSignal;
  readonly rules: ColumnRules;
  readonly tableByName: (schema: string, name: string) => PublishedTable | undefined;
  readonly trackTransactions: (on: boolean) => void;
  readonly forgetTransactionsBefore: (xid: number) => void;
  /**
   * Resolves when the commit at `lsn` and all before it are stored in the stream. Rejects when the signal aborts: a cursor
   * must never pass rows that are not stored (Invariant 1).
   */
  readonly storedBehind: (lsn: bigint) => Promise<void>;
  /** The same for what has been written so far. */
  readonly stored: (client: pg.Client) => Promise<void>;
  readonly task: SnapshotTask;
}

/** What becomes of a table: read to its end; read anew under another key; gone; left for later; asked for once more. */
type Verdict = 'read' | 'anew' | 'gone' | 'aside' | 'superseded';

interface TableJob {
  readonly table: TableProgress;
  captured: PublishedTable;
  /** Names the reading in its begin and end marks. */
  readonly id: string;
  /** Ranges that are not read to their end. */
  open: number;
  verdict: Verdict;
}

interface RangeJob {
  readonly job: TableJob;
  readonly range: Pick<KeyRange, 'cursor' | 'upTo' | 'done'>;
}

/** Reads the tables that are due. One instance per run of a capture's snapshot. */
export class SnapshotReader {
  readonly #ports: SnapshotPorts;
  readonly #limit: RowLimit;
  readonly #chunkReaders = new Map<string, ChunkReader>();
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  #tables: TableProgress[] = [];
  #ranges: RangeJob[] = [];
  /** Tables whose ranges are being chosen. */
  #opening = 0;
  #wake: (() => void)[] = [];
  /** Tables whose end mark is on its way. */
  readonly #ending: Promise<void>[] = [];
  #readers = 1;
  #storedMs = performance.now();

  constructor(ports: SnapshotPorts) {
    this.#ports = ports;
    this.#limit = new RowLimit(ports.maxRowsPerSecond);
    this.#signal = AbortSignal.any([ports.signal, this.#failed.signal]);
  }

  /** For the log: whether a chunk is read by this process. */
  reads(chunk: string): boolean {
    return this.#chunkReaders.has(chunk);
  }

  takeChunk(chunk: string): Chunk | undefined {
    return this.#chunkReaders.get(chunk)?.takeChunk();
  }

  chunkDone(chunk: string, outcome: ChunkOutcome): void {
    this.#chunkReaders.get(chunk)?.done(outcome);
  }

  get #stopped(): boolean {
    return this.#signal.aborted || this.#ports.task.cancelled();
  }

  /** Reads every table that is due. The progress is stored from time to time, and at the end. */
  async run(): Promise<void> {
    const { progress, isDue } = this.#ports.task;
    this.#tables = progress.tables.filter((table) => isDue(table));
    this.#ports.trackTransactions(true);
    try {
      const first = await this.#ports.connect();
      try {
        await this.#waitForOlderTransactions(first);
        await this.#estimate(first);
      } catch (thrown) {
        await first.end().catch(() => {});
        throw thrown;
      }
      const rows = this.#tables.reduce((sum, { estimate }) => sum + (estimate ?? 0), 0);
      const useful = Math.max(this.#tables.length, Math.ceil(rows / ROWS_A_CONNECTION));
      this.#readers = Math.max(1, Math.min(this.#ports.mostConnections, useful));
      await Promise.all(Array.from({ length: this.#readers }, (_, n) => this.#read(n === 0 ? first : undefined)));
      await this.#store();
    } finally {
      this.#ports.trackTransactions(false);
    }
  }

  /**
   * A transaction that had committed in the log before we began to remember ids could still be invisible to a chunk.
   * All that are in progress now must have ended before the first chunk is read.
   */
  async #waitForOlderTransactions(client: pg.Client): Promise<void> {
    const { log } = this.#ports;
    const old = new Set((await currentSnapshot(client)).inProgress);
    for (let tries = 0; old.size > 0 && !this.#signal.aborted; tries++) {
      const now = new Set((await currentSnapshot(client)).inProgress);
      for (const xid of old) if (!now.has(xid)) old.delete(xid);
      if (old.size === 0) break;
      if (tries % 100 === 99)
        log.warn({ transactions: [...old] }, 'the snapshot waits for transactions that are older than it');
      await abortableDelay(100, this.#signal);
    }
  }

  /** How many rows there are about. */
  async #estimate(client: pg.Client): Promise<void> {
    const byOid = new Map<string, { table: TableProgress; captured: PublishedTable }>();
    for (const table of this.#tables) {
      const captured = this.#ports.tableByName(table.schema, table.name);
      if (captured !== undefined && table.span !== undefined) {
        if (spanFits(table.span, captured.schema))
          table.estimate = Math.round(await guessRows(client, captured, table.span));
      } else if (captured !== undefined && table.keys === undefined)
        byOid.set(String(captured.oid), { table, captured });
    }
    try {
      const { rows } = await client.query<{ oid: string; rows: number | null }>(ESTIMATE_SQL, [[...byOid.keys()]]);
      for (const { oid, rows: count } of rows) {
        const { table, captured } = byOid.get(oid)!;
        table.estimate = Math.round(count ?? (await guessRows(client, captured)));
      }
    } catch (thrown) {
      throw sourceError(thrown, 'estimating the rows of tables');
    }
  }

  /** One connection's share of the work. When it fails, so do the others. */
  async #read(given: pg.Client | undefined): Promise<void> {
    let reader: ChunkReader | undefined;
    let client = given;
    try {
      client ??= await this.#ports.connect();
      reader = new ChunkReader(client, newSnapshotId() + this.#chunkReaders.size, this.#ports.markPrefix, this.#signal);
      this.#chunkReaders.set(reader.id, reader);
      while (!this.#stopped) {
        const range = this.#ranges.shift();
        if (range !== undefined) {
          await this.#readRange(reader, range);
          continue;
        }
        const table = this.#tables.shift();
        if (table !== undefined) await this.#open(reader, table);
        else if (this.#opening > 0) await new Promise<void>((resolve) => this.#wake.push(resolve));
        else break;
      }
      await Promise.all(this.#ending);
    } catch (thrown) {
      this.#failed.abort(thrown);
      throw thrown;
    } finally {
      this.#wakeAll();
      if (reader !== undefined) this.#chunkReaders.delete(reader.id);
      await client?.end().catch(() => {});
    }
  }

  #wakeAll(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const resolve of waiting) resolve();
  }

  async #open(reader: ChunkReader, table: TableProgress): Promise<void> {
    this.#opening += 1;
    try {
      await this.#openTable(reader, table);
    } finally {
      this.#opening -= 1;
      this.#wakeAll();
    }
  }

  async #openTable(reader: ChunkReader, table: TableProgress): Promise<void> {
    const captured = this.#ports.tableByName(table.schema, table.name);
    if (captured === undefined) {
      this.#ports.log.warn({ table: nameOf(table) }, 'a table of the snapshot is gone; left out');
      table.state = 'done';
      return;
    }
    if (table.keys !== undefined && !hasGuardedKey(captured)) return this.#readKeys(reader, table, captured);
    if (table.span !== undefined && !spanFits(table.span, captured.schema)) {
      this.#ports.log.warn(
        { table: nameOf(table) },
        'a table has another key than when a range of it was asked for; left out',
      );
      if (table.state === 'running') await this.#giveUp(reader, table, captured);
      table.state = 'done';
      return;
    }
    const id = nameReading(this.#ports.task.progress, table, captured.oid);
    const job: TableJob = { table, captured, id, open: 0, verdict: 'read' };
    if (table.state === 'pending') {
      const keyless = captured.keyIndexes.length === 0;
      if (table.span !== undefined) await markRange(reader, job, 'begin_range');
      else if (!keyless && table.part === undefined) await reader.mark({ k: 'begin', id, oid: captured.oid });
      // A sample of the table may have missed a range that was asked for: that is read in one piece.
      const whole = !keyless && table.part === undefined && table.span === undefined;
      const ranges = !whole ? [] : await this.#split(reader.client, table, captured);
      if (ranges.length > 1) table.ranges = ranges;
      table.state = 'running';
    }
    const ranges = table.ranges?.filter(({ done }) => done !== true) ?? [asRange(table)];
    job.open = ranges.length;
    if (ranges.length === 0) return this.#end(reader, job);
    this.#ranges.push(...ranges.map((range) => ({ job, range })));
  }

  /** Ranges of about the same size, one for each connection, by a sample of the keys. */
  async #split(client: pg.Client, { estimate = 0 }: TableProgress, table: PublishedTable): Promise<KeyRange[]> {
    const count = Math.min(this.#readers, Math.floor(estimate / ROWS_A_CONNECTION));
    if (count < 2) return [];
    const percent = Math.min(100, Math.ceil((100 * 100 * SAMPLE_ROWS) / estimate) / 100);
    let keys: string[][];
    try {
      keys = (await client.query({ text: sampleSql(table, percent), rowMode: 'array' })).rows;
    } catch (thrown) {
      const error = sourceError(thrown, `sampling keys of ${nameOf(table.schema)}`);
      // Foreign partitions cannot be sampled.
      if (error.code !== 'source_query') throw error;
      return [];
    }
    const { rules } = this.#ports;
    const bounds: string[][] = [];
    for (let n = 1; n < count; n++) {
      const key = keys[Math.floor((n * keys.length) / count)];
      if (key !== undefined && JSON.stringify(key) !== JSON.stringify(bounds.at(-1))) bounds.push(key);
    }
    const sealed = bounds.map((key) => rules.sealCursor(table.publication, key));
    return [...sealed, null].map((upTo, n) => ({ cursor: n === 0 ? null : sealed[n - 1]!, upTo }));
  }

  async #readRange(reader: ChunkReader, { job, range }: RangeJob): Promise<void> {
    const { lead, log, rules } = this.#ports;
    const { table } = job;
    // A table that loses its key while it is read is read in one piece from then on, and the other way round.
    const keyless = job.captured.keyIndexes.length === 0;
    let rows = keyless ? undefined : Math.min(FIRST_CHUNK_ROWS, this.#ports.maxChunkRows, this.#limit.mostAtOnce);
    let rowBytes = 0;
    for (let attempt = 1; !this.#stopped && job.verdict === 'read' && range.done !== true;) {
      const verdict = this.#look(job);
      if (verdict !== 'read') {
        job.verdict = verdict;
        break;
      }
      const { captured } = job;
      await this.#limit.take(rows ?? 0, this.#signal);
      const bytes = rowBytes * (rows ?? 0);
      await lead.room(bytes, this.#signal);
      const begin = keyless ? ({ k: 'begin', id: job.id, oid: captured.oid } as const) : undefined;
      const after = rules.openCursor(captured.publication, range.cursor);
      const upTo = rules.openCursor(captured.publication, range.upTo);
      const startedMs = performance.now();
      const sql = chunkSql(captured, { after, upTo, span: table.span }, rows, table.part);
      const read = await reader.read(captured, sql, { begin });
      this.#limit.settle(rows ?? 0, read?.chunk.rows.length ?? 0);
      if (read === undefined) {
        lead.done(bytes);
        attempt += 1;
        // A smaller chunk is less likely to meet a change while it is read.
        if (rows !== undefined) rows = Math.max(LEAST_CHUNK_ROWS, Math.floor(rows / 2));
        if (attempt > MOST_ATTEMPTS) {
          this.#ports.task.setAside(table, `${MOST_ATTEMPTS} times running it changed while a chunk of it was read`);
          job.verdict = 'aside';
        } else await abortableDelay(20 * attempt, this.#signal);
        continue;
      }
      attempt = 1;
      const tookMs = performance.now() - startedMs;
      await this.#chunkRead(job, range, read, rows);
      lead.done(bytes);
      if (rows === undefined) continue;
      rowBytes = read.chunk.rows.bytes / Math.max(1, read.chunk.rows.length);
      rows = this.#nextRows(rowBytes, rows, tookMs);
    }
    job.open -= 1;
    if (job.open > 0 || this.#stopped) return;
    if (job.verdict === 'read') await this.#end(reader, job);
    else if (job.verdict === 'gone') {
      log.warn({ table: nameOf(table) }, 'a table went away while it was read');
      table.state = 'done';
    } else if (job.verdict === 'anew') {
      // A range may have no such bounds any more.
      if (table.span !== undefined) await this.#giveUp(reader, table, job.captured);
      table.state = 'pending';
      table.cursor = null;
      delete table.ranges;
      this.#tables.push(table);
    }
  }

  /** Takes the table as it is by now, and says whether what was begun still holds. */
  #look(job: TableJob): Verdict {
    const { table, captured } = job;
    const { part } = table;
    if (!this.#ports.task.progress.tables.includes(table)) return 'superseded';
    const current = this.#ports.tableByName(table.schema, table.name);
    if (current === undefined || current.oid !== captured.oid || !holds(current, part)) return 'gone';
    if (current.schema.version !== captured.schema.version && keyOf(current) !== keyOf(captured)) return 'anew';
    job.captured = current;
    return 'read';
  }

  async #chunkRead(
    { table, captured }: TableJob,
    range: RangeJob['range'],
    { chunk, outcome, xmin }: ReadChunk,
    rows: number | undefined,
  ): Promise<void> {
    await this.#ports.storedBehind(outcome.commitLsn);
    this.#ports.forgetTransactionsBefore(xmin);
    table.rows += chunk.rows.length;
    if (rows === undefined || chunk.rows.length < rows) range.done = true;
    else range.cursor = this.#ports.rules.sealCursor(captured.publication, chunk.rows.key(chunk.rows.length - 1));
    if (performance.now() - this.#storedMs >= STORE_EVERY_MS) await this.#store();
  }

  async #store(): Promise<void> {
    this.#storedMs = performance.now();
    await this.#ports.progress.write(this.#ports.task.progress);
  }

  /** Rows of the next chunk, by the bytes and the time of this one. */
  #nextRows(rowBytes: number, rows: number, tookMs: number): number {
    // Half of what may lie ahead of a flow is written while the other half is read.
    const most = Math.min(CHUNK_BYTES, this.#ports.lead.mostBytes / 2) / this.#readers;
    const byBytes = most / Math.max(1, rowBytes);
    const byTime = (rows * CHUNK_MS) / Math.max(1, tookMs);
    const chunkRows = Math.min(byBytes, byTime, this.#ports.maxChunkRows, this.#limit.mostAtOnce);
    return Math.max(Math.min(100, this.#ports.maxChunkRows, this.#limit.mostAtOnce), Math.floor(chunkRows));
  }

  /** The last mark of a table; the next table need not wait for it. */
  async #end(reader: ChunkReader, job: TableJob): Promise<void> {
    const { table, captured, id } = job;
    if (table.span !== undefined) await markRange(reader, job, 'end_range');
    else if (table.part === undefined) await reader.mark({ k: 'end', id, oid: captured.oid });
    const ended = this.#ports.stored(reader.client).then(() => {
      table.state = 'done';
      delete table.ranges;
      this.#ports.log.info({ table: nameOf(table), rows: table.rows }, 'table read');
    });
    ended.catch(() => {});
    this.#ending.push(ended);
  }

  async #giveUp(reader: ChunkReader, table: TableProgress, { oid }: PublishedTable): Promise<void> {
    await reader.mark({ k: cancelMark(table), id: nameReading(this.#ports.task.progress, table, oid), oid });
  }

  /** Reads single rows again. What others of the table are there stays as it is: no begin, no end. */
  async #readKeys(reader: ChunkReader, table: TableProgress, first: PublishedTable): Promise<void> {
    const { log } = this.#ports;
    const keys = table.keys ?? [];
    let captured = first;
    for (let attempt = 1; !this.#stopped; attempt++) {
      // Under another key they name nothing any more.
      if (captured.keyIndexes.length === 0 || keyOf(captured) !== keyOf(first)) break;
      const read = await reader.read(captured, keysSql(captured, keys), {
        absentKeysSql: absentSql(captured, keys),
      });
      if (read !== undefined) {
        await this.#ports.storedBehind(read.outcome.commitLsn);
        table.rows = read.chunk.rows.length;
        log.info({ table: nameOf(table), rows: table.rows, keys: keys.length }, 'rows read again');
        break;
      }
      if (attempt === MOST_ATTEMPTS) {
        this.#ports.task.setAside(table, `${MOST_ATTEMPTS} times running rows changed while they were read again`);
        return;
      }
      const current = this.#ports.tableByName(table.schema, table.name);
      if (current === undefined) break;
      captured = current;
      await abortableDelay(20 * attempt, this.#signal);
    }
    if (!this.#stopped) table.state = 'done';
  }
}

/** Tells targets which rows are read, where they can tell which those are. */
async function markRange(
  reader: ChunkReader,
  { table: { span }, captured, id }: TableJob,
  k: RangeMark,
): Promise<void> {
  const bounds = framedBounds(captured, span!);
  if (isOrdered(captured.published, bounds)) await reader.mark({ k, id, oid: captured.oid, ...bounds });
}

/** A table that is read in one range, as that range. */
function asRange(table: TableProgress): RangeJob['range'] {
  let done = false;
  return {
    upTo: null,
    get cursor() {
      return table.cursor;
    },
    set cursor(cursor) {
      table.cursor = cursor;
    },
    get done() {
      return done;
    },
    set done(value) {
      done = value;
    },
  };
}

function nameOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${schema}.${name}`;
}

/** Whether the table has the partition that is to be read. */
function holds(table: CapturedTable, part: TableProgress['part']): boolean {
  return part === undefined || table.parts.some(({ schema, name }) => schema === part.schema && name === part.name);
}

function keyOf({ schema }: CapturedTable): string {
  return JSON.stringify([
    schema.key,
    schema.key.map((name) => schema.columns.find((each) => each.name === name)?.type),
  ]);
}
