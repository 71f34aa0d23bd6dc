/** What holds a reader back that asks for its data itself: look-ups, and frames that wait to be published. */
import { untilAborted } from '../../core/run-service.ts';

export class ReadGate {
  #held: Promise<void> | undefined;
  #resumed: Promise<void> | undefined;
  #resume: (() => void) | undefined;

  /** A look-up that must be done before the next message is decoded; undefined when there is none. */
  get held(): Promise<void> | undefined {
    return this.#held;
  }

  holdUntil(work: Promise<void>): void {
    const held = (this.#held === undefined ? work : Promise.all([this.#held, work])).then(() => {
      if (this.#held === held) this.#held = undefined;
    });
    this.#held = held;
    // The failure is thrown where the reader awaits it.
    held.catch(() => {});
  }

  pause(): void {
    this.#resumed ??= new Promise((resolve) => (this.#resume = resolve));
  }

  resume(): void {
    this.#resume?.();
    this.#resume = undefined;
    this.#resumed = undefined;
  }

  /** Resolves when nothing pauses the reader; rejects when the signal aborts first, for then nobody may resume it. */
  async passed(signal: AbortSignal): Promise<void> {
    if (this.#resumed !== undefined) await untilAborted(this.#resumed, signal);
  }
}
