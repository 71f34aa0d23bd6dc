/** Readiness is progress: a stage that is blocked, or whose position stands still while there is work, is not ready. */
import type { SnapshotFacts, TableNotice } from '../core/metrics.ts';

/** Unknown, idle and lagging are three states, not one number. */
export type LagState =
  { readonly kind: 'unknown' } | { readonly kind: 'idle' } | { readonly kind: 'lagging'; readonly seconds: number };

export type StageKind = 'capture' | 'transform' | 'apply';

export interface StageFacts {
  readonly kind: StageKind;
  readonly name: string;
  readonly state: string;
  readonly detail?: string;
  readonly position?: string;
  readonly lag: LagState;
  readonly rows: number;
  readonly rowsPerSecond: number;
  readonly retainedLogBytes?: number;
  /** Seconds until the source drops log that is still needed; absent while unknown or without limit. */
  readonly logBudgetSeconds?: number;
  /** Kept of transactions in progress; absent where they are received at their commit. */
  readonly spoolBytes?: number;
  readonly pendingFrames?: number;
  /** Absent while no snapshot is under way. */
  readonly snapshot?: SnapshotFacts;
  /** Tables that a flow does not follow. */
  readonly tables?: readonly TableNotice[];
  readonly ready: boolean;
  readonly reason?: string;
}

/** Without progress for this long while something is outstanding, a stage is not ready. */
export const STALL_MS = 60_000;
const NOT_READY = new Set(['starting', 'slot_missing', 'slot_lost', 'blocked', 'stopped', 'waiting']);
/** States in which nothing is done, since another process does it or is meant to. */
export const LEAVES_IT_TO_OTHERS: ReadonlySet<string> = new Set(['standby', 'stopped']);
/** States in which the source keeps no log for a capture any more. */
export const KEEPS_NO_LOG: ReadonlySet<string> = new Set(['slot_missing', 'slot_lost']);
const RATE_WINDOW_MS = 5000;
/** A stage that reports its lag does so every second; what is older than this has aged meanwhile. */
const LAG_AGES_AFTER_MS = 2500;

export class StageHealth {
  readonly kind: StageKind;
  readonly name: string;
  readonly #now: () => number;
  readonly #stallMs: number;
  #state = 'starting';
  #detail: string | undefined;
  #position: string | undefined;
  #lagSeconds: number | undefined;
  #lagAtMs = 0;
  #retained: number | undefined;
  #budget: number | undefined;
  #spool: number | undefined;
  #pending: number | undefined;
  #snapshot: SnapshotFacts | undefined;
  #tables: readonly TableNotice[] = [];
  #rows = 0;
  #movedMs: number;
  #window: { atMs: number; rows: number }[] = [];

  constructor(
    kind: StageKind,
    name: string,
    { now = () => performance.now(), stallMs = STALL_MS }: { now?: () => number; stallMs?: number } = {},
  ) {
    this.kind = kind;
    this.name = name;
    this.#now = now;
    this.#stallMs = stallMs;
    this.#movedMs = now();
  }

  state(state: string, detail?: string): void {
    if (state !== this.#state) this.#movedMs = this.#now();
    this.#state = state;
    this.#detail = detail;
    if (LEAVES_IT_TO_OTHERS.has(state)) this.#forget();
    if (KEEPS_NO_LOG.has(state)) this.#retained = this.#budget = undefined;
    // It had nothing to do then; whether it has now, it cannot know.
    if (NOT_READY.has(state) && this.#lagSeconds === 0) this.#lagSeconds = undefined;
  }

  /** What it knew of its work is of then; now it is another process that knows. */
  #forget(): void {
    this.#lagSeconds = undefined;
    this.#retained = undefined;
    this.#budget = undefined;
    this.#spool = undefined;
    this.#pending = undefined;
    this.#snapshot = undefined;
    this.#tables = [];
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
    this.#lagAtMs = this.#now();
  }

  retained(bytes: number): void {
    this.#retained = bytes;
  }

  budget(seconds: number | undefined): void {
    this.#budget = seconds;
  }

  spool(bytes: number | undefined): void {
    this.#spool = bytes;
  }

  pending(frames: number): void {
    this.#pending = frames;
  }

  snapshot(facts: SnapshotFacts | undefined): void {
    this.#snapshot = facts;
  }

  tables(notices: readonly TableNotice[]): void {
    this.#tables = notices;
  }

  lagState(): LagState {
    if (this.#lagSeconds === undefined) return { kind: 'unknown' };
    const silentMs = this.#now() - this.#lagAtMs;
    const isOld = silentMs > LAG_AGES_AFTER_MS;
    // A stage that hangs, or whose broker does, says nothing any more: it may have work by now, and what it waits for grows
    // older.
    if (this.#lagSeconds === 0) return { kind: isOld ? 'unknown' : 'idle' };
    return { kind: 'lagging', seconds: this.#lagSeconds + (isOld ? silentMs / 1000 : 0) };
  }

  /** How long it has had work and not moved. */
  stalledSeconds(): number {
    const busy = this.#state === 'applying' || this.lagState().kind === 'lagging';
    return busy ? Math.max(0, (this.#now() - this.#movedMs) / 1000) : 0;
  }

  facts(): StageFacts {
    const nowMs = this.#now();
    this.#prune(nowMs);
    const lag = this.lagState();
    const stalledSeconds = this.stalledSeconds();
    const reason = NOT_READY.has(this.#state)
      ? `${this.#state}${this.#detail === undefined ? '' : `: ${this.#detail}`}`
      : stalledSeconds * 1000 > this.#stallMs
        ? this.#stallReason(stalledSeconds, lag)
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
      ...(this.#budget === undefined ? {} : { logBudgetSeconds: Math.round(this.#budget) }),
      ...(this.#spool === undefined ? {} : { spoolBytes: this.#spool }),
      ...(this.#pending === undefined ? {} : { pendingFrames: this.#pending }),
      ...(this.#snapshot === undefined ? {} : { snapshot: this.#snapshot }),
      ...(this.#tables.length === 0 ? {} : { tables: this.#tables }),
      ready: reason === undefined,
      ...(reason === undefined ? {} : { reason }),
    };
  }

  /** What stands still, since when, and where to look. */
  #stallReason(seconds: number, lag: LagState): string {
    const facts = [
      `no progress for ${Math.round(seconds)} s`,
      ...(this.#position === undefined ? [] : [`at ${this.#position}`]),
      ...(lag.kind === 'lagging' ? [`the oldest change that waits is ${Math.round(lag.seconds)} s old`] : []),
    ];
    const look =
      this.kind === 'apply'
        ? 'is a session of the target locked (pg_stat_activity, SHOW PROCESSLIST)?'
        : 'does the broker take frames (disk, quorum), and does the source answer?';
    return `${facts.join(', ')}; ${look}`;
  }

  #prune(nowMs: number): void {
    const from = this.#window.findIndex((entry) => nowMs - entry.atMs <= RATE_WINDOW_MS);
    this.#window = from < 0 ? [] : this.#window.slice(from);
  }
}
