/** Tries rows one by one, each under a savepoint of its own, in passes while that helps. */
import type { FlowConfig } from '../core/config.ts';
import type { BatchStore, Left, StoreTransaction } from './batch-store.ts';
import type { SourceRow } from './compact.ts';
import { HeldKeys } from './held-keys.ts';
import { HELD, type RowFailure } from './quarantine-entry.ts';
import type { PlanShape } from './table-changes.ts';

export interface ReplayContext<P extends PlanShape, T extends StoreTransaction> {
  readonly store: BatchStore<P, T>;
  readonly settings: FlowConfig;
  /** The keys in quarantine. */
  readonly held: () => HeldKeys;
  /** Loads them again. */
  readonly reload: () => Promise<void>;
  /** A change went to the quarantine. */
  readonly quarantined: (item: SourceRow<P>) => void;
}

/** Tries rows of one source transaction in their order, and again behind the others while that helps. Gives what is left. */
export async function replayPasses<P extends PlanShape, T extends StoreTransaction>(
  store: BatchStore<P, T>,
  held: HeldKeys,
  rows: readonly SourceRow<P>[],
  refused?: ReadonlyMap<SourceRow<P>, RowFailure>,
): Promise<Left<P>[]> {
  let pending: readonly SourceRow<P>[] = rows;
  for (;;) {
    const left: Left<P>[] = [];
    const waiting = new HeldKeys();
    for (const item of pending) {
      const behind = held.holds(item) || waiting.holds(item);
      const failure = behind ? HELD : (refused?.get(item) ?? (await store.tryRow(item)));
      if (failure === undefined) continue;
      waiting.hold(item);
      left.push({ item, failure });
    }
    if (left.length === 0 || left.length === pending.length) return left;
    pending = left.map(({ item }) => item);
  }
}
