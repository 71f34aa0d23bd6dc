/** Waiting for something to do, for a while: whoever brings it says so. */

export class Waker {
  readonly #signal: AbortSignal;
  #wake: (() => void) | undefined;
  #woken = false;

  /** An abort of the signal wakes, too. */
  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', () => this.wake(), { once: true });
  }

  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** Waits until somebody wakes, or has since the last time, or `ms` are over. */
  async pause(ms: number): Promise<void> {
    if (!this.#woken && !this.#signal.aborted) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, ms);
      });
      clearTimeout(timer);
      this.#wake = undefined;
    }
    this.#woken = false;
  }
}
