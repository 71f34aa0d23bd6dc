/**
 * Which records of an outbound mapping meet in one row. Blocks that go to the same rows and share a column make one part of
 * them, of which one record can have a row; blocks that fill other columns of it do not get in each other's way.
 */
import type { OutboundBlock } from '../../core/outbound.ts';

/** A block as it was read, and what it says of the record's key. */
export interface ReadBlock {
  readonly block: Omit<OutboundBlock, 'wholeRow' | 'keyLacks' | 'rowLacks'>;
  /** By places of the row's key: the field of the record that it has there as it is, or the value that it has for every record. */
  readonly key: ReadonlyMap<string, { readonly field: string } | { readonly constant: string | null }>;
  /** Fields of which `where` lets one value pass, and that value. */
  readonly pinned: ReadonlyMap<string, string | null>;
}

/** The blocks with what is to be known of their rows. `key` names the fields of the record's key. */
export function withMeetings(read: readonly ReadBlock[], key: readonly string[]): OutboundBlock[] {
  const parts = new Map<ReadBlock, ReadBlock[]>();
  for (const one of read) {
    const joined = [...new Set(parts.values())].filter((part) => part.some((other) => isSamePart(one, other)));
    const part = [...joined.flat(), one];
    for (const each of part) parts.set(each, part);
  }
  return read.map((one) => {
    const part = parts.get(one)!;
    const row = read.filter((other) => isSameRow(one, other));
    return {
      ...one.block,
      wholeRow: part.length === row.length,
      keyLacks: lacking(one, part, key),
      rowLacks: lacking(one, row, key),
    };
  });
}

/** Fields in which a record of a block may differ from one that goes to the same row by it or another block. */
function lacking(one: ReadBlock, others: readonly ReadBlock[], key: readonly string[]): string[] {
  return key.filter((field) => others.some((other) => !tells(one, other, field)));
}

/** Whether records of two blocks differ in their rows where they differ in a field, as both have it at the same place of the key. */
function tells(a: ReadBlock, b: ReadBlock, field: string): boolean {
  const isOne = a.pinned.has(field) && b.pinned.has(field) && a.pinned.get(field) === b.pinned.get(field);
  return isOne || [...a.key.keys()].some((place) => has(a, place, field) && has(b, place, field));
}

function has({ key, pinned }: ReadBlock, place: string, field: string): boolean {
  const there = key.get(place);
  if (there === undefined) return false;
  return 'field' in there ? there.field === field : pinned.has(field) && pinned.get(field) === there.constant;
}

function isSamePart(a: ReadBlock, b: ReadBlock): boolean {
  if (!isSameRow(a, b)) return false;
  const [columns, others] = [namesOf(a, 'set'), namesOf(b, 'set')];
  return columns.length === 0 ? others.length === 0 : columns.some((name) => others.includes(name));
}

function isSameRow(a: ReadBlock, b: ReadBlock): boolean {
  const [keys, others] = [namesOf(a, 'key').toSorted(), namesOf(b, 'key').toSorted()];
  return a.block.write.table === b.block.write.table && keys.join('\n') === others.join('\n');
}

function namesOf({ block: { write } }: ReadBlock, role: 'key' | 'set'): string[] {
  return write.columns.filter((column) => column.role === role).map(({ name }) => name);
}
