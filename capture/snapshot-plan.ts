/** What a capture has to read when it starts. */
import { nameOf, unread, type TableName } from './requested-tables.ts';
import { newSnapshotId, type ProgressStore, type TableProgress } from './snapshot-request.ts';

/**
 * Adds to the stored progress what has to be read: everything at first or after a reset, tables that are new later, and
 * from the beginning those of `again`. `read` false: the configuration wants no first load, and new tables count as read.
 * `resets`: the requests that this answers.
 */
export async function planSnapshot(
  store: ProgressStore,
  tables: readonly TableName[],
  how: {
    readonly startAfresh: boolean;
    readonly read: boolean;
    readonly again?: readonly TableName[];
    readonly resets: readonly string[];
  },
): Promise<void> {
  const before = await store.read();
  const stored = how.startAfresh ? undefined : before;
  const anew = new Set(how.again?.map(nameOf));
  const kept = stored?.tables.filter((table) => !anew.has(nameOf(table))) ?? [];
  const known = new Set(kept.map(nameOf));
  const added = tables.filter((table) => !known.has(nameOf(table)));
  if (stored !== undefined && added.length === 0) return;
  const state = how.read ? 'pending' : 'done';
  const [request, ...also] = how.resets.toReversed();
  const asked = { ...(request === undefined ? {} : { request }), ...(also.length === 0 ? {} : { also }) };
  const why = (table: TableName): Pick<TableProgress, 'first' | 'needed'> =>
    anew.has(nameOf(table)) ? { needed: true } : { first: true };
  await store.write({
    v: 1,
    id: stored?.id ?? request ?? newSnapshotId(),
    tables: [...kept, ...added.map((table) => ({ ...unread(table), state, ...asked, ...why(table) }) as const)],
  });
}
