import type { MysqlSession } from './session.ts';
import type { RunDdl } from './target-table.ts';
import type { TargetTransaction } from './target-transaction.ts';

/**
 * Statements that commit implicitly. In the middle of a transaction they would publish half of it (Invariant 3): it is
 * given up first, and begins again once its tables are as they must be.
 */
export class TransactionDdl {
  readonly #session: MysqlSession;
  readonly #open: TargetTransaction | undefined;
  #done = false;

  /** `open`: the transaction under way, if any. */
  constructor(session: MysqlSession, open: TargetTransaction | undefined) {
    this.#session = session;
    this.#open = open;
  }

  readonly run: RunDdl = async (sql) => {
    if (this.#open !== undefined) {
      this.#done = true;
      if (!this.#open.givenUp) await this.#open.giveUp();
    }
    await this.#session.run(sql);
  };

  /** Whether the open transaction was given up for one of these, or before it. */
  get done(): boolean {
    return this.#done;
  }
}
