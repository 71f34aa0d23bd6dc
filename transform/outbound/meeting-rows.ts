/**
 * Which records of an outbound mapping meet in one row. Blocks that go to the same rows and share a column make one part of
 * them, of which one record can have a row; blocks that fill other columns of it do not get in each other's way.
 */
import type { OutboundBlock } from '../../core/outbound.ts';

/** A block as it was read, and what it says of the record's key. */
export interface ReadBlock {
  readonly block: Omit<OutboundBlock, 'wholeRow' | 'keyLacks' | 'rowLacks'>;
  /** Fields that the key of the row has as they are. */
  readonly told: ReadonlySet<string>;
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
      keyLacks: lacking(part, key),
      rowLacks: lacking(row, key),
    };
  });
}

/** Fields in which records that go to the same row may differ. */
function lacking(blocks: readonly ReadBlock[], key: readonly string[]): string[] {
  return key.filter((field) => {
    const untold = blocks.filter(({ told }) => !told.has(field));
    const values = untold.map(({ pinned }) => (pinned.has(field) ? pinned.get(field) : undefined));
    return values.includes(undefined) || new Set(values).size > 1;
  });
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
