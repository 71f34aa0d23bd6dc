/**
 * Since when a flow has not been proven equal: kept in the KV bucket, so that a flow of which no comparison ever came to
 * its end is late one day, however often its processes begin anew.
 */
import type { KV } from '@nats-io/kv';
import { ReplicationError } from '../../core/errors.ts';
import { natsError } from '../../core/nats.ts';

interface Value {
  readonly v: 1;
  /** Milliseconds since 1970: when the newest comparison that proved it began, or else when it was first to be compared. */
  readonly since: number;
}

const keyOf = (flow: string): string => `proof.${flow}`;

/** The last proof, or when the flow was first to be compared: now, where nothing is known. Throws classified errors. */
export async function proofSince(bucket: KV, flow: string): Promise<Date> {
  try {
    const entry = await bucket.get(keyOf(flow));
    if (entry === null || entry.operation !== 'PUT') {
      const now = new Date();
      await noteProof(bucket, flow, now);
      return now;
    }
    const value = entry.json<Value>();
    if (value.v !== 1) throw new ReplicationError('frame_version', `${keyOf(flow)} was written by a newer version`);
    return new Date(value.since);
  } catch (thrown) {
    throw natsError(thrown, `looking for the last proof of flow ${flow}`);
  }
}

/** Notes that a comparison that began at `at` has proven the flow equal. Throws classified errors. */
export async function noteProof(bucket: KV, flow: string, at: Date): Promise<void> {
  try {
    await bucket.put(keyOf(flow), JSON.stringify({ v: 1, since: at.getTime() } satisfies Value));
  } catch (thrown) {
    throw natsError(thrown, `noting the proof of flow ${flow}`);
  }
}
