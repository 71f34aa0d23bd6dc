/** Changes in quarantine, by their keys: later changes of such a key wait behind them, and their neighbours go on. */
import { createHash } from 'node:crypto';
import type { RowChange } from '../core/frame.ts';
import { filledImage, touchedKeys, type KeyShape } from './row-key.ts';

/** A change of a source transaction. */
export interface HeldChange {
  readonly plan: KeyShape & { readonly table: { readonly version: string } };
  readonly row: RowChange;
  readonly position: string;
}

export class HeldKeys {
  readonly #tables = new Map<string, Set<string>>();
  #rows = new WaitingRows();

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
    const keys = this.#tables.get(table);
    if (keys === undefined) this.#tables.set(table, new Set([key]));
    else keys.add(key);
  }

  /** Holds what a change touches. */
  hold(change: HeldChange): void {
    const { plan, row } = change;
    if (plan.key.length === 0) this.#rows.add(change);
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
    const held = this.#tables.get(plan.id);
    return held !== undefined && touchedKeys(plan, row).some((key) => held.has(key));
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
    this.#tables.delete(table);
    this.#rows.releaseTable(table);
  }
}

/**
 * Rows of tables without a key that were refused in one transaction, which tries them again at its end: a change of the same
 * row that went before them would find none, and they would come back. So all values of a row stand for its key, and of
 * another version of its table, where they cannot be compared, all rows wait.
 */
class WaitingRows {
  #position: string | undefined;
  readonly #tables = new Map<string, Map<string, Set<string>>>();

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

  add({ plan, row, position }: HeldChange): void {
    if (position !== this.#position) this.#tables.clear();
    this.#position = position;
    let versions = this.#tables.get(plan.id);
    if (versions === undefined) this.#tables.set(plan.id, (versions = new Map()));
    const { version } = plan.table;
    const rows = versions.get(version);
    if (rows === undefined) versions.set(version, new Set(touchedRows(row)));
    else for (const digest of touchedRows(row)) rows.add(digest);
  }

  has({ plan, row, position }: HeldChange): boolean {
    const versions = this.#tables.get(plan.id);
    if (versions === undefined || position !== this.#position) return false;
    const same = versions.get(plan.table.version);
    if (same === undefined || versions.size > 1) return true;
    return touchedRows(row).some((digest) => same.has(digest));
  }

  releaseTable(table: string): void {
    this.#tables.delete(table);
  }
}

/** The rows that a change finds and leaves, each as a digest of all its values: rows may be large, and many. */
function touchedRows(row: RowChange): string[] {
  const images = [row[4], row[2] === null ? undefined : filledImage(row)];
  return images.flatMap((image) =>
    image === undefined ? [] : [createHash('sha256').update(JSON.stringify(image)).digest('base64url')],
  );
}
