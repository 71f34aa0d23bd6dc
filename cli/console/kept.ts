/**
 * A connection that is opened when it is first needed, kept while it is used, and opened again after it failed. Those who
 * use it wait for one another, and for each of them no longer than ten seconds.
 */
import { asReplicationError, ReplicationError, type ErrorCode } from '../../core/errors.ts';

interface Closable {
  close(): Promise<void>;
}

const IDLE_MS = 60_000;
const ANSWER_MS = 10_000;

export class Kept<T extends Closable> {
  readonly #silent: ErrorCode;
  readonly #open: () => Promise<T>;
  #opened: Promise<T> | undefined;
  #idle: NodeJS.Timeout | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** `silent` is the code of the error where there is no answer. */
  constructor(silent: ErrorCode, open: () => Promise<T>) {
    this.#silent = silent;
    this.#open = open;
  }

  /** An error that is not about what was asked closes the connection: the next use opens another. */
  async use<R>(work: (opened: T) => Promise<R>): Promise<R> {
    const mine = this.#turn.then(() => this.#use(work));
    // Whoever comes next does not care how this one ends.
    this.#turn = mine.catch(() => undefined);
    return await mine;
  }

  async #use<R>(work: (opened: T) => Promise<R>): Promise<R> {
    clearTimeout(this.#idle);
    const mine = (this.#opened ??= this.#open());
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new ReplicationError(this.#silent, `no answer within ${ANSWER_MS / 1000} s`);
      timer = setTimeout(() => reject(error), ANSWER_MS);
    });
    try {
      return await Promise.race([mine.then(work), late]);
    } catch (thrown) {
      if (asReplicationError(thrown).code !== 'config_invalid') this.#drop(mine);
      throw thrown;
    } finally {
      clearTimeout(timer);
      this.#idle = setTimeout(() => this.#drop(this.#opened), IDLE_MS).unref();
    }
  }

  #drop(which: Promise<T> | undefined): void {
    if (which === undefined || this.#opened !== which) return;
    this.#opened = undefined;
    which.then(
      (opened) => opened.close(),
      // It never opened: whoever asked was told.
      () => undefined,
    );
  }

  /** What hangs is not waited for. */
  async close(): Promise<void> {
    await this.#turn;
    clearTimeout(this.#idle);
    const opened = await this.#opened?.catch(() => undefined);
    this.#opened = undefined;
    await opened?.close();
  }
}
