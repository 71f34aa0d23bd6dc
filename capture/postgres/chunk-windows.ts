/** What changed in the log between the two watermarks of each chunk that is being read: it stands in for the chunk's rows. */
import type { Transactions } from '../../core/pg-snapshot.ts';
import type { PublishedTable } from './published-table.ts';
import type { TupleRange } from './pgoutput.ts';
import type { CopyRows } from './copy-lines.ts';
import { hasUnchanged, keyText, tupleKey } from './tuple-writer.ts';

/** A chunk that was read between its two watermarks. */
export interface Chunk {
  readonly table: PublishedTable;
  readonly rows: CopyRows;
  /** Keys that were asked for by name and that no row has: said to be deleted. */
  readonly absent?: readonly (readonly string[])[];
  /** Transactions that were not seen when the chunk was read. */
  readonly unseen: Transactions;
}

interface Window {
  readonly oid: number;
  readonly keys: Set<string>;
  /** Those of them that changed without all columns. */
  readonly partial: Set<string>;
  /** Transactions that committed in the log before the low watermark. */
  readonly before: readonly number[];
}

/** What is left of a chunk. */
export interface ChunkRest {
  /** Whether every row of it is left. */
  readonly whole: boolean;
  /** Whether a row of the chunk is still what the log left. */
  readonly keeps: (row: number) => boolean;
  readonly absent: readonly (readonly string[])[];
}

export class ChunkWindows {
  readonly #windows = new Map<string, Window>();
  readonly #byTable = new Map<number, Window[]>();

  /** A low watermark. */
  open(chunk: string, oid: number, before: Iterable<number>): void {
    // Of a chunk that could not be read there is no high watermark.
    this.drop(chunk);
    const window: Window = { oid, keys: new Set(), partial: new Set(), before: [...before] };
    this.#windows.set(chunk, window);
    const others = this.#byTable.get(oid);
    if (others === undefined) this.#byTable.set(oid, [window]);
    else others.push(window);
  }

  /** Nobody reads chunks any more. */
  clear(): void {
    this.#windows.clear();
    this.#byTable.clear();
  }

  /** Whether chunks of a table are being read: then `touch` and `truncate` must hear of its changes. */
  concern(oid: number): boolean {
    return this.#byTable.has(oid);
  }

  touch(table: PublishedTable, buffer: Buffer, tuple: TupleRange): void {
    const key = table.keyIndexes.length === 0 ? '' : tupleKey(buffer, tuple, table.keyIndexes);
    if (key === undefined) return;
    const partial = key !== '' && hasUnchanged(buffer, tuple);
    for (const { keys, partial: incomplete } of this.#byTable.get(table.oid)!) {
      keys.add(key);
      if (partial) incomplete.add(key);
    }
  }

  /** Everything that was read before is gone. */
  truncate(oid: number): void {
    for (const { keys } of this.#byTable.get(oid)!) keys.add(TRUNCATED);
  }

  /** Closes the window of a chunk that nobody waits for any more. */
  drop(id: string): void {
    const window = this.#windows.get(id);
    if (window === undefined) return;
    this.#windows.delete(id);
    const rest = this.#byTable.get(window.oid)!.filter((other) => other !== window);
    if (rest.length === 0) this.#byTable.delete(window.oid);
    else this.#byTable.set(window.oid, rest);
  }

  /**
   * A high watermark. Undefined when the chunk must be read again. `now`: the table as the stream is at by now. `goesOn`: it
   * is one of several pieces, and what comes between them counts as well.
   */
  close(id: string, chunk: Chunk, now: PublishedTable | undefined, goesOn = false): ChunkRest | undefined {
    const window = this.#windows.get(id);
    const rest = window === undefined ? undefined : restOf(window, chunk, now);
    if (!goesOn || rest === undefined) this.drop(id);
    return rest;
  }
}

/** What the log left of a chunk; undefined where it does not tell. */
function restOf(window: Window, chunk: Chunk, now: PublishedTable | undefined): ChunkRest | undefined {
  const { table, rows, unseen } = chunk;
  const { keys, partial, before } = window;
  // Rows of another version than the one that the stream is at.
  if (now?.schema.version !== table.schema.version) return undefined;
  // A transaction whose commit the log shows before the low watermark, but which the chunk did not see yet: its
  // backend had written the commit record and not yet become visible. Such a chunk would bring back old rows.
  if (before.some((xid) => unseen.has(xid))) return undefined;
  if (keys.size === 0) return { whole: true, keeps: () => true, absent: chunk.absent ?? [] };
  if (table.keyIndexes.length === 0) return undefined;
  const key = (row: number): string => keyText(rows.key(row));
  // A change without all its columns cannot stand in for the chunk's row: the target may not have the row yet.
  if (partial.size > 0) for (let row = 0; row < rows.length; row++) if (partial.has(key(row))) return undefined;
  const truncated = keys.has(TRUNCATED);
  return { whole: false, keeps: (row) => !truncated && !keys.has(key(row)), absent: stillAbsent(chunk, keys) };
}

/**
 * Keys that no row had and that nothing touched since. Where equal keys may have different texts, a change of an
 * absent key might not be known as one: then none is said to be deleted, and whoever asked asks again.
 */
function stillAbsent({ table, absent = [] }: Chunk, touched: ReadonlySet<string>): readonly (readonly string[])[] {
  if (absent.length === 0) return absent;
  if (!table.keyIndexes.every((index) => TEXT_IS_VALUE.test(table.schema.columns[index]!.portable))) return [];
  const plain = new Set([...touched].map(withoutZeros));
  return absent.filter((key) => !plain.has(withoutZeros(keyText(key))));
}

/** Types of which equal values have equal texts, numbers but for zeros at their end. */
const TEXT_IS_VALUE =
  /^(smallint|integer|bigint|oid|uuid|boolean|date|text|character varying|bytea|numeric|timestamp)(?!.*\[\])/;

/** A key's text without zeros at the end of decimal fractions: one text for two numbers at worst where keys are texts. */
function withoutZeros(key: string): string {
  return key.replaceAll(/(\.\d*?)0+(?!\d)/g, '$1').replaceAll(/\.(?!\d)/g, '');
}

/** Not a possible key text: keys never hold a NUL. */
const TRUNCATED = '\u0000truncated';
