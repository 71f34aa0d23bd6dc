/** What the transform of a flow is asked for, in the KV bucket: it outlives processes. */
import type { KV } from '@nats-io/kv';
import type { NatsConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { openBucket } from '../core/lease.ts';
import { connectNats, natsError } from '../core/nats.ts';

/** The wish that a flow reads its mapping again and writes all records anew. */
export interface AnewRequest {
  readonly v: 1;
  readonly id: string;
}

/** The wish that some records are passed on once more, as they were passed on last. Keys are values of the key's fields. */
export interface AgainRequest extends AnewRequest {
  /** Those that are there. */
  readonly again: readonly (readonly string[])[];
  /** Those that are said to be gone, where they are. */
  readonly gone: readonly (readonly string[])[];
}

const anewKey = (flow: string): string => `transform-request.${flow}`;
const againKey = (flow: string): string => `transform-again.${flow}`;

/** Asks the transform of a flow to read its mapping again and write all records anew. Gives the request's id. */
export async function requestAnew(config: NatsConfig, flow: string): Promise<string> {
  const nats = await connectNats(config, 'waybill transform request');
  try {
    return await ask(await openBucket(nats, config), anewKey(flow), {});
  } finally {
    await nats.close();
  }
}

/** Asks the transform of a flow to pass records on once more. Gives the request's id. */
export async function requestAgain(
  bucket: KV,
  flow: string,
  keys: Pick<AgainRequest, 'again' | 'gone'>,
): Promise<string> {
  return await ask(bucket, againKey(flow), keys);
}

/** The request for all records that waits for an answer, if one does. */
export async function readRequest(bucket: KV, flow: string): Promise<AnewRequest | undefined> {
  return await read<AnewRequest>(bucket, anewKey(flow));
}

/** The request for some records that waits for an answer, if one does. */
export async function readAgain(bucket: KV, flow: string): Promise<AgainRequest | undefined> {
  return await read<AgainRequest>(bucket, againKey(flow));
}

/** Notes that a request for all records has been fulfilled, unless another one has come. */
export async function answerRequest(bucket: KV, flow: string, request: AnewRequest): Promise<void> {
  await answer(bucket, anewKey(flow), request);
}

/** Notes that a request for some records has been fulfilled, unless another one has come. */
export async function answerAgain(bucket: KV, flow: string, request: AgainRequest): Promise<void> {
  await answer(bucket, againKey(flow), request);
}

async function ask(bucket: KV, key: string, what: object): Promise<string> {
  const id = Date.now().toString(36);
  try {
    await bucket.put(key, JSON.stringify({ v: 1, id, ...what }));
    return id;
  } catch (thrown) {
    throw natsError(thrown, `writing ${key}`);
  }
}

async function read<T extends AnewRequest>(bucket: KV, key: string): Promise<T | undefined> {
  return (await readEntry(bucket, key))?.request as T | undefined;
}

async function readEntry(bucket: KV, key: string): Promise<{ request: AnewRequest; revision: number } | undefined> {
  try {
    const entry = await bucket.get(key);
    if (entry === null || entry.operation !== 'PUT') return undefined;
    const request = entry.json<AnewRequest>();
    if (request.v !== 1) throw new ReplicationError('frame_version', `${key} was written by a newer version`);
    return { request, revision: entry.revision };
  } catch (thrown) {
    throw natsError(thrown, `reading ${key}`);
  }
}

async function answer(bucket: KV, key: string, request: AnewRequest): Promise<void> {
  const found = await readEntry(bucket, key);
  if (found?.request.id !== request.id) return;
  try {
    await bucket.delete(key, { previousSeq: found.revision });
  } catch (thrown) {
    const error = natsError(thrown, `answering ${key}`);
    // Another one has come since.
    if (error.code !== 'stream_conflict') throw error;
  }
}
