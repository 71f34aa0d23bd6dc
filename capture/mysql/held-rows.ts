/**
 * Rows whose fate is not known yet: of XA transactions until their second phase, and of groups that may end in a
 * rollback. They wait in memory up to a limit, then in a file that has no name any more, so that nothing is left of it
 * after any end of the process (after which the log is read again).
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FrameWriter } from '../../core/frame-writer.ts';
import type { FramePayload, Op, RowChange, TableSchema } from '../../core/frame.ts';
import { checksum } from '../checksum.ts';
import { spoolError } from '../spool-error.ts';
import type { LoggedTable } from './catalog.ts';

const SEGMENT_BYTES = 256 << 10;
const MEMORY_BYTES = 1 << 20;

export interface HeldRow {
  readonly change: RowChange;
  readonly table: LoggedTable;
  /** Its number among the changes of the transaction, from 1. */
  readonly ordinal: number;
}

/** A place in the file, and the checksum of what was written there. */
interface Stored {
  readonly offset: number;
  readonly bytes: number;
  readonly checksum: number;
}

interface Segment {
  readonly payload: Buffer | Stored;
  readonly tables: readonly LoggedTable[];
  /** First ordinal and length of each run without gaps. */
  readonly runs: readonly number[];
}

export class HeldRows {
  #writer: FrameWriter | undefined;
  #segments: Segment[] = [];
  readonly #tables = new Map<TableSchema, LoggedTable>();
  #runs: number[] = [];
  #memoryBytes = 0;
  #file: number | undefined;
  #fileBytes = 0;
  /** Ordinals (after, up to) that a rollback undid. */
  readonly #undone: (readonly [number, number])[] = [];

  /** Begins a row; what follows goes into the writer given, then `endRow` of this class. */
  beginRow(op: Op, table: LoggedTable, ordinal: number): FrameWriter {
    this.#writer ??= new FrameWriter(SEGMENT_BYTES);
    this.#tables.set(table.schema, table);
    addOrdinal(this.#runs, ordinal);
    this.#writer.beginRow(op, table.schema);
    return this.#writer;
  }

  endRow(): void {
    this.#writer!.endRow();
    if (this.#writer!.bytes >= SEGMENT_BYTES) this.#flush();
  }

  /** Adds a row that was read back from a frame. */
  add(row: HeldRow): void {
    writeChange(this.beginRow(row.change[0], row.table, row.ordinal), row.change);
    this.endRow();
  }

  /** Marks the changes after ordinal `after`, up to `upTo`, as undone, but for those of non-transactional tables. */
  undo(after: number, upTo: number): void {
    if (upTo > after) this.#undone.push([after, upTo]);
  }

  #flush(): void {
    const writer = this.#writer;
    if (writer === undefined || writer.rows === 0) return;
    const tables = writer.tables.map((schema) => this.#tables.get(schema)!);
    const payload = Buffer.from(writer.finish());
    const runs = this.#runs;
    this.#runs = [];
    writer.reset();
    if (this.#file === undefined && this.#memoryBytes + payload.length <= MEMORY_BYTES) {
      this.#memoryBytes += payload.length;
      this.#segments.push({ payload, tables, runs });
      return;
    }
    this.#segments.push({ payload: this.#store(payload), tables, runs });
  }

  #store(payload: Buffer): Stored {
    const offset = this.#fileBytes;
    try {
      this.#file ??= openNameless();
      for (let at = 0; at < payload.length;) at += writeSync(this.#file, payload, at, payload.length - at, offset + at);
    } catch (thrown) {
      throw spoolError(thrown, `writing ${payload.length} bytes in ${tmpdir()}`);
    }
    this.#fileBytes += payload.length;
    return { offset, bytes: payload.length, checksum: checksum(payload, 0, payload.length) };
  }

  /** The rows that stand, in order, in runs of bounded size. */
  *read(): Generator<HeldRow[]> {
    this.#flush();
    for (const { payload, tables, runs } of this.#segments) {
      const bytes = Buffer.isBuffer(payload) ? payload : this.#load(payload);
      const { rows } = JSON.parse(bytes.toString('utf8')) as FramePayload;
      const kept: HeldRow[] = [];
      let row = 0;
      for (let run = 0; run < runs.length; run += 2)
        for (let i = 0; i < runs[run + 1]!; i++) {
          const change = rows[row++]!;
          const table = tables[change[1]]!;
          const ordinal = runs[run]! + i;
          if (!table.transactional || !this.#isUndone(ordinal)) kept.push({ change, table, ordinal });
        }
      yield kept;
    }
  }

  #isUndone(ordinal: number): boolean {
    return this.#undone.some(([after, upTo]) => ordinal > after && ordinal <= upTo);
  }

  #load({ offset, bytes, checksum: wanted }: Stored): Buffer {
    const buffer = Buffer.allocUnsafe(bytes);
    try {
      for (let at = 0; at < bytes;) {
        const read = readSync(this.#file!, buffer, at, bytes - at, offset + at);
        if (read === 0) throw new Error(`it ends at ${offset + at}, not at ${this.#fileBytes}`);
        at += read;
      }
      // Invariant 2: what a disk made of it is no row of the source.
      if (checksum(buffer, 0, bytes) !== wanted) throw new Error(`the bytes from ${offset} on are not what was kept`);
    } catch (thrown) {
      throw spoolError(thrown, `reading a file in ${tmpdir()}`);
    }
    return buffer;
  }

  dispose(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
    this.#segments = [];
    this.#writer = undefined;
  }
}

function openNameless(): number {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-held-'));
  try {
    return openSync(join(folder, 'rows'), 'w+', 0o600);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Writes the images of a change that was read back, behind `beginRow`. */
export function writeChange(writer: FrameWriter, change: RowChange): void {
  const [, , after, kind, before] = change;
  writer.writeJson(Buffer.from(JSON.stringify(after)));
  if (kind === undefined) return;
  writer.before(kind);
  writer.writeJson(Buffer.from(JSON.stringify(before)));
}

/** Adds the next ordinal to a list of runs: first and length of each. */
export function addOrdinal(runs: number[], ordinal: number): void {
  const first = runs.at(-2);
  const length = runs.at(-1);
  if (first !== undefined && length !== undefined && first + length === ordinal) runs[runs.length - 1] = length + 1;
  else runs.push(ordinal, 1);
}
