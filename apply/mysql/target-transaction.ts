/** One target transaction: statements are gathered and sent together, so that a small batch costs few round trips. */
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { Move, StoreTransaction } from '../batch-store.ts';
import { ValueMisfit } from '../value-misfit.ts';
import { runLarge } from './large-statement.ts';
import { loadPieces } from './load-data.ts';
import { advanceSql, moveRefused } from './position.ts';
import type { MysqlSession, Outcome } from './session.ts';

const FLUSH_CHARS = 256 * 1024;
/** Characters that are sent together at most are so small a part of max_allowed_packet: each takes up to four bytes. */
const PART_OF_PACKET = 16;

export class TargetTransaction implements StoreTransaction {
  readonly #session: MysqlSession;
  readonly #flushChars: number;
  #text = '';
  #givenUp = false;

  private constructor(session: MysqlSession) {
    this.#session = session;
    this.#flushChars = Math.min(FLUSH_CHARS, session.facts.maxPacketBytes / PART_OF_PACKET);
  }

  /** Begins with the position. Throws `target_fenced` or `target_conflict` when another one has moved it. Invariant 5. */
  static async begin(session: MysqlSession, move: Move): Promise<TargetTransaction> {
    const transaction = new TargetTransaction(session);
    await transaction.#advance('BEGIN; ', move);
    return transaction;
  }

  async #advance(head: string, move: Move): Promise<void> {
    const outcomes = await this.#session.run(`${head}${advanceSql(move)}`);
    if (outcomes.at(-1)?.rows === 1) return;
    await this.#session.run('ROLLBACK');
    throw await moveRefused(this.#session, move);
  }

  /** Moves the position once more, at the end of a transaction that came in several batches. */
  async advance(move: Move): Promise<void> {
    this.#refuseGivenUp();
    await this.flush();
    await this.#advance('', move);
  }

  add(sql: string): void {
    if (sql !== '' && !this.#givenUp) this.#text += this.#text === '' ? sql : `;\n${sql}`;
  }

  /** `add`, and sends what has gathered when that is much. */
  async addAndFlushIfLarge(sql: string): Promise<void> {
    this.add(sql);
    if (this.#text.length > this.#flushChars) await this.flush();
  }

  /** Sends what has gathered. Throws `ValueMisfit` when the server bent a value to make it fit. */
  async flush(): Promise<void> {
    const text = this.#text;
    this.#text = '';
    if (text === '') return;
    for (const { warnings } of await runLarge(this.#session, text)) if (warnings > 0) bent();
  }

  /** Sends what has gathered, then a statement whose warnings mean nothing. */
  async run(sql: string): Promise<void> {
    if (this.#givenUp) return;
    await this.flush();
    await this.#session.run(sql);
  }

  /** Loads lines. LOCAL turns errors into warnings: gives what became of the rows. */
  async load(sql: string, lines: Iterable<string | Buffer>): Promise<Outcome> {
    this.#refuseGivenUp();
    await this.flush();
    return await this.#session.load(sql, loadPieces(lines));
  }

  /** Forgets what has not been sent and returns to a savepoint. */
  async rollbackTo(savepoint: string): Promise<void> {
    this.#text = '';
    this.#refuseGivenUp();
    await this.#session.run(`ROLLBACK TO SAVEPOINT ${savepoint}`);
  }

  async commit(): Promise<void> {
    this.#refuseGivenUp();
    await this.flush();
    failpoint('apply.before-commit');
    await this.#session.run('COMMIT');
    failpoint('apply.committed');
  }

  async rollback(): Promise<void> {
    this.#text = '';
    await this.#session.run('ROLLBACK');
  }

  /**
   * Rolls back, for a table has to be changed. What is added from here on is dropped, so that the transaction can be read to
   * its end for what else it changes; there it is refused, and begins again.
   */
  async giveUp(): Promise<void> {
    await this.rollback();
    this.#givenUp = true;
  }

  /** Nothing of it is written any more. */
  get givenUp(): boolean {
    return this.#givenUp;
  }

  #refuseGivenUp(): void {
    if (this.#givenUp)
      throw new ReplicationError('target_conflict', 'a table had to be changed in the middle of a transaction');
  }
}

export function bent(): never {
  throw new ValueMisfit('the target would store a value in another form');
}
