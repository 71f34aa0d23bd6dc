/** The ids of transactions whose commits the log has told of: a chunk may have been read before others saw one of them. */
import type { Transactions } from '../../core/pg-snapshot.ts';

export class PassedTransactions {
  #ids: Set<number> | undefined;

  /** Those that are remembered. */
  get ids(): Iterable<number> {
    return this.#ids ?? [];
  }

  /** Starts or stops to remember them: chunks alone need them. */
  track(on: boolean): void {
    this.#ids = on ? (this.#ids ?? new Set()) : undefined;
  }

  add(xid: number): void {
    this.#ids?.add(xid);
  }

  /**
   * Forgets what a chunk has seen of which the high watermark has passed: every chunk sees that of which the low watermark is
   * still to come. However long another transaction is open, few are left (Invariant 6).
   */
  forgetAllBut(unseen: Transactions): void {
    for (const xid of this.ids) if (!unseen.has(xid)) this.#ids!.delete(xid);
  }
}
