/**
 * A lease in a KV bucket decides who *tries* to write a stream or a flow. Safety never rests on it: the stream's
 * expected sequence and the target's position do that. It keeps a standby quiet until the holder is gone.
 */
import { Kvm, type KV } from '@nats-io/kv';
import type { NatsConfig } from './config.ts';
import { ReplicationError } from './errors.ts';
import { natsError, type Nats } from './nats.ts';
import { abortableDelay } from './run-service.ts';

/** Opens the bucket of this installation, and makes it when it is not there. */
export async function openBucket(nats: Nats, config: NatsConfig): Promise<KV> {
  try {
    return await new Kvm(nats.connection).create(config.prefix, {
      history: 1,
      replicas: config.replicas,
      allow_direct: false,
    });
  } catch (thrown) {
    throw natsError(thrown, `opening KV bucket ${config.prefix}`);
  }
}

interface LeaseValue {
  readonly v: 1;
  readonly holder: string;
  /** Rises with every change of holder. */
  readonly epoch: number;
  readonly released?: boolean;
}

export interface Lease {
  readonly epoch: number;
  /** Aborts when the lease could not be renewed in time or the caller's signal aborts. */
  readonly signal: AbortSignal;
  release(): Promise<void>;
}

/**
 * Waits until the lease `key` is free, takes it and keeps renewing it. Expiry needs no clocks to agree: a standby takes
 * over when it has itself seen no renewal for `ttlMs`. Returns undefined when the signal aborts first.
 */
export async function acquireLease(
  bucket: KV,
  key: string,
  options: { holder: string; ttlMs: number; signal: AbortSignal; onWaiting?: (holder: string) => void },
): Promise<Lease | undefined> {
  const { holder, ttlMs, signal } = options;
  let seenRevision = -1;
  let seenAtMs = 0;
  let waitingFor: string | undefined;
  while (!signal.aborted) {
    let revision: number | undefined;
    let epoch = 1;
    try {
      const entry = await bucket.get(key);
      if (entry === null || entry.operation !== 'PUT') {
        revision = await bucket.create(key, encode({ v: 1, holder, epoch }));
      } else {
        const current = entry.json<LeaseValue>();
        if (entry.revision !== seenRevision) {
          seenRevision = entry.revision;
          seenAtMs = performance.now();
        }
        epoch = current.epoch + 1;
        if (current.released === true || performance.now() - seenAtMs >= ttlMs)
          revision = await bucket.update(key, encode({ v: 1, holder, epoch }), entry.revision);
        else if (waitingFor !== current.holder) {
          waitingFor = current.holder;
          options.onWaiting?.(current.holder);
        }
      }
    } catch (thrown) {
      const error = natsError(thrown, `lease ${key}`);
      if (error.code !== 'stream_conflict') throw error;
    }
    if (revision !== undefined) return keepLease(bucket, key, { holder, epoch, revision, ttlMs, signal });
    await abortableDelay(Math.min(250, ttlMs / 8), signal);
  }
  return undefined;
}

function keepLease(
  bucket: KV,
  key: string,
  held: { holder: string; epoch: number; revision: number; ttlMs: number; signal: AbortSignal },
): Lease {
  const lost = new AbortController();
  const { holder, epoch, ttlMs } = held;
  let revision = held.revision;
  let renewedAtMs = performance.now();
  let running: Promise<void> | undefined;
  const renew = async (): Promise<void> => {
    try {
      revision = await bucket.update(key, encode({ v: 1, holder, epoch }), revision, ttlMs / 4);
      renewedAtMs = performance.now();
    } catch (thrown) {
      const error = natsError(thrown, `renewing lease ${key}`);
      const taken = error.code === 'stream_conflict' && (await heldByOther());
      if (taken || performance.now() - renewedAtMs > ttlMs)
        lost.abort(new ReplicationError('lease_lost', `lease ${key} was lost`, { cause: error }));
    }
  };
  /** A renewal whose answer was lost bumped the revision itself: look before giving up. */
  const heldByOther = async (): Promise<boolean> => {
    try {
      const entry = await bucket.get(key);
      if (entry === null) return false;
      const value = entry.json<LeaseValue>();
      if (value.holder === holder && value.epoch === epoch) {
        revision = entry.revision;
        return false;
      }
      return true;
    } catch {
      // Unreachable for now: the next renewal decides, and the deadline above bounds how long.
      return false;
    }
  };
  const timer = setInterval(() => {
    running ??= renew().finally(() => (running = undefined));
  }, ttlMs / 4);
  const signal = AbortSignal.any([held.signal, lost.signal]);
  return {
    epoch,
    signal,
    async release() {
      clearInterval(timer);
      await running;
      if (lost.signal.aborted) return;
      try {
        await bucket.update(key, encode({ v: 1, holder, epoch, released: true }), revision, 2000);
      } catch {
        // It expires by itself; the standby only waits a little longer.
      }
    },
  };
}

function encode(value: LeaseValue): string {
  return JSON.stringify(value);
}
