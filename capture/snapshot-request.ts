/** What is asked of a snapshot and how far it is, in the KV bucket, so that both outlive every process. */
import type { KV, KvEntry } from '@nats-io/kv';
import type { NatsConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { openBucket } from '../core/lease.ts';
import type { Subscription } from '@nats-io/transport-node';
import { connectNats, natsError, type Nats } from '../core/nats.ts';
import { addRequest } from './request-queue.ts';

export interface SnapshotRequest {
  readonly v: 1;
  readonly id: string;
  /** `schema.name`; absent: all tables. */
  readonly tables?: readonly string[];
  readonly cancel?: boolean;
  /** Make a new slot: what happened since the old one is read again. */
  readonly reset?: boolean;
  /** Read only the rows with these keys, of the one table named, and say of those that are not there that they are gone. */
  readonly keys?: readonly KeyTexts[];
  /** Read only the rows with keys in it, of the one table named. */
  readonly span?: KeySpan;
}

/** Values of a key's columns as text, in key order. */
export type KeyTexts = readonly string[];

/** The keys from `from` on, to before `to`; null: from the first on, to the last. */
export interface KeySpan {
  /** The first columns of the key, as many as the bounds name, as they were when it was asked for. */
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  readonly from: KeyTexts | null;
  readonly to: KeyTexts | null;
}

/** A part of a table's keys, and how far it is read. */
export interface KeyRange {
  /** Behind this key it begins; by and by, of the last row that is stored. Null: from the first row on. */
  cursor: string[] | null;
  /** Its last key; null: to the last row. */
  upTo: string[] | null;
  done?: boolean;
}

export interface TableProgress {
  readonly schema: string;
  readonly name: string;
  state: 'pending' | 'running' | 'done';
  /** Key of a row, as text: up to it all rows are stored in the stream; null before the first chunk. */
  cursor: string[] | null;
  /** The key that `cursor` and `ranges` are of. */
  keyed?: string;
  /** What of a table with a key is not stored yet: read in several places at once, or read and on its way. */
  ranges?: KeyRange[];
  rows: number;
  /** Rows there are about, as the source estimates. */
  estimate?: number;
  /** The request that this answers: the last one. */
  request?: string;
  /** Those before it that this answers as well. */
  also?: readonly string[];
  /** It was given up before it was read to its end. */
  cancelled?: true;
  /** The stream has not had its rows yet, or lacks what was changed in a hole of the log. */
  first?: true;
  /** The log alone does not bring what it is read for, so nobody's cancelling ends it. */
  needed?: true;
  /** Of one that is needed: types of columns that are the same for certain may have lost values. */
  narrower?: true;
  /** Of one that is needed: which of its columns is which was guessed, and may have been told wrongly. */
  unsure?: true;
  /** Of one that is needed: somebody asked for it, too. */
  asked?: true;
  /** Its name in marks, once it has begun. */
  reading?: string;
  /** Only the rows of this partition are read. */
  part?: { readonly schema: string; readonly name: string };
  /** Only these rows are read. */
  keys?: readonly KeyTexts[];
  /** Only rows with keys in it are read. */
  span?: KeySpan;
}

export interface SnapshotProgress {
  readonly v: 1;
  /** The request that was taken up last. */
  id: string;
  tables: TableProgress[];
}

/** Whether the reading of a table is what a request waits for. */
export function answers({ request, also }: TableProgress, id: string): boolean {
  return request === id || also?.includes(id) === true;
}

/** Plain messages to the capture that a request is there: it looks from time to time, and at once when it hears one. */
const askedSubject = (prefix: string, source: string): string => `${prefix}.asked.${source}`;

/** Hears that a request may be there, until the subscription or the connection ends. */
export function hearAsked(nats: Nats, prefix: string, source: string, hear: () => void): Subscription {
  return nats.connection.subscribe(askedSubject(prefix, source), { callback: hear });
}

/** Puts a request behind those that wait, and tells the capture. False when too much waits already. */
export async function ask(
  nats: Nats,
  config: NatsConfig,
  source: string,
  request: SnapshotRequest,
  bucket?: KV,
): Promise<boolean> {
  if (!(await addRequest(bucket ?? (await openBucket(nats, config)), source, request))) return false;
  nats.connection.publish(askedSubject(config.prefix, source));
  return true;
}

const progressKey = (source: string): string => `snapshot.${source}`;

/**
 * Asks the capture of `source` to read tables again, or to stop doing so. Returns the request's id. Throws
 * `config_invalid` for what does not go together.
 */
export async function requestSnapshot(
  config: NatsConfig,
  source: string,
  options: { tables?: readonly string[]; cancel?: boolean; reset?: boolean; span?: KeySpan },
): Promise<string> {
  const { tables = [], cancel = false, reset = false, span } = options;
  const wrong =
    cancel && reset
      ? 'to cancel and to reset are two requests'
      : (cancel || reset) && (tables.length > 0 || span !== undefined)
        ? `to ${cancel ? 'cancel' : 'reset'} is for a source as a whole: leave out the tables`
        : undefined;
  if (wrong !== undefined) throw new ReplicationError('config_invalid', wrong);
  const nats = await connectNats(config, 'waybill snapshot');
  try {
    const id = newSnapshotId();
    const asked = await ask(nats, config, source, {
      v: 1,
      id,
      ...(tables.length === 0 ? {} : { tables }),
      ...(cancel ? { cancel } : {}),
      ...(reset ? { reset } : {}),
      ...(span === undefined ? {} : { span }),
    });
    if (!asked)
      throw new ReplicationError(
        'verify_stalled',
        `so many requests wait already that no more can be kept: no capture of ${source} takes them up`,
      );
    await nats.connection.flush();
    return id;
  } catch (thrown) {
    throw natsError(thrown, `asking for a snapshot of ${source}`);
  } finally {
    await nats.close();
  }
}

/** What the mark says where the reading of a whole table begins. */
export function beginContent(
  id: string,
  table: Pick<TableProgress, 'needed' | 'asked' | 'narrower' | 'unsure'> = {},
): string[] {
  if (!isUnasked(table)) return [id, 'begin'];
  if (table.unsure === true) return [id, 'begin', 'unasked', 'unsure'];
  return [id, 'begin', 'unasked', ...(table.narrower === true ? ['narrower'] : [])];
}

/** What the mark of a reading says that is not brought to its end. */
export type CancelMark = 'cancel' | 'cancel_range';

export function cancelMark({ span }: TableProgress): CancelMark {
  return span === undefined ? 'cancel' : 'cancel_range';
}

/** Whether nobody asked for the reading of a table: it has to be read because of what became of it. */
export function isUnasked({ needed, asked }: Pick<TableProgress, 'needed' | 'asked'>): boolean {
  return needed === true && asked !== true;
}

/**
 * The name of a table's reading in its marks: the same from the first on, whatever is asked for meanwhile. A range bears
 * the name of its request, since other readings of the table end by themselves.
 */
export function nameReading(progress: SnapshotProgress, table: TableProgress, place: string | number): string {
  table.reading ??= `${table.span === undefined ? progress.id : table.request}_${place}`;
  return table.reading;
}

export function newSnapshotId(): string {
  return (
    Date.now().toString(36) +
    Math.floor(Math.random() * 1296)
      .toString(36)
      .padStart(2, '0')
  );
}

export async function readProgress(bucket: KV, source: string): Promise<SnapshotProgress | undefined> {
  return read<SnapshotProgress>(bucket, progressKey(source));
}

/**
 * The progress as one capture reads and writes it. A write fits only what this store read or wrote last: a capture that
 * another one has overtaken fails with `stream_conflict`, and does not set the other's cursors back.
 */
export class ProgressStore {
  readonly #bucket: KV;
  readonly #source: string;
  #revision = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(bucket: KV, source: string) {
    this.#bucket = bucket;
    this.#source = source;
  }

  async read(): Promise<SnapshotProgress | undefined> {
    const key = progressKey(this.#source);
    const entry = await guard(`reading ${key}`, this.#bucket.get(key));
    this.#revision = entry?.revision ?? 0;
    return decode(key, entry) as SnapshotProgress | undefined;
  }

  /** Writes are done one after the other, each with what the progress is by then. */
  async write(progress: SnapshotProgress): Promise<void> {
    const written = this.#writing.then(() => this.#write(progress));
    this.#writing = written.catch(() => {});
    await written;
  }

  async #write(progress: SnapshotProgress): Promise<void> {
    const key = progressKey(this.#source);
    const text = JSON.stringify(progress);
    const written =
      this.#revision === 0 ? this.#bucket.create(key, text) : this.#bucket.update(key, text, this.#revision);
    this.#revision = await guard(`storing the snapshot progress of ${this.#source}`, written);
  }
}

async function read<T extends { v: number }>(bucket: KV, key: string): Promise<T | undefined> {
  return decode(key, await guard(`reading ${key}`, bucket.get(key))) as T | undefined;
}

function decode(key: string, entry: KvEntry | null): { v: number } | undefined {
  if (entry === null || entry.operation !== 'PUT') return undefined;
  const value = entry.json<{ v: number }>();
  if (value.v !== 1) throw new ReplicationError('frame_version', `${key} was written by a newer version`);
  return value;
}

async function guard<T>(doing: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    throw natsError(thrown, doing);
  }
}
