/**
 * Snapshots by watermarked chunks (after DBLog, Andreakis and Papapanagiotou 2020): while the log streams, a low mark
 * is written into it, a chunk is read, a high mark is written; the assembler drops from the chunk what changed between
 * the two and publishes the rest at the high mark's place. No lock, no long transaction, durable cursors.
 */
import type pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay, untilAborted } from '../../core/run-service.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { CapturedTable } from './catalog.ts';
import { LineSplitter, parseCopyLine, type CopyRow } from './copy-lines.ts';
import { qualifiedName, quoteIdent } from './publication.ts';
import type { SnapshotTask } from '../snapshot-loop.ts';
import { hasGuardedKey, type PublishedTable } from './published-table.ts';
import {
  newSnapshotId,
  type KeyTexts,
  type ProgressStore,
  type SnapshotProgress,
  type TableProgress,
} from '../snapshot-request.ts';
import { sourceError } from './source-error.ts';
import type { Mark } from './log-marks.ts';
import type { Chunk } from './transaction-assembler.ts';

const FIRST_CHUNK_ROWS = 1000;
const CHUNK_BYTES = 4 << 20;
/** Undefined column or table, and types that do not go together: the table changed. PostgreSQL documentation, appendix A. */
const CHANGED_TABLE: ReadonlySet<string> = new Set(['42703', '42P01', '42883', '42804', '22P02', '0A000']);
/** So often a chunk is read before its table is set aside. */
const MOST_ATTEMPTS = 20;

export interface SnapshotPorts {
  readonly client: pg.Client;
  readonly progress: ProgressStore;
  readonly markPrefix: string;
  readonly maxChunkRows: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly rules: ColumnRules;
  readonly tableByName: (schema: string, name: string) => PublishedTable | undefined;
  readonly trackTransactions: (on: boolean) => void;
  readonly forgetTransactionsBefore: (xid: number) => void;
  /**
   * Resolves when everything up to the mark that was just written, and its chunk, is stored in the stream. Rejects when
   * the signal aborts: a cursor must never pass rows that are not stored (Invariant 1).
   */
  readonly stored: () => Promise<void>;
  readonly task: SnapshotTask;
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

  /** Reads every table that is due, storing the cursor after each chunk. */
  async run(): Promise<void> {
    const { log, signal } = this.#ports;
    const { progress, isDue } = this.#ports.task;
    this.#ports.trackTransactions(true);
    try {
      await this.#waitForOlderTransactions();
      for (const table of progress.tables) {
        if (!isDue(table) || signal.aborted || this.#ports.task.cancelled()) continue;
        const captured = this.#ports.tableByName(table.schema, table.name);
        if (captured === undefined) {
          log.warn({ table: `${table.schema}.${table.name}` }, 'a table of the snapshot is gone; left out');
          table.state = 'done';
        } else if (table.keys !== undefined && !hasGuardedKey(captured))
          await this.#readKeys(table, table.keys, captured);
        else await this.#readTable(progress, table, captured);
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

  async #readTable(progress: SnapshotProgress, table: TableProgress, first: PublishedTable): Promise<void> {
    const { signal, log, progress: store, rules } = this.#ports;
    let captured = first;
    // A table that loses its key while it is read is read in one piece from then on, and the other way round.
    const keyless = captured.keyIndexes.length === 0;
    const { part } = table;
    const tableId = `${progress.id}_${captured.oid}`;
    if (table.state === 'pending') {
      if (!keyless && part === undefined) await this.#mark({ k: 'begin', id: tableId, oid: captured.oid });
      table.state = 'running';
      await this.#ports.stored();
      await store.write(progress);
    }
    let cursor = rules.openCursor(captured.publication, table.cursor);
    let limit = keyless ? undefined : FIRST_CHUNK_ROWS;
    for (let attempt = 1; !signal.aborted && !this.#ports.task.cancelled();) {
      const id = newSnapshotId() + attempt;
      const current = this.#ports.tableByName(table.schema, table.name);
      // It is to be read from the beginning.
      if (!progress.tables.includes(table)) return;
      if (current === undefined || current.oid !== captured.oid || !holds(current, part)) {
        log.warn({ table: `${table.schema}.${table.name}` }, 'a table went away while it was read');
        table.state = 'done';
        return;
      }
      if (current.schema.version !== captured.schema.version && keyOf(current) !== keyOf(captured)) {
        // Its key is another one: from the beginning.
        table.state = 'pending';
        table.cursor = null;
        return this.#readTable(progress, table, current);
      }
      captured = current;
      if (keyless) await this.#mark({ k: 'begin', id: tableId, oid: captured.oid });
      await this.#mark({ k: 'low', chunk: id, oid: captured.oid });
      const read = await this.#readUnchanged(captured, chunkSql(captured, cursor, limit, part));
      if (read === undefined) {
        // What it is like by now is on its way through the log.
        attempt += 1;
        await abortableDelay(Math.min(2000, 20 * attempt), signal);
        continue;
      }
      const { chunk, xmin, bytes } = read;
      this.#chunks.set(id, chunk);
      const outcome = new Promise<number | undefined>((resolve) => (this.#outcome = { chunk: id, resolve }));
      failpoint('capture.mid-snapshot');
      await this.#mark({ k: 'high', chunk: id, oid: captured.oid });
      const kept = await untilAborted(outcome, signal);
      if (kept === undefined) {
        attempt += 1;
        // A smaller chunk is less likely to meet a change while it is read.
        if (limit !== undefined) limit = Math.max(10, Math.floor(limit / 2));
        if (attempt > MOST_ATTEMPTS) {
          this.#ports.task.setAside(table, `${MOST_ATTEMPTS} times running it changed while a chunk of it was read`);
          return;
        }
        await abortableDelay(20 * attempt, signal);
        continue;
      }
      attempt = 1;
      await this.#ports.stored();
      this.#ports.forgetTransactionsBefore(xmin);
      table.rows += chunk.rows.length;
      const last = chunk.rows.at(-1);
      if (keyless || limit === undefined || chunk.rows.length < limit || last === undefined) break;
      cursor = last.key;
      table.cursor = rules.sealCursor(captured.publication, cursor);
      await store.write(progress);
      limit = Math.max(
        100,
        Math.min(this.#ports.maxChunkRows, Math.floor(CHUNK_BYTES / Math.max(1, bytes / chunk.rows.length))),
      );
    }
    if (signal.aborted || this.#ports.task.cancelled()) return;
    if (part === undefined) await this.#mark({ k: 'end', id: tableId, oid: captured.oid });
    await this.#ports.stored();
    table.state = 'done';
    log.info({ table: `${table.schema}.${table.name}`, rows: table.rows }, 'table read');
  }

  /** Reads single rows again. What others of the table are there stays as it is: no begin, no end. */
  async #readKeys(table: TableProgress, keys: readonly KeyTexts[], first: PublishedTable): Promise<void> {
    const { signal, log } = this.#ports;
    let captured = first;
    if (captured.keyIndexes.length === 0) {
      table.state = 'done';
      return;
    }
    for (let attempt = 1; !signal.aborted && !this.#ports.task.cancelled(); attempt++) {
      const id = newSnapshotId() + attempt;
      await this.#mark({ k: 'low', chunk: id, oid: captured.oid });
      const read = await this.#readUnchanged(captured, keysSql(captured, keys), absentSql(captured, keys));
      const current = this.#ports.tableByName(table.schema, table.name);
      if (read === undefined || current === undefined || keyOf(current) !== keyOf(captured)) {
        if (current === undefined || keyOf(current) !== keyOf(captured)) {
          // The keys name nothing any more.
          table.state = 'done';
          return;
        }
        captured = current;
        await abortableDelay(Math.min(2000, 20 * attempt), signal);
        continue;
      }
      captured = current;
      const { chunk } = read;
      this.#chunks.set(id, chunk);
      const outcome = new Promise<number | undefined>((resolve) => (this.#outcome = { chunk: id, resolve }));
      await this.#mark({ k: 'high', chunk: id, oid: captured.oid });
      if ((await untilAborted(outcome, signal)) === undefined) {
        if (attempt === MOST_ATTEMPTS) {
          this.#ports.task.setAside(table, `${MOST_ATTEMPTS} times running rows changed while they were read again`);
          return;
        }
        await abortableDelay(20 * attempt, signal);
        continue;
      }
      await this.#ports.stored();
      table.rows = chunk.rows.length;
      table.state = 'done';
      log.info({ table: `${table.schema}.${table.name}`, rows: table.rows, keys: keys.length }, 'rows read again');
      return;
    }
  }

  /** A chunk; undefined when the table is no longer as the log told so far, and its columns cannot be read so. */
  async #readUnchanged(
    table: PublishedTable,
    sql: string,
    absentKeysSql?: string,
  ): Promise<{ chunk: Chunk; xmin: number; bytes: number } | undefined> {
    try {
      return await this.#readChunk(table, sql, absentKeysSql);
    } catch (thrown) {
      if (!CHANGED_TABLE.has(sqlStateOf(thrown) ?? '')) throw thrown;
      await this.#ports.client.query('rollback');
      return undefined;
    }
  }

  async #mark(mark: Mark): Promise<void> {
    await emitMark(this.#ports.client, this.#ports.markPrefix, mark);
  }

  async #readChunk(
    table: PublishedTable,
    sql: string,
    absentKeysSql?: string,
  ): Promise<{ chunk: Chunk; xmin: number; bytes: number }> {
    const { client } = this.#ports;
    try {
      await client.query('begin isolation level repeatable read read only');
      const { inProgress, xmin } = await currentSnapshot(client);
      const rows: CopyRow[] = [];
      let bytes = 0;
      const splitter = new LineSplitter();
      for await (const data of client.query(copyTo(`copy (${sql}) to stdout`))) {
        bytes += (data as Buffer).length;
        for (const line of splitter.push(data as Buffer)) rows.push(parseCopyLine(line, table));
      }
      const absent =
        absentKeysSql === undefined ? [] : (await client.query({ text: absentKeysSql, rowMode: 'array' })).rows;
      await client.query('commit');
      return { chunk: { table, rows, absent, inProgress }, xmin, bytes };
    } catch (thrown) {
      throw sourceError(thrown, `reading a chunk of ${table.schema.schema}.${table.schema.name}`);
    }
  }
}

function sqlStateOf(thrown: unknown): string | undefined {
  const cause = thrown instanceof ReplicationError ? thrown.cause : thrown;
  return (cause as { code?: string } | undefined)?.code;
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

/** Writes a mark into the source's log, in a transaction of its own. */
export async function emitMark(client: pg.Client, prefix: string, mark: Mark): Promise<void> {
  try {
    await client.query('select pg_logical_emit_message(true, $1, $2::text)', [prefix, JSON.stringify(mark)]);
  } catch (thrown) {
    throw sourceError(thrown, 'writing a mark into the log of the source');
  }
}

type ReadTable = CapturedTable & Partial<Pick<PublishedTable, 'writes'>>;

/** The columns to read; what is left out is not even read. */
function columnsSql({ schema, writes }: ReadTable, prefix = ''): string {
  return schema.columns
    .map((column, index) => (writes?.[index] === 'omit' ? 'null' : prefix + quoteIdent(column.name)))
    .join(', ');
}

/** The statement that reads one chunk in key order after `cursor`. */
export function chunkSql(
  table: ReadTable,
  cursor: readonly string[] | null,
  limit: number | undefined,
  part?: { readonly schema: string; readonly name: string },
): string {
  const { schema, keyIndexes } = table;
  const columns = columnsSql(table);
  const key = schema.key.map(quoteIdent).join(', ');
  const literals = keyIndexes
    .map((index, i) => `${quoteLiteral(cursor?.[i] ?? '')}::${schema.columns[index]!.type}`)
    .join(', ');
  const after = cursor === null || keyIndexes.length === 0 ? '' : ` where (${key}) > (${literals})`;
  const order = keyIndexes.length === 0 ? '' : ` order by ${key}`;
  return `select ${columns} from ${qualifiedName(part ?? schema)}${after}${order}${limit === undefined ? '' : ` limit ${limit}`}`;
}

/** The keys as a list of rows `w(k0, k1, …)`, each value in the type of its column. */
function keysList(table: CapturedTable, keys: readonly KeyTexts[]): string {
  const types = table.keyIndexes.map((index) => keyType(table.schema.columns[index]!.type));
  const rows = keys.map((key) => `(${types.map((type, i) => `${quoteLiteral(key[i] ?? '')}::${type}`).join(', ')})`);
  return `(values ${rows.join(', ')}) w(${types.map((_, i) => `k${i}`).join(', ')})`;
}

/** A type that reads a key's text without cutting it. */
function keyType(type: string): string {
  if (/^(character\(|character$|bpchar)/.test(type)) return 'bpchar';
  return type.startsWith('bit') ? type : type.replace(/\([^)]*\)/, '');
}

function sameKey(table: CapturedTable): string {
  return table.schema.key.map((name, i) => `t.${quoteIdent(name)} = w.k${i}`).join(' and ');
}

/** The statement that reads the rows with these keys. */
function keysSql(table: ReadTable, keys: readonly KeyTexts[]): string {
  const columns = columnsSql(table, 't.');
  return `select ${columns} from ${keysList(table, keys)} join ${qualifiedName(table.schema)} t on ${sameKey(table)}`;
}

/** The statement that names the keys that no row has, as texts. The database decides: equal values may differ as text. */
function absentSql(table: CapturedTable, keys: readonly KeyTexts[]): string {
  const texts = table.schema.key.map((_, i) => `concat(w.k${i})`).join(', ');
  const there = `select from ${qualifiedName(table.schema)} t where ${sameKey(table)}`;
  return `select ${texts} from ${keysList(table, keys)} where not exists (${there})`;
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
