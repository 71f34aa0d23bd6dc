/** Reads chunks, of one table or of several, between two watermarks over one connection, and waits for what the log makes of them. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import { PgSnapshot, SNAPSHOT_SQL } from '../../core/pg-snapshot.ts';
import { untilAborted } from '../../core/run-service.ts';
import type { Chunk } from './chunk-windows.ts';
import { CopyRows, LineMemory } from './copy-lines.ts';
import { CopyOut } from './copy-out.ts';
import { emitMark, marksSql, type Mark } from './log-marks.ts';
import type { PublishedTable } from './published-table.ts';
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
  /** Transactions before this one are seen by every new snapshot. */
  readonly xmin: number;
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
  /** Begins the names of its chunks in the log. */
  readonly #id: string;
  #chunks = 0;
  readonly #markPrefix: string;
  readonly #signal: AbortSignal;
  /** By their names in the log. */
  readonly #open = new Map<string, OpenChunk>();
  /** One piece of memory for all chunks: the log is done with some before the next are read. */
  readonly #memory = new LineMemory();

  constructor(client: pg.Client, id: string, markPrefix: string, signal: AbortSignal) {
    this.client = client;
    this.#id = id;
    this.#markPrefix = markPrefix;
    this.#signal = signal;
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
    await emitMark(this.client, this.#markPrefix, mark);
  }

  /**
   * Reads chunks of different tables, all in one transaction between one pair of watermarks. For each that must be read again
   * it gives undefined: the table changed meanwhile, or is no longer as the log told so far. Rejects when the signal aborts.
   */
  async read(wanted: readonly WantedChunk[]): Promise<readonly (ReadChunk | undefined)[]> {
    // None is used twice: the log may be behind, at the watermarks of chunks that could not be read.
    const ids = wanted.map(() => `${this.#id}-${(this.#chunks += 1)}`);
    const outcomes = ids.map(
      (id) => new Promise<ChunkOutcome>((decide) => this.#open.set(id, { chunk: undefined, decide })),
    );
    try {
      const read = await this.#read(wanted, ids);
      for (const [index, chunk] of read?.chunks.entries() ?? []) this.#open.get(ids[index]!)!.chunk = chunk;
      failpoint('capture.mid-snapshot');
      const high = wanted.map(({ table: { oid }, whenRead }, index): Mark => {
        const end = read === undefined ? undefined : whenRead?.(read.chunks[index]!.rows);
        return { k: 'high', chunk: ids[index]!, oid, ...(end === undefined ? {} : { end }) };
      });
      // Of chunks that could not be read it closes the windows.
      await this.#ask(
        `${read === undefined ? 'rollback' : 'commit'}; ${marksSql(this.#markPrefix, high)}`,
        'ending a chunk',
      );
      if (read === undefined) return wanted.map(() => undefined);
      const decided = await untilAborted(Promise.all(outcomes), this.#signal);
      return decided.map((outcome, index) =>
        outcome === undefined ? undefined : { chunk: read.chunks[index]!, outcome, xmin: read.xmin },
      );
    } finally {
      this.#open.clear();
    }
  }

  /** Leaves its transaction open. */
  async #read(
    wanted: readonly WantedChunk[],
    ids: readonly string[],
  ): Promise<{ chunks: Chunk[]; xmin: number } | undefined> {
    const { client } = this;
    const memory = this.#memory;
    memory.length = 0;
    const low = wanted.flatMap(({ table: { oid }, begin }, index): Mark[] => [
      { k: 'low', chunk: ids[index]!, oid },
      ...(begin === undefined ? [] : [begin]),
    ]);
    const statements = [
      'begin',
      marksSql(this.#markPrefix, low),
      'commit',
      'begin isolation level repeatable read read only',
      SNAPSHOT_SQL,
      ...wanted.map(({ sql }) => `copy (${sql}) to stdout`),
    ];
    try {
      const copy = client.query(new CopyOut(statements.join('; ')));
      const rows: CopyRows[] = [];
      // Tables without rows are passed over.
      const upTo = (count: number): void => {
        while (rows.length < count) rows.push(new CopyRows(wanted[rows.length]!.table, memory));
      };
      while (await copy.more()) {
        // Rows move together where they lie, and are copied all at once: to copy each would cost more than all the rest.
        let from = -1;
        let to = 0;
        while (copy.next()) {
          const { data, start, end } = copy;
          if (from < 0) from = to = start;
          data.copyWithin(to, start, end);
          to += end - start;
          upTo(copy.copiesBefore + 1);
          rows[copy.copiesBefore]!.note(end - start);
        }
        if (from >= 0) memory.append(copy.data, from, to);
      }
      upTo(wanted.length);
      const snapshot = copy.row?.[0];
      if (snapshot == null) throw new ReplicationError('source_protocol', 'the source named no snapshot before a COPY');
      const unseen = PgSnapshot.parse(snapshot);
      const chunks: Chunk[] = [];
      for (const [index, { table, absentKeysSql }] of wanted.entries()) {
        const absent =
          absentKeysSql === undefined ? [] : (await client.query({ text: absentKeysSql, rowMode: 'array' })).rows;
        chunks.push({ table, rows: rows[index]!, absent, unseen });
      }
      return { chunks, xmin: unseen.xmin };
    } catch (thrown) {
      const names = wanted.map(({ table: { schema } }) => `${schema.schema}.${schema.name}`).join(', ');
      if (!CHANGED_TABLE.has(sqlStateOf(thrown) ?? '')) throw sourceError(thrown, `reading a chunk of ${names}`);
      return undefined;
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

function sqlStateOf(thrown: unknown): string | undefined {
  const cause = thrown instanceof ReplicationError ? thrown.cause : thrown;
  return (cause as { code?: string } | undefined)?.code;
}
