/** How two versions of a table differ, and what that means for the rows that are there. docs/schema-changes.md. */
import type { CapturedTable } from './catalog.ts';
import { qualifiedName } from './publication.ts';

export function differs(a: CapturedTable | undefined, b: CapturedTable): boolean {
  return a === undefined || markId(a) !== markId(b);
}

/** Whether the columns of two versions are the same, whatever they are called. */
export function hasSameIds({ schema: a }: CapturedTable, { schema: b }: CapturedTable): boolean {
  return a.columns.map(({ id }) => id).join() === b.columns.map(({ id }) => id).join();
}

export function isRenamed(before: CapturedTable | undefined, after: CapturedTable): boolean {
  return before !== undefined && nameOf(before) !== nameOf(after);
}

export function nameOf({ schema }: CapturedTable): string {
  return qualifiedName(schema);
}

export function markId({ schema, parts, former }: CapturedTable): string {
  return `${schema.version} ${former === undefined ? '' : qualifiedName(former)} ${parts.map((part) => `${part.oid}/${part.file}`).join()}`;
}

/** Why targets have other rows than the new version has; undefined when they have not. What `unloggedReason` tells comes to that. */
export function rereadReason(before: CapturedTable, after: CapturedTable, lastKey?: string): string | undefined {
  if (isRenamed(before, after)) return 'it has another name';
  if (hasOtherKey(before, after, lastKey)) return 'it has another key';
  if (after.keyIndexes.length === 0 && newParts(before, after).length > 0) return 'it has new partitions';
  const now = new Map(after.parts.map((part) => [part.oid, part.file]));
  if (before.parts.some((part) => now.get(part.oid) !== part.file))
    return 'partitions were detached, emptied or rewritten';
  return undefined;
}

/** Whoever keeps rows by their keys cannot find them any more. The key may have gone first, and another come later. */
function hasOtherKey(before: CapturedTable, after: CapturedTable, lastKey: string | undefined): boolean {
  const [old, now] = [keyIds(before) ?? lastKey, keyIds(after)];
  return old !== undefined && now !== undefined && old !== now;
}

/** The columns of a table's key, whatever they are called; undefined where it has none. */
export function keyIds({ schema: { key, columns } }: CapturedTable): string | undefined {
  if (key.length === 0) return undefined;
  return key.map((name) => columns.find((column) => column.name === name)?.id ?? name).join();
}

/** The partitions to be read by themselves. Without a key none can be: rows of it that are there already would come twice. */
export function addedParts(before: CapturedTable, after: CapturedTable): readonly { schema: string; name: string }[] {
  return after.keyIndexes.length === 0 ? [] : newParts(before, after);
}

function newParts(before: CapturedTable, after: CapturedTable): CapturedTable['parts'] {
  const known = new Set(before.parts.map((part) => part.oid));
  return after.parts.filter((part) => !known.has(part.oid));
}
