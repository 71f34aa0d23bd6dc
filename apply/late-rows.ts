/**
 * Rows that were refused in one part of a source transaction, tried again at its end: what a row needs may come in a later
 * part. Until then they are kept where they stay if that does not help, in the quarantine, which nobody sees before the
 * target transaction is committed; so they take no memory, and a transaction that is written again begins without them.
 */
import type { BatchStore, QuarantinedRow, StoreTransaction } from './batch-store.ts';
import type { HeldKeys } from './held-keys.ts';
import type { RowFailure } from './quarantine-entry.ts';
import { replayPasses, type ReplayContext } from './row-passes.ts';
import type { PlanShape } from './table-changes.ts';

/**
 * Tries the changes of the transaction at `position` that are in quarantine; those that go in now leave it. What waited
 * before the transaction, and changes behind that, are not touched.
 */
export async function retryRefused<P extends PlanShape, T extends StoreTransaction>(
  context: ReplayContext<P, T>,
  transaction: T,
  position: string,
): Promise<void> {
  const { store } = context;
  await transaction.flush();
  const others = await store.heldKeys(position);
  for (;;) {
    const held = others.copy();
    let pages = 0;
    let applied = 0;
    for await (const page of store.quarantinedAt(position)) {
      pages += 1;
      applied += await retryPage(store, transaction, held, page);
    }
    // A page has been gone over until nothing in it helped any more; another one may have helped since.
    if (applied === 0 || pages < 2) break;
  }
  await context.reload();
}

/** Gives how many of the page went in. The keys of the others are held from then on. */
async function retryPage<P extends PlanShape, T extends StoreTransaction>(
  store: BatchStore<P, T>,
  transaction: T,
  held: HeldKeys,
  page: readonly QuarantinedRow<P>[],
): Promise<number> {
  const items = page.map(({ item }) => item);
  const left = await store.settleTransaction(items, (refused) => replayPasses(store, held, items, refused));
  const failures = new Map(left.map(({ item, failure }) => [item, failure]));
  const applied: string[] = [];
  for (const { id, item, failure: before } of page) {
    const failure = failures.get(item);
    if (failure === undefined) applied.push(id);
    else {
      if (!isSame(failure, before)) transaction.add(store.failureSql(id, failure));
      held.hold(item);
    }
  }
  if (applied.length > 0) for (const sql of store.releaseSql(applied)) transaction.add(sql);
  await transaction.flush();
  return applied.length;
}

function isSame(one: RowFailure, other: RowFailure): boolean {
  return one.reason === other.reason && one.sqlState === other.sqlState && one.message === other.message;
}
