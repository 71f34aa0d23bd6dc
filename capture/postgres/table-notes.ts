/** What is noted of each captured table besides its version, and stored with it. */
import type { TableName } from '../requested-tables.ts';
import type { TableRegistry } from '../table-registry.ts';
import type { CapturedTable, NameEnd } from './catalog.ts';
import { keyIds } from './table-change.ts';
import { writtenOf, type Written } from './unlogged-values.ts';

/** That a table is to be read again with each version that comes, until that is the one of the catalog. */
export interface Owed {
  readonly why: string;
}

export class TableNotes {
  readonly #registry: TableRegistry<number, CapturedTable>;
  /** The versions that the stream carries last, without what is noted here; those that came to their names last at the end. */
  readonly tables = new Map<number, CapturedTable>();
  /** What the catalog had of the rows of each table at the last look. */
  readonly written = new Map<number, Written>();
  readonly owed = new Map<number, Owed>();
  /** Tables that are not published for now, and are to be read once they are again. */
  readonly withdrawn = new Set<number>();
  /** The columns of the key that each table had last, of those that have none. */
  readonly lastKey = new Map<number, string>();
  /** What the stream is being told of the end of a name. */
  readonly #ends = new Map<number, NameEnd>();
  /** Where in the log the last version came; */
  readonly #since = new Map<number, string>();
  /** and up to where that may be one of a process that had come further. */
  readonly #ahead = new Map<number, bigint>();

  constructor(registry: TableRegistry<number, CapturedTable>, stored: ReadonlyMap<number, CapturedTable>) {
    this.#registry = registry;
    const inOrder = [...stored].sort(([, a], [, b]) => Number(BigInt(a.since ?? -1) - BigInt(b.since ?? -1)));
    for (const [oid, { owed, since, withdrawn, lastKey, ...table }] of inOrder) {
      this.tables.set(oid, table);
      this.written.set(oid, writtenOf(table));
      if (owed !== undefined) this.owed.set(oid, { why: owed });
      if (withdrawn === true) this.withdrawn.add(oid);
      if (lastKey !== undefined) this.lastKey.set(oid, lastKey);
      if (since === undefined) continue;
      this.#since.set(oid, since);
      this.#ahead.set(oid, BigInt(since));
    }
  }

  /** The newest table of this name: of one before it the stream may not have told yet that it is gone. */
  byName({ schema, name }: TableName): CapturedTable | undefined {
    return [...this.tables.values()].findLast((table) => table.schema.schema === schema && table.schema.name === name);
  }

  /** A version comes behind another one: whether it has a key, and which it had before. */
  noteKey(before: CapturedTable, after: CapturedTable): void {
    const last = keyIds(before);
    if (keyIds(after) !== undefined) this.lastKey.delete(after.oid);
    else if (last !== undefined) this.lastKey.set(after.oid, last);
  }

  /** A version comes, and has its name from now on. */
  begin(table: CapturedTable): void {
    this.tables.delete(table.oid);
    this.tables.set(table.oid, table);
  }

  writtenOf(table: CapturedTable): Written {
    return this.written.get(table.oid) ?? writtenOf(table);
  }

  /** Whether what is known of a table may be of a place further on than the commit at `lsn`. */
  isAhead(oid: number, lsn: bigint): boolean {
    return lsn <= (this.#ahead.get(oid) ?? -1n);
  }

  /** What is known of a table is of the place to which the log has come. */
  caughtUp(oid: number): void {
    this.#ahead.delete(oid);
  }

  /** The commit at `lsn` told the version that is stored next. */
  cameAt(oid: number, lsn: bigint): void {
    this.#since.set(oid, String(lsn));
    this.#ahead.delete(oid);
  }

  /** Resolves when a version is stored with what is noted of the table. */
  async store(table: CapturedTable, written = this.writtenOf(table), newEnd?: NameEnd): Promise<void> {
    const { oid } = table;
    this.written.set(oid, written);
    if (newEnd !== undefined) this.#ends.set(oid, newEnd);
    const lastKey = this.lastKey.get(oid);
    const [owed, since, ends] = [this.owed.get(oid)?.why, this.#since.get(oid), this.#ends.get(oid)];
    await this.#registry.put(oid, {
      ...table,
      written,
      ...(owed === undefined ? {} : { owed }),
      ...(since === undefined ? {} : { since }),
      ...(lastKey === undefined ? {} : { lastKey }),
      ...(ends === undefined ? {} : { ends }),
      ...(this.withdrawn.has(oid) ? { withdrawn: true } : {}),
    });
  }

  /** It is gone. */
  forget(oid: number): void {
    this.tables.delete(oid);
    for (const notes of [this.written, this.owed, this.withdrawn, this.lastKey, this.#ends, this.#since, this.#ahead])
      notes.delete(oid);
  }
}
