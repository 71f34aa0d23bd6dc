/** Giving an outbound flow up: what it left in the system that it wrote to, and what the bucket holds of it. */
import { targetOf } from '../apply/target-kind.ts';
import type { OutboundTrace } from '../apply/outbound/outbound-traces.ts';
import type { Config } from '../core/config.ts';
import { openBucket } from '../core/lease.ts';
import { connectNats } from '../core/nats.ts';
import { installationId } from '../core/stale-sessions.ts';
import { whileStopped, type StageName } from './stopped-stages.ts';

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
export async function teardownOutbound(config: Config, flow: string, waitMs?: number): Promise<OutboundTrace[]> {
  const stages: StageName[] = [`apply:${flow}`];
  // Whoever applies would make all of it again.
  return await whileStopped(config, stages, { waitMs, gone: stages }, async (nats) => {
    const installation = await installationId(await openBucket(nats, config.nats));
    return await traces(config, flow, installation, true);
  });
}

async function traces(config: Config, flow: string, installation: string, remove: boolean): Promise<OutboundTrace[]> {
  const target = await targetOf(config.targets[config.outboundFlows[flow]!.to]!);
  return await target.outboundTraces({ flow, installation, remove });
}
