/**
 * The records of a flow worked out once more, from its sources themselves: their tables are scanned, the frames that came
 * while they were say what changed meanwhile, and the same mappings and owners make the records. What a capture lost, or
 * a transform got wrong over time, is not in it.
 */
import { askForProgress } from '../../core/asked-progress.ts';
import { cdcStreamName, keptSequences } from '../../core/cdc-stream.ts';
import {
  comparePositions,
  entryLiesBefore,
  entryPosition,
  formatPosition,
  hasReached,
  type Position,
} from '../../core/position.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { RowChange, TableSchema, TransactionEntry } from '../../core/frame.ts';
import { isReadEntry } from '../../core/gtid-position.ts';
import type { Nats } from '../../core/nats.ts';
import { abortableDelay } from '../../core/run-service.ts';
import type { FlowPlan } from '../flow-plan.ts';
import { FlowState, type Outcome } from '../flow-state.ts';
import type { Entry } from '../ownership/entry.ts';
import { SourceFeed } from '../source-feed.ts';
import type { SourceState } from '../source-state.ts';
import { framesSince } from './source-frames.ts';
import type { BlockOf } from './provable.ts';
import type { SourcesAt } from './records-place.ts';

/** A source as it is read for a proof. */
export interface SourceRows {
  /** Its captured tables as frames describe them. */
  readonly tables: readonly TableSchema[];
  /** The rows of one of them in pieces, as frames carry them. */
  pieces(table: TableSchema): AsyncIterable<readonly (readonly (string | null)[])[]>;
  /** What statements from now on see: all before a place of the log, but for transactions (as frames name them). */
  visible(): Promise<{ readonly horizon: Position; readonly inProgress: ReadonlySet<number> }>;
  /** The end of the log now: everything that a statement before showed lies before it. */
  watermark(): Promise<Position>;
  /** Writes into an idle log, so that its end moves. */
  nudge(): Promise<void>;
}

export interface RecomputedFlowOptions {
  readonly plan: FlowPlan;
  readonly nats: Nats;
  readonly prefix: string;
  readonly installation: string;
  readonly sources: ReadonlyMap<string, SourceRows>;
  /** Does a piece of work, and rests in proportion: others in this process have work of their own. */
  readonly work: <T>(piece: () => Promise<T>) => Promise<T>;
  readonly signal: AbortSignal;
  /** How long a stream may stand still before the proof gives up. */
  readonly stallMs?: number;
}

/** A commit that stands in the log is visible long before so much time has passed since its frame was stored. */
const LOOK_BACK_MS = 60_000;
const STALL_MS = 120_000;
const NUDGE_EVERY_MS = 5000;
const POLL_MS = 100;
/** Of rows that are scanned it is not known when they were written. */
const SCANNED = { position: formatPosition({ kind: 'origin' }), timeUs: 0 };

export class RecomputedFlow {
  readonly plan: FlowPlan;
  readonly #options: RecomputedFlowOptions;
  readonly #state: FlowState;
  readonly #feeds = new Map<SourceState, SourceFeed>();
  readonly #ended = new AbortController();
  readonly #signal: AbortSignal;
  #wake: (() => void) | undefined;

  constructor(options: RecomputedFlowOptions) {
    this.plan = options.plan;
    this.#options = options;
    // What stock is held against besides is no part of its records.
    const settings = { ...options.plan.settings, evidence: [] };
    this.#state = new FlowState({ ...options.plan, settings }, options.installation);
    this.#signal = AbortSignal.any([options.signal, this.#ended.signal]);
    // A scan shows rows as they are now, also to frames that are older than a change of their table.
    for (const { engine } of this.#state.sources) engine.followsVersions = false;
  }

  /** Scans all tables and takes what changed meanwhile. `onTable` is told after each table of how many. */
  async read(onTable: (done: number, of: number) => void = () => {}): Promise<void> {
    const { nats, prefix, sources } = this.#options;
    for (const source of this.#state.sources) {
      const { horizon, inProgress } = await sources.get(source.name)!.visible();
      // The scan shows what lies before it: the frames are asked only for what came after.
      source.passesOver = (entry) => liesBefore(entry, source.place.position, horizon) && !inProgress.has(entry[0]);
      const since = inProgress.size === 0 ? horizon : Date.now() - LOOK_BACK_MS;
      const history = await framesSince(nats, prefix, source.name, since);
      this.#feeds.set(source, new SourceFeed(nats, history, this.#signal, () => this.#wake?.()));
      source.restore(history.whole ? { position: history.position, seq: history.startSeq - 1 } : source.place);
    }
    this.#tick();
    const work = this.#state.sources.map((source) => ({ source, tables: this.#tablesOf(source) }));
    const all = work.reduce((sum, { tables }) => sum + tables.length, 0);
    let done = 0;
    for (const { source, tables } of work) {
      for (const table of tables) {
        await this.#scan(source, table);
        onTable(++done, all);
      }
      // In silence: what was read is newer than the first of these frames.
      const goal = await sources.get(source.name)!.watermark();
      await this.#take(source, () => hasReached(source.place.position, goal), false);
    }
    this.#tick();
    for (const source of this.#state.expire()) {
      source.echo = false;
      this.#state.settle(source);
    }
  }

  /** The tables that the mappings read. */
  get tables(): { source: string; table: TableSchema }[] {
    return this.#state.sources.flatMap((source) =>
      this.#tablesOf(source).map((table) => ({ source: source.name, table })),
    );
  }

  /** The tables that the source's mapping reads: first those that are only joined, so that what joins them finds them. */
  #tablesOf(source: SourceState): TableSchema[] {
    const { blocks, tables } = source.engine.plan;
    const driving = new Set(blocks.map(({ inputs }) => inputs[0]!.table));
    const rank = (table: TableSchema): number =>
      driving.has(tables.find((candidate) => candidate.matches(table))!) ? 1 : 0;
    return this.#options.sources
      .get(source.name)!
      .tables.filter((table) => source.engine.reads(table))
      .sort((a, b) => rank(a) - rank(b));
  }

  async #scan(source: SourceState, table: TableSchema): Promise<void> {
    const tables = [table];
    for await (const rows of this.#options.sources.get(source.name)!.pieces(table)) {
      this.#signal.throwIfAborted();
      await this.#options.work(async () => {
        for (const row of rows) source.engine.apply(['r', 0, row] satisfies RowChange, tables, SCANNED);
        this.#state.settle(source);
      });
    }
  }

  /**
   * Takes frames until `done` says so, between two of them. Each transaction is settled by itself, and given to `touched`;
   * with `settle` false nothing is. Throws `verify_stalled` when nothing comes.
   */
  async #take(
    source: SourceState,
    done: () => boolean,
    settle: boolean,
    touched?: (outcome: Outcome) => void,
  ): Promise<void> {
    const feed = this.#feeds.get(source)!;
    const { nats, prefix, sources, stallMs = STALL_MS } = this.#options;
    let movedMs = performance.now();
    let nudgedMs = -Infinity;
    while (source.open || !done()) {
      this.#signal.throwIfAborted();
      const frame = feed.take();
      if (frame !== undefined) {
        movedMs = performance.now();
        source.begin(frame);
        while (!source.idle) if (source.step() && settle) touched?.(this.#state.settle(source));
        continue;
      }
      const now = performance.now();
      if (now - movedMs > stallMs)
        throw new ReplicationError(
          'verify_stalled',
          `the frames of ${source.name} did not come to where its tables were read in ${Math.round(stallMs / 1000)} s`,
        );
      if (now - nudgedMs > NUDGE_EVERY_MS) {
        nudgedMs = now;
        await sources.get(source.name)!.nudge();
        // A log may also stand still at the place that is waited for, of which no frame has told yet.
        askForProgress(nats, prefix, 'capture', source.name);
      }
      await this.#pause();
    }
  }

  /**
   * Takes all frames that are stored now; `toLogEnd`, also those of what the sources have logged by now. Gives the keys of
   * the records that changed, or may have, since the last call.
   */
  async follow({ toLogEnd = false }: { readonly toLogEnd?: boolean } = {}): Promise<Set<string>> {
    const { nats, sources } = this.#options;
    const touched = new Set<string>();
    const note = (outcome: Outcome): void => {
      for (const { key } of outcome.changes) touched.add(key);
      for (const { id } of outcome.held) touched.add(recordOfHold(id));
    };
    for (const source of this.#state.sources) {
      if (toLogEnd) {
        const goal = await sources.get(source.name)!.watermark();
        await this.#take(source, () => hasReached(source.place.position, goal), true, note);
      }
      const { last } = await keptSequences(nats, cdcStreamName(this.#options.prefix, source.name));
      await this.#take(source, () => source.place.seq >= last, true, note);
    }
    this.#tick();
    for (const source of this.#state.expire()) note(this.#state.settle(source));
    return touched;
  }

  #tick(): void {
    this.#state.clockUs = Math.max(this.#state.clockUs, Math.floor(Date.now() / 1000) * 1_000_000);
  }

  /** How much of each source is in the records: up to its last change that concerns them, and the last row that expired. */
  places(): SourcesAt {
    const { sources } = this.#state;
    return {
      positions: new Map(sources.map((source) => [source.name, source.readUpTo])),
      expiredUs: Math.max(0, ...sources.flatMap(({ engine }) => engine.blocks.map((block) => block.expiredUs))),
    };
  }

  /** What is known of each record, whether it is there or not. */
  entries(): Iterable<[key: string, entry: Entry]> {
    return this.#state.resolver.entries;
  }

  entry(key: string): Entry | undefined {
    return this.#state.resolver.entry(key);
  }

  /** Blocks of all mappings. */
  get blocks(): BlockOf[] {
    const { entity } = this.plan;
    return this.#state.sources.flatMap((source) =>
      source.engine.plan.blocks.map((block, index) => ({
        source: source.name,
        index,
        groups: [...new Set(block.fields.map(({ field }) => entity.fields[field]!.group))],
        grouped: block.block.group,
      })),
    );
  }

  /** What is held: of which records, and of which blocks whole rows. */
  held(): { records: Map<string, Set<string>>; rows: Set<string> } {
    const records = new Map<string, Set<string>>();
    const rows = new Set<string>();
    for (const { id, held } of this.#state.resolver.held.entries()) {
      if (held === undefined || held.incomplete === true) continue;
      const key = recordOfHold(id);
      // What waits for a row that it joins stands behind no record.
      if (key.startsWith('\0waits')) continue;
      if (key.startsWith('\0row')) rows.add(id.split('#', 2).join('#'));
      else records.set(key, (records.get(key) ?? new Set()).add(held.group));
    }
    return { records, rows };
  }

  async #pause(): Promise<void> {
    const came = new Promise<void>((resolve) => (this.#wake = resolve));
    const late = new AbortController();
    await Promise.race([came, abortableDelay(POLL_MS, AbortSignal.any([late.signal, this.#signal]))]);
    late.abort();
    this.#wake = undefined;
  }

  /** Stops reading frames. */
  async close(): Promise<void> {
    this.#ended.abort();
    this.#wake?.();
    for (const feed of this.#feeds.values()) await feed.ended();
  }
}

/** Whether a transaction that stands behind `at` in the stream had been made before `horizon`. */
function liesBefore(entry: TransactionEntry, at: Position, horizon: Position): boolean {
  if (horizon.kind !== 'mysql' && horizon.kind !== 'mariadb')
    return comparePositions(entryPosition(entry, 0), horizon) < 0;
  if (entryLiesBefore(entry, horizon)) return true;
  // A chunk that the capture read has no place of its own in the log: it is as old as what comes before it.
  return isReadEntry(entry) && !hasReached(at, horizon);
}

/** The record of which something is held: ids are `source#block#key#group` and `record#key#group`. */
export function recordOfHold(id: string): string {
  const inner = id.slice(0, id.lastIndexOf('#'));
  const head = inner.startsWith('record#') ? 'record#' : /^[^#]*#\d+#/.exec(inner)![0];
  return inner.slice(head.length);
}
