/** How many groups of records are held, by reason. */
import { reasonOf } from './record-rows.ts';

export class HeldCounts {
  readonly #report: (reason: string, keys: number) => void;
  readonly #held = new Set<string>();
  readonly #byReason = new Map<string, number>();

  /** `report` is told of every count that changes. */
  constructor(report: (reason: string, keys: number) => void) {
    this.#report = report;
  }

  /** Whether a group is held. True when it was held before. */
  note(id: string, isHeld: boolean): boolean {
    const was = this.#held.has(id);
    if (was === isHeld) return was;
    if (isHeld) this.#held.add(id);
    else this.#held.delete(id);
    const reason = reasonOf(id);
    const count = (this.#byReason.get(reason) ?? 0) + (isHeld ? 1 : -1);
    this.#byReason.set(reason, count);
    this.#report(reason, count);
    return was;
  }
}
