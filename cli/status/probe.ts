/** A system that is looked at again and again: one that does not answer is said to, and asked again. */
import { setTimeout as delay } from 'node:timers/promises';
import { asReplicationError, ReplicationError, type ErrorCode } from '../../core/errors.ts';

export interface Closable {
  close(): Promise<unknown>;
}

export interface ProbeOptions<S extends Closable, T> {
  /** What it is, for errors: `source wms`. */
  readonly what: string;
  /** The error of a system that does not answer in time. */
  readonly silent: ErrorCode;
  readonly open: () => Promise<S>;
  readonly read: (session: S) => Promise<T>;
}

/** How long a system may take to answer before it counts as silent. */
const DEADLINE_MS = 10_000;

export class Probe<S extends Closable, T> {
  readonly #options: ProbeOptions<S, T>;
  #session: S | undefined;
  #value: T | undefined;
  #error: ReplicationError | undefined;

  constructor(options: ProbeOptions<S, T>) {
    this.#options = options;
  }

  /** The latest answer; it stays when the system goes silent, beside the error that says so. */
  get value(): T | undefined {
    return this.#value;
  }

  get error(): ReplicationError | undefined {
    return this.#error;
  }

  /** Whether it has answered, or failed to. */
  get looked(): boolean {
    return this.#value !== undefined || this.#error !== undefined;
  }

  /** The present session, if there is one. */
  get session(): S | undefined {
    return this.#session;
  }

  /** Looks once. Never throws: see `error`. */
  async look(): Promise<void> {
    const { what, silent } = this.#options;
    const late = new AbortController();
    const work = this.#read();
    work.catch(() => undefined);
    try {
      const outcome = await Promise.race([
        work.then((value) => ({ value })),
        delay(DEADLINE_MS, undefined, { signal: late.signal }),
      ]);
      if (outcome === undefined)
        throw new ReplicationError(silent, `${what} did not answer within ${DEADLINE_MS / 1000} s`);
      this.#value = outcome.value;
      this.#error = undefined;
    } catch (thrown) {
      this.#error = asReplicationError(thrown);
      this.close();
    } finally {
      late.abort();
    }
  }

  async #read(): Promise<T> {
    const { open, read } = this.#options;
    if (this.#session === undefined) {
      const opening = open();
      const session = await opening;
      this.#session = session;
      const value = await read(session);
      // It answered after all, when nobody waited any more.
      if (this.#session !== session) await session.close().catch(() => undefined);
      return value;
    }
    return await read(this.#session);
  }

  /** Lets the session go without waiting for it: it may hang. */
  close(): void {
    const session = this.#session;
    this.#session = undefined;
    void session?.close().catch(() => undefined);
  }
}
