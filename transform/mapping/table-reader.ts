/** Rows of frames as the values a mapping keeps: compiled once for each version of a source table. */
import type { TableSchema, Value } from '../../core/frame.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { TablePlan } from './block-plan.ts';
import type { Cell } from './cell.ts';
import { joinedKey, keyParts } from './key-texts.ts';
import { kindOfColumn } from '../../core/value-kind.ts';
import { columnReader, isText, unknownUnchanged, type ColumnReader } from './column-kind.ts';
import { checkTable } from './check.ts';
import type { Mapping } from './mapping-file.ts';
import { mappingError } from './yaml-file.ts';

export interface TableReader {
  readonly table: TableSchema;
  readonly plan: TablePlan;
  /** `schema.name`, for lineage. */
  readonly name: string;
  /** Position of each slot's column; -1 where an optional one is not there. */
  readonly columns: readonly number[];
  /** The row's primary key as one text. */
  readonly keyOf: (image: readonly Value[], fallback?: readonly Value[]) => string;
  /** The primary key as JSON, for lineage. */
  readonly keyJson: (key: string) => string;
  /**
   * The values kept of a row; what it leaves unchanged is taken from `before`. They stand in an array that the next call
   * fills again: whoever keeps them copies them.
   */
  readonly read: (
    image: readonly Value[],
    before: readonly Cell[] | undefined,
    old?: readonly Value[],
  ) => readonly Cell[];
  /** A row as JSON by column, without what the source did not send. */
  readonly json: (image: readonly Value[]) => string;
  /** A value of a slot's column. */
  readonly cellOf: (slot: number, text: string) => Cell;
}

/**
 * The reader of a table for a plan. Throws `mapping_invalid` when the table lacks a column that the mapping needs or has
 * one of a type that it cannot use: invariant 7, such rows are not passed over.
 */
export function createTableReader(mapping: Mapping, plan: TablePlan, table: TableSchema): TableReader {
  const problems = checkTable(mapping, plan, table);
  if (problems.length > 0) throw mappingError(mapping, problems);
  const index = new Map(table.columns.map((column, position) => [column.name, position]));
  const keys = table.key.map((name) => index.get(name)!);
  const columns: number[] = [];
  const readers: ColumnReader[] = [];
  for (const slot of plan.slots) {
    const position = index.get(slot.columns.find((column) => index.has(column)) ?? '') ?? -1;
    columns.push(position);
    const column = table.columns[position];
    const kind = column === undefined ? 'text' : kindOfColumn(column);
    readers.push(columnReader(kind, slot.raw, { zone: mapping.zone, zeroDates: mapping.zeroDates }));
  }
  const cells: Cell[] = columns.map(() => null);
  const name = `${table.schema}.${table.name}`;
  const keyHead = `{${JSON.stringify(table.key[0] ?? '')}:`;
  const keyValue = (position: number, image: readonly Value[], fallback?: readonly Value[]): string => {
    const value = isText(image[position]) ? image[position] : fallback?.[position];
    if (isText(value)) return value;
    throw new ReplicationError('frame_unreadable', `a row of ${name} has no value for a column of its key`);
  };
  const heads = table.columns.map((column) => `${JSON.stringify(column.name)}:`);
  return {
    table,
    plan,
    name,
    columns,
    json(image) {
      const parts: string[] = [];
      for (let i = 0; i < heads.length; i++) {
        const value = image[i];
        if (value === 0 || value === undefined) continue;
        parts.push(isText(value) && isPlain(value) ? `${heads[i]!}"${value}"` : heads[i]! + JSON.stringify(value));
      }
      // One text that names no others: it is kept for as long as the row is held.
      return `{${parts.join(',')}}`;
    },
    cellOf: (slot, text) => readers[slot]!(text),
    keyOf(image, fallback) {
      if (keys.length === 1) return keyValue(keys[0]!, image, fallback);
      return joinedKey(keys.map((position) => keyValue(position, image, fallback)));
    },
    keyJson(key) {
      if (keys.length === 1) return `${keyHead}${isPlain(key) ? `"${key}"` : JSON.stringify(key)}}`;
      const parts = keyParts(key);
      return JSON.stringify(Object.fromEntries(table.key.map((column, position) => [column, parts[position]!])));
    },
    read(image, before, old) {
      for (let i = 0; i < columns.length; i++) {
        const column = columns[i]!;
        let value = column < 0 ? null : image[column];
        if (value === 0 && old !== undefined) value = old[column];
        if (isText(value)) {
          const cell = readers[i]!(value);
          // Of equal texts the one that is kept already stays, and the new one is gone at once.
          const kept = before?.[i];
          cells[i] = kept !== undefined && cell === kept ? kept : cell;
        } else cells[i] = value === null ? null : (before?.[i] ?? unknownUnchanged());
      }
      return cells;
    },
  };
}

/** Whether a text stands in JSON as it is: letters, digits and the like. */
function isPlain(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x23 || code > 0x7e || code === 0x5c) return false;
  }
  return true;
}
