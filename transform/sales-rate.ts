/** How fast stock is promised away: what `available` of positions falls by, per second, over the last minute. */
import { oversellExposure, STOCK } from './canonical/inventory.ts';
import type { RecordValues } from './canonical/entity.ts';

const WINDOW_SECONDS = 60;

export class SalesRate {
  /** Units by second, the newest last. */
  #seconds: { readonly second: number; units: number }[] = [];

  /** Takes a change of a position at `nowMs`. */
  take(before: RecordValues | undefined, after: RecordValues | undefined, nowMs: number): void {
    const was = before?.[STOCK.available];
    const is = after?.[STOCK.available];
    if (typeof was !== 'string' || typeof is !== 'string' || was === is) return;
    const units = Number(was) - Number(is);
    if (!(units > 0)) return;
    const second = Math.floor(nowMs / 1000);
    const last = this.#seconds.at(-1);
    if (last?.second === second) last.units += units;
    else this.#seconds.push({ second, units });
  }

  perSecond(nowMs: number): number {
    const oldest = Math.floor(nowMs / 1000) - WINDOW_SECONDS;
    this.#seconds = this.#seconds.filter(({ second }) => second > oldest);
    return this.#seconds.reduce((sum, { units }) => sum + units, 0) / WINDOW_SECONDS;
  }

  /** Units that may be sold before a newer `available` is known, when it is `stalenessSeconds` old. */
  exposure(stalenessSeconds: number, nowMs: number): number {
    return oversellExposure(this.perSecond(nowMs), stalenessSeconds);
  }
}
