/** The frames of one source as they come, one at hand and the next ones on their way. */
import { readFrames, type ReceivedFrame } from '../core/cdc-stream.ts';
import { ReplicationError } from '../core/errors.ts';
import type { Nats } from '../core/nats.ts';
import type { History } from './source-history.ts';

export class SourceFeed {
  #frame: ReceivedFrame | undefined;
  #failure: { readonly error: unknown } | undefined;
  #taken: (() => void) | undefined;
  readonly #done: Promise<void>;

  /** Reads until the signal aborts; calls `onChange` whenever a frame has come, or reading has failed. */
  constructor(nats: Nats, history: History, signal: AbortSignal, onChange: () => void) {
    this.#done = this.#read(nats, history, signal, onChange).catch((error: unknown) => {
      this.#failure = { error };
      onChange();
    });
  }

  async #read(nats: Nats, history: History, signal: AbortSignal, onChange: () => void): Promise<void> {
    const { stream, startSeq, position } = history;
    const stop = (): void => this.#taken?.();
    signal.addEventListener('abort', stop, { once: true });
    for await (const frame of readFrames(nats, stream, { startSeq, position, signal })) {
      this.#frame = frame;
      onChange();
      await new Promise<void>((resolve) => {
        this.#taken = resolve;
        if (signal.aborted) resolve();
      });
    }
    if (!signal.aborted) throw new ReplicationError('nats_timeout', `reading stream ${stream} ended by itself`);
  }

  /** The frame at hand, which makes room for the next; undefined while there is none. Throws what reading met. */
  take(): ReceivedFrame | undefined {
    const frame = this.#frame;
    if (frame === undefined) {
      if (this.#failure !== undefined) throw this.#failure.error;
      return undefined;
    }
    this.#frame = undefined;
    this.#taken?.();
    return frame;
  }

  /** Resolves when reading has ended; the signal must have been aborted. */
  async ended(): Promise<void> {
    await this.#done;
  }
}
