/** The rows of one key of an index, of which there are several. */
import type { StoredRow } from './table-store.ts';

/** A heap is let go that has more rows than so many times those that are there, and this many. */
const MOST_STALE = 2;
const LEAST_HEAP = 16;

export class SharedKeyRows {
  readonly #rows: Set<StoredRow>;
  /** By primary key, the smallest first; with rows that are gone. Made when somebody asks for the smallest. */
  #heap: StoredRow[] | undefined;

  constructor(first: StoredRow, second: StoredRow) {
    this.#rows = new Set([first, second]);
  }

  /** All of them, in the order of their arrival. */
  get all(): ReadonlySet<StoredRow> {
    return this.#rows;
  }

  add(row: StoredRow): void {
    this.#rows.add(row);
    if (this.#heap !== undefined) push(this.#heap, row);
    this.#letGoStale();
  }

  delete(row: StoredRow): void {
    this.#rows.delete(row);
    this.#letGoStale();
  }

  #letGoStale(): void {
    if (this.#heap !== undefined && this.#heap.length > MOST_STALE * this.#rows.size + LEAST_HEAP)
      this.#heap = undefined;
  }

  /** The row with the smallest primary key, whatever the order of arrival. */
  get least(): StoredRow | undefined {
    // In order it is a heap.
    this.#heap ??= [...this.#rows].sort((a, b) => (a.key < b.key ? -1 : 1));
    while (this.#heap.length > 0 && !this.#rows.has(this.#heap[0]!)) pop(this.#heap);
    return this.#heap[0];
  }
}

function push(heap: StoredRow[], row: StoredRow): void {
  const { key } = row;
  let at = heap.length;
  while (at > 0) {
    const above = (at - 1) >> 1;
    const parent = heap[above]!;
    if (parent.key <= key) break;
    heap[at] = parent;
    at = above;
  }
  heap[at] = row;
}

/** Takes away the first. */
function pop(heap: StoredRow[]): void {
  const row = heap.pop()!;
  const { length } = heap;
  if (length === 0) return;
  const { key } = row;
  let at = 0;
  for (let below = 1; below < length; below = 2 * at + 1) {
    if (below + 1 < length && heap[below + 1]!.key < heap[below]!.key) below += 1;
    const child = heap[below]!;
    if (key <= child.key) break;
    heap[at] = child;
    at = below;
  }
  heap[at] = row;
}
