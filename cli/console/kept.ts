/** A connection that is opened when it is first needed, kept while it is used, and opened again after it failed. */
import { asReplicationError } from '../../core/errors.ts';

interface Closable {
  close(): Promise<void>;
}

const IDLE_MS = 60_000;

export class Kept<T extends Closable> {
  readonly #open: () => Promise<T>;
  #opened: Promise<T> | undefined;
  #idle: NodeJS.Timeout | undefined;
  #users = 0;

  constructor(open: () => Promise<T>) {
    this.#open = open;
  }

  /** An error that is not about what was asked closes the connection: the next use opens another. */
  async use<R>(work: (opened: T) => Promise<R>): Promise<R> {
    clearTimeout(this.#idle);
    const mine = (this.#opened ??= this.#open());
    this.#users += 1;
    try {
      return await work(await mine);
    } catch (thrown) {
      if (asReplicationError(thrown).code !== 'config_invalid') this.#drop(mine);
      throw thrown;
    } finally {
      this.#users -= 1;
      if (this.#users === 0) {
        clearTimeout(this.#idle);
        this.#idle = setTimeout(() => this.#drop(this.#opened), IDLE_MS).unref();
      }
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

  async close(): Promise<void> {
    clearTimeout(this.#idle);
    const opened = await this.#opened?.catch(() => undefined);
    this.#opened = undefined;
    await opened?.close();
  }
}
