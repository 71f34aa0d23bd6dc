/**
 * Saves the state of a flow beside its work: it is taken at one moment, between two transactions, and written while the
 * flow goes on. Invariant 3: a state counts once all of it is stored, with the checkpoint of the moment it was taken.
 */
import { randomUUID } from 'node:crypto';
import { ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { TransformReport } from '../core/metrics.ts';
import type { FlowState } from './flow-state.ts';
import { saveState } from './saved-state.ts';
import type { SavedState, StateStore, Taken } from './state-store.ts';

export interface StateSaverOptions {
  readonly store: StateStore;
  readonly flow: string;
  readonly report: TransformReport;
  readonly log: Logger;
  /** Ends what is being written: it does not count. */
  readonly signal: AbortSignal;
}

export class StateSaver {
  readonly #options: StateSaverOptions;
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  /** When a state was saved last, and the places that it has. */
  #savedMs = performance.now();
  #savedPlaces = '';

  constructor(options: StateSaverOptions) {
    this.#options = options;
  }

  /** Whether it is time to save again, `everyMs` after the last time. Throws what saving met. */
  due(everyMs: number): boolean {
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#writing === undefined && performance.now() - this.#savedMs >= everyMs;
  }

  /** Notes a state that is stored. */
  note(saved: Pick<SavedState, 'bytes' | 'savedAt'>, places: string): void {
    this.#savedMs = performance.now();
    this.#savedPlaces = places;
    this.#options.report.saved(saved);
  }

  /** The next state is to be saved as soon as it can be, whatever is stored. */
  hurry(): void {
    this.#savedMs = Number.NEGATIVE_INFINITY;
    this.#savedPlaces = '';
  }

  /** Whether a state with these places is stored. */
  has(places: string): boolean {
    return this.#savedPlaces === places;
  }

  /** Takes the state now, with the places that it has, and begins to write it. */
  begin(state: FlowState, taken: Taken, places: string): void {
    const { signal } = this.#options;
    this.#writing = this.#write(state, taken, places, signal)
      .catch((error: unknown) => {
        if (!signal.aborted) this.#failure = { error };
      })
      .finally(() => {
        this.#writing = undefined;
      });
  }

  /** Saves the state to its end, whether or not the signal has aborted. Throws what that met. */
  async save(state: FlowState, taken: Taken, places: string): Promise<void> {
    await this.#write(state, taken, places);
  }

  /** Resolves when nothing is being written any more. */
  async ended(): Promise<void> {
    await this.#writing;
  }

  async #write(state: FlowState, taken: Taken, places: string, signal?: AbortSignal): Promise<void> {
    const { store, flow, log } = this.#options;
    const started = performance.now();
    const lines = saveState(state);
    const takenMs = Math.round(performance.now() - started);
    const saved = await store.save(randomUUID(), taken, signal === undefined ? lines : until(signal, lines));
    this.note(saved, places);
    log.info({ flow, bytes: saved.bytes, takenMs, ms: Math.round(performance.now() - started) }, 'state saved');
  }
}

/** The lines, as long as the signal has not aborted. Throws when it has: what was written is not whole. */
function* until(signal: AbortSignal, lines: Iterable<string>): Generator<string> {
  for (const line of lines) {
    if (signal.aborted) throw new ReplicationError('internal', 'the run ended before its state was saved');
    yield line;
  }
}
