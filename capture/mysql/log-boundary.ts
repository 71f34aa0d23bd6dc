/** Work that must be done between two groups of the log, when the log has come far enough. */
import { untilAborted } from '../../core/run-service.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { LoggedTable } from './catalog.ts';
import type { ReadRows } from './chunk-rows.ts';
import type { ChunkWindow } from './chunk-window.ts';
import { contains } from './executed.ts';
import type { GroupAssembler } from './group-assembler.ts';

/** The log as a snapshot sees it. */
export interface LogPort {
  readonly taken: GtidSet;
  /** Whether the log has come to a place. */
  contains(place: GtidSet): boolean;
  /** End of the last group, in the source's files; '' before the first. */
  readonly place: { readonly file: string; readonly offset: number };
  window: ChunkWindow | undefined;
  /** Publishes rows that were read (`r`), marks (`s`), or keys of rows that are gone (`d`). */
  publish(table: LoggedTable, op: 'r' | 's' | 'd', rows: readonly Buffer[]): void;
  /** Publishes rows that were read and that are kept. */
  publishLines(table: LoggedTable, rows: ReadRows, keeps: (row: number) => boolean): void;
}

interface Waiter {
  readonly ready: (port: LogPort) => boolean;
  readonly run: (port: LogPort) => void;
}

export class LogBoundary {
  readonly #assembler: GroupAssembler;
  readonly #port: LogPort;
  #waiters: Waiter[] = [];

  /** `onPublish`: rows of a table were written into the frame at hand. */
  constructor(assembler: GroupAssembler, onPublish: () => void) {
    this.#assembler = assembler;
    this.#port = {
      get taken() {
        return assembler.taken;
      },
      contains: (place) => contains(assembler.taken, place),
      get place() {
        return assembler.logPlace;
      },
      get window() {
        return assembler.window;
      },
      set window(window) {
        assembler.window = window;
      },
      publish: (table, op, rows) => {
        assembler.publishRead(table, op, rows, Date.now() * 1000);
        onPublish();
      },
      publishLines: (table, rows, keeps) => {
        assembler.publishLines(table, rows, keeps, Date.now() * 1000);
        onPublish();
      },
    };
  }

  /** Does what waits and is ready, unless a group is open. */
  serve(): void {
    if (this.#waiters.length === 0 || this.#assembler.inGroup) return;
    const waiting = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiting) {
      if (waiter.ready(this.#port)) waiter.run(this.#port);
      else this.#waiters.push(waiter);
    }
  }

  /** Does `work` between two groups, once `ready` says so. Rejects when the signal aborts first. */
  async do<T>(ready: (port: LogPort) => boolean, work: (port: LogPort) => T, signal: AbortSignal): Promise<T> {
    const done = new Promise<T>((resolve, reject) => {
      this.#waiters.push({
        ready,
        run: (port) => {
          try {
            resolve(work(port));
          } catch (thrown) {
            reject(thrown as Error);
          }
        },
      });
    });
    // The source may have nothing more to say: what it has said is enough to look again.
    this.serve();
    return await untilAborted(done, signal);
  }
}
