/** Readiness is progress: a stage that is blocked, or whose position stands still while there is work, is not ready. */
import type { TableNotice } from '../core/metrics.ts';

/** Unknown, idle and lagging are three states, not one number. */
export type LagState =
  { readonly kind: 'unknown' } | { readonly kind: 'idle' } | { readonly kind: 'lagging'; readonly seconds: number };

export interface StageFacts {
  readonly kind: 'capture' | 'apply';
  readonly name: string;
  readonly state: string;
  readonly detail?: string;
  readonly position?: string;
  readonly lag: LagState;
  readonly rows: number;
  readonly rowsPerSecond: number;
  readonly retainedLogBytes?: number;
  readonly pendingFrames?: number;
  /** Tables that a flow does not follow. */
  readonly tables?: readonly TableNotice[];
  readonly ready: boolean;
  readonly reason?: string;
}

/** Without progress for this long while something is outstanding, a stage is not ready. */
export const STALL_MS = 60_000;
const NOT_READY = new Set(['starting', 'slot_missing', 'slot_lost', 'blocked', 'stopped', 'waiting']);
const RATE_WINDOW_MS = 5000;

export class StageHealth {
  readonly kind: 'capture' | 'apply';
  readonly name: string;
  readonly #now: () => number;
  #state = 'starting';
  #detail: string | undefined;
  #position: string | undefined;
  #lagSeconds: number | undefined;
  #retained: number | undefined;
  #pending: number | undefined;
  #tables: readonly TableNotice[] = [];
  #rows = 0;
  #movedMs: number;
  #window: { atMs: number; rows: number }[] = [];

  constructor(kind: 'capture' | 'apply', name: string, now: () => number = () => performance.now()) {
    this.kind = kind;
    this.name = name;
    this.#now = now;
    this.#movedMs = now();
  }

  state(state: string, detail?: string): void {
    if (state !== this.#state) this.#movedMs = this.#now();
    this.#state = state;
    this.#detail = detail;
  }

  /** The position moved, bringing `rows` rows. */
  moved(rows: number): void {
    const atMs = this.#now();
    this.#rows += rows;
    this.#movedMs = atMs;
    this.#window.push({ atMs, rows });
    if (this.#window.length > 4096) this.#prune(atMs);
  }

  position(text: string): void {
    if (text !== this.#position) this.#movedMs = this.#now();
    this.#position = text;
  }

  lag(seconds: number | undefined): void {
    this.#lagSeconds = seconds;
  }

  retained(bytes: number): void {
    this.#retained = bytes;
  }

  pending(frames: number): void {
    this.#pending = frames;
  }

  tables(notices: readonly TableNotice[]): void {
    this.#tables = notices;
  }

  lagState(): LagState {
    if (this.#lagSeconds === undefined) return { kind: 'unknown' };
    return this.#lagSeconds === 0 ? { kind: 'idle' } : { kind: 'lagging', seconds: this.#lagSeconds };
  }

  /** How long it has had work and not moved. */
  stalledSeconds(): number {
    return this.lagState().kind === 'lagging' ? Math.max(0, (this.#now() - this.#movedMs) / 1000) : 0;
  }

  facts(): StageFacts {
    const nowMs = this.#now();
    this.#prune(nowMs);
    const lag = this.lagState();
    const stalled = lag.kind === 'lagging' && nowMs - this.#movedMs > STALL_MS;
    const blocked = NOT_READY.has(this.#state);
    const reason = blocked
      ? `${this.#state}${this.#detail === undefined ? '' : `: ${this.#detail}`}`
      : stalled
        ? `no progress for ${Math.round((nowMs - this.#movedMs) / 1000)} s`
        : undefined;
    const rows = this.#window.reduce((sum, entry) => sum + entry.rows, 0);
    return {
      kind: this.kind,
      name: this.name,
      state: this.#state,
      ...(this.#detail === undefined ? {} : { detail: this.#detail }),
      ...(this.#position === undefined ? {} : { position: this.#position }),
      lag,
      rows: this.#rows,
      rowsPerSecond: Math.round(rows / (RATE_WINDOW_MS / 1000)),
      ...(this.#retained === undefined ? {} : { retainedLogBytes: this.#retained }),
      ...(this.#pending === undefined ? {} : { pendingFrames: this.#pending }),
      ...(this.#tables.length === 0 ? {} : { tables: this.#tables }),
      ready: reason === undefined,
      ...(reason === undefined ? {} : { reason }),
    };
  }

  #prune(nowMs: number): void {
    const from = this.#window.findIndex((entry) => nowMs - entry.atMs <= RATE_WINDOW_MS);
    this.#window = from < 0 ? [] : this.#window.slice(from);
  }
}
