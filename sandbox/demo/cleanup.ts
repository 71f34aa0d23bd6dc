/** Ends what has been started, also where only part of it could be. */

/** What must be undone at the end, last first. */
export class Cleanup {
  readonly #steps: (() => Promise<unknown>)[] = [];

  add(step: () => Promise<unknown>): void {
    this.#steps.push(step);
  }

  async run(): Promise<void> {
    for (const step of this.#steps.splice(0).toReversed())
      try {
        await step();
      } catch (thrown) {
        console.error(`clean-up: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
      }
  }
}

/** Like Promise.all, but waits for all of them also when one fails, so that what has started can be stopped. */
export async function settleAll<T extends readonly unknown[]>(promises: {
  readonly [K in keyof T]: Promise<T[K]>;
}): Promise<T> {
  await Promise.allSettled(promises);
  return (await Promise.all(promises)) as unknown as T;
}
