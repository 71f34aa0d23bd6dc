/** What is taken away must be used by nobody: the leases of the stages that would make it again, or miss it, are held meanwhile. */
import { randomUUID } from 'node:crypto';
import type { Config } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { acquireLease, openBucket, type Lease } from '../core/lease.ts';
import { connectNats, type Nats } from '../core/nats.ts';
import { leaseTtlMs } from './context.ts';

/** A process that was killed is waited for: its lease runs out. In times of what a lease lasts. */
const WAIT = 1.5;

/** A stage as `run --only` names it: `capture:wms`. Its lease is `lease.capture.wms`. */
export type StageName = `${'capture' | 'apply' | 'transform'}:${string}`;

/** The stages that write the stream of a source, and those that read it. */
export function stagesOfSource({ flows, canonicalFlows }: Config, source: string): StageName[] {
  return [
    `capture:${source}`,
    ...Object.entries(flows).flatMap(([flow, { mirror }]): StageName[] => (mirror === source ? [`apply:${flow}`] : [])),
    ...Object.entries(canonicalFlows).flatMap(([flow, { from }]): StageName[] =>
      from[source] === undefined ? [] : [`transform:${flow}`],
    ),
  ];
}

const leaseOf = (stage: StageName): string => `lease.${stage.replace(':', '.')}`;

export interface StoppedOptions {
  /** How long a stage is waited for: it may be gone already, and its lease not yet. */
  readonly waitMs?: number | undefined;
  /** Those of the stages that are given up for good: nothing is kept of their leases. */
  readonly gone: readonly StageName[];
}

/**
 * Does something while none of the stages runs, in any process, nor can begin to. Throws `config_invalid`, naming those that
 * still run.
 */
export async function whileStopped<T>(
  config: Config,
  stages: readonly StageName[],
  { waitMs = WAIT * leaseTtlMs(), gone }: StoppedOptions,
  work: (nats: Nats) => Promise<T>,
): Promise<T> {
  const nats = await connectNats(config.nats, 'waybill teardown');
  try {
    const bucket = await openBucket(nats, config.nats);
    const signal = AbortSignal.timeout(waitMs);
    const asked = await Promise.allSettled(
      stages.map(async (stage) => {
        let other = '';
        const lease = await acquireLease(bucket, leaseOf(stage), {
          holder: `teardown ${randomUUID()}`,
          ttlMs: leaseTtlMs(),
          signal,
          onWaiting: (holder) => (other = holder),
        });
        return lease ?? `${stage} (by ${other})`;
      }),
    );
    const held: Lease[] = [];
    const running: string[] = [];
    for (const result of asked)
      if (result.status === 'fulfilled') {
        if (typeof result.value === 'string') running.push(result.value);
        else held.push(result.value);
      }
    try {
      const failed = asked.find((result) => result.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      if (running.length > 0)
        throw new ReplicationError(
          'config_invalid',
          `${running.join(' and ')} ${running.length === 1 ? 'runs' : 'run'}: stop ${running.map((stage) => stage.split(' ')[0]).join(' and ')} first; nothing was removed`,
        );
      return await work(nats);
    } finally {
      await Promise.all(held.map(async (lease) => await lease.release()));
      if (held.length === stages.length) for (const stage of gone) await bucket.purge(leaseOf(stage));
    }
  } finally {
    await nats.close();
  }
}
