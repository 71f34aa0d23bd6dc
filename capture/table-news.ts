/** Tables that come to be due while others are read, and those that something is being done with. */
import { nameOf, readAnew } from './requested-tables.ts';
import type { SnapshotTask } from './snapshot-loop.ts';
import type { TableProgress } from './snapshot-request.ts';

export class TableNews {
  readonly #task: SnapshotTask;
  readonly #known = new Set<TableProgress>();

  constructor(task: SnapshotTask) {
    this.#task = task;
  }

  /** The tables that are due and were not given before, but for those that `mayBegin` leaves for another time. */
  take(mayBegin: (table: TableProgress) => boolean = () => true): TableProgress[] {
    const { progress, isDue } = this.#task;
    const found = progress.tables.filter((table) => !this.#known.has(table) && isDue(table) && mayBegin(table));
    for (const table of found) this.#known.add(table);
    return found;
  }

  /** Leaves a table for later: it is given again once it is due. */
  setAside(table: TableProgress, why: string): void {
    this.#known.delete(table);
    this.#task.setAside(table, why);
  }

  /** Has the table read from its beginning instead. */
  readAnew(table: TableProgress): void {
    const { progress } = this.#task;
    progress.tables = readAnew(progress.tables, [table]);
  }

  /** Whether a table is still to be read: another reading of it may have taken its place. */
  isWanted(table: TableProgress): boolean {
    return this.#task.progress.tables.includes(table);
  }
}

export class TablesAtWork {
  readonly #names = new Map<string, number>();

  has(table: TableProgress): boolean {
    return this.#names.has(nameOf(table));
  }

  async during(tables: readonly TableProgress[], work: () => Promise<void>): Promise<void> {
    this.#count(tables, 1);
    try {
      await work();
    } finally {
      this.#count(tables, -1);
    }
  }

  #count(tables: readonly TableProgress[], by: number): void {
    for (const table of tables) {
      const left = (this.#names.get(nameOf(table)) ?? 0) + by;
      if (left === 0) this.#names.delete(nameOf(table));
      else this.#names.set(nameOf(table), left);
    }
  }
}
