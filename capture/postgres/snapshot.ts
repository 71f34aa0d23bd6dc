/**
 * Snapshots by watermarked chunks (after DBLog, Andreakis and Papapanagiotou 2020): while the log streams, a low mark
 * is written into it, a chunk is read, a high mark is written; the assembler drops from the chunk what changed between
 * the two and publishes the rest at the high mark's place. No lock, no long transaction, durable cursors.
 */
import type pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { failpoint } from '../../core/failpoint.ts';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay, untilAborted } from '../../core/run-service.ts';
import type { CapturedTable } from './catalog.ts';
import { LineSplitter, parseCopyLine, type CopyRow } from './copy-lines.ts';
import { qualifiedName, quoteIdent } from './publication.ts';
import { newSnapshotId, type ProgressStore, type SnapshotProgress, type TableProgress } from './snapshot-request.ts';
import { sourceError } from './source-error.ts';
import type { Chunk, Mark } from './transaction-assembler.ts';

const FIRST_CHUNK_ROWS = 1000;
const CHUNK_BYTES = 4 << 20;

export interface SnapshotPorts {
  readonly client: pg.Client;
  readonly progress: ProgressStore;
  readonly markPrefix: string;
  readonly maxChunkRows: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly tableByName: (schema: string, name: string) => CapturedTable | undefined;
  readonly trackTransactions: (on: boolean) => void;
  readonly forgetTransactionsBefore: (xid: number) => void;
  /**
   * Resolves when everything up to the mark that was just written, and its chunk, is stored in the stream. Rejects when
   * the signal aborts: a cursor must never pass rows that are not stored (Invariant 1).
   */
  readonly stored: () => Promise<void>;
  readonly cancelled: () => boolean;
}

/** Reads tables one after another. One instance per run of a capture. */
export class SnapshotReader {
  readonly #ports: SnapshotPorts;
  #chunks = new Map<string, Chunk>();
  #outcome: { chunk: string; resolve: (kept: number | undefined) => void } | undefined;

  constructor(ports: SnapshotPorts) {
    this.#ports = ports;
  }

  takeChunk(id: string): Chunk | undefined {
    const chunk = this.#chunks.get(id);
    this.#chunks.delete(id);
    return chunk;
  }

  chunkDone(id: string, kept: number | undefined): void {
    if (this.#outcome?.chunk !== id) return;
    this.#outcome.resolve(kept);
    this.#outcome = undefined;
  }

  /** Reads every table of `progress` that is not done, storing the cursor after each chunk. */
  async run(progress: SnapshotProgress): Promise<void> {
    const { log, signal } = this.#ports;
    this.#ports.trackTransactions(true);
    try {
      await this.#waitForOlderTransactions();
      for (const table of progress.tables) {
        if (table.state === 'done' || signal.aborted || this.#ports.cancelled()) continue;
        const captured = this.#ports.tableByName(table.schema, table.name);
        if (captured === undefined) {
          log.warn({ table: `${table.schema}.${table.name}` }, 'a table of the snapshot is gone; left out');
          table.state = 'done';
        } else await this.#readTable(progress, table, captured);
        await this.#ports.progress.write(progress);
      }
    } finally {
      this.#ports.trackTransactions(false);
    }
  }

  /**
   * A transaction that had committed in the log before we began to remember ids could still be invisible to a chunk.
   * All that are in progress now must have ended before the first chunk is read.
   */
  async #waitForOlderTransactions(): Promise<void> {
    const { client, signal, log } = this.#ports;
    const first = await currentSnapshot(client);
    const old = new Set(first.inProgress);
    for (let tries = 0; old.size > 0 && !signal.aborted; tries++) {
      const now = new Set((await currentSnapshot(client)).inProgress);
      for (const xid of old) if (!now.has(xid)) old.delete(xid);
      if (old.size === 0) break;
      if (tries % 100 === 99)
        log.warn({ transactions: [...old] }, 'the snapshot waits for transactions that are older than it');
      await abortableDelay(100, signal);
    }
  }

  async #readTable(progress: SnapshotProgress, table: TableProgress, captured: CapturedTable): Promise<void> {
    const { signal, log, progress: store } = this.#ports;
    const keyless = captured.keyIndexes.length === 0;
    const tableId = `${progress.id}_${captured.oid}`;
    if (table.state === 'pending') {
      if (!keyless) await this.#mark({ k: 'begin', id: tableId, oid: captured.oid });
      table.state = 'running';
      await this.#ports.stored();
      await store.write(progress);
    }
    let limit = keyless ? undefined : FIRST_CHUNK_ROWS;
    for (let attempt = 1; !signal.aborted && !this.#ports.cancelled();) {
      const id = newSnapshotId() + attempt;
      if (keyless) await this.#mark({ k: 'begin', id: tableId, oid: captured.oid });
      await this.#mark({ k: 'low', chunk: id, oid: captured.oid });
      const { chunk, xmin, bytes } = await this.#readChunk(captured, table.cursor, limit);
      this.#chunks.set(id, chunk);
      const outcome = new Promise<number | undefined>((resolve) => (this.#outcome = { chunk: id, resolve }));
      failpoint('capture.mid-snapshot');
      await this.#mark({ k: 'high', chunk: id, oid: captured.oid });
      const kept = await untilAborted(outcome, signal);
      if (kept === undefined) {
        attempt += 1;
        // A smaller chunk is less likely to meet a change while it is read.
        if (limit !== undefined) limit = Math.max(10, Math.floor(limit / 2));
        if (attempt % 10 === 0)
          log.warn({ table: table.name, attempt }, 'a chunk changed while it was read; reading it again');
        await abortableDelay(Math.min(2000, 20 * attempt), signal);
        continue;
      }
      attempt = 1;
      await this.#ports.stored();
      this.#ports.forgetTransactionsBefore(xmin);
      table.rows += chunk.rows.length;
      const last = chunk.rows.at(-1);
      if (keyless || limit === undefined || chunk.rows.length < limit || last === undefined) break;
      table.cursor = [...last.key];
      await store.write(progress);
      limit = Math.max(
        100,
        Math.min(this.#ports.maxChunkRows, Math.floor(CHUNK_BYTES / Math.max(1, bytes / chunk.rows.length))),
      );
    }
    if (signal.aborted || this.#ports.cancelled()) return;
    await this.#mark({ k: 'end', id: tableId, oid: captured.oid });
    await this.#ports.stored();
    table.state = 'done';
    log.info({ table: `${table.schema}.${table.name}`, rows: table.rows }, 'table read');
  }

  async #mark(mark: Mark): Promise<void> {
    await emitMark(this.#ports.client, this.#ports.markPrefix, mark);
  }

  async #readChunk(
    table: CapturedTable,
    cursor: readonly string[] | null,
    limit: number | undefined,
  ): Promise<{ chunk: Chunk; xmin: number; bytes: number }> {
    const { client } = this.#ports;
    try {
      await client.query('begin isolation level repeatable read read only');
      const { inProgress, xmin } = await currentSnapshot(client);
      const rows: CopyRow[] = [];
      let bytes = 0;
      const splitter = new LineSplitter();
      for await (const data of client.query(copyTo(`copy (${chunkSql(table, cursor, limit)}) to stdout`))) {
        bytes += (data as Buffer).length;
        for (const line of splitter.push(data as Buffer))
          rows.push(parseCopyLine(line, table.binary, table.keyIndexes));
      }
      await client.query('commit');
      return { chunk: { table, rows, inProgress }, xmin, bytes };
    } catch (thrown) {
      throw sourceError(thrown, `reading a chunk of ${table.schema.schema}.${table.schema.name}`);
    }
  }
}

/** Writes a mark into the source's log, in a transaction of its own. */
export async function emitMark(client: pg.Client, prefix: string, mark: Mark): Promise<void> {
  try {
    await client.query('select pg_logical_emit_message(true, $1, $2::text)', [prefix, JSON.stringify(mark)]);
  } catch (thrown) {
    throw sourceError(thrown, 'writing a mark into the log of the source');
  }
}

/** The statement that reads one chunk in key order after `cursor`. */
export function chunkSql(table: CapturedTable, cursor: readonly string[] | null, limit: number | undefined): string {
  const { schema, keyIndexes } = table;
  const columns = schema.columns.map((column) => quoteIdent(column.name)).join(', ');
  const key = schema.key.map(quoteIdent).join(', ');
  const literals = keyIndexes
    .map((index, i) => `${quoteLiteral(cursor?.[i] ?? '')}::${schema.columns[index]!.type}`)
    .join(', ');
  const after = cursor === null || keyIndexes.length === 0 ? '' : ` where (${key}) > (${literals})`;
  const order = keyIndexes.length === 0 ? '' : ` order by ${key}`;
  return `select ${columns} from ${qualifiedName(schema)}${after}${order}${limit === undefined ? '' : ` limit ${limit}`}`;
}

function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Transactions in progress as the current snapshot sees them, as 32-bit ids. */
async function currentSnapshot(client: pg.Client): Promise<{ xmin: number; inProgress: number[] }> {
  const result = await client.query<{ snapshot: string }>('select pg_current_snapshot()::text as snapshot');
  const [xmin, , list] = result.rows[0]!.snapshot.split(':');
  const short = (xid: string): number => Number(BigInt.asUintN(32, BigInt(xid)));
  return { xmin: short(xmin!), inProgress: list === undefined || list === '' ? [] : list.split(',').map(short) };
}
