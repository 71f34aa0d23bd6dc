/**
 * What a mapping knows of a source table: for each row the columns it uses, kept from the stream itself, with indexes
 * for the joins in both directions. Nothing here asks the source. Invariant 6: the size is counted in bytes.
 */
import { Moment, type Dated } from '../moment.ts';
import type { Member } from './record-state.ts';
import { isFault, type Cell } from './cell.ts';
import { keyPart } from './key-texts.ts';
import { SharedKeyRows } from './shared-key-rows.ts';
import type { TableReader } from './table-reader.ts';

/** Rows by the values of some slots. Rows in which one of them is absent, or a constant does not match, are left out. */
export class RowIndex {
  readonly slots: readonly number[];
  readonly constants: readonly (readonly [slot: number, value: string])[];
  /** One row alone is held without anything around it: most keys are unique. */
  readonly #rows = new Map<string, StoredRow | SharedKeyRows>();

  constructor(slots: readonly number[], constants: readonly (readonly [slot: number, value: string])[]) {
    this.slots = slots;
    this.constants = constants;
  }

  /** The index key of a row's values, or undefined where it has none. */
  keyOf(values: readonly Cell[]): string | undefined {
    for (const [slot, value] of this.constants) if (values[slot] !== value) return undefined;
    const { slots } = this;
    if (slots.length === 1) {
      const only = values[slots[0]!]!;
      return typeof only === 'string' ? only : undefined;
    }
    let key = '';
    for (const slot of slots) {
      const value = values[slot]!;
      if (typeof value !== 'string') return undefined;
      key += `${keyPart(value)}\0`;
    }
    return key;
  }

  add(row: StoredRow): void {
    const key = this.keyOf(row.values);
    if (key === undefined) return;
    const there = this.#rows.get(key);
    if (there === undefined) this.#rows.set(key, row);
    else if (there instanceof SharedKeyRows) there.add(row);
    else this.#rows.set(key, new SharedKeyRows(there, row));
  }

  remove(row: StoredRow): void {
    const key = this.keyOf(row.values);
    if (key === undefined) return;
    const there = this.#rows.get(key);
    if (there instanceof SharedKeyRows) {
      there.delete(row);
      if (there.all.size === 0) this.#rows.delete(key);
    } else if (there === row) this.#rows.delete(key);
  }

  /** All rows of a key. */
  rowsOf(key: string): Iterable<StoredRow> {
    const there = this.#rows.get(key);
    if (there === undefined) return [];
    return there instanceof SharedKeyRows ? there.all : [there];
  }

  /** The row of a key; of several the one with the smallest primary key, whatever their order of arrival. */
  rowOf(key: string): StoredRow | undefined {
    const there = this.#rows.get(key);
    return there instanceof SharedKeyRows ? there.least : there;
  }

  clear(): void {
    this.#rows.clear();
  }
}

/** Bytes of a row beside its texts: the object, its map entries, its arrays. */
const ROW_OVERHEAD_BYTES = 200;
const CELL_OVERHEAD_BYTES = 24;

export interface StoredRow extends Dated {
  readonly key: string;
  /** Changed in place: whoever keeps them copies them. */
  readonly values: Cell[];
  /** Its part in a record of each block that it is the row of, by the number that the table gave the block. */
  readonly parts: (Member | undefined)[];
  /** The primary key as JSON, as this reader has it; of none yet. */
  keyJson: string;
  keyReader: TableReader | undefined;
  /** It is not in the table any more. */
  gone: boolean;
}

export class TableStore {
  readonly rows = new Map<string, StoredRow>();
  /** For whoever saves the rows while they go on changing. */
  readonly moment = new Moment<StoredRow>((row) => ({ ...row, values: row.values.slice() }));
  readonly indexes: RowIndex[] = [];
  #bytes = 0;
  /** Copied, so that a row has room for as many parts as there are blocks, and no more. */
  #noParts: readonly (Member | undefined)[] = [];

  /** Gives a block that makes records of these rows its number among the `parts` of each; while there are no rows. */
  addBlock(): number {
    this.#noParts = [...this.#noParts, undefined];
    return this.#noParts.length - 1;
  }

  /** Estimated bytes held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** An index over these slots; one that is there already is shared. */
  index(slots: readonly number[], constants: readonly (readonly [slot: number, value: string])[] = []): RowIndex {
    const wanted = JSON.stringify([slots, constants]);
    const there = this.indexes.find((index) => JSON.stringify([index.slots, index.constants]) === wanted);
    if (there !== undefined) return there;
    const made = new RowIndex(slots, constants);
    for (const row of this.rows.values()) made.add(row);
    this.indexes.push(made);
    return made;
  }

  /** Adds a row that is not there. `values` is copied. */
  add(key: string, values: readonly Cell[]): StoredRow {
    const { now: moment } = this.moment;
    const row: StoredRow = {
      key,
      values: values.slice(),
      parts: this.#noParts.slice(),
      keyJson: '',
      keyReader: undefined,
      gone: false,
      moment,
    };
    this.rows.set(key, row);
    this.#bytes += ROW_OVERHEAD_BYTES + key.length;
    for (const value of values) this.#bytes += bytesOf(value);
    for (const index of this.indexes) index.add(row);
    return row;
  }

  /** Gives a row that is there other values. */
  update(row: StoredRow, values: readonly Cell[]): void {
    this.moment.changes(row.key, row);
    const { indexes } = this;
    const moved =
      indexes.length === 0 ? indexes : indexes.filter((index) => index.keyOf(row.values) !== index.keyOf(values));
    for (const index of moved) index.remove(row);
    const kept = row.values;
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      const old = kept[i]!;
      if (value === old) continue;
      this.#bytes += bytesOf(value) - bytesOf(old);
      kept[i] = value;
    }
    for (const index of moved) index.add(row);
  }

  remove(key: string): StoredRow | undefined {
    const row = this.rows.get(key);
    if (row === undefined) return undefined;
    this.moment.changes(key, row);
    for (const index of this.indexes) index.remove(row);
    this.rows.delete(key);
    row.gone = true;
    this.#bytes -= ROW_OVERHEAD_BYTES + key.length;
    for (const value of row.values) this.#bytes -= bytesOf(value);
    return row;
  }
}

function bytesOf(value: Cell): number {
  return CELL_OVERHEAD_BYTES + (value === null || isFault(value) ? 0 : value.length);
}
