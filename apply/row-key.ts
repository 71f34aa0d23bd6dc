/** Keys of rows: which columns tell rows apart, and the text that stands for a key. */
import { createHash } from 'node:crypto';
import { ReplicationError } from '../core/errors.ts';
import type { RowChange, TableSchema, Value } from '../core/frame.ts';

/** What it takes to tell the key of a row. */
export interface KeyShape {
  /** `schema.name` of the source table: one for all its versions. */
  readonly id: string;
  /** Names of the columns, quoted as the store writes them. */
  readonly names: readonly string[];
  /** Positions of the key columns, in key order; empty where only the whole row tells rows apart. */
  readonly key: readonly number[];
}

/** The key shape of a table of a frame. Throws `frame_unreadable` when a key column is not among its columns. */
export function keyShape(table: TableSchema): KeyShape {
  const id = `${table.schema}.${table.name}`;
  const key = table.key.map((name) => {
    const index = table.columns.findIndex((column) => column.name === name);
    if (index < 0) throw new ReplicationError('frame_unreadable', `table ${id} has no key column ${name}`);
    return index;
  });
  return { id, names: table.columns.map((column) => column.name), key };
}

/** The key of a row as one text: its values, joined by NUL where no value holds one. */
export function keyText(plan: KeyShape, image: readonly Value[], fallback?: readonly Value[]): string {
  const { key } = plan;
  if (key.length === 1) return keyValue(plan, key[0]!, image, fallback);
  let text = '';
  for (let i = 0; i < key.length; i++) {
    const value = keyValue(plan, key[i]!, image, fallback);
    // Texts of MySQL may. As JSON they hold none any more, so that no joined ones are the same.
    if (value.includes('\0')) return JSON.stringify(key.map((index) => keyValue(plan, index, image, fallback)));
    text += i === 0 ? value : `\0${value}`;
  }
  return text;
}

/** One column of the key, from `image` or, where that leaves it unchanged, from `fallback`. */
export function keyValue(plan: KeyShape, index: number, image: readonly Value[], fallback?: readonly Value[]): string {
  let value = image[index];
  if (typeof value !== 'string') value = fallback?.[index];
  if (typeof value === 'string') return value;
  throw new ReplicationError(
    'frame_unreadable',
    `a row of ${plan.id} has no value for key column ${plan.names[index]}`,
  );
}

/** The key that a change had before it, when it is an update that gives another one. */
export function changedKey(plan: KeyShape, row: RowChange): string | undefined {
  const before = row[4];
  const after = row[2];
  if (row[0] !== 'u' || before === undefined || after === null) return undefined;
  for (const index of plan.key) {
    const value = after[index];
    if (value !== 0 && value !== before[index]) return keyText(plan, before);
  }
  return undefined;
}

/** The keys that a change touches: one, or two for an update that changes the key; none in a table without a key. */
export function touchedKeys(plan: KeyShape, row: RowChange): string[] {
  if (plan.key.length === 0) return [];
  const [op, , after, , before] = row;
  if (op === 'd') return [keyText(plan, before!)];
  if (after === null) return [];
  const now = keyText(plan, after, before);
  const earlier = changedKey(plan, row);
  return earlier === undefined ? [now] : [earlier, now];
}

/** An update's image with unchanged columns taken from the whole old row, where the source gave that. */
export function filledImage(row: RowChange): readonly Value[] {
  const after = row[2]!;
  const before = row[3] === 'f' ? row[4] : undefined;
  if (before === undefined || !after.includes(0)) return after;
  return after.map((value, index) => (value === 0 ? before[index]! : value));
}

/**
 * The rows that a change finds and leaves, each as a digest of all its values: what stands for a key in a table that has
 * none. Rows may be large, and many.
 */
export function touchedRows(row: RowChange): string[] {
  const images = [row[4], row[2] === null ? undefined : filledImage(row)];
  return images.flatMap((image) =>
    image === undefined ? [] : [createHash('sha256').update(JSON.stringify(image)).digest('base64url')],
  );
}

/** Whether an image leaves a column unchanged that is written. */
export function isPartial(plan: { readonly written: readonly number[] }, image: readonly Value[]): boolean {
  for (const index of plan.written) if (image[index] === 0) return true;
  return false;
}
