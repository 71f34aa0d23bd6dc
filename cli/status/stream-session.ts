/** What NATS knows of sources and flows: ends of streams, what waits, who works, what the stages say of themselves. */
import type { KV } from '@nats-io/kv';
import { readProgress, type SnapshotProgress } from '../../capture/snapshot-request.ts';
import { cdcStreamName, parseFrameHeaders, readReset, readTail, type StreamTail } from '../../core/cdc-stream.ts';
import type { Config } from '../../core/config.ts';
import { asReplicationError, type ReplicationError } from '../../core/errors.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats, natsError, type Nats } from '../../core/nats.ts';
import { AlertEvaluator, type Alert } from '../../monitoring/alerts/evaluator.ts';
import { readStanding } from '../../monitoring/alerts/outbox.ts';
import { SampleSet } from '../../monitoring/alerts/sample-set.ts';
import type { StageFacts } from '../../monitoring/health.ts';
import { METRIC } from '../../monitoring/metric-names.ts';
import type { Position } from '../../core/position.ts';
import { flowPaths, type FlowPath } from './flow-paths.ts';
import { hearStages, type StageListener } from './stage-listener.ts';

/** What the stream of one source holds. */
export interface StreamReading {
  readonly tail: StreamTail;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly bytes: number;
  /** The frame from which everything is read again, in the newest part of the stream; 0 for none. */
  readonly resetSeq: number;
  /** When its newest frame was stored. */
  readonly storedAt: Date;
}

export interface NatsReading {
  /** The broker's clock. */
  readonly now: Date;
  /** By name of the stream; an error says why a stream could not be read. One that is not there yet is neither. */
  readonly streams: ReadonlyMap<string, StreamReading | ReplicationError>;
  readonly snapshots: ReadonlyMap<string, SnapshotProgress>;
  /** Stages (`capture:wms`, `apply:copy`) whose lease somebody renews. */
  readonly held: ReadonlySet<string>;
  /** Stages that spoke lately. */
  readonly facts: ReadonlyMap<string, StageFacts>;
  /** How long a heartbeat takes from a source to a target, in seconds, where one is measured: by `source target`. */
  readonly heartbeats: ReadonlyMap<string, number>;
  /** The alerts that stand: those that were told of, and those whose condition has held while this looked on. */
  readonly alerts: readonly Alert[];
  /** When the oldest frame that a flow has not applied was committed. */
  readonly waitingSince: ReadonlyMap<string, Date>;
  /** How far each fan-out has come, by its name; one that never wrote is not in it. */
  readonly fanOuts: ReadonlyMap<string, { readonly position: Position; readonly seq: number }>;
}

/** A lease that was not renewed for this long is nobody's. */
const LEASE_FRESH_MS = 15_000;

interface LeaseView {
  readonly released?: boolean;
}

export class StreamSession {
  readonly #config: Config;
  readonly #nats: Nats;
  readonly #bucket: KV;
  readonly #listener: StageListener;
  readonly #alerts: AlertEvaluator;
  /** The time of a frame never changes: by stream and sequence. */
  readonly #frameTimes = new Map<string, { seq: number; at: Date }>();

  private constructor(config: Config, nats: Nats, bucket: KV, listener: StageListener, standing: readonly Alert[]) {
    this.#config = config;
    this.#nats = nats;
    this.#bucket = bucket;
    this.#listener = listener;
    this.#alerts = new AlertEvaluator({ firing: standing });
  }

  /** Connects. Throws `nats_*`. */
  static async open(config: Config): Promise<StreamSession> {
    const nats = await connectNats(config.nats, 'waybill status');
    try {
      const bucket = await openBucket(nats, config.nats);
      return new StreamSession(config, nats, bucket, hearStages(nats, config.nats), await readStanding(bucket));
    } catch (thrown) {
      await nats.close();
      throw thrown;
    }
  }

  /** `applied`: the sequence up to which each flow has applied, as far as that is known. */
  async read(applied: ReadonlyMap<string, number>): Promise<NatsReading> {
    const streams = new Map<string, StreamReading | ReplicationError>();
    const snapshots = new Map<string, SnapshotProgress>();
    const held = new Set<string>();
    let now = new Date();
    const sources = Object.keys(this.#config.sources);
    const paths = flowPaths(this.#config);
    const { prefix } = this.#config.nats;
    for (const stream of new Set([
      ...sources.map((source) => cdcStreamName(prefix, source)),
      ...paths.map((path) => path.stream),
    ])) {
      const found = await this.#readStream(stream);
      if (found !== undefined) streams.set(stream, 'reading' in found ? found.reading : found.error);
      if (found !== undefined && 'now' in found) now = found.now;
    }
    for (const source of sources) {
      const progress = await readProgress(this.#bucket, source);
      if (progress !== undefined) snapshots.set(source, progress);
      if (await this.#isHeld(`capture.${source}`, now)) held.add(`capture:${source}`);
    }
    for (const flow of Object.keys(this.#config.canonicalFlows))
      if (await this.#isHeld(`transform.${flow}`, now)) held.add(`transform:${flow}`);
    const waitingSince = new Map<string, Date>();
    const fanOuts = await this.#readFanOuts(paths);
    for (const { name, stream } of paths) {
      if (await this.#isHeld(`apply.${name}`, now)) held.add(`apply:${name}`);
      const reading = streams.get(stream);
      const seq = fanOuts.get(name)?.seq ?? applied.get(name);
      if (seq === undefined || reading === undefined || !('tail' in reading) || seq >= reading.lastSeq) continue;
      const since = await this.#frameTime(stream, seq + 1);
      if (since !== undefined) waitingSince.set(name, since);
    }
    const samples = new SampleSet(this.#listener.samples());
    this.#alerts.evaluate(Date.now(), samples);
    const heartbeats = new Map(
      samples
        .max(METRIC.heartbeat[0], ['source', 'target'])
        .map(({ labels, value }) => [`${labels['source']} ${labels['target']}`, value]),
    );
    const alerts = this.#alerts.firing();
    return { now, streams, snapshots, held, facts: this.#listener.facts(), heartbeats, alerts, waitingSince, fanOuts };
  }

  /** Waits until the stages that are at work have spoken, as long as it is worth it. */
  async hear(stages: ReadonlySet<string>): Promise<void> {
    await this.#listener.hear(stages);
  }

  async close(): Promise<void> {
    await this.#nats.close();
  }

  async #readFanOuts(paths: readonly FlowPath[]): Promise<NatsReading['fanOuts']> {
    const fanOuts = new Map<string, { position: Position; seq: number }>();
    for (const { name, fanOut } of paths) {
      if (fanOut === undefined) continue;
      const { readFanOutPlace } = await import('../../apply/nats/fan-out-store.ts');
      const place = await readFanOutPlace(this.#nats, this.#config.nats.prefix, fanOut);
      if (place !== undefined) fanOuts.set(name, place);
    }
    return fanOuts;
  }

  async #readStream(
    stream: string,
  ): Promise<{ now: Date; reading: StreamReading } | { error: ReplicationError } | undefined> {
    try {
      const { state, ts } = await this.#nats.manager.streams.info(stream);
      const tail = await readTail(this.#nats, stream);
      const reading = {
        tail,
        firstSeq: state.first_seq,
        lastSeq: Math.max(state.last_seq, tail.seq),
        bytes: state.bytes,
        resetSeq: state.first_seq > 1 ? await readReset(this.#nats, stream) : 0,
        storedAt: new Date(state.last_ts),
      };
      return { now: ts === undefined ? new Date() : new Date(ts), reading };
    } catch (thrown) {
      const error = natsError(thrown, `reading stream ${stream}`);
      if (error.code === 'stream_missing') return undefined;
      // The stream is wrong and not the broker: the others go on.
      if (error.code.startsWith('nats_')) throw error;
      return { error: asReplicationError(error) };
    }
  }

  async #isHeld(lease: string, now: Date): Promise<boolean> {
    const entry = await this.#bucket.get(`lease.${lease}`);
    if (entry === null || entry.operation !== 'PUT' || entry.json<LeaseView>().released === true) return false;
    return now.getTime() - entry.created.getTime() < LEASE_FRESH_MS;
  }

  /** When the newest change of a frame was committed, or the frame stored where it says nothing of that. */
  async #frameTime(stream: string, seq: number): Promise<Date | undefined> {
    const known = this.#frameTimes.get(stream);
    if (known?.seq === seq) return known.at;
    const message = await this.#nats.manager.streams.getMessage(stream, { seq });
    if (message === null) return undefined;
    const { timeUs } = parseFrameHeaders(message.header, `${stream} sequence ${seq}`);
    const at = timeUs > 0 ? new Date(timeUs / 1000) : message.time;
    this.#frameTimes.set(stream, { seq, at });
    return at;
  }
}
