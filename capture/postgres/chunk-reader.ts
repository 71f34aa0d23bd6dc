/** Reads chunks, of one table or of several, between two watermarks over one connection, and waits for what the log makes of them. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import { PgSnapshot } from '../../core/pg-snapshot.ts';
import { abortableDelay, untilAborted } from '../../core/run-service.ts';
import type { Chunk } from './chunk-windows.ts';
import { askSource } from './connection.ts';
import { CopyRows, LineMemory } from './copy-lines.ts';
import { CopyOut } from './copy-out.ts';
import { emitMark, highMarksSql, marksSql, type HighMark, type Mark } from './log-marks.ts';
import type { PublishedTable } from './published-table.ts';
import { isReadAsSql } from './read-definition.ts';
import { sourceError } from './source-error.ts';

/** Undefined column, table or type, and types that do not go together: the table changed. PostgreSQL documentation, appendix A. */
export const CHANGED_TABLE: ReadonlySet<string> = new Set([
  '42703',
  '42P01',
  '42704',
  '42883',
  '42804',
  '22P02',
  '0A000',
]);

/** A chunk's fate: how many rows are left of it, and the commit after which they stand in the log; or to be read again. */
export type ChunkOutcome = { readonly kept: number; readonly commitLsn: bigint } | undefined;

export interface ReadChunk {
  readonly chunk: Chunk;
  readonly outcome: NonNullable<ChunkOutcome>;
  /** Rows of all its pieces. */
  readonly rows: number;
}

export interface ChunkReaderOptions {
  /** Begins the names of its chunks in the log. */
  readonly id: string;
  readonly markPrefix: string;
  readonly signal: AbortSignal;
  /** A connection beside, which is made when it is needed: while rows come over the reader's own nothing else can. */
  readonly beside: () => Promise<pg.Client>;
  /** So much of a chunk is kept, but for the row that is one too many (Invariant 6). */
  readonly mostBytes: () => number;
}

/** A chunk to be read. */
export interface WantedChunk {
  readonly table: PublishedTable;
  readonly sql: string;
  /**
   * Empties the target's table at its place, behind the low watermark: a row that came between the two in the other order
   * would stand in the log behind it, be in the chunk too, and so be there twice.
   */
  readonly begin?: Mark | undefined;
  readonly absentKeysSql?: string;
  /** Called when this user may not read it, if it is read by itself. */
  readonly whenRefused?: (error: ReplicationError) => Promise<void>;
  /** Called when its rows are there. Gives the reading of the table that ends with them; undefined where it goes on. */
  readonly whenRead?: (rows: CopyRows) => string | undefined;
}

/** A chunk between its low and its high watermark. */
interface OpenChunk {
  /** Read, and not yet taken by the log. */
  chunk: Chunk | undefined;
  readonly decide: (outcome: ChunkOutcome) => void;
}

export class ChunkReader {
  readonly client: pg.Client;
  readonly #o: ChunkReaderOptions;
  #chunks = 0;
  /** By their names in the log. */
  readonly #open = new Map<string, OpenChunk>();
  /** One piece of memory for all chunks: the log is done with some before the next are read. */
  readonly #memory = new LineMemory();

  constructor(client: pg.Client, options: ChunkReaderOptions) {
    this.client = client;
    this.#o = options;
  }

  /** For the log: whether it reads this chunk. */
  reads(id: string): boolean {
    return this.#open.has(id);
  }

  /** For the log: a chunk that waits for its high watermark. */
  takeChunk(id: string): Chunk | undefined {
    const open = this.#open.get(id);
    const chunk = open?.chunk;
    if (open !== undefined) open.chunk = undefined;
    return chunk;
  }

  /** For the log: what became of it. */
  done(id: string, outcome: ChunkOutcome): void {
    this.#open.get(id)?.decide(outcome);
  }

  /** Writes a mark into the source's log, in a transaction of its own. */
  async mark(mark: Mark): Promise<void> {
    await emitMark(this.client, this.#o.markPrefix, mark);
  }

  /**
   * Reads chunks of different tables, all in one transaction between one pair of watermarks. For each that must be read again
   * it gives undefined: the table changed meanwhile, or is no longer as the log told so far, or not yet. Rejects when the signal aborts.
   *
   * What there is no room for is left: of a table with a key the rows behind those that were read, of one without, among
   * others, all. One without a key by itself is published in pieces.
   */
  async read(wanted: readonly WantedChunk[]): Promise<readonly (ReadChunk | undefined)[]> {
    // None is used twice: the log may be behind, at the watermarks of chunks that could not be read.
    const ids = wanted.map(() => `${this.#o.id}-${(this.#chunks += 1)}`);
    for (const id of ids) this.#open.set(id, { chunk: undefined, decide: () => {} });
    try {
      const found = await this.#read(wanted, ids);
      const refused = found instanceof ReplicationError ? found : undefined;
      const read = found instanceof ReplicationError ? undefined : found;
      const chunks = wanted.map((_, index) => {
        const chunk = read?.chunks[index];
        return chunk?.table.keyIndexes.length === 0 && chunk.rows.isCut ? undefined : chunk;
      });
      const outcomes = ids.map((id, index) => this.#outcome(id, chunks[index]));
      failpoint('capture.mid-snapshot');
      const high = wanted.map(({ table, whenRead }, index) => {
        const chunk = chunks[index];
        const end = chunk === undefined ? undefined : whenRead?.(chunk.rows);
        const mark: HighMark = {
          k: 'high',
          chunk: ids[index]!,
          oid: table.oid,
          ...(end === undefined ? {} : { end }),
        };
        return [mark, isReadAsSql(table)] as const;
      });
      // Of chunks that could not be read it closes the windows.
      await this.#ask(
        `${read === undefined ? 'rollback' : 'commit'}; ${highMarksSql(this.#o.markPrefix, high)}`,
        'ending a chunk',
      );
      if (refused !== undefined && wanted.length === 1) await wanted[0]!.whenRefused?.(refused);
      if (read === undefined) return wanted.map(() => undefined);
      const decided = await untilAborted(Promise.all(outcomes), this.#o.signal);
      return decided.map((outcome, index) => {
        const chunk = chunks[index];
        if (outcome === undefined || chunk === undefined) return undefined;
        return { chunk, outcome, rows: read.published + chunk.rows.length };
      });
    } finally {
      this.#open.clear();
    }
  }

  /** What the log makes of a chunk that is read. */
  #outcome(id: string, chunk: Chunk | undefined): Promise<ChunkOutcome> {
    return new Promise((decide) => this.#open.set(id, { chunk, decide }));
  }

  /** Leaves its transaction open. `published`: rows of pieces that the log has. An error: this user may not read one of them. */
  async #read(
    wanted: readonly WantedChunk[],
    ids: readonly string[],
  ): Promise<{ chunks: Chunk[]; published: number } | ReplicationError | undefined> {
    const { client } = this;
    const memory = this.#memory;
    const { markPrefix } = this.#o;
    const mostBytes = this.#o.mostBytes();
    memory.clear(mostBytes);
    const low = wanted.flatMap(({ table: { oid }, begin }, index): Mark[] => [
      { k: 'low', chunk: ids[index]!, oid },
      ...(begin === undefined ? [] : [begin]),
    ]);
    const statements = [
      'begin',
      marksSql(markPrefix, low),
      'commit',
      'begin isolation level repeatable read read only',
      SNAPSHOT_SQL,
      ...wanted.map(({ sql }) => `copy (${sql}) to stdout`),
    ];
    try {
      const copy = client.query(new CopyOut(statements.join('; ')));
      const rows: CopyRows[] = [];
      let published = 0;
      let isEnough = false;
      // Tables without rows are passed over.
      const upTo = (count: number): void => {
        while (rows.length < count) rows.push(new CopyRows(wanted[rows.length]!.table, memory));
      };
      while (!isEnough && (await copy.more()))
        while (!isEnough && gather(copy, memory, mostBytes, (index) => (upTo(index + 1), rows[index]!))) {
          const { table, absentKeysSql } = wanted[rows.length - 1]!;
          const own = rows.at(-1)!;
          const isAlone = wanted.length === 1 && absentKeysSql === undefined;
          if (isAlone && table.keyIndexes.length === 0) {
            const piece = { table, rows: own, unseen: snapshotOf(copy) };
            if (!(await this.#publishPiece(ids[0]!, piece, processOf(copy)))) {
              await this.#cancel(copy);
              return undefined;
            }
            published += own.length;
            memory.clear(mostBytes);
            rows[0] = new CopyRows(table, memory);
          } else {
            own.isCut = true;
            isEnough = isAlone;
          }
        }
      if (isEnough) await this.#cancel(copy);
      upTo(wanted.length);
      const unseen = snapshotOf(copy);
      const chunks: Chunk[] = [];
      for (const [index, { table, absentKeysSql }] of wanted.entries()) {
        const absent =
          absentKeysSql === undefined ? [] : (await client.query({ text: absentKeysSql, rowMode: 'array' })).rows;
        chunks.push({ table, rows: rows[index]!, absent, unseen });
      }
      return { chunks, published };
    } catch (thrown) {
      const names = wanted.map(({ table: { schema } }) => `${schema.schema}.${schema.name}`).join(', ');
      if (CHANGED_TABLE.has(sqlStateOf(thrown) ?? '')) return undefined;
      const error = sourceError(thrown, `reading a chunk of ${names}`);
      if (error.code !== 'source_privilege') throw error;
      return error;
    }
  }

  /**
   * Has a piece of a chunk published while the rest waits to be read by process `pid`. False when the chunk must be read again:
   * also where somebody waits for the table, behind whom those may wait who look at the catalog for the log.
   */
  async #publishPiece(id: string, piece: Chunk, pid: number): Promise<boolean> {
    const { beside, markPrefix, signal } = this.#o;
    const client = await beside();
    const outcome = this.#outcome(id, piece);
    const decided = new AbortController();
    void outcome.then(() => decided.abort());
    const high = { k: 'high', chunk: id, oid: piece.table.oid, more: true } as const;
    await askSource(client, highMarksSql(markPrefix, [[high, isReadAsSql(piece.table)]]), 'ending a piece of a chunk');
    const either = AbortSignal.any([signal, decided.signal]);
    for (;;) {
      await abortableDelay(LOOK_EVERY_MS, either);
      if (either.aborted) return (await untilAborted(outcome, signal)) !== undefined;
      const sql = `select from pg_locks where not granted and ${pid} = any(pg_blocking_pids(pid)) limit 1`;
      if ((await askSource(client, sql, 'looking who waits for a table')).length > 0) return false;
    }
  }

  /** Has the source send no more rows. */
  async #cancel(copy: CopyOut): Promise<void> {
    const client = await this.#o.beside();
    try {
      await client.query('select pg_cancel_backend($1)', [processOf(copy)]);
      // What has come, and what is on its way.
      do while (copy.next());
      while (await copy.more());
    } catch (thrown) {
      if (sqlStateOf(thrown) !== CANCELLED) throw thrown;
    }
  }

  async #ask(sql: string, doing: string): Promise<void> {
    try {
      await this.client.query(sql);
    } catch (thrown) {
      throw sourceError(thrown, doing);
    }
  }
}

/**
 * Adds rows that have come to a memory, each to those that `rowsOf` gives for the number of its COPY, and passes over what
 * comes behind a cut. True when there is no room for more; false when what has come is used up.
 */
function gather(copy: CopyOut, memory: LineMemory, mostBytes: number, rowsOf: (index: number) => CopyRows): boolean {
  // Rows move together where they lie, and are copied all at once: to copy each would cost more than all the rest.
  let from = -1;
  let to = 0;
  let isFull = false;
  while (!isFull && copy.next()) {
    const { data, start, end } = copy;
    const rows = rowsOf(copy.copiesBefore);
    if (rows.isCut) continue;
    if (from < 0) from = to = start;
    data.copyWithin(to, start, end);
    to += end - start;
    rows.note(end - start);
    isFull = memory.bytes >= mostBytes;
  }
  if (from >= 0) memory.append(copy.data, from, to);
  return isFull;
}

/** The snapshot that rows are of, which comes before them. */
function snapshotOf({ row }: CopyOut): PgSnapshot {
  const snapshot = row?.[0];
  if (snapshot == null) throw new ReplicationError('source_protocol', 'the source named no snapshot before a COPY');
  return PgSnapshot.parse(snapshot);
}

/** The snapshot of the transaction, and the process that reads. */
const SNAPSHOT_SQL = 'select pg_current_snapshot()::text, pg_backend_pid()';

/** The process that sends rows. */
function processOf({ row }: CopyOut): number {
  return Number(row?.[1]);
}

/** How often it is looked whether somebody waits for a table of which the rest is still to be read. */
const LOOK_EVERY_MS = 1000;

/** query_canceled. PostgreSQL documentation, appendix A. */
const CANCELLED = '57014';

function sqlStateOf(thrown: unknown): string | undefined {
  const cause = thrown instanceof ReplicationError ? thrown.cause : thrown;
  return (cause as { code?: string } | undefined)?.code;
}
