/** The wish that a flow reads its mapping again and writes all records anew, in the KV bucket: it outlives processes. */
import type { KV } from '@nats-io/kv';
import type { NatsConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { openBucket } from '../core/lease.ts';
import { connectNats, natsError } from '../core/nats.ts';

export interface AnewRequest {
  readonly v: 1;
  readonly id: string;
}

const requestKey = (flow: string): string => `transform-request.${flow}`;

/** Asks the transform of a flow to read its mapping again and write all records anew. Gives the request's id. */
export async function requestAnew(config: NatsConfig, flow: string): Promise<string> {
  const nats = await connectNats(config, 'waybill transform request');
  try {
    const bucket = await openBucket(nats, config);
    const id = Date.now().toString(36);
    const request: AnewRequest = { v: 1, id };
    await bucket.put(requestKey(flow), JSON.stringify(request));
    return id;
  } catch (thrown) {
    throw natsError(thrown, `asking for the records of ${flow}`);
  } finally {
    await nats.close();
  }
}

/** The request that waits for an answer, if one does. */
export async function readRequest(bucket: KV, flow: string): Promise<AnewRequest | undefined> {
  try {
    const entry = await bucket.get(requestKey(flow));
    if (entry === null || entry.operation !== 'PUT') return undefined;
    const request = entry.json<AnewRequest>();
    if (request.v !== 1)
      throw new ReplicationError('frame_version', `${requestKey(flow)} was written by a newer version`);
    return request;
  } catch (thrown) {
    throw natsError(thrown, `reading ${requestKey(flow)}`);
  }
}

/** Notes that a request has been fulfilled, unless another one has come. */
export async function answerRequest(bucket: KV, flow: string, request: AnewRequest): Promise<void> {
  if ((await readRequest(bucket, flow))?.id !== request.id) return;
  try {
    await bucket.delete(requestKey(flow));
  } catch (thrown) {
    throw natsError(thrown, `answering ${requestKey(flow)}`);
  }
}
