/** What a capture has to read when it starts. */
import { newSnapshotId, type ProgressStore } from './snapshot-request.ts';

/**
 * Adds to the stored progress what has to be read: everything at first or after a reset, tables that are new later.
 * `read` false: the configuration wants no first load, and new tables count as read.
 */
export async function planSnapshot(
  store: ProgressStore,
  tables: readonly { readonly schema: string; readonly name: string }[],
  how: { readonly startAfresh: boolean; readonly read: boolean },
): Promise<void> {
  const before = await store.read();
  const stored = how.startAfresh ? undefined : before;
  const known = new Set(stored?.tables.map(({ schema, name }) => `${schema}.${name}`));
  const added = tables.filter(({ schema, name }) => !known.has(`${schema}.${name}`));
  if (stored !== undefined && added.length === 0) return;
  const state = how.read ? 'pending' : 'done';
  await store.write({
    v: 1,
    id: stored?.id ?? newSnapshotId(),
    tables: [
      ...(stored?.tables ?? []),
      ...added.map(({ schema, name }) => ({ schema, name, state, cursor: null, rows: 0 }) as const),
    ],
  });
}
