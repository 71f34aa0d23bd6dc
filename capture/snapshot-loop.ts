/** Reads what the stored progress of a source's snapshots asks for, and takes up requests for more. */
import type { KV } from '@nats-io/kv';
import { asReplicationError, ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { SnapshotFacts } from '../core/metrics.ts';
import { abortableDelay } from '../core/run-service.ts';
import { describeSnapshot, SnapshotMeter } from './snapshot-progress.ts';
import { mustWait, nameOf, readAnew, unread, withMovedRow, withRequest, type TableName } from './requested-tables.ts';
import { readRequests, removeRequest } from './request-queue.ts';
import {
  newSnapshotId,
  type ProgressStore,
  type SnapshotProgress,
  type SnapshotRequest,
  type TableProgress,
} from './snapshot-request.ts';

/** One pass over the tables that are to be read. */
export interface SnapshotTask {
  /** To be written after each chunk; tables that are done say so in it. More of them may come, and others be replaced. */
  readonly progress: SnapshotProgress;
  readonly cancelled: () => boolean;
  /** Whether a table is to be read in this pass. */
  readonly isDue: (table: TableProgress) => boolean;
  /** Leaves a table that cannot be read now for later; the log goes on, and so do the other tables. */
  readonly setAside: (table: TableProgress, why: string) => void;
}

export interface SnapshotStatus {
  readonly running: boolean;
  /** How far it is, and what is wrong with tables. */
  readonly detail: string | undefined;
  readonly facts: SnapshotFacts | undefined;
}

export interface SnapshotLoopOptions {
  readonly source: string;
  readonly bucket: KV;
  /** Calls whenever a request may be there, until it is unsubscribed or the connection ends. */
  readonly hearAsked: (hear: () => void) => { unsubscribe(): void };
  readonly progress: ProgressStore;
  readonly log: Logger;
  /** Reads every table that is due; stops early when the task is cancelled or the signal aborts. */
  readonly read: (task: SnapshotTask, signal: AbortSignal) => Promise<void>;
  /** Tells readers of the stream that tables which were begun are not read to their end; resolves when it is stored. */
  readonly giveUp: (tables: readonly TableProgress[], signal: AbortSignal) => Promise<void>;
  /** The tables that the configuration chooses now, ready to be captured; those are read whole of which `isRead` says so. */
  readonly tables: (isRead: (table: TableName) => boolean) => Promise<readonly TableName[]>;
}

const REQUEST_POLL_MS = 500;
/** How long a table is left alone that changed too fast to be read. */
const ASIDE_MS = 5000;

export class SnapshotLoop {
  readonly #o: SnapshotLoopOptions;
  #loaded: Promise<SnapshotProgress | undefined> | undefined;
  #own: SnapshotProgress | undefined;
  readonly #aside = new Map<TableProgress, { readonly untilMs: number; readonly why: string }>();
  /** The tables of which the facts are. */
  readonly #watched = new Set<TableProgress>();
  #meter = new SnapshotMeter();
  #running = false;
  /** The request that ends what is being read. */
  #cancel: string | undefined;
  #wake: (() => void) | undefined;
  /** Heard since requests were last looked for. */
  #asked = false;

  constructor(options: SnapshotLoopOptions) {
    this.#o = options;
  }

  /** Whether tables are being read or are still to be read, and what is wrong with them. */
  get status(): SnapshotStatus {
    const why = [...this.#aside].map(([table, aside]) => `${nameOf(table)} waits: ${aside.why}`);
    const facts = this.#facts();
    const detail = [...(facts === undefined ? [] : [describeSnapshot(facts)]), ...why].join('; ');
    return { running: this.#running || why.length > 0, detail: detail === '' ? undefined : detail, facts };
  }

  /** Of the tables that were to be read since there was last nothing to read. */
  #facts(): SnapshotFacts | undefined {
    const tables = this.#own?.tables ?? [];
    for (const table of this.#watched) if (!tables.includes(table)) this.#watched.delete(table);
    for (const table of tables) if (table.state !== 'done') this.#watched.add(table);
    if (tables.every(({ state }) => state === 'done')) {
      this.#watched.clear();
      this.#meter = new SnapshotMeter();
      return undefined;
    }
    return this.#meter.observe(performance.now(), [...this.#watched]);
  }

  /** The one copy of the progress: read once, since nobody else writes it while the lease is held. */
  async progress(): Promise<SnapshotProgress> {
    this.#loaded ??= this.#o.progress.read();
    this.#own ??= (await this.#loaded) ?? { v: 1, id: newSnapshotId(), tables: [] };
    return this.#own;
  }

  async run(signal: AbortSignal): Promise<void> {
    const heard = this.#o.hearAsked(() => {
      this.#asked = true;
      this.#wake?.();
    });
    try {
      await this.#run(signal);
    } finally {
      heard.unsubscribe();
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#takeRequests(signal);
      const progress = await this.progress();
      for (const table of this.#aside.keys()) if (!progress.tables.includes(table)) this.#aside.delete(table);
      if (progress.tables.some((table) => this.#isDue(table))) await this.#read(progress, signal);
      else await this.#untilAsked(signal);
    }
  }

  /** Resolves when something may have been asked for. */
  async #untilAsked(signal: AbortSignal): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    if (!this.#asked) await abortableDelay(REQUEST_POLL_MS, AbortSignal.any([signal, woken.signal]));
    this.#asked = false;
  }

  /** Adds a table that was not known; stored when this resolves. A known one is left as it is. */
  async plan(schema: string, name: string, state: 'pending' | 'done'): Promise<void> {
    const progress = await this.progress();
    if (progress.tables.some((table) => table.schema === schema && table.name === name)) return;
    progress.tables.push({ ...unread({ schema, name }), state, first: true });
    await this.#o.progress.write(progress);
  }

  /** Has tables read from the beginning, also where that is under way; stored when this resolves. */
  async readAgain(tables: readonly TableName[], because?: 'narrower' | 'unsure'): Promise<void> {
    const progress = await this.progress();
    progress.tables = readAnew(progress.tables, tables, because);
    await this.#o.progress.write(progress);
    this.#wake?.();
  }

  /** Has one partition of a table read, whose rows came with it; stored when this resolves. */
  async readPart(table: TableName, part: TableName): Promise<void> {
    const progress = await this.progress();
    // Nobody waits for one that was read, and a table may gain partitions for ever.
    progress.tables = progress.tables.filter((known) => known.part === undefined || known.state !== 'done');
    progress.tables.push({ ...unread(table), needed: true, part: { ...part } });
    await this.#o.progress.write(progress);
    this.#wake?.();
  }

  /**
   * An update gave a row another key and does not tell all of its columns. While its table is being read a target may lack the
   * row, so that it has nothing to move: the row is read by its new key, `key` as it may be stored. Undefined where nothing
   * is to be done; or else that is stored when it resolves.
   */
  rowMoved(table: TableName, key: readonly string[]): Promise<void> | undefined {
    if (this.#own === undefined) return this.progress().then(() => this.rowMoved(table, key));
    const changed = withMovedRow(this.#own.tables, table, key);
    if (changed === undefined) return undefined;
    if (changed === 'too many') return this.readAgain([table]);
    this.#own.tables = changed;
    this.#wake?.();
    return this.#o.progress.write(this.#own);
  }

  async #read(progress: SnapshotProgress, signal: AbortSignal): Promise<void> {
    this.#cancel = undefined;
    this.#running = true;
    const failed = new AbortController();
    const over = new AbortController();
    const reading = AbortSignal.any([signal, failed.signal]);
    const taking = this.#takeMeanwhile(AbortSignal.any([reading, over.signal])).catch((thrown: unknown) => {
      failed.abort(thrown);
      throw thrown;
    });
    // Its failure is thrown below, once the reading has left.
    taking.catch(() => undefined);
    try {
      const task: SnapshotTask = {
        progress,
        cancelled: () => this.#cancel !== undefined,
        isDue: (table) => this.#isDue(table),
        setAside: (table, why) => this.#setAside(table, why),
      };
      await this.#o.read(task, reading);
    } finally {
      this.#running = false;
      over.abort();
      await taking;
    }
    for (const [table, { untilMs }] of this.#aside)
      if (table.state === 'done' || untilMs <= performance.now()) this.#aside.delete(table);
    if (this.#cancel !== undefined && !signal.aborted) await this.#cancelled(this.#cancel, signal);
  }

  /** While tables are read. What is asked for behind the cancelling of it is looked at when that is done. */
  async #takeMeanwhile(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#cancel === undefined) {
      await this.#untilAsked(signal);
      if (!signal.aborted) await this.#takeRequests(signal);
    }
  }

  /** What is still to be read is not, but for what is needed; also what waits for another try. */
  async #cancelled(id: string, signal: AbortSignal): Promise<void> {
    const { bucket, source, log } = this.#o;
    const progress = await this.progress();
    const open = progress.tables.filter(({ state }) => state !== 'done');
    const left = open.filter(({ needed }) => needed !== true);
    for (const table of left) this.#aside.delete(table);
    if (left.length > 0) {
      const begun = left.filter(
        ({ state, keys, part }) => state === 'running' && keys === undefined && part === undefined,
      );
      if (begun.length > 0) await this.#o.giveUp(begun, signal);
      for (const table of left) Object.assign(table, { state: 'done', cancelled: true });
      await this.#o.progress.write(progress);
      log.info('snapshot cancelled');
    }
    if (open.length > left.length)
      log.warn(
        { tables: open.filter((table) => !left.includes(table)).map(nameOf) },
        'tables whose changes are not all in the log are read to their end all the same',
      );
    // Only now: a crash before this line finds the request again.
    await removeRequest(bucket, source, id);
  }

  #isDue(table: TableProgress): boolean {
    return table.state !== 'done' && (this.#aside.get(table)?.untilMs ?? 0) <= performance.now();
  }

  #setAside(table: TableProgress, why: string): void {
    this.#aside.set(table, { untilMs: performance.now() + ASIDE_MS, why });
    this.#o.log.warn({ table: nameOf(table), waitMs: ASIDE_MS }, `a table is left for later: ${why}`);
  }

  /** Takes up what waits, in its order. Ends a reading where that is asked for. */
  async #takeRequests(signal: AbortSignal): Promise<void> {
    for (const request of await this.#waiting()) {
      // A reset begins at another place of the log: the next run does that.
      if (request.reset === true)
        throw new ReplicationError('stream_conflict', `a snapshot from scratch was asked for (${request.id})`);
      if (request.cancel !== true) await this.#take(request);
      else if (this.#running) {
        this.#cancel = request.id;
        return;
      } else await this.#cancelled(request.id, signal);
    }
  }

  /** A reading goes on when the broker does not answer for a moment. */
  async #waiting(): Promise<readonly SnapshotRequest[]> {
    const { bucket, source, log } = this.#o;
    try {
      return await readRequests(bucket, source);
    } catch (thrown) {
      if (!this.#running || asReplicationError(thrown).code === 'frame_version') throw thrown;
      log.debug({ err: String(thrown) }, 'looking for requests failed; looking again');
      return [];
    }
  }

  async #take(request: SnapshotRequest): Promise<void> {
    const { bucket, source, log } = this.#o;
    const progress = await this.progress();
    if (mustWait(progress.tables, request)) return;
    const asked = request.tables === undefined ? undefined : new Set(request.tables);
    const isAsked = (table: TableName): boolean => asked?.has(nameOf(table)) !== false;
    const isPartial = request.keys !== undefined || request.span !== undefined;
    const chosen = await this.#o.tables((table) => !isPartial && isAsked(table));
    const wanted = chosen.filter(isAsked);
    const unknown = [...(asked ?? [])].filter((name) => !wanted.some((table) => nameOf(table) === name));
    log.info(
      { tables: wanted.map(nameOf), keys: request.keys?.length, range: request.span !== undefined },
      'snapshot requested',
    );
    if (unknown.length > 0) log.warn({ tables: unknown }, 'a snapshot was asked for of tables that are not captured');
    progress.id = request.id;
    progress.tables = withRequest(progress.tables, request, wanted);
    await this.#o.progress.write(progress);
    // Only now: a crash before this line finds the request again, and taking it up twice does no harm.
    await removeRequest(bucket, source, request.id);
  }
}
