/** Records as messages of their own in NATS, as a store that a flow applies to: one stream for each entity. */
import {
  DiscardPolicy,
  JetStreamApiError,
  RetentionPolicy,
  StorageType,
  StoreCompression,
  type StreamInfo,
} from '@nats-io/jetstream';
import type { NatsConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { connectNats, natsError, type Nats } from '../../core/nats.ts';
import { parsePosition } from '../../core/position.ts';
import { recordsStreamName, recordsSubject } from '../../core/record-messages.ts';
import type { BatchSink, StoreSession, TargetStore } from '../target-store.ts';
import { FanOutSink, type FanOutPlace, type FanOutStart } from './fan-out-sink.ts';

const NO_MESSAGE = 10037;
const NO_STREAM = 10059;

export function createFanOutStore(config: NatsConfig, entity: string): TargetStore {
  return {
    async open(applicationName): Promise<StoreSession> {
      const nats = await connectNats(config, applicationName);
      const lost = new AbortController();
      void nats.connection
        .closed()
        .then(() => lost.abort(new ReplicationError('nats_unreachable', 'the connection to NATS was closed')));
      return {
        lost: lost.signal,
        close: () => nats.close(),
        async openSink({ report }): Promise<BatchSink> {
          const { prefix } = config;
          const stream = recordsStreamName(prefix, entity);
          const subject = recordsSubject(prefix, entity);
          const info = await ensureRecordsStream(nats, stream, subject, config.replicas);
          const place = await readFanOutPlace(nats, prefix, entity);
          const atomic = info.config.allow_atomic === true;
          return new FanOutSink({ nats, prefix, entity, stream, atomic, lastSeq: info.state.last_seq, report }, place);
        },
      };
    },
  };
}

/** Makes the stream when it is not there. It keeps the newest message of each subject, and nothing expires from it. */
async function ensureRecordsStream(nats: Nats, name: string, subject: string, replicas: number): Promise<StreamInfo> {
  try {
    const info = await nats.manager.streams.info(name);
    if (info.config.max_msgs_per_subject !== 1 || !info.config.subjects.includes(subject))
      throw new ReplicationError('stream_foreign', `stream ${name} exists with other subjects or retention`);
    return info;
  } catch (thrown) {
    if (!(thrown instanceof JetStreamApiError) || thrown.code !== NO_STREAM) throw natsError(thrown, `stream ${name}`);
  }
  try {
    return await nats.manager.streams.add({
      name,
      subjects: [subject, `${subject}.>`],
      description: `Waybill: the records of ${subject}, one message each`,
      retention: RetentionPolicy.Limits,
      storage: StorageType.File,
      discard: DiscardPolicy.Old,
      compression: StoreCompression.S2,
      num_replicas: replicas,
      max_msgs_per_subject: 1,
      allow_direct: true,
      allow_atomic: true,
    });
  } catch (thrown) {
    throw natsError(thrown, `cannot create stream ${name}`);
  }
}

/**
 * How far the records of an entity have come; undefined where none have been written. Through the leader: a replica that lags
 * would have records written again. Throws `nats_*`, `frame_version`, `frame_unreadable`.
 */
export async function readFanOutPlace(nats: Nats, prefix: string, entity: string): Promise<FanOutStart | undefined> {
  const [stream, subject] = [recordsStreamName(prefix, entity), recordsSubject(prefix, entity)];
  try {
    const message = await nats.manager.streams.getMessage(stream, { last_by_subj: subject });
    if (message === null) return undefined;
    const place = message.json<FanOutPlace>();
    if (place.v !== 1) throw new ReplicationError('frame_version', `${subject} was written by a newer version`);
    const position = parsePosition(place.position);
    if (position === undefined) throw new ReplicationError('frame_unreadable', `${subject} tells no position`);
    return { position, seq: place.seq, anew: place.anew };
  } catch (thrown) {
    if (thrown instanceof JetStreamApiError && [NO_MESSAGE, NO_STREAM].includes(thrown.code)) return undefined;
    throw natsError(thrown, `reading how far stream ${stream} has come`);
  }
}
