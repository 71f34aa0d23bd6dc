/**
 * What changed in a table while a chunk of it was read: the chunk's rows with these keys are not published. Keys are
 * those that frames carry.
 */
import type { Image, RowReader } from './row-reader.ts';
import type { LoggedTable } from './catalog.ts';
import type { HeldRow } from './held-rows.ts';
import { guarded } from './published-table.ts';

export class ChunkWindow {
  readonly #schema: string;
  readonly #name: string;
  readonly #keys = new Set<string>();
  #touched = false;
  #truncated = false;

  constructor(schema: string, name: string) {
    this.#schema = schema;
    this.#name = name;
  }

  concerns(table: LoggedTable): boolean {
    return table.schema.name === this.#name && table.schema.schema === this.#schema;
  }

  /** Notes the keys of the reader's current row. */
  touch(table: LoggedTable, rows: RowReader): void {
    this.#touched = true;
    if (table.keyIndexes.length === 0) return;
    const images: readonly Image[] = rows.op === 'u' ? ['before', 'after'] : [rows.op === 'd' ? 'before' : 'after'];
    for (const image of images) {
      const key = rows.values(image, table.keyIndexes);
      this.#keys.add(keyText(table.guards === undefined ? key : key.map((text, i) => publishedKey(table, text, i))));
    }
  }

  /** The same for a row that was held. */
  touchHeld({ change, table }: HeldRow): void {
    this.#touched = true;
    const indexes = table.schema.key.map((key) => table.schema.columns.findIndex(({ name }) => name === key));
    if (indexes.length === 0) return;
    for (const image of [change[2], change[4]])
      if (image !== null && image !== undefined)
        this.#keys.add(keyText(indexes.map((index) => image[index] as string | null)));
  }

  truncate(): void {
    this.#touched = true;
    this.#truncated = true;
  }

  /** Whether anything of the table changed: what was read of a table without a key is then worth nothing. */
  get touched(): boolean {
    return this.#touched;
  }

  keeps(key: string): boolean {
    return !this.#truncated && !this.#keys.has(key);
  }
}

function publishedKey({ guards, keyIndexes }: LoggedTable, text: string | null | undefined, i: number): typeof text {
  const guard = guards![keyIndexes[i]!];
  return guard === undefined || text === null || text === undefined ? text : guarded(guard, text);
}

export function keyText(values: readonly (string | null | undefined)[]): string {
  return JSON.stringify(values);
}
