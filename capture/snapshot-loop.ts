/** Reads what the stored progress of a source's snapshots asks for, and takes up requests for more. */
import type { KV } from '@nats-io/kv';
import { ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { SnapshotFacts } from '../core/metrics.ts';
import { abortableDelay } from '../core/run-service.ts';
import { describeSnapshot, SnapshotMeter } from './snapshot-progress.ts';
import {
  clearRequest,
  newSnapshotId,
  readRequest,
  type ProgressStore,
  type SnapshotProgress,
  type TableProgress,
} from './snapshot-request.ts';

interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** One pass over the tables that are to be read. */
export interface SnapshotTask {
  /** To be written after each chunk; tables that are done say so in it. */
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
  /** The tables that the configuration chooses now, ready to be captured. */
  readonly tables: () => Promise<readonly TableName[]>;
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
  #cancel = false;
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
      this.#asked = false;
      const progress = await this.progress();
      for (const table of this.#aside.keys()) if (!progress.tables.includes(table)) this.#aside.delete(table);
      if (progress.tables.some((table) => this.#isDue(table))) await this.#read(progress, signal);
      await this.#takeRequest(signal);
      // What was just asked for is read at once.
      if (progress !== (await this.progress())) continue;
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      if (!this.#asked) await abortableDelay(REQUEST_POLL_MS, AbortSignal.any([signal, woken.signal]));
    }
  }

  /** Adds a table that was not known; stored when this resolves. A known one is left as it is. */
  async plan(schema: string, name: string, state: 'pending' | 'done'): Promise<void> {
    const progress = await this.progress();
    if (progress.tables.some((table) => table.schema === schema && table.name === name)) return;
    progress.tables.push({ schema, name, state, cursor: null, rows: 0 });
    await this.#o.progress.write(progress);
  }

  /** Has tables read from the beginning, also where that is under way; stored when this resolves. */
  async readAgain(tables: readonly TableName[]): Promise<void> {
    const progress = await this.progress();
    const names = new Set(tables.map(nameOf));
    // New entries: a snapshot that is running goes on with the old ones, whose progress nobody stores any more.
    progress.tables = [
      ...progress.tables.filter((table) => !names.has(nameOf(table))),
      ...tables.map(({ schema, name }): TableProgress => ({ schema, name, state: 'pending', cursor: null, rows: 0 })),
    ];
    await this.#o.progress.write(progress);
    this.#wake?.();
  }

  /** Has one partition of a table read, whose rows came with it; stored when this resolves. */
  async readPart({ schema, name }: TableName, part: TableName): Promise<void> {
    const progress = await this.progress();
    progress.tables.push({ schema, name, state: 'pending', cursor: null, rows: 0, part: { ...part } });
    await this.#o.progress.write(progress);
    this.#wake?.();
  }

  async #read(progress: SnapshotProgress, signal: AbortSignal): Promise<void> {
    this.#cancel = false;
    this.#running = true;
    const poll = setInterval(() => void this.#pollCancel(), REQUEST_POLL_MS);
    try {
      const task: SnapshotTask = {
        progress,
        cancelled: () => this.#cancel,
        isDue: (table) => this.#isDue(table),
        setAside: (table, why) => this.#setAside(table, why),
      };
      await this.#pollCancel();
      if (!this.#cancel) await this.#o.read(task, signal);
      for (const [table, { untilMs }] of this.#aside)
        if (table.state === 'done' || untilMs <= performance.now()) this.#aside.delete(table);
      if (this.#cancel && !signal.aborted) await this.#cancelled(signal);
    } finally {
      clearInterval(poll);
      this.#running = false;
    }
  }

  /** What is still to be read is not: also what waits for another try. */
  async #cancelled(signal: AbortSignal): Promise<void> {
    const { bucket, source, log } = this.#o;
    const progress = await this.progress();
    this.#aside.clear();
    const left = progress.tables.filter(({ state }) => state !== 'done');
    if (left.length > 0) {
      const begun = left.filter(
        ({ state, keys, part }) => state === 'running' && keys === undefined && part === undefined,
      );
      if (begun.length > 0) await this.#o.giveUp(begun, signal);
      for (const table of left) table.state = 'done';
      await this.#o.progress.write(progress);
      log.info('snapshot cancelled');
    }
    // Only now: a crash before this line finds the request again.
    if ((await readRequest(bucket, source))?.cancel === true) await clearRequest(bucket, source);
  }

  #isDue(table: TableProgress): boolean {
    return table.state !== 'done' && (this.#aside.get(table)?.untilMs ?? 0) <= performance.now();
  }

  #setAside(table: TableProgress, why: string): void {
    this.#aside.set(table, { untilMs: performance.now() + ASIDE_MS, why });
    this.#o.log.warn({ table: nameOf(table), waitMs: ASIDE_MS }, `a table is left for later: ${why}`);
  }

  async #pollCancel(): Promise<void> {
    const { bucket, source, log } = this.#o;
    try {
      if ((await readRequest(bucket, source))?.cancel === true) this.#cancel = true;
    } catch (thrown) {
      log.debug({ err: String(thrown) }, 'looking for a cancel request failed; looking again');
    }
  }

  async #takeRequest(signal: AbortSignal): Promise<void> {
    const { bucket, source, log } = this.#o;
    const request = await readRequest(bucket, source);
    if (request === undefined) return;
    // A reset begins at another place of the log: the next run does that.
    if (request.reset === true)
      throw new ReplicationError('stream_conflict', `a snapshot from scratch was asked for (${request.id})`);
    if (request.cancel === true) return this.#cancelled(signal);
    const chosen = await this.#o.tables();
    const wanted = chosen.filter((table) => request.tables === undefined || request.tables.includes(nameOf(table)));
    const names = new Set(wanted.map(nameOf));
    const { tables } = await this.progress();
    // Of one table one reading at a time: what was not seen between begin and end of one tells nothing of the other.
    if (request.span !== undefined && tables.some((table) => names.has(nameOf(table)) && table.state !== 'done'))
      return;
    const others = tables.filter((table) =>
      isPartial(request) ? !isPartial(table) || table.state !== 'done' : !names.has(nameOf(table)),
    );
    log.info(
      { tables: [...names], keys: request.keys?.length, range: request.span !== undefined },
      'snapshot requested',
    );
    const added = wanted.map(({ schema, name }): TableProgress => ({
      schema,
      name,
      state: 'pending',
      cursor: null,
      rows: 0,
      request: request.id,
      ...(request.keys === undefined ? {} : { keys: request.keys }),
      ...(request.span === undefined ? {} : { span: request.span }),
    }));
    this.#own = { v: 1, id: request.id, tables: [...others, ...added] };
    await this.#o.progress.write(this.#own);
    // Only now: a crash before this line finds the request again, and taking it up twice does no harm.
    await clearRequest(bucket, source);
  }
}

/** Whether only some rows of a table are read, beside what is known of the table as a whole. */
function isPartial({ keys, span }: Pick<TableProgress, 'keys' | 'span'>): boolean {
  return keys !== undefined || span !== undefined;
}

function nameOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}
