/**
 * Requests for snapshots of a source that no capture has taken up yet, in the order in which they were asked for. They
 * stand in one value of the KV bucket: the first of them as the value itself, as versions that knew one request alone
 * wrote it, and the others behind it.
 */
import type { KV } from '@nats-io/kv';
import { ReplicationError } from '../core/errors.ts';
import { natsError } from '../core/nats.ts';
import type { SnapshotRequest } from './snapshot-request.ts';

interface StoredQueue extends SnapshotRequest {
  readonly behind?: readonly SnapshotRequest[];
}

/** What waits together at most: the value is one message. */
const MOST_BYTES = 512 * 1024;

const queueKey = (source: string): string => `snapshot-request.${source}`;

export async function readRequests(bucket: KV, source: string): Promise<readonly SnapshotRequest[]> {
  return (await load(bucket, source)).requests;
}

/** Puts a request behind those that wait. False when too much waits already; nothing is put then. */
export async function addRequest(bucket: KV, source: string, request: SnapshotRequest): Promise<boolean> {
  return await change(bucket, source, (requests) => {
    const all = [...requests, request];
    return requests.length > 0 && Buffer.byteLength(encode(all)) > MOST_BYTES ? undefined : all;
  });
}

/** A request was taken up. Taking it away twice does no harm. */
export async function removeRequest(bucket: KV, source: string, id: string): Promise<void> {
  await change(bucket, source, (requests) =>
    requests.some((each) => each.id === id) ? requests.filter((each) => each.id !== id) : undefined,
  );
}

/** Writes what `make` makes of the queue, anew whenever somebody else was faster; false where it makes nothing. */
async function change(
  bucket: KV,
  source: string,
  make: (requests: readonly SnapshotRequest[]) => readonly SnapshotRequest[] | undefined,
): Promise<boolean> {
  const key = queueKey(source);
  for (;;) {
    const { requests, revision } = await load(bucket, source);
    const made = make(requests);
    if (made === undefined) return false;
    try {
      if (made.length === 0) await bucket.delete(key, { previousSeq: revision });
      else if (revision === 0) await bucket.create(key, encode(made));
      else await bucket.update(key, encode(made), revision);
      return true;
    } catch (thrown) {
      const error = natsError(thrown, `storing the snapshot requests of ${source}`);
      if (error.code !== 'stream_conflict') throw error;
    }
  }
}

async function load(bucket: KV, source: string): Promise<{ requests: readonly SnapshotRequest[]; revision: number }> {
  const key = queueKey(source);
  const entry = await bucket.get(key).catch((thrown: unknown) => {
    throw natsError(thrown, `reading ${key}`);
  });
  if (entry === null || entry.operation !== 'PUT') return { requests: [], revision: 0 };
  const { behind = [], ...first } = entry.json<StoredQueue>();
  if (first.v !== 1) throw new ReplicationError('frame_version', `${key} was written by a newer version`);
  return { requests: [first, ...behind], revision: entry.revision };
}

function encode([first, ...behind]: readonly SnapshotRequest[]): string {
  return JSON.stringify(behind.length === 0 ? first : { ...first, behind });
}
