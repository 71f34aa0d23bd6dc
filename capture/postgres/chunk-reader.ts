/** Reads chunks between two watermarks over one connection, and waits for what the log makes of them. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import { untilAborted } from '../../core/run-service.ts';
import type { Chunk } from './chunk-windows.ts';
import { askSource } from './connection.ts';
import { CopyRows } from './copy-lines.ts';
import { CopyOut } from './copy-out.ts';
import { emitMark, type Mark } from './log-marks.ts';
import type { PublishedTable } from './published-table.ts';
import { sourceError } from './source-error.ts';

/** Undefined column or table, and types that do not go together: the table changed. PostgreSQL documentation, appendix A. */
export const CHANGED_TABLE: ReadonlySet<string> = new Set(['42703', '42P01', '42883', '42804', '22P02', '0A000']);

/** A chunk's fate: how many rows are left of it, and the commit after which they stand in the log; or to be read again. */
export type ChunkOutcome = { readonly kept: number; readonly commitLsn: bigint } | undefined;

export interface ReadChunk {
  readonly chunk: Chunk;
  readonly outcome: NonNullable<ChunkOutcome>;
  /** Transactions before this one are seen by every new snapshot. */
  readonly xmin: number;
}

export class ChunkReader {
  readonly client: pg.Client;
  /** Names its chunks in the log: one after the other. */
  readonly id: string;
  readonly #markPrefix: string;
  readonly #signal: AbortSignal;
  #chunk: Chunk | undefined;
  /** One piece of memory for all chunks: the log is done with one before the next is read. */
  #rows: CopyRows | undefined;
  #resolve: ((outcome: ChunkOutcome) => void) | undefined;

  constructor(client: pg.Client, id: string, markPrefix: string, signal: AbortSignal) {
    this.client = client;
    this.id = id;
    this.#markPrefix = markPrefix;
    this.#signal = signal;
  }

  /** For the log: the chunk that waits for its high watermark. */
  takeChunk(): Chunk | undefined {
    const chunk = this.#chunk;
    this.#chunk = undefined;
    return chunk;
  }

  /** For the log: what became of it. */
  done(outcome: ChunkOutcome): void {
    this.#resolve?.(outcome);
    this.#resolve = undefined;
  }

  /** Writes a mark into the source's log, in a transaction of its own. */
  async mark(mark: Mark): Promise<void> {
    await emitMark(this.client, this.#markPrefix, mark);
  }

  /**
   * Reads a chunk. Undefined when it must be read again: the table changed meanwhile, or is no longer as the log told so
   * far. Rejects when the signal aborts. `begin` empties the target's table at its place, behind the low watermark: a row
   * that came between the two in the other order would stand in the log behind it, be in the chunk too, and so be there twice.
   */
  async read(
    table: PublishedTable,
    sql: string,
    { begin, absentKeysSql }: { readonly begin?: Mark | undefined; readonly absentKeysSql?: string } = {},
  ): Promise<ReadChunk | undefined> {
    const { oid } = table;
    await this.mark({ k: 'low', chunk: this.id, oid });
    if (begin !== undefined) await this.mark(begin);
    const read = await this.#read(table, sql, absentKeysSql);
    if (read === undefined) return undefined;
    this.#chunk = read.chunk;
    const decided = new Promise<ChunkOutcome>((resolve) => (this.#resolve = resolve));
    failpoint('capture.mid-snapshot');
    await this.mark({ k: 'high', chunk: this.id, oid });
    const outcome = await untilAborted(decided, this.#signal);
    return outcome === undefined ? undefined : { ...read, outcome };
  }

  async #read(
    table: PublishedTable,
    sql: string,
    absentKeysSql: string | undefined,
  ): Promise<{ chunk: Chunk; xmin: number } | undefined> {
    const { client } = this;
    try {
      await client.query('begin isolation level repeatable read read only');
      const { inProgress, xmin } = await currentSnapshot(client);
      const rows = (this.#rows ??= new CopyRows(table));
      rows.reset(table);
      const copy = client.query(new CopyOut(`copy (${sql}) to stdout`));
      while (await copy.more()) while (copy.next()) rows.add(copy.data, copy.start, copy.end);
      const absent =
        absentKeysSql === undefined ? [] : (await client.query({ text: absentKeysSql, rowMode: 'array' })).rows;
      await client.query('commit');
      return { chunk: { table, rows, absent, inProgress }, xmin };
    } catch (thrown) {
      if (!CHANGED_TABLE.has(sqlStateOf(thrown) ?? ''))
        throw sourceError(thrown, `reading a chunk of ${table.schema.schema}.${table.schema.name}`);
      await client.query('rollback');
      return undefined;
    }
  }
}

function sqlStateOf(thrown: unknown): string | undefined {
  const cause = thrown instanceof ReplicationError ? thrown.cause : thrown;
  return (cause as { code?: string } | undefined)?.code;
}

/** Transactions in progress as the current snapshot sees them, as 32-bit ids. */
export async function currentSnapshot(client: pg.Client): Promise<{ xmin: number; inProgress: number[] }> {
  const sql = 'select pg_current_snapshot()::text as snapshot';
  const [row] = await askSource<{ snapshot: string }>(client, sql, 'asking for transactions in progress');
  return parseSnapshot(row!.snapshot);
}

/** A `pg_snapshot` as text (PostgreSQL documentation, "Transaction ID and Snapshot Information Functions"). */
export function parseSnapshot(text: string): { xmin: number; inProgress: number[] } {
  const [xmin, , list] = text.split(':');
  const short = (xid: string): number => Number(BigInt.asUintN(32, BigInt(xid)));
  return { xmin: short(xmin!), inProgress: list === undefined || list === '' ? [] : list.split(',').map(short) };
}
