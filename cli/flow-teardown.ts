/** Giving an outbound flow up: what it left in the system that it wrote to, and what the bucket holds of it. */
import { randomUUID } from 'node:crypto';
import { targetOf } from '../apply/target-kind.ts';
import type { OutboundTrace } from '../apply/outbound/outbound-traces.ts';
import type { Config } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { acquireLease, openBucket } from '../core/lease.ts';
import { connectNats } from '../core/nats.ts';
import { installationId } from '../core/stale-sessions.ts';

const LEASE_TTL_MS = 10_000;
/** A process that was killed is waited for: its lease runs out. */
const LEASE_WAIT_MS = 15_000;

/** What `teardownOutbound` would remove. Throws classified errors. */
export async function describeOutboundTraces(config: Config, flow: string): Promise<OutboundTrace[]> {
  const nats = await connectNats(config.nats, 'waybill teardown');
  try {
    const installation = await installationId(await openBucket(nats, config.nats));
    return await traces(config, flow, installation, false);
  } finally {
    await nats.close();
  }
}

/** Removes it. Throws `config_invalid` when the flow still runs after `waitMs`, and classified errors. */
export async function teardownOutbound(config: Config, flow: string, waitMs = LEASE_WAIT_MS): Promise<OutboundTrace[]> {
  const nats = await connectNats(config.nats, 'waybill teardown');
  try {
    const bucket = await openBucket(nats, config.nats);
    const installation = await installationId(bucket);
    const key = `lease.apply.${flow}`;
    let other = '';
    // Whoever applies would make all of it again.
    const lease = await acquireLease(bucket, key, {
      holder: `teardown ${randomUUID()}`,
      ttlMs: LEASE_TTL_MS,
      signal: AbortSignal.timeout(waitMs),
      onWaiting: (holder) => (other = holder),
    });
    if (lease === undefined)
      throw new ReplicationError('config_invalid', `flow ${flow} is applied by ${other}: stop apply:${flow} first`);
    try {
      return await traces(config, flow, installation, true);
    } finally {
      await lease.release();
      await bucket.purge(key);
    }
  } finally {
    await nats.close();
  }
}

async function traces(config: Config, flow: string, installation: string, remove: boolean): Promise<OutboundTrace[]> {
  const target = await targetOf(config.targets[config.outboundFlows[flow]!.to]!);
  return await target.outboundTraces({ flow, installation, remove });
}
