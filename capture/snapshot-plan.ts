/** What a capture has to read when it starts. */
import { newSnapshotId, type ProgressStore } from './snapshot-request.ts';

interface TableName {
  readonly schema: string;
  readonly name: string;
}

/**
 * Adds to the stored progress what has to be read: everything at first or after a reset, tables that are new later, and
 * from the beginning those of `again`. `read` false: the configuration wants no first load, and new tables count as read.
 */
export async function planSnapshot(
  store: ProgressStore,
  tables: readonly TableName[],
  how: { readonly startAfresh: boolean; readonly read: boolean; readonly again?: readonly TableName[] },
): Promise<void> {
  const before = await store.read();
  const stored = how.startAfresh ? undefined : before;
  const anew = new Set(how.again?.map(nameOf));
  const kept = stored?.tables.filter((table) => !anew.has(nameOf(table))) ?? [];
  const known = new Set(kept.map(nameOf));
  const added = tables.filter((table) => !known.has(nameOf(table)));
  if (stored !== undefined && added.length === 0) return;
  const state = how.read ? 'pending' : 'done';
  await store.write({
    v: 1,
    id: stored?.id ?? newSnapshotId(),
    tables: [...kept, ...added.map(({ schema, name }) => ({ schema, name, state, cursor: null, rows: 0 }) as const)],
  });
}

function nameOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}
