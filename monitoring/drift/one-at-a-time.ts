/**
 * One comparison of a flow at a time, whoever asks for it: a schedule, a person at a terminal, the console. Two would load
 * the source twice, and the slower one would write its older findings over those of the other.
 */
import { hostname } from 'node:os';
import type { KV } from '@nats-io/kv';
import { ReplicationError } from '../../core/errors.ts';
import { acquireLease } from '../../core/lease.ts';

export interface TurnOptions {
  /** Who asks, as others are told while they wait: `waybill verify`, `the console`. */
  readonly as: string;
  readonly leaseTtlMs?: number;
  /** How long to wait for the end of another comparison; left out: as long as it takes. */
  readonly waitMs?: number | undefined;
  /** Told who compares the flow, where somebody does. */
  readonly onWaiting?: ((holder: string) => void) | undefined;
  readonly signal: AbortSignal;
}

const LEASE_TTL_MS = 10_000;

/**
 * Does `work` while nobody else compares the flow. Its signal also aborts when that is not certain any more. Throws
 * `verify_busy` where another one has not ended after `waitMs`, `lease_lost`, and what `work` throws.
 */
export async function oneAtATime<T>(
  bucket: KV,
  flow: string,
  { as, leaseTtlMs = LEASE_TTL_MS, waitMs, onWaiting, signal }: TurnOptions,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  let other = 'another process';
  const giveUp = new AbortController();
  const timer = waitMs === undefined ? undefined : setTimeout(() => giveUp.abort(), waitMs);
  const lease = await acquireLease(bucket, `lease.compare.${flow}`, {
    holder: `${as} (${hostname()}, process ${process.pid})`,
    ttlMs: leaseTtlMs,
    signal: AbortSignal.any([signal, giveUp.signal]),
    onWaiting: (holder) => {
      other = holder;
      onWaiting?.(holder);
    },
  }).finally(() => clearTimeout(timer));
  if (lease === undefined) {
    signal.throwIfAborted();
    throw new ReplicationError('verify_busy', `flow ${flow} is being compared by ${other}`);
  }
  try {
    return await work(lease.signal);
  } catch (thrown) {
    if (!lease.signal.aborted || signal.aborted) throw thrown;
    throw new ReplicationError('lease_lost', `flow ${flow}: it is not certain any more that nobody else compares it`, {
      cause: thrown,
    });
  } finally {
    await lease.release();
  }
}
