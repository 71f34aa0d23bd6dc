/** The rows of a chunk as they are read: with their keys, and no more of them at once than memory is meant for. */
import type { ColumnRules } from '../../core/column-rules.ts';
import type { TableSchema } from '../../core/frame.ts';
import type { KeyTexts } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import type { TextRow } from './connection.ts';
import { guarded, publishRead } from './published-table.ts';

/** What is kept of a chunk before it is published in part: more than a chunk has whose rows are as long as those before. */
const PIECE_BYTES = 8 << 20;

export interface ChunkRow {
  readonly json: Buffer;
  /** As the source has it: the place in the table. */
  readonly key: readonly string[];
  /** As frames carry it. */
  readonly published: readonly string[];
}

export class ChunkRows {
  readonly #rowOf: (row: TextRow) => ChunkRow;
  readonly #mostRows: number;
  #rows: ChunkRow[] = [];
  #kept = 0;
  /** Rows that were read, also those that were taken away, and their bytes as JSON. */
  count = 0;
  bytes = 0;
  last: ChunkRow | undefined;

  /** `mostRows`: so many are kept at most before they must be taken. */
  constructor(table: CapturedTable, rules: ColumnRules, mostRows: number) {
    this.#rowOf = rowReader(table, rules);
    this.#mostRows = mostRows;
  }

  /** Adds a row. True when so much is kept that it must be taken before more comes. */
  add(row: TextRow): boolean {
    const made = this.#rowOf(row);
    this.#rows.push(made);
    this.last = made;
    this.count += 1;
    this.bytes += made.json.length;
    this.#kept += made.json.length;
    return this.#kept >= PIECE_BYTES || this.#rows.length >= this.#mostRows;
  }

  /** Gives what is kept, and keeps it no longer. */
  take(): readonly ChunkRow[] {
    const taken = this.#rows;
    this.#rows = [];
    this.#kept = 0;
    return taken;
  }
}

function rowReader(table: CapturedTable, rules: ColumnRules): (row: TextRow) => ChunkRow {
  const { guards, excluded } = publishRead(table, rules);
  const omitted = table.schema.columns.map(({ name }) => excluded.has(name));
  const keyIndexes = table.schema.key.map((key) => table.schema.columns.findIndex(({ name }) => name === key));
  const keyOf = (row: TextRow): string[] => keyIndexes.map((index) => row[index] ?? '');
  return (row) => {
    if (guards === undefined) {
      const key = keyOf(row);
      return { json: Buffer.from(JSON.stringify(row)), key, published: key };
    }
    const values = row.map((text, i) => (text === null || guards[i] === undefined ? text : guarded(guards[i], text)));
    const json = Buffer.from(JSON.stringify(values.filter((_, i) => !omitted[i]!)));
    return { json, key: keyOf(row), published: keyOf(values) };
  };
}

/** A row of which only the key is known, as frames carry it. */
export function keyImage(schema: TableSchema, key: KeyTexts): Buffer {
  const image: (string | null)[] = schema.columns.map(() => null);
  for (const [i, name] of schema.key.entries()) image[schema.columns.findIndex((c) => c.name === name)] = key[i]!;
  return Buffer.from(JSON.stringify(image));
}
