/** One target transaction: statements are gathered and sent together, so that a small batch costs one round trip. */
import type { ClientBase, QueryResult, QueryResultRow } from 'pg';
import { failpoint } from '../../core/failpoint.ts';
import type { StoreTransaction } from '../batch-store.ts';
import { copyIn } from './copy-in.ts';

const FLUSH_CHARS = 256 * 1024;

export class TargetTransaction implements StoreTransaction {
  readonly #client: ClientBase;
  #text = 'BEGIN';

  constructor(client: ClientBase) {
    this.#client = client;
  }

  add(sql: string): void {
    if (sql !== '') this.#text += `;\n${sql}`;
  }

  /** `add`, and sends what has gathered when that is much. */
  async addAndFlushIfLarge(sql: string): Promise<void> {
    this.add(sql);
    if (this.#text.length > FLUSH_CHARS) await this.flush();
  }

  async flush(): Promise<void> {
    const text = this.#text;
    this.#text = '';
    if (text !== '') await this.#client.query(text);
  }

  /** Sends what has gathered, then the statement; gives the number of rows that this one affected. */
  async run(sql: string): Promise<number> {
    await this.flush();
    return (await this.#client.query(sql)).rowCount ?? 0;
  }

  /** Sends what has gathered and the question behind it, in one round trip; gives the rows that answer it. */
  async ask<T extends QueryResultRow>(question: string): Promise<T[]> {
    this.add(question);
    const text = this.#text;
    this.#text = '';
    const results = (await this.#client.query(text)) as QueryResult<T> | QueryResult<T>[];
    return (Array.isArray(results) ? results.at(-1)! : results).rows;
  }

  /** Sends what has gathered, then the data of a COPY; gives the number of rows that the server took. */
  async copy(sql: string, pieces: Iterable<Buffer>): Promise<number> {
    await this.flush();
    return await copyIn(this.#client, sql, pieces);
  }

  /** Forgets what has not been sent and returns to a savepoint. */
  async rollbackTo(savepoint: string): Promise<void> {
    this.#text = '';
    await this.#client.query(`ROLLBACK TO SAVEPOINT ${savepoint}`);
  }

  async commit(): Promise<void> {
    failpoint('apply.before-commit');
    this.add('COMMIT');
    await this.flush();
    failpoint('apply.committed');
  }

  async rollback(): Promise<void> {
    this.#text = '';
    await this.#client.query('ROLLBACK');
  }
}
