/** The tables that wait to be read, in the order in which they are: small ones first, so that most are soon complete. */
import type { TableProgress } from '../snapshot-request.ts';

/** What is known of how large a table is, or what is to be read of it. */
export interface TableSize {
  /** Bytes; left out where a range of it is to be read, of which nobody knows them. */
  readonly bytes?: number;
  /** Rows there are about. */
  readonly rows: number;
}

/** Of a row of which nothing is known. */
const ROW_BYTES = 100;

export class TableQueue {
  readonly #sizes = new Map<TableProgress, TableSize>();
  #waiting: TableProgress[] = [];

  /** Adds tables that are to be read. Those of which nothing is known count as small: single rows, and what is gone. */
  add(tables: readonly TableProgress[], sizes: ReadonlyMap<TableProgress, TableSize>): void {
    for (const table of tables) this.#sizes.set(table, sizes.get(table) ?? { rows: 0 });
    this.#insert(tables);
  }

  /** Takes back one that is to be read from the beginning. */
  addAgain(table: TableProgress): void {
    this.#insert([table]);
  }

  /** Notes how large tables are that are not to wait. */
  know(sizes: ReadonlyMap<TableProgress, TableSize>): void {
    for (const [table, size] of sizes) this.#sizes.set(table, size);
  }

  /** Those that wait. */
  get waiting(): readonly TableProgress[] {
    return this.#waiting;
  }

  /** Lets go of those that nobody wants any more. */
  keep(isWanted: (table: TableProgress) => boolean): void {
    this.#waiting = this.#waiting.filter(isWanted);
  }

  #insert(tables: readonly TableProgress[]): void {
    this.#waiting = [...this.#waiting, ...tables].sort((a, b) => this.sizeOf(a) - this.sizeOf(b));
  }

  /** Bytes of a table; undefined where nobody knows them. */
  bytesOf(table: TableProgress): number | undefined {
    return this.#sizes.get(table)?.bytes;
  }

  /** About so many bytes it takes. */
  sizeOf(table: TableProgress): number {
    const { bytes, rows } = this.#sizes.get(table) ?? { rows: 0 };
    return bytes ?? rows * ROW_BYTES;
  }

  /** Takes the next one; where a size is given, only a smaller one. */
  take(smallerThan = Infinity): TableProgress | undefined {
    const [next] = this.#waiting;
    if (next === undefined || this.sizeOf(next) >= smallerThan) return undefined;
    return this.#waiting.shift();
  }

  /** Takes tables that are read whole and fit together into so many bytes, none of which takes more than half of these. */
  takeSmall(mostTables: number, mostBytes: number): TableProgress[] {
    const taken: TableProgress[] = [];
    let bytes = 0;
    for (const table of this.#waiting) {
      const own = this.bytesOf(table);
      if (taken.length === mostTables || this.sizeOf(table) > mostBytes / 2) break;
      if (own === undefined || bytes + own > mostBytes || !isWhole(table)) continue;
      bytes += own;
      taken.push(table);
    }
    this.#waiting = this.#waiting.filter((table) => !taken.includes(table));
    return taken;
  }
}

function isWhole({ state, span, part, keys }: TableProgress): boolean {
  return state === 'pending' && (span ?? part ?? keys) === undefined;
}
