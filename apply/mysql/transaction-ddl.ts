import { ReplicationError } from '../../core/errors.ts';
import type { MysqlSession } from './session.ts';
import type { RunDdl } from './target-table.ts';
import type { TargetTransaction } from './target-transaction.ts';

/**
 * Statements that commit implicitly. In the middle of a transaction they would publish half of it (Invariant 3): it is
 * rolled back first, and begins again once the table is as it must be.
 */
export class TransactionDdl {
  readonly #session: MysqlSession;
  readonly #open: TargetTransaction | undefined;
  #rolledBack = false;

  /** `open`: the transaction under way, if any. */
  constructor(session: MysqlSession, open: TargetTransaction | undefined) {
    this.#session = session;
    this.#open = open;
  }

  readonly run: RunDdl = async (sql) => {
    if (this.#open !== undefined && !this.#rolledBack) {
      this.#rolledBack = true;
      await this.#open.rollback();
    }
    await this.#session.run(sql);
  };

  /** Whether the open transaction was given up. */
  get done(): boolean {
    return this.#rolledBack;
  }

  /** Throws `target_conflict` when the open transaction was given up. */
  check(): void {
    if (this.#rolledBack)
      throw new ReplicationError('target_conflict', 'a table had to be changed in the middle of a transaction');
  }
}
