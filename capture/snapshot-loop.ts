/** Reads what the stored progress of a source's snapshots asks for, and takes up requests for more. */
import type { KV } from '@nats-io/kv';
import { ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import { abortableDelay } from '../core/run-service.ts';
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

export interface SnapshotLoopOptions {
  readonly source: string;
  readonly bucket: KV;
  readonly progress: ProgressStore;
  readonly log: Logger;
  /** Reads every table of `progress` that is not done; stops early when `cancelled` says so or the signal aborts. */
  readonly read: (progress: SnapshotProgress, cancelled: () => boolean, signal: AbortSignal) => Promise<void>;
  /** The tables that the configuration chooses now, ready to be captured. */
  readonly tables: () => Promise<readonly TableName[]>;
}

const REQUEST_POLL_MS = 1000;

export class SnapshotLoop {
  readonly #o: SnapshotLoopOptions;
  #loaded: Promise<SnapshotProgress | undefined> | undefined;
  #own: SnapshotProgress | undefined;
  #running = false;
  #cancel = false;
  #wake: (() => void) | undefined;

  constructor(options: SnapshotLoopOptions) {
    this.#o = options;
  }

  /** Whether a snapshot is being read. */
  get running(): boolean {
    return this.#running;
  }

  /** The one copy of the progress: read once, since nobody else writes it while the lease is held. */
  async progress(): Promise<SnapshotProgress> {
    this.#loaded ??= this.#o.progress.read();
    this.#own ??= (await this.#loaded) ?? { v: 1, id: newSnapshotId(), tables: [] };
    return this.#own;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const progress = await this.progress();
      if (progress.tables.some((table) => table.state !== 'done')) await this.#read(progress, signal);
      await this.#takeRequest();
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      await abortableDelay(REQUEST_POLL_MS, AbortSignal.any([signal, woken.signal]));
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
    const { log } = this.#o;
    this.#cancel = false;
    this.#running = true;
    const poll = setInterval(() => void this.#pollCancel(), REQUEST_POLL_MS);
    try {
      await this.#o.read(progress, () => this.#cancel, signal);
      if (this.#cancel) {
        for (const table of progress.tables) table.state = 'done';
        await this.#o.progress.write(progress);
        log.info('snapshot cancelled');
      }
    } finally {
      clearInterval(poll);
      this.#running = false;
    }
  }

  async #pollCancel(): Promise<void> {
    const { bucket, source, log } = this.#o;
    try {
      if ((await readRequest(bucket, source))?.cancel === true) {
        this.#cancel = true;
        await clearRequest(bucket, source);
      }
    } catch (thrown) {
      log.debug({ err: String(thrown) }, 'looking for a cancel request failed; looking again');
    }
  }

  async #takeRequest(): Promise<void> {
    const { bucket, source, log } = this.#o;
    const request = await readRequest(bucket, source);
    if (request === undefined) return;
    // A reset begins at another place of the log: the next run does that.
    if (request.reset === true)
      throw new ReplicationError('stream_conflict', `a snapshot from scratch was asked for (${request.id})`);
    if (request.cancel === true) return clearRequest(bucket, source);
    const chosen = await this.#o.tables();
    const wanted = chosen.filter((table) => request.tables === undefined || request.tables.includes(nameOf(table)));
    const names = new Set(wanted.map(nameOf));
    const others = (await this.progress()).tables.filter((table) =>
      request.keys === undefined ? !names.has(nameOf(table)) : table.keys === undefined || table.state !== 'done',
    );
    log.info({ tables: [...names], keys: request.keys?.length }, 'snapshot requested');
    const added = wanted.map(({ schema, name }): TableProgress => ({
      schema,
      name,
      state: 'pending',
      cursor: null,
      rows: 0,
      request: request.id,
      ...(request.keys === undefined ? {} : { keys: request.keys }),
    }));
    this.#own = { v: 1, id: request.id, tables: [...others, ...added] };
    await this.#o.progress.write(this.#own);
    // Only now: a crash before this line finds the request again, and taking it up twice does no harm.
    await clearRequest(bucket, source);
  }
}

function nameOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}
