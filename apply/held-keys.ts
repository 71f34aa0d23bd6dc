/** Changes in quarantine, by their keys: later changes of such a key wait behind them, and their neighbours go on. */
import type { RowChange } from '../core/frame.ts';
import { touchedKeys, touchedRows, type KeyShape } from './row-key.ts';

/** A change of a source transaction. */
export interface HeldChange {
  readonly plan: KeyShape & { readonly table: { readonly version: string } };
  readonly row: RowChange;
  readonly position: string;
}

/** What takes back one change of what is held. */
type Undo = () => void;

export class HeldKeys {
  readonly #tables = new Map<string, Set<string>>();
  #rows = new WaitingRows();
  /** Since `mark`, in order. */
  #undo: Undo[] | undefined;

  /** Whether nothing is held, also no row of a table without a key. */
  get empty(): boolean {
    return this.#tables.size === 0 && this.#rows.empty;
  }

  copy(): HeldKeys {
    const copy = new HeldKeys();
    for (const [table, keys] of this.#tables) copy.#tables.set(table, new Set(keys));
    copy.#rows = this.#rows.copy();
    return copy;
  }

  add(table: string, key: string): void {
    const keys = this.#tables.get(table) ?? new Set();
    if (keys.has(key)) return;
    this.#tables.set(table, keys.add(key));
    this.#undo?.push(() => {
      keys.delete(key);
      if (keys.size === 0) this.#tables.delete(table);
    });
  }

  /** Holds what a change touches. */
  hold(change: HeldChange): void {
    const { plan, row } = change;
    if (plan.key.length === 0) this.#rows.add(change, this.#undo);
    else for (const key of touchedKeys(plan, row)) this.add(plan.id, key);
  }

  /** Whether a change of a table may touch what is held. */
  concerns(table: string): boolean {
    return this.#tables.has(table) || this.#rows.concerns(table);
  }

  /** Whether a change touches what is held. */
  holds(change: HeldChange): boolean {
    const { plan, row } = change;
    if (plan.key.length === 0) return this.#rows.has(change);
    return this.#tables.has(plan.id) && touchedKeys(plan, row).some((key) => this.has(plan.id, key));
  }

  has(table: string, key: string): boolean {
    return this.#tables.get(table)?.has(key) === true;
  }

  /** Takes over the rows without keys that wait for the end of their transaction: no key in quarantine names them. */
  keepRowsOf(earlier: HeldKeys): void {
    this.#rows = earlier.#rows;
  }

  /** Their transaction has ended. */
  forgetRows(): void {
    this.#rows = new WaitingRows();
  }

  releaseTable(table: string): void {
    this.#rows.releaseTable(table, this.#undo);
    const keys = this.#tables.get(table);
    if (keys === undefined) return;
    this.#tables.delete(table);
    this.#undo?.push(() => this.#tables.set(table, keys));
  }

  /** From here on `restore` leads back to what is held now. Takes as much memory as is changed until then. */
  mark(): void {
    this.#undo = [];
  }

  restore(): void {
    for (const undo of this.#undo?.toReversed() ?? []) undo();
    this.#undo = undefined;
  }
}

/**
 * Rows of tables without a key that were refused in one transaction, which tries them again at its end: a change of the same
 * row that went before them would find none, and they would come back. So all values of a row stand for its key, and of
 * another version of its table, where they cannot be compared, all rows wait.
 */
class WaitingRows {
  #position: string | undefined;
  /** By table and version of it. */
  #tables = new Map<string, Map<string, Set<string>>>();

  get empty(): boolean {
    return this.#tables.size === 0;
  }

  copy(): WaitingRows {
    const copy = new WaitingRows();
    copy.#position = this.#position;
    for (const [table, versions] of this.#tables)
      copy.#tables.set(table, new Map([...versions].map(([version, rows]) => [version, new Set(rows)])));
    return copy;
  }

  concerns(table: string): boolean {
    return this.#tables.has(table);
  }

  add({ plan, row, position }: HeldChange, undo: Undo[] | undefined): void {
    if (position !== this.#position) {
      const [earlier, tables] = [this.#position, this.#tables];
      this.#position = position;
      this.#tables = new Map();
      undo?.push(() => {
        this.#position = earlier;
        this.#tables = tables;
      });
    }
    const tables = this.#tables;
    const versions = tables.get(plan.id) ?? new Map<string, Set<string>>();
    const { version } = plan.table;
    const rows = versions.get(version) ?? new Set();
    for (const digest of touchedRows(row)) {
      if (rows.has(digest)) continue;
      tables.set(plan.id, versions.set(version, rows.add(digest)));
      undo?.push(() => {
        rows.delete(digest);
        if (rows.size === 0) versions.delete(version);
        if (versions.size === 0) tables.delete(plan.id);
      });
    }
  }

  has({ plan, row, position }: HeldChange): boolean {
    const versions = this.#tables.get(plan.id);
    if (versions === undefined || position !== this.#position) return false;
    const same = versions.get(plan.table.version);
    if (same === undefined || versions.size > 1) return true;
    return touchedRows(row).some((digest) => same.has(digest));
  }

  releaseTable(table: string, undo: Undo[] | undefined): void {
    const tables = this.#tables;
    const versions = tables.get(table);
    if (versions === undefined) return;
    tables.delete(table);
    undo?.push(() => tables.set(table, versions));
  }
}
