/** What becomes of the rows that are kept of a table where a new version of it begins: no event tells of them. */
import type { ColumnSchema, TableSchema, Value } from '../../core/frame.ts';
import type { Cell } from './cell.ts';
import { joinedKey } from './key-texts.ts';
import type { TableReader } from './table-reader.ts';

/**
 * Values that all rows have from here on, by slot: where a column is new, what it had in rows that were there, and null where
 * it is gone. A column that was there before says nothing by that: what it has is not kept.
 */
export function filledSlots(before: TableReader, after: TableReader): Map<number, Cell> {
  const filled = new Map<number, Cell>();
  for (const slot of after.columns.keys()) {
    const old = columnOf(before, slot);
    const now = columnOf(after, slot);
    if (now === undefined) {
      if (old !== undefined) filled.set(slot, null);
      continue;
    }
    if (old !== undefined && isSame(old, now)) continue;
    // Where columns have no numbers, one that was renamed looks like another; the table is read again.
    const numbered = now.id !== undefined;
    if ((old !== undefined && !numbered) || before.table.columns.some((column) => isSame(column, now))) continue;
    filled.set(slot, now.existing === undefined ? null : after.cellOf(slot, now.existing));
  }
  return filled;
}

/**
 * How a row of the new version was called before, by its image; undefined where the key is the same. The images of rows
 * that have gone do not tell it: when the key changes a capture reads the table again.
 */
export function formerKey(
  before: TableReader,
  after: TableReader,
): ((image: readonly Value[]) => string | undefined) | undefined {
  const there = after.table.columns;
  const old = before.table.key.map((name) => there.findIndex((column) => isSame(column, named(before.table, name))));
  const now = after.table.key.map((name) => there.findIndex((column) => column.name === name));
  if (old.join() === now.join() || old.includes(-1)) return undefined;
  return (image) => {
    const texts = old.map((position) => image[position]);
    if (!texts.every((text) => typeof text === 'string')) return undefined;
    return texts.length === 1 ? texts[0] : joinedKey(texts);
  };
}

function columnOf({ table, columns }: TableReader, slot: number): ColumnSchema | undefined {
  return table.columns[columns[slot]!];
}

function named({ columns }: TableSchema, name: string): ColumnSchema {
  return columns.find((column) => column.name === name)!;
}

function isSame(a: ColumnSchema, b: ColumnSchema): boolean {
  return a.id !== undefined && b.id !== undefined ? a.id === b.id : a.name === b.name;
}
