/**
 * Snapshots by watermarked chunks (after DBLog, Andreakis and Papapanagiotou 2020): while the log streams, a low mark
 * is written into it, a chunk is read, a high mark is written; the assembler drops from the chunk what changed between
 * the two and publishes the rest at the high mark's place. No lock, no long transaction, durable cursors.
 *
 * Several connections read at once: small tables several by one of them, large ones in ranges of their keys.
 */
import type pg from 'pg';
import { abortableDelay } from '../../core/run-service.ts';
import { spanFits } from '../key-span.ts';
import type { ReplicationError } from '../../core/errors.ts';
import { RowLimit } from '../row-limit.ts';
import { cancelMark, nameReading, newSnapshotId, type KeyRange, type TableProgress } from '../snapshot-request.ts';
import { ChunkReader, type ChunkOutcome, type ReadChunk, type WantedChunk } from './chunk-reader.ts';
import { ChunkSize } from './chunk-size.ts';
import { chunkSql } from './chunk-sql.ts';
import type { Chunk } from './chunk-windows.ts';
import { endClient } from './connection.ts';
import type { CopyRows } from './copy-lines.ts';
import { hasGuardedKey, type PublishedTable } from './published-table.ts';
import { waitForOlderTransactions } from './older-transactions.ts';
import { ROWS_A_CONNECTION, splitByKeys } from './key-ranges.ts';
import { rereadRows } from './reread-rows.ts';
import {
  beginAnew,
  beginMark,
  holds,
  keyOf,
  markRange,
  MOST_ATTEMPTS,
  nameOf,
  type RangeJob,
  type TableJob,
  type Verdict,
} from './table-job.ts';
import { SnapshotPlan, type Step } from './snapshot-plan.ts';
import type { SnapshotPorts } from './snapshot-ports.ts';
import { estimateTables } from './table-estimates.ts';
import { whyUnreadable } from './unreadable-tables.ts';

const LEAST_CHUNK_ROWS = 10;
/** How often the progress is stored: what a kill loses of it is read again. */
const STORE_EVERY_MS = 500;
const LOOK_EVERY_MS = 500;

/** Reads the tables that are due, and those that are asked for meanwhile. One instance per run of a capture's snapshot. */
export class SnapshotReader {
  readonly #ports: SnapshotPorts;
  readonly #limit: RowLimit;
  readonly #size: ChunkSize;
  readonly #chunkReaders = new Set<ChunkReader>();
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  readonly #plan: SnapshotPlan;
  /** Readers at work: there may be more to do when they are done. */
  #busy = 0;
  #readers = 0;
  readonly #reading: Promise<void>[] = [];
  #wake: (() => void)[] = [];
  /** Tables whose end mark is on its way. */
  readonly #ending: Promise<void>[] = [];
  #storedMs = performance.now();
  /** The connection beside those of the readers, once one of them needed it. */
  #beside: Promise<pg.Client> | undefined;

  constructor(ports: SnapshotPorts) {
    this.#ports = ports;
    const { lead, maxChunkRows } = ports;
    this.#plan = new SnapshotPlan(ports.task, () => lead.isFed);
    this.#limit = new RowLimit(ports.maxRowsPerSecond);
    this.#size = new ChunkSize({ lead, maxChunkRows, limit: this.#limit });
    this.#signal = AbortSignal.any([ports.signal, this.#failed.signal]);
  }

  /** For the log: whether a chunk is read by this process. */
  reads(chunk: string): boolean {
    return this.#readerOf(chunk) !== undefined;
  }

  takeChunk(chunk: string): Chunk | undefined {
    return this.#readerOf(chunk)?.takeChunk(chunk);
  }

  chunkDone(chunk: string, outcome: ChunkOutcome): void {
    this.#readerOf(chunk)?.done(chunk, outcome);
  }

  #readerOf(chunk: string): ChunkReader | undefined {
    return [...this.#chunkReaders].find((reader) => reader.reads(chunk));
  }

  get #stopped(): boolean {
    return this.#signal.aborted || this.#ports.task.cancelled();
  }

  /** Reads every table that is due. The progress is stored from time to time, and at the end. */
  async run(): Promise<void> {
    const tables = this.#plan.news.take();
    this.#ports.trackTransactions(true);
    // What is asked for does not wait for a chunk that takes long.
    const looking = setInterval(() => this.#wakeAll(), LOOK_EVERY_MS);
    try {
      const first = await this.#ports.connect();
      try {
        await waitForOlderTransactions(first, this.#ports.log, this.#signal);
        this.#plan.queue.add(tables, await estimateTables(first, tables, this.#ports.tableByName));
      } catch (thrown) {
        await endClient(first);
        throw thrown;
      }
      this.#start(tables, first);
      // More of them may come.
      for (let n = 0; n < this.#reading.length; n++) await this.#reading[n];
      await this.#store();
    } finally {
      clearInterval(looking);
      this.#ports.trackTransactions(false);
      await this.#beside?.then(endClient).catch(() => {});
    }
  }

  /** Starts as many readers as are of use. */
  #start(tables: readonly TableProgress[], first?: pg.Client): void {
    const rows = tables.reduce((sum, { estimate }) => sum + (estimate ?? 0), 0);
    const useful = Math.max(tables.length, Math.ceil(rows / ROWS_A_CONNECTION));
    const wanted = Math.max(1, Math.min(this.#ports.mostConnections, useful));
    // The first of them looks at it at once: a large table is cut into as many ranges.
    this.#size.readers = Math.max(this.#readers, wanted);
    let client = first;
    while (this.#readers < wanted) {
      this.#readers += 1;
      const reading = this.#read(client);
      // Whoever waits for all of them hears of it in its turn.
      reading.catch(() => {});
      this.#reading.push(reading);
      client = undefined;
    }
  }

  /** One connection's share of the work. When it fails, so do the others. */
  async #read(given: pg.Client | undefined): Promise<void> {
    let reader: ChunkReader | undefined;
    let client = given;
    try {
      client ??= await this.#ports.connect();
      reader = new ChunkReader(client, {
        id: `${newSnapshotId()}${this.#chunkReaders.size}`,
        markPrefix: this.#ports.markPrefix,
        signal: this.#signal,
        beside: () => (this.#beside ??= this.#ports.connect()),
        mostBytes: () => this.#size.mostBytes,
      });
      this.#chunkReaders.add(reader);
      while (!this.#stopped) {
        const step = this.#plan.next(this.#bytesTogether);
        if (step === undefined && this.#busy === 0) break;
        if (step === undefined) await new Promise<void>((resolve) => this.#wake.push(resolve));
        else await this.#do(reader, step);
      }
      await Promise.all(this.#ending);
    } catch (thrown) {
      this.#failed.abort(thrown);
      throw thrown;
    } finally {
      this.#readers -= 1;
      this.#wakeAll();
      if (reader !== undefined) this.#chunkReaders.delete(reader);
      if (client !== undefined) await endClient(client);
    }
  }

  #wakeAll(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const resolve of waiting) resolve();
  }

  get #bytesTogether(): number | undefined {
    // Of a limit on rows a second somebody wants small steps.
    return this.#ports.maxRowsPerSecond === undefined ? this.#size.bytesTogether : undefined;
  }

  async #do(reader: ChunkReader, step: Step): Promise<void> {
    this.#busy += 1;
    try {
      await this.#plan.during(step, () => this.#work(reader, step));
    } finally {
      this.#busy -= 1;
      this.#wakeAll();
    }
  }

  async #work(reader: ChunkReader, step: Step): Promise<void> {
    switch (step.kind) {
      case 'asked':
        return await this.#openAsked(reader, step.table);
      case 'small':
        return await this.#readSmall(reader, step.tables);
      case 'table':
        return await this.#openTable(reader, step.table);
      case 'range':
        return await this.#readRange(reader, step.job);
    }
  }

  /** Begins with a table that was asked for, before what is left of others. */
  async #openAsked(reader: ChunkReader, table: TableProgress): Promise<void> {
    if (table.keys === undefined) {
      this.#plan.queue.know(await estimateTables(reader.client, [table], this.#ports.tableByName));
      this.#start([table, ...this.#plan.left]);
    }
    await this.#openTable(reader, table, true);
  }

  async #openTable(reader: ChunkReader, table: TableProgress, first = false): Promise<void> {
    const captured = this.#ports.tableByName(table.schema, table.name);
    if (captured === undefined) return this.#leaveOut(table);
    if (table.keys !== undefined && (table.needed === true || !hasGuardedKey(captured))) {
      const stopped = (): boolean => this.#stopped;
      return rereadRows(reader, table, captured, {
        ...this.#ports,
        task: this.#plan.news,
        signal: this.#signal,
        stopped,
      });
    }
    if (table.span !== undefined && !spanFits(table.span, captured.schema)) {
      this.#ports.log.warn(
        { table: nameOf(table) },
        'a table has another key than when a range of it was asked for; left out',
      );
      if (table.state === 'running') await this.#giveUp(reader, table, captured);
      table.state = 'done';
      return;
    }
    // Without a key by now, rows of the partition that are there already cannot be told from those that are not.
    if (table.part !== undefined && captured.keyIndexes.length === 0) return this.#plan.news.readAnew(table);
    // What was read in the order of another key says nothing of what is left.
    if (table.span === undefined && (table.keyed ?? keyOf(captured)) !== keyOf(captured)) beginAnew(table);
    table.keyed = keyOf(captured);
    const id = nameReading(this.#ports.task.progress, table, captured.oid);
    const job = this.#job(table, captured, id);
    if (table.state === 'pending') {
      const keyless = captured.keyIndexes.length === 0;
      if (table.span !== undefined) await markRange(reader, job, 'begin_range');
      // A sample of the table may have missed a range that was asked for: that is read in one piece.
      const whole = !keyless && table.part === undefined && table.span === undefined;
      const size = { estimate: table.estimate ?? 0, most: this.#size.readers };
      const ranges = !whole ? [] : await splitByKeys(reader.client, captured, this.#ports.rules, size);
      const begin = beginMark(job);
      if (ranges.length > 1) {
        await reader.mark(begin);
        table.ranges = ranges;
      } else if (whole) job.begin = begin;
      if (job.begin === undefined) table.state = 'running';
    }
    const ranges = this.#rangesOf(job);
    job.open = ranges.length;
    if (ranges.length === 0) return this.#end(reader, job);
    const jobs = ranges.map((range, place): RangeJob => ({ job, range, place }));
    this.#plan.addRanges(jobs, first);
    this.#wakeAll();
  }

  #job(table: TableProgress, captured: PublishedTable, id: string): TableJob {
    // What was read of it before it begins is read again.
    if (table.state === 'pending') delete table.ranges;
    const { estimate = 0 } = table;
    const rowBytes = estimate === 0 ? 0 : (this.#plan.queue.bytesOf(table) ?? 0) / estimate;
    const rows = this.#size.first(rowBytes === 0 ? undefined : rowBytes);
    return { table, captured, id, open: 0, rowBytes, rows, copying: 0, verdict: 'read' };
  }

  /** What is left to be read of a table. */
  #rangesOf({ table, captured }: TableJob): RangeJob['range'][] {
    // Without a key it is read in one piece.
    if (captured.keyIndexes.length === 0) return [{ cursor: null, upTo: null }];
    table.ranges ??= [{ cursor: table.cursor, upTo: null }];
    return table.ranges.filter(({ done }) => done !== true);
  }

  async #readRange(reader: ChunkReader, { job, range, place }: RangeJob): Promise<void> {
    const { lead, rules } = this.#ports;
    const { table } = job;
    // A table that loses its key while it is read is read in one piece from then on, and the other way round.
    const keyless = job.captured.keyIndexes.length === 0;
    for (let attempt = 1; !this.#stopped && job.verdict === 'read' && range.done !== true;) {
      const verdict = this.#look(job);
      if (verdict !== 'read') {
        job.verdict = verdict;
        break;
      }
      const { captured } = job;
      const rows = keyless ? undefined : job.rows;
      await this.#limit.take(rows ?? 0, this.#signal);
      const bytes = job.rowBytes * (rows ?? 0);
      await lead.room(bytes, this.#signal);
      const begin = keyless ? beginMark(job) : job.begin;
      job.begin = undefined;
      const after = rules.openCursor(captured.publication, range.cursor);
      const upTo = rules.openCursor(captured.publication, range.upTo);
      const startedMs = performance.now();
      let copies = 1;
      const copied = (): void => {
        job.copying -= copies;
        copies = 0;
      };
      const whenRead = (chunk: CopyRows): string | undefined => {
        table.state = 'running';
        copied();
        if (rows !== undefined && chunk.length > 0) {
          job.rowBytes = chunk.bytes / chunk.length;
          const read = chunk.isCut ? chunk.length : rows;
          job.rows = this.#size.next(job.rowBytes, read, performance.now() - startedMs);
        }
        if (rows !== undefined && (chunk.isCut || chunk.length >= rows)) this.#leave(job, range, place, chunk);
        this.#wakeAll();
        return this.#endsWithLast(job);
      };
      const sql = chunkSql(captured, { after, upTo, span: table.span }, rows, table.part);
      job.copying += 1;
      const whenRefused = async (error: ReplicationError): Promise<void> => {
        job.verdict = 'aside';
        const why = (await whyUnreadable(reader.client, captured, table.part)) ?? error.message;
        this.#plan.news.setAside(table, why);
      };
      const [read] = await reader.read([{ table: captured, sql, begin, whenRead, whenRefused }]);
      table.state = 'running';
      copied();
      // Rows that have to be read again have been read all the same.
      this.#limit.settle(rows ?? 0, read?.rows ?? rows ?? 0);
      if (read !== undefined) {
        await this.#chunkRead(job, range, read);
        lead.done(bytes);
        continue;
      }
      lead.done(bytes);
      job.ended = false;
      if (job.verdict !== 'read') break;
      attempt += 1;
      // A smaller chunk is less likely to meet a change while it is read.
      if (rows !== undefined) job.rows = Math.min(job.rows, Math.max(LEAST_CHUNK_ROWS, Math.floor(rows / 2)));
      if (attempt > MOST_ATTEMPTS) {
        this.#plan.news.setAside(table, `${MOST_ATTEMPTS} times running it changed while a chunk of it was read`);
        job.verdict = 'aside';
      } else await abortableDelay(20 * attempt, this.#signal);
    }
    await this.#close(reader, job, range);
  }

  /** The reading that ends with the chunk that was just read of a table, where it was the last one of all. */
  #endsWithLast(job: TableJob): string | undefined {
    const { table, verdict } = job;
    const isLast = job.open === 1 && verdict === 'read' && this.#ports.task.progress.tables.includes(table);
    job.ended = isLast && table.span === undefined && table.part === undefined;
    return job.ended ? job.id : undefined;
  }

  /** Of a range nothing more is read. With the last one of its table it is told what becomes of that. */
  async #close(reader: ChunkReader, job: TableJob, { done }: RangeJob['range']): Promise<void> {
    const { table } = job;
    // What is left unread must not count as not there.
    if (done !== true && job.verdict === 'read') job.verdict = 'stopped';
    job.open -= 1;
    if (job.open > 0 || this.#stopped) return;
    if (job.verdict === 'read') await this.#end(reader, job);
    else if (job.verdict === 'gone') {
      this.#ports.log.warn({ table: nameOf(table) }, 'a table went away while it was read');
      table.state = 'done';
    } else if (job.verdict === 'anew') {
      // A range may have no such bounds any more.
      if (table.span !== undefined) await this.#giveUp(reader, table, job.captured);
      beginAnew(table);
      this.#plan.queue.addAgain(table);
    }
  }

  /** Leaves what lies behind a chunk to whoever is free, while the chunk is on its way. */
  #leave(job: TableJob, range: RangeJob['range'], place: number, chunk: CopyRows): void {
    const { table, captured } = job;
    const last = this.#ports.rules.sealCursor(captured.publication, chunk.key(chunk.length - 1));
    const rest: KeyRange = { cursor: last, upTo: range.upTo };
    range.upTo = last;
    table.ranges!.splice(table.ranges!.indexOf(range as KeyRange) + 1, 0, rest);
    job.open += 1;
    this.#plan.addRest({ job, range: rest, place });
  }

  /** Takes the table as it is by now, and says whether what was begun still holds. */
  #look(job: TableJob): Verdict {
    const { table, captured } = job;
    const { part } = table;
    if (!this.#ports.task.progress.tables.includes(table)) return 'superseded';
    const current = this.#ports.tableByName(table.schema, table.name);
    if (current === undefined || !holds(current, part)) return 'gone';
    if (current.oid !== captured.oid) return part === undefined ? 'anew' : 'gone';
    if (current.schema.version !== captured.schema.version && keyOf(current) !== keyOf(captured)) return 'anew';
    job.captured = current;
    return 'read';
  }

  async #chunkRead({ table }: TableJob, range: RangeJob['range'], { chunk, rows, outcome }: ReadChunk): Promise<void> {
    await this.#ports.storedBehind(outcome.commitLsn);
    this.#ports.forgetTransactions(chunk.unseen);
    table.rows += rows;
    range.done = true;
    if (table.ranges !== undefined) {
      table.ranges = table.ranges.filter((other) => other !== range);
      table.cursor = table.ranges[0]?.cursor ?? table.cursor;
    }
    if (performance.now() - this.#storedMs >= STORE_EVERY_MS) await this.#store();
  }

  async #store(): Promise<void> {
    this.#storedMs = performance.now();
    await this.#ports.progress.write(this.#ports.task.progress);
  }

  /** The last mark of a table; the next table need not wait for it. */
  async #end(reader: ChunkReader, job: TableJob): Promise<void> {
    const { table, captured, id } = job;
    if (job.ended === true) return this.#done(table);
    if (table.span !== undefined) await markRange(reader, job, 'end_range');
    else if (table.part === undefined) await reader.mark({ k: 'end', id, oid: captured.oid });
    const ended = this.#ports.stored(reader.client).then(() => this.#done(table));
    ended.catch(() => {});
    this.#ending.push(ended);
  }

  #done(table: TableProgress): void {
    table.state = 'done';
    delete table.ranges;
    this.#ports.log.info({ table: nameOf(table), rows: table.rows }, 'table read');
  }

  /** One that was renamed or made a moment ago may have been asked for under the name that only the source knows yet. */
  async #leaveOut(table: TableProgress): Promise<void> {
    if (await this.#ports.isToCome(table.schema, table.name))
      return this.#plan.news.setAside(table, 'the log has not told of it yet');
    this.#ports.log.warn({ table: nameOf(table) }, 'a table of the snapshot is gone; left out');
    table.state = 'done';
  }

  /** Reads small tables together. What is left of one, or must be read again, is read by itself. */
  async #readSmall(reader: ChunkReader, tables: readonly TableProgress[]): Promise<void> {
    const { progress } = this.#ports.task;
    const jobs: TableJob[] = [];
    let bytes = 0;
    for (const table of tables) {
      const captured = this.#ports.tableByName(table.schema, table.name);
      bytes += this.#plan.queue.bytesOf(table) ?? 0;
      if (captured === undefined) await this.#leaveOut(table);
      else if (progress.tables.includes(table)) {
        table.keyed = keyOf(captured);
        jobs.push({ ...this.#job(table, captured, nameReading(progress, table, captured.oid)), open: 1 });
      }
    }
    if (jobs.length === 0) return;
    const { lead } = this.#ports;
    await lead.room(bytes, this.#signal);
    if (this.#stopped) return;
    const ranges = jobs.map((job) => this.#rangesOf(job)[0]!);
    const wanted = jobs.map((job, index): WantedChunk => {
      const { captured, table } = job;
      const keyless = captured.keyIndexes.length === 0;
      const limit = keyless ? undefined : Math.max(job.rows, Math.min(2 * table.estimate!, this.#ports.maxChunkRows));
      return {
        table: captured,
        sql: chunkSql(captured, { after: null, upTo: null }, limit),
        begin: beginMark(job),
        whenRead: (chunk) => {
          table.state = 'running';
          if (limit !== undefined && (chunk.isCut || chunk.length >= limit)) this.#leave(job, ranges[index]!, 0, chunk);
          return this.#endsWithLast(job);
        },
      };
    });
    const read = await reader.read(wanted);
    for (const [index, job] of jobs.entries()) {
      const { table } = job;
      const chunk = read[index];
      const range = ranges[index]!;
      table.state = 'running';
      if (chunk === undefined) {
        job.ended = false;
        this.#plan.addRanges([{ job, range, place: 0 }], false);
        continue;
      }
      await this.#chunkRead(job, range, chunk);
      await this.#close(reader, job, range);
    }
    lead.done(bytes);
  }

  async #giveUp(reader: ChunkReader, table: TableProgress, { oid }: PublishedTable): Promise<void> {
    await reader.mark({ k: cancelMark(table), id: nameReading(this.#ports.task.progress, table, oid), oid });
  }
}
