/** Asks the running capture of a source to read rows again, and waits until the stream holds them. */
import type { KV } from '@nats-io/kv';
import type { NatsConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { openBucket } from '../core/lease.ts';
import type { Nats } from '../core/nats.ts';
import { abortableDelay } from '../core/run-service.ts';
import { readRequests } from './request-queue.ts';
import { answers, ask, newSnapshotId, readProgress, type KeyTexts, type SnapshotRequest } from './snapshot-request.ts';

/** What one request names at most: requests and progress are messages of the bucket. */
const KEYS_PER_REQUEST = 1000;
const BYTES_PER_REQUEST = 128 * 1024;
const POLL_MS = 200;
/** How long a request may wait for a capture to take it up. */
const TAKE_UP_MS = 60_000;

export interface RereadOptions {
  readonly nats: Nats;
  readonly config: NatsConfig;
  readonly source: string;
  readonly schema: string;
  readonly table: string;
  /** Rows that are there are published as read, keys that no row has as deleted. `all`: the whole table, from scratch. */
  readonly keys: readonly KeyTexts[] | 'all';
  readonly signal: AbortSignal;
}

/** Resolves when the stream holds what was asked for. Throws `verify_stalled` when no capture takes the request up. */
export async function rereadRows(options: RereadOptions): Promise<void> {
  const bucket = await openBucket(options.nats, options.config);
  if (options.keys === 'all') return await reread(bucket, options, undefined);
  let keys: KeyTexts[] = [];
  let bytes = 0;
  for (const key of options.keys) {
    const size = Buffer.byteLength(JSON.stringify(key));
    if (keys.length > 0 && (keys.length >= KEYS_PER_REQUEST || bytes + size > BYTES_PER_REQUEST)) {
      await reread(bucket, options, keys);
      keys = [];
      bytes = 0;
    }
    keys.push(key);
    bytes += size;
  }
  if (keys.length > 0) await reread(bucket, options, keys);
}

async function reread(bucket: KV, options: RereadOptions, keys: readonly KeyTexts[] | undefined): Promise<void> {
  const { source, schema, table, signal } = options;
  const request: SnapshotRequest = {
    v: 1,
    id: newSnapshotId(),
    tables: [`${schema}.${table}`],
    ...(keys === undefined ? {} : { keys }),
  };
  const untilMs = performance.now() + TAKE_UP_MS;
  const place = `${schema}.${table}`;
  let asked = false;
  for (;;) {
    signal.throwIfAborted();
    asked ||= await ask(options.nats, options.config, source, request, bucket);
    const waits = !asked || (await readRequests(bucket, source)).some(({ id }) => id === request.id);
    if (!waits) {
      const own = (await readProgress(bucket, source))?.tables.filter((each) => answers(each, request.id)) ?? [];
      if (own.some(({ cancelled }) => cancelled === true))
        throw new ReplicationError('verify_stalled', `the reading of rows of ${place} was cancelled`);
      if (own.every(({ state }) => state === 'done')) return;
    } else if (performance.now() > untilMs)
      throw new ReplicationError(
        'verify_stalled',
        `no capture of ${source} took up the request to read rows of ${place} again`,
      );
    await abortableDelay(POLL_MS, signal);
  }
}
